"""What has begun ends once, wherever it is cancelled: flows, nodes, requests, attempts, tools, and what is audited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.support.bench import Bench, Slow
from tests.support.span_rules import misfits
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, Each, ExecutionEvent, Parallel, Pipeline, RetryPolicy, SharedState, node, observe
from agentflow.core.node import AsyncNode
from agentflow.core.observability.audit import AuditLog, read, use_audit
from agentflow.core.observability.observers import observations
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.errors import OverloadedError
from agentflow.llm.content import ToolCall
from agentflow.llm.messages import Response
from agentflow.llm.providers.scripted import ScriptedProvider

AGAIN = RetryPolicy(max_attempts=2, base_delay=1.0, jitter="none")
ANEW = RetryPolicy(max_attempts=2, base_delay=1.0, jitter="none", after_first_chunk=True)
CALLS = (ToolCall("1", "look", {}), ToolCall("2", "look", {}), ToolCall("3", "fail", {}))
YML = """
providers:
  toy: {retry: {max_attempts: 2, base_delay: 1}}
  down: {retry: {max_attempts: 2, base_delay: 1}}
  late: {hedge: {after: 1}}
models:
  few: {provider: toy, model_id: m, shedder: {algorithm: fixed, maximum: 1}}
  stood: {provider: down, model_id: m, fallback: [late/m]}
