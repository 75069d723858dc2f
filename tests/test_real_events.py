"""What real runs tell keeps to docs/events.schema.json: flows, tools, guards, stand-ins, streams, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.bench import Bench, Slow
from tests.support.event_schema import misfits
from tests.support.memory_durability import MemoryDurability
from tests.support.memory_journal import MemoryJournal, step_of

from agentflow import (
    AsyncFlow,
    Each,
    ExecutionEvent,
    Key,
    RetryPolicy,
    ScriptedProvider,
    SharedState,
    emit,
    interrupt,
    node,
    sleep,
)
from agentflow.core.observability import KINDS, observe, verdict
from agentflow.core.observability.feedback import feedback
from agentflow.core.parking import Parked
from agentflow.errors import AgentFlowError, AuthenticationError, OverloadedError, RateLimitError
from agentflow.llm import Response, ToolCall

ITEMS, DONE = Key[list[int]]("items"), Key[list[int]]("done")


class Kept:
    """Keeps all there is to see."""

    inline = True
    chunks = True
    content = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> set[str]:
        return {event.kind for event in self.events}


@pytest.fixture
def kept() -> Any:
    seen = Kept()
    with observe(seen):
        yield seen
    assert misfits(seen.events) == []


def weather(city: str) -> str:
    """The weather in a city."""
    if city == "Nowhere":
        raise ValueError("no such city")
    return "rain"


def test_flows_and_nodes_of_every_end(tmp_path: Path, kept: Kept) -> None:
    @node(reads=ITEMS)
    async def double(number: int) -> int:
        return number * 2

    @node
    async def own(state: SharedState) -> None:
        await emit("order_placed", {"basket": [1, {"a": None}]})
        await emit("feedback", verdict(score=0.5, label="fair"))

    class Flaky:
        calls = 0

    @node(reads=DONE, retry=RetryPolicy(max_attempts=3, base_delay=1, jitter="none"))
    async def flaky(done: list[int]) -> None:
        Flaky.calls += 1
        if Flaky.calls % 3:
            raise OSError("not now")

    @node
    async def slow(state: SharedState) -> None:
        await asyncio.sleep(60)

    @node
    async def bad(state: SharedState) -> None:
        raise KeyError("gone")

    async def item(number: int) -> int:
        return number * 2

    bench = Bench(tmp_path, {})
    good = AsyncFlow(Each(item, over=ITEMS, into=DONE) >> own >> flaky, name="good")

    async def main() -> None:
        await good.run({"items": [1, 2]}, run_id="good", tenant="acme")
        await good.run_batch([{"items": [1]}, {"items": []}])
        for flow, seconds in ((AsyncFlow(bad, name="bad"), 9.0), (AsyncFlow(slow, name="slow"), 1.0)):
            with suppress(AgentFlowError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await AsyncFlow(flow, name="outer").run({})

    bench.run(main())
    feedback("good", score=1.0, comment="well done")
    assert kept.kinds >= {
        *(f"{what}_{how}" for what in ("flow", "node") for how in ("start", "success", "error", "cancelled")),
        "retry",
        "feedback",
        "order_placed",
    }


def test_requests_tools_misfits_and_embeddings(tmp_path: Path, kept: Kept) -> None:
    calls = (ToolCall("1", "weather", {"city": "Oslo"}), ToolCall("2", "weather", {"city": "Nowhere"}),
             ToolCall("3", "nothing", {}))  # fmt: skip
    answers = [Response(calls, "m", "toy", finish_reason="tool_calls"), "It rains.", "no number", "3"]
    bench = Bench(tmp_path, {"toy": ScriptedProvider(answers)})

    async def main() -> None:
        await bench.ask().system("Be brief.").temperature(0.5).max_tokens(9).tools(weather).execute()
        await bench.ask().output(int).execute()
        await bench.ask("toy/e").embed(["a", "b"])

    bench.run(main())
    assert kept.kinds >= {"model_start", "model_success", "tool_start", "tool_success", "tool_error", "output_retry"}
    assert "tool_refused" in kept.kinds or any("nothing" in str(event.data) for event in kept.events)


def test_a_tool_that_is_not_approved_and_one_that_is_cancelled(tmp_path: Path, kept: Kept) -> None:
    async def forever() -> str:
        """Never ends."""
        await asyncio.sleep(1e6)
        return ""

    asked = [Response((ToolCall("1", name, {}),), "m", "toy", finish_reason="tool_calls") for name in ("no", "forever")]
    bench = Bench(tmp_path, {"toy": ScriptedProvider([asked[0], "Then not.", asked[1]])})

    def no() -> str:
        """Nobody wants that."""
        return ""

    async def main() -> None:
        await bench.ask().tools(no, approve=lambda call: False).execute()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await bench.ask().tools(forever).execute()

    bench.run(main())
    assert kept.kinds >= {"tool_refused", "tool_cancelled"}


def test_guards_that_wait_refuse_hedge_and_let_others_stand_in(tmp_path: Path, kept: Kept) -> None:
    yml = """
providers:
  toy: {rate_limit: {requests_per_minute: 60, burst: 0.02}, retry: {max_attempts: 2}}
  down: {breaker: {window: 2, min_calls: 2, failure_rate: 0.5}, retry: {max_attempts: 1}}
  late: {hedge: {after: 1}}
models:
  stood: {provider: down, model_id: m, fallback: [toy/m]}
"""
    limited = [RateLimitError("slow down", retry_after=2.0), *["fine"] * 20]
    providers = {
        "toy": ScriptedProvider(limited),
        "down": ScriptedProvider([OverloadedError("down", status=529)] * 20),
        "late": Slow(30, 1),
        "strict": ScriptedProvider([AuthenticationError("bad key", status=401)]),
    }
    bench = Bench(tmp_path, providers, yml)

    async def main() -> None:
        await asyncio.gather(*[bench.ask().execute() for _ in range(3)])
        for name in ("stood", "down/m", "down/m", "down/m", "strict/m"):
            with suppress(AgentFlowError):
                await bench.ask(name).execute()
        for _ in range(40):
            await bench.ask("late/m").execute()

    bench.run(main())
    assert kept.kinds >= {
        "retry",
        "limiter_wait",
        "breaker_state",
        "rejected",
        "fallback",
        "model_error",
        "attempt_error",
    }


def test_streams_to_their_end_broken_and_left(tmp_path: Path, kept: Kept) -> None:
    broken = ScriptedProvider([["one ", OverloadedError("cut", status=529)], ["one ", "two"]])
    yml = "providers: {cut: {retry: {max_attempts: 2, after_first_chunk: true}}}"
    bench = Bench(tmp_path, {"toy": Slow(1, gap=1), "cut": broken}, yml)

    async def read(stream: AsyncIterator[object], most: int) -> None:
        async for _ in stream:
            most -= 1
            if not most:
                return

    async def main() -> None:
        for model, most in (("toy/m", 99), ("toy/m", 1), ("cut/m", 99)):
            async with bench.ask(model).execute_streaming() as stream:
                await read(stream, most)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await bench.ask().execute()

    bench.run(main())
    assert kept.kinds >= {"chunk", "model_cancelled", "attempt_start", "attempt_success", "attempt_cancelled"}
    assert any(event.data.get("restart") for event in kept.events)


def test_answers_and_results_on_record(tmp_path: Path, kept: Kept) -> None:
    call = Response((ToolCall("1", "weather", {"city": "Oslo"}),), "m", "toy", finish_reason="tool_calls")
    bench, journal = Bench(tmp_path, {"toy": ScriptedProvider([call, "It rains."])}), MemoryJournal()

    async def ask_somebody(city: str) -> str:
        """The weather in a city, from who lives there."""
        return str(await interrupt(f"How is it in {city}?"))

    asking = Response((ToolCall("2", "ask_somebody", {"city": "Oslo"}),), "m", "toy", finish_reason="tool_calls")
    other = Bench(tmp_path, {"toy": ScriptedProvider([asking])})

    async def main() -> None:
        for _ in range(2):
            with step_of(journal):
                await bench.ask().tools(weather).execute()
        with step_of(MemoryJournal()), pytest.raises(Parked):
            await other.ask().tools(ask_somebody).execute()

    bench.run(main())
    assert kept.kinds >= {"model_replayed", "tool_replayed", "tool_interrupted"}


async def test_durable_runs_that_are_parked_resumed_forked_undone_and_called_off(kept: Kept) -> None:
    engine = MemoryDurability()

    @node
    async def ask(state: SharedState) -> None:
        state["answer"] = await interrupt("Publish?", schema=bool)
        await sleep(0.0)

    async def undo(item: object, result: object) -> None:
        if result == 2:
            raise ValueError("it cannot be undone")

    def book(number: int) -> Any:
        async def work() -> int:
            return number

        return node(name=f"book{number}", writes=f"ticket{number}", compensate=undo)(work)

    @node(writes="connection")
    async def connect() -> object:
        return object()

    @node
    async def fail(state: SharedState) -> None:
        raise ValueError("for good")

    inner = AsyncFlow(ask, name="inner")
    asking = AsyncFlow(inner, name="asking", durability=engine)
    await asking.run(run_id="one")
    await asking.resume("one", True)
    await asking.fork("one", at="ask", new_run_id="two")
    await asking.cancel("two")
    failing = AsyncFlow(book(1) >> book(2) >> connect >> fail, name="failing", durability=engine)
    failing.strict = False
    with suppress(AgentFlowError):
        await failing.run()

    undoing = asyncio.Event()

    async def hang(item: object, result: object) -> None:
        undoing.set()
        await asyncio.Event().wait()

    @node(writes="booked", compensate=hang)
    async def stuck() -> int:
        return 1

    cut_off = asyncio.create_task(AsyncFlow(stuck >> fail, name="stuck").run())
    await undoing.wait()
    cut_off.cancel()
    await asyncio.wait([cut_off])

    assert kept.kinds >= {"interrupt", "timer", "flow_interrupted", "node_interrupted", "resume", "fork", "cancel"}
    assert kept.kinds >= {
        "compensate_start",
        "compensate_success",
        "compensate_error",
        "compensate_cancelled",
        "not_kept",
    }


WRAPPED = """
models:
  small: {provider: toy, cache: {ttl: 60, temperature: any}, budget: {per_day: 5}, max_output: 100,
          price: {input: 1, output: 2}}
  auto: {router: {candidates: [small]}}
"""


def test_caches_budgets_and_routers_tell_what_they_decide(tmp_path: Path, kept: Kept) -> None:
    bench = Bench(tmp_path, {"toy": ScriptedProvider(lambda request: "Hello.", name="toy")}, WRAPPED)

    async def main() -> None:
        for _ in range(2):
            await bench.ask("auto").execute()
        async with bench.ask("auto", "other").streaming(True).execute_streaming() as stream:
            await stream.collect()
        await bench.registry.aclose()

    bench.run(main())
    assert kept.kinds >= {"route", "cache_hit", "cache_miss", "budget", "model_success"}


def test_every_kind_of_today_is_looked_at_here() -> None:
    """What no test above brings about is named: whoever makes a new kind adds it there, or says here why not."""
    elsewhere = {"shedder_wait", "pool_wait", "hedge", "alert", "cache_state", "batch", "batch_job"}
    above = Path(__file__).read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        stem = name.rsplit("_", 1)[0]
        assert kind.later or name in elsewhere or f'"{name}"' in above or f'"{stem}"' in above, name