"""


class Seen:
    """Keeps all there is to see."""

    inline = True
    chunks = True
    content = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def bench_of(tmp_path: Path) -> Bench:
    calls = Response(CALLS, "m", "toy", finish_reason="tool_calls")
    providers = {
        "toy": ScriptedProvider([OverloadedError("busy"), calls, "done"] * 9, name="toy"),
        "down": ScriptedProvider([OverloadedError("down")] * 9, name="down"),
        "late": Slow(3.0, 1.0, gap=1.0),
        "cut": ScriptedProvider([["one ", OverloadedError("cut")], ["one ", "two"]] * 9, name="cut"),
    }
    return Bench(tmp_path, providers, YML)


async def look() -> str:
    """Look."""
    await asyncio.sleep(1.0)
    return "seen"


async def fail() -> str:
    """Fail."""
    await asyncio.sleep(0.5)
    raise ValueError("no")


async def asks_with_tools(bench: Bench) -> None:
    await bench.ask().retry(AGAIN).tools(look, fail).execute()


async def falls_back_to_hedged(bench: Bench) -> None:
    await bench.ask("stood").execute()


async def streams_hedged(bench: Bench) -> None:
    async with bench.ask("late/m").execute_streaming() as stream:
        async for _ in stream:
            pass


async def leaves_a_stream(bench: Bench) -> None:
    async with bench.ask("late/m").execute_streaming() as stream:
        async for _ in stream:
            break


async def streams_anew(bench: Bench) -> None:
    await bench.ask("cut/m").retry(ANEW).streaming().execute()


async def waits_to_be_admitted(bench: Bench) -> None:
    ticket = bench.shedder("few").try_admit()
    assert ticket is not None
    asyncio.get_running_loop().call_later(1.0, ticket.drop)
    try:
        await bench.ask("few").retry(AGAIN).tools(look, fail).execute()
    finally:
        ticket.drop()


ALL = [asks_with_tools, falls_back_to_hedged, streams_hedged, leaves_a_stream, streams_anew, waits_to_be_admitted]
Work = Callable[[Bench], Awaitable[None]]


def flow_of(bench: Bench, work: Work) -> AsyncFlow:
    clock = bench.clock

    @node
    async def ask(state: SharedState) -> None:
        await asyncio.sleep(0.5)
        await work(bench)

    class Limited(AsyncNode[None, None]):
        async def exec(self, item: None) -> None:
            await asyncio.sleep(0.25)

    async def item(number: int) -> int:
        await asyncio.sleep(number)
        return number

    guard = Pipeline("work", limiter=RateLimiter(requests_per_minute=60, burst=1 / 60, clock=clock), clock=clock)
    beside = Limited(name="beside", guard=guard)
    inner = AsyncFlow(Limited(name="one", guard=guard) >> Limited(name="two", guard=guard), name="inner", clock=clock)
    both = Parallel(inner, beside)
    return AsyncFlow(ask >> both >> Each(item, over="xs", concurrency=2), name="flow", clock=clock)


def swept(tmp_path: Path, work: Callable[[Bench], Awaitable[object]], check: Callable[[Seen], None]) -> Seen:
    """Cancel it at each of its waits; `check` what was told each time. Returned is what was told at last."""
    benches: list[Bench] = []
    seen = [Seen()]

    def fresh() -> VirtualClock:
        benches.append(bench_of(tmp_path))
        seen.append(Seen())
        return benches[-1].clock

    async def operation(clock: VirtualClock) -> None:
        with observe(seen[-1]):
            await work(benches[-1])

    def all_closed() -> None:
        check(seen[-1])
        assert benches[-1].shedder("few").in_flight == 0

    assert sweep(operation, all_closed, clock=fresh) >= 1
    return seen[-1]


def closed(seen: Seen) -> None:
    assert misfits(seen.events) == []


@pytest.mark.parametrize("work", ALL)
def test_wherever_a_watched_run_is_cancelled_what_began_has_ended_once(tmp_path: Path, work: Work) -> None:
    seen = swept(tmp_path, lambda bench: flow_of(bench, work).run({"xs": [3, 1, 2]}), closed)
    assert seen.events[-1].kind == "flow_success"


@pytest.mark.parametrize("work", ALL)
def test_wherever_a_question_of_its_own_is_cancelled_what_began_has_ended_once(tmp_path: Path, work: Work) -> None:
    assert swept(tmp_path, work, closed).events[-1].kind in ("model_success", "model_cancelled")


@pytest.mark.parametrize("work", ALL)
def test_it_has_ended_for_a_reader_that_is_behind_as_well(tmp_path: Path, work: Work) -> None:
    read: list[list[ExecutionEvent]] = []

    async def asked(bench: Bench) -> None:
        read.append([])
        token = current_scope.set(Scope(Channel("run", bench.clock, Behind(read[-1]), observations()), "f/n#1", "n", 1))
        try:
            await work(bench)
        finally:
            current_scope.reset(token)

    def check(seen: Seen) -> None:
        closed(seen)
        assert sorted(event.sequence for event in read[-1]) == [event.sequence for event in seen.events]

    swept(tmp_path, asked, check)


class Behind:
    """A reader that is waited for at each event."""

    def __init__(self, read: list[ExecutionEvent]) -> None:
        self.leave = read.append

    async def put(self, event: ExecutionEvent) -> None:
        self.leave(event)
        await asyncio.sleep(0.01)


# ---- the audit log -------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    """A log that waits for the disk before each act."""
    log = AuditLog(tmp_path / "audit", "an audit key that is long enough", background=False, fsync="always")
    with use_audit(log):
        yield log
    log.close()


async def asks_at_length(bench: Bench) -> None:
    await bench.ask(prompt="tides " * 50_000).retry(AGAIN).tools(look, fail).execute()


@pytest.mark.parametrize("work", [asks_with_tools, leaves_a_stream, asks_at_length])
def test_wherever_it_is_cancelled_what_was_recorded_as_started_has_one_outcome(
    tmp_path: Path, log: AuditLog, work: Work
) -> None:
    def check(seen: Seen) -> None:
        acts = [each.record for each in read(log.folder.path) if "act" in each.record.data]
        started = [record.data["act"] for record in acts if record.outcome == "started"]
        over = [record.data["act"] for record in acts if record.outcome != "started"]
        assert sorted(over, key=str) == sorted(started, key=str)
        assert len(set(map(str, started))) == len(started)

    swept(tmp_path, lambda bench: AsyncFlow(asking(bench, work), name="flow", clock=bench.clock).run(), check)
    assert len(list(read(log.folder.path))) > 10


def asking(bench: Bench, work: Work) -> AsyncNode[None, None]:
    @node
    async def ask(state: SharedState) -> None:
        await work(bench)

    return ask  # type: ignore[return-value]
