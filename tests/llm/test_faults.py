"""Every fault of the table, through the real client, over a socket: the outcome written down before, and nothing left.

    tests/support/faults/table.py   what may happen, and what is expected then
    tests/support/faults/server.py  the server that does it, in the words of four APIs
    docs/faults.md                  the same table, for people

Each case asserts the class of the error (or the whole answer), the number of attempts, the time, that nothing was said
twice, that a later call works though only one connection is allowed, and that no task and no socket is left.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from tests.conftest import ROOT
from tests.support.faults import acts
from tests.support.faults.outcomes import AT_ONCE, CONNECT, FIRST_BYTE, IDLE, TEXT, TOTAL, Outcome
from tests.support.faults.places import PLACES, Place, Trust, has_ipv6
from tests.support.faults.server import Act, Exchange, FaultServer, answer_well
from tests.support.faults.table import FAULTS, KINDS, SCENARIOS, Fault, filled
from tests.support.speakers import SPEAKERS, Answer, Call
from tests.support.told import Told

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import CircuitOpenError, ModelError, ModelTimeoutError, RejectedError, ServerError
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call as Asked
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Response, Tool
from agentflow.llm.providers import api
from agentflow.llm.providers.http import AiohttpTransport

KEY: Final = "key-of-nobody-0123456789"
WAYS: Final = ("whole", "streamed")
LATER: Final = "And that was all."
SLACK: Final = 1.5
"""Seconds that a busy machine may need beside what is waited for. A limit that is not the fault's is far longer, so no
outcome can come from it."""

LONG_LIMITS: Final = {CONNECT: 6.0, FIRST_BYTE: 6.0, IDLE: 6.0, TOTAL: 8.0}
SHORT_LIMITS: Final = {CONNECT: 0.07, FIRST_BYTE: 0.08, IDLE: 0.08, TOTAL: 0.25}


class Hurried(SystemClock):
    """The machine's clock, which notes how long it is told to sleep, and skips what is longer than a moment."""

    def __init__(self) -> None:
        self.longest = 0.05
        self.skipped = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:  # type: ignore[override]
        return time.monotonic() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        long = seconds > self.longest
        self.skipped += seconds if long else 0.0
        await asyncio.sleep(0 if long else seconds)


@dataclass
class Bench:
    """A client of one API, in one way to be answered, and the place that it is sent to."""

    kind: str
    way: str
    place: Place
    registry: ModelRegistry
    clock: Hurried
    said: list[str] = field(default_factory=list)
    reply: Response | None = None
    events: list[ExecutionEvent] = field(default_factory=list)

    @property
    def server(self) -> FaultServer:
        assert self.place.server is not None
        return self.place.server

    @property
    def model(self) -> LLMClientBuilder:
        return LLMClientBuilder(lambda: self.registry, Asked(model="m")).prompt("Hi")

    async def ask(self, model: LLMClientBuilder | None = None) -> str:
        """What was said; `said` holds it piece by piece, also where the call fails."""
        self.said = []
        model = self.model if model is None else model
        if self.way == "whole":
            self.reply = await model.execute_full()
            self.said.append(self.reply.text)
        else:
            async with model.execute_streaming() as stream:
                async for chunk in stream:
                    self.said.append(chunk.content)
                    if chunk.content and self.place.server is not None:
                        self.place.server.heard.set()
                self.reply = await stream.collect()
        return self.text

    @property
    def text(self) -> str:
        return "".join(self.said)

    async def ask_watched(self) -> Exception | None:
        """The error of a call, if it has one; its events are kept."""

        async def sink(event: ExecutionEvent) -> None:
            self.events.append(event)

        token = current_scope.set(Scope(Channel("run", self.clock, Told(sink)), "flow/ask#1", "ask", 1))
        try:
            await self.ask()
        except ModelError as error:
            return error
        finally:
            current_scope.reset(token)
        return None

    @property
    def retries(self) -> int:
        return sum(event.kind == "retry" for event in self.events)

    async def is_refused(self, error: str) -> None:
        """A guard of ours refuses calls, none of which is sent, until its time has come, which it then has."""
        self.server.begin(acts.works)
        with pytest.raises(RejectedError) as caught:
            await self.ask()
        assert type(caught.value).__name__ == error
        assert self.server.requests == []
        self.clock.skipped += 3600

    async def still_works(self) -> None:
        """One connection is allowed, so a place that was not given back would block this call."""
        self.server.begin(answer_well(Answer(LATER)))
        async with asyncio.timeout(5):
            assert await self.ask() == LATER


def sockets() -> int:
    """How many sockets this process has open, where the system tells."""
    found = 0
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def permits(bench: Bench) -> int:
    """What the guards of the model have given away: places, concurrency, probes; and who waits for one."""
    guards = bench.registry.pipeline(bench.registry.describe("m"))
    shedder, limiter, breaker = guards._shedder, guards._limiter, guards._breaker
    assert shedder is not None
    assert limiter is not None
    assert breaker is not None
    return shedder.in_flight + shedder.queued + limiter.in_use + limiter.waiting + breaker.counts().probes


async def left_nothing(before: int | None = None) -> None:
    """No task but this one is left, and as many sockets as before."""
    for _ in range(200):
        await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks and (before is None or sockets() <= before):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"left: {tasks}, {sockets()} sockets where {before} were")


def registry_for(
    folder: Path, kind: str, url: str, settings: Mapping[str, str], limits: Mapping[str, float], clock: Clock
) -> ModelRegistry:
    more = "".join(
        f", {name}: '{value}'" if name != "allow_http" else f", {name}: {value}" for name, value in settings.items()
    )
    timeout = ", ".join(f"{name.replace(' ', '_')}: {seconds}" for name, seconds in limits.items())
    (folder / "models.yml").write_text(
        f"""
defaults: {{timeout: {{{timeout}}}, retry: {{base_delay: 0}}}}
providers: {{lab: {{{SPEAKERS[kind].provider}, base_url: "{url}", api_key_env: LAB_KEY, max_connections: 1{more}}}}}
models: {{m: {{provider: lab, model_id: {SPEAKERS[kind].model}}}}}
"""
    )
    return ModelRegistry.load(environ={"LAB_KEY": KEY}, cwd=folder, home=folder, clock=clock)


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust(tmp_path_factory.mktemp("trust"))


Open = Callable[..., Bench]


@contextmanager
def opened(
    folder: Path,
    trust: Trust,
    kind: str,
    way: str,
    act: Act,
    *,
    place: str = "server",
    short: str = AT_ONCE,
    limit: float | None = None,
) -> Iterator[Bench]:
    """A client and what it is sent to. With `short` that limit is short, or `limit`, and may be run into."""
    with PLACES[place](SPEAKERS[kind], act, trust) as there:
        limits = {**LONG_LIMITS, **({} if short == AT_ONCE else {short: limit or SHORT_LIMITS[short]})}
        clock = Hurried()
        yield Bench(kind, way, there, registry_for(folder, kind, there.url, there.settings, limits, clock), clock)


@pytest.fixture
async def open_bench(tmp_path: Path, trust: Trust) -> AsyncIterator[Open]:
    """`bench = open_bench("google", "whole", act)`. Afterwards nothing may be left on either side."""
    before = sockets()
    made: list[Bench] = []
    with ExitStack() as stack:

        def open_bench(kind: str, way: str, act: Act, **more: Any) -> Bench:
            made.append(stack.enter_context(opened(tmp_path, trust, kind, way, act, **more)))
            return made[-1]

        yield open_bench
        for bench in made:
            assert permits(bench) == 0
            await bench.registry.aclose()
            if bench.place.server is not None:
                assert await asyncio.to_thread(bench.server.emptied), "the server still holds a connection"
    await left_nothing(before)


# ---- the table -----------------------------------------------------------------------------------------------


def cases() -> Iterator[Any]:
    for group, faults in FAULTS.items():
        for fault in faults:
            for kind in KINDS:
                for way in WAYS:
                    if outcome := fault.outcome(kind, way):
                        name = f"{group}-{fault.name.replace(' ', '_')}-{kind}-{way}"
                        yield pytest.param(fault, kind, way, outcome, id=name)


@pytest.mark.parametrize(("fault", "kind", "way", "outcome"), list(cases()))
async def test_a_fault_has_the_outcome_that_was_written_down(
    fault: Fault, kind: str, way: str, outcome: Outcome, open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault.place == "dead IPv6" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    if fault.scaled:
        scale_down(monkeypatch)
    bench = open_bench(kind, way, fault.before or fault.act, place=fault.place, short=outcome.limit)
    if fault.before is not None:
        assert await bench.ask() == TEXT
        await asyncio.sleep(0.03)  # until the connection lies idle, and may be closed
        bench.server.begin(fault.act)
    began = time.monotonic()
    error = await bench.ask_watched()
    took = time.monotonic() - began
    assert type(error).__name__ == (outcome.error or "NoneType"), repr(error)
    check_attempts(bench, outcome)
    assert bench.text == outcome.said
    assert took <= seconds_of(outcome) + SLACK
    if fault.waits is not None:
        assert max(took, sum(bench.clock.waits)) == pytest.approx(fault.waits, abs=0.05 if fault.waits else SLACK)
    if bench.place.server is not None:
        assert bench.server.other is None or bench.server.other.connections == 0
        if fault.late:
            await asyncio.sleep(0.05)  # until it has come
        if fault.later:
            await bench.is_refused(fault.later)
        bench.clock.skipped += 60  # a limiter that was drained starts slowly
        await bench.still_works()


def check_attempts(bench: Bench, outcome: Outcome) -> None:
    """As the place counts them, and as the client tells of them."""
    assert bench.place.attempts() in (None, outcome.attempts)
    assert bench.retries + 1 == outcome.attempts


def seconds_of(outcome: Outcome) -> float:
    """The limit of each attempt, or of all."""
    if outcome.limit == AT_ONCE:
        return 0.0
    return SHORT_LIMITS[outcome.limit] * (1 if outcome.limit == TOTAL else outcome.attempts)


def scale_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that would take long to send and much memory to hold."""
    monkeypatch.setattr(api, "_LONGEST_EVENT", acts.LONG)
    defaults = AiohttpTransport.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "max_body", acts.LONG)
    monkeypatch.setitem(defaults, "max_stream", 4 * acts.LONG)


# ---- scenarios -----------------------------------------------------------------------------------------------

PROVED: Final[set[tuple[str, str]]] = set()
EACH: Final = pytest.mark.parametrize(("kind", "way"), [(kind, way) for kind in KINDS for way in WAYS])
Test = TypeVar("Test", bound=Callable[..., Any])


def proves(group: str, *names: str) -> Callable[[Test], Test]:
    """Which rows of SCENARIOS a test is the proof of."""
    PROVED.update((group, name) for name in names)
    return lambda test: test


def test_every_scenario_of_the_table_has_its_test() -> None:
    assert {(group, each.name) for group, rows in SCENARIOS.items() for each in rows} == PROVED


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    """The result; a hang is a failure."""
    async with asyncio.timeout(seconds):
        return await work


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


# ---- body ----------------------------------------------------------------------------------------------------

CALL: Final = Answer(calls=(Call("weather", {"city": "Oslo"}),))
ELSEWHERE: Final = Tool(
    "weather", "How the weather is.", {"type": "object", "properties": {"city": {"type": "string"}}}
)


async def calls_of(bench: Bench) -> list[tuple[str, Mapping[str, Any]]]:
    await bench.ask(bench.model.tools(ELSEWHERE))
    assert bench.reply is not None
    return [(call.name, call.arguments) for call in bench.reply.tool_calls]


@EACH
async def test_an_answer_without_usage_claims_none(open_bench: Open, kind: str, way: str) -> None:
    """Nothing is made up where the server does not say what it took."""
    bench = open_bench(kind, way, acts.bare_usage)
    await bench.ask()
    assert bench.reply is not None
    assert bench.reply.usage is None


@proves("body", "a tool call is opened twice")
@pytest.mark.parametrize("kind", ["chat", "anthropic", "moonshot"])
async def test_a_call_that_is_opened_twice_is_one_call(open_bench: Open, kind: str) -> None:
    """The event with its id and name comes again. (Gemini's calls come whole.)"""

    def act(exchange: Exchange) -> None:
        events = exchange.events(CALL)
        place = next(at for at, event in enumerate(events) if b'"weather"' in event)
        exchange.stream(*events[: place + 1], *events[place:])

    assert await calls_of(open_bench(kind, "streamed", act)) == [("weather", {"city": "Oslo"})]


@proves("body", "a tool call comes without its arguments")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_arguments_is_a_call_with_none(open_bench: Open, kind: str) -> None:
    """The events with its arguments are lost, or there never were any."""

    def act(exchange: Exchange) -> None:
        if kind == "google":
            exchange.stream(*exchange.events(Answer(calls=(Call("weather", {}),))))
            return
        lost = (b"input_json_delta", b'"function": {"arguments"')
        exchange.stream(*[event for event in exchange.events(CALL) if not any(mark in event for mark in lost)])

    assert await calls_of(open_bench(kind, "streamed", act)) == [("weather", {})]


# ---- status --------------------------------------------------------------------------------------------------


@proves("status", "a storm goes on, call after call")
@EACH
async def test_a_storm_opens_the_breaker(open_bench: Open, kind: str, way: str) -> None:
    """A server that is down is left alone, and asked again when the breaker's time has come."""
    bench = open_bench(kind, way, acts.status(500))
    refused = None
    for _ in range(10):
        try:
            await bench.ask()
        except ServerError:
            continue
        except CircuitOpenError as error:
            refused = error
            break
    assert refused is not None
    assert refused.retry_after is not None
    assert 10 <= len(bench.server.requests) <= 12
    await bench.is_refused("CircuitOpenError")
    await bench.still_works()


# ---- time ----------------------------------------------------------------------------------------------------


@proves("time", "the deadline has passed when the call begins")
@EACH
async def test_a_deadline_that_has_passed_sends_nothing(open_bench: Open, kind: str, way: str) -> None:
    bench = open_bench(kind, way, acts.works)
    with pytest.raises(ModelTimeoutError):
        await within(SLACK, bench.ask(bench.model.timeout(1e-9)))
    assert bench.server.requests == []
    await bench.still_works()


@proves("time", "the caller's own time is up when the call begins")
@EACH
async def test_a_caller_whose_time_is_up_sends_nothing(open_bench: Open, kind: str, way: str) -> None:
    bench = open_bench(kind, way, acts.works)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await bench.ask()
    assert type(caught.value) is TimeoutError
    assert bench.server.requests == []
    await bench.still_works()


BLOCK: Final = 0.8
PATIENT: Final = 0.32
"""The limit beside it: long enough for a server's thread that gets no turn at once on a slow machine."""


def answers_while_nobody_looks(exchange: Exchange) -> None:
    """In good time: the beginning while the client's loop is blocked, and the rest behind that."""
    exchange.server.heard.wait(5)
    exchange.pause(0.03)
    if exchange.streamed:
        exchange.begin_stream()
        *beginning, last = exchange.events(acts.SAID)
        for event in beginning:
            exchange.piece(event)
        exchange.pause(BLOCK)
        exchange.piece(last)
        exchange.end_stream()
        return
    body = exchange.whole(acts.SAID)
    exchange.head(content_type="application/json", content_length=str(len(body)))
    exchange.send(body[:9])
    exchange.pause(BLOCK)
    exchange.send(body[9:])


async def block_once(bench: Bench) -> None:
    """Block the event loop, and the client with it, once the request has arrived."""
    await until(lambda: bench.server.requests)
    await asyncio.sleep(0.01)  # until the client waits for the answer
    bench.server.heard.set()
    time.sleep(BLOCK)


@proves("time", "the loop is blocked while the answer comes")
@EACH
async def test_an_answer_that_came_while_the_loop_was_blocked_counts(open_bench: Open, kind: str, way: str) -> None:
    """The server was in time; that nobody looked is not its fault."""
    bench = open_bench(kind, way, answers_while_nobody_looks, short=FIRST_BYTE, limit=PATIENT)
    blocked = asyncio.create_task(block_once(bench))
    assert await within(2 * BLOCK + SLACK, bench.ask()) == TEXT
    await blocked
    assert len(bench.server.requests) == 1


def pauses_while_nobody_looks(exchange: Exchange) -> None:
    """In good time again, and once a piece has come."""
    if exchange.streamed:
        first = acts.first_words(exchange)
        exchange.begin_stream()
        for event in first:
            exchange.piece(event)
        pieces = exchange.events(acts.SAID)[len(first) :]
    else:
        body = exchange.whole(acts.SAID)
        exchange.head(content_type="application/json", content_length=str(len(body)))
        exchange.send(body[:9])
        pieces = [body[9:20], body[20:]]
    answers = exchange.piece if exchange.streamed else exchange.send
    exchange.server.heard.wait(5)
    exchange.pause(0.03)
    answers(pieces[0])
    exchange.pause(BLOCK)
    for piece in pieces[1:]:
        answers(piece)
    if exchange.streamed:
        exchange.end_stream()


@proves("time", "the loop is blocked in the middle of an answer")
@EACH
async def test_a_piece_that_came_while_the_loop_was_blocked_counts(open_bench: Open, kind: str, way: str) -> None:
    """Silence is the server's, and counts from what it said last."""
    bench = open_bench(kind, way, pauses_while_nobody_looks, short=IDLE, limit=PATIENT)
    blocked = asyncio.create_task(block_once(bench))
    assert await within(2 * BLOCK + SLACK, bench.ask()) == TEXT
    await blocked
    assert len(bench.server.requests) == 1


@proves("time", "the loop is blocked, and no answer comes")
@EACH
async def test_a_blocked_loop_only_delays_the_time_out(open_bench: Open, kind: str, way: str) -> None:
    bench = open_bench(kind, way, acts.silence, short=FIRST_BYTE)
    blocked = asyncio.create_task(block_once(bench))
    with pytest.raises(ModelTimeoutError):
        await within(BLOCK + 3 * SHORT_LIMITS[FIRST_BYTE] + SLACK, bench.ask())
    await blocked
    assert len(bench.server.requests) == 3


@proves("time", "the clock jumps an hour ahead (suspend)")
@EACH
def test_a_clock_that_jumps_ends_the_call(tmp_path: Path, trust: Trust, kind: str, way: str) -> None:
    """As after a suspend, where the system counts it: every limit has passed, so nothing is tried again."""

    async def main(bench: Bench) -> None:
        loop = asyncio.get_running_loop()

        def jump() -> None:
            loop.time = lambda: time.monotonic() + 3600  # type: ignore[method-assign]

        asking = asyncio.create_task(bench.ask())
        await until(lambda: bench.server.requests)
        loop.call_soon(jump)
        with pytest.raises(ModelTimeoutError):
            await within(7200, asking)
        await bench.registry.aclose()
        await left_nothing()

    with opened(tmp_path, trust, kind, way, acts.silence) as bench:
        began = time.monotonic()
        asyncio.run(main(bench))
        assert time.monotonic() - began < SLACK
        assert len(bench.server.requests) == 1


@proves("time", "the answer comes just as the limit ends")
@EACH
async def test_an_answer_just_at_the_limit_comes_or_does_not(open_bench: Open, kind: str, way: str) -> None:
    """Either way, once, and nothing is lost to later calls."""
    limit = 0.04

    def act(exchange: Exchange) -> None:
        exchange.pause(limit - 0.006 + 0.002 * (exchange.number % 6))
        acts.works(exchange)

    bench = open_bench(kind, way, act)
    for _ in range(6):
        try:
            assert await within(limit + SLACK, bench.ask(bench.model.timeout(limit))) == TEXT
        except ModelTimeoutError:
            assert TEXT.startswith(bench.text)
    await bench.still_works()


# ---- cancel --------------------------------------------------------------------------------------------------


def in_steps(exchange: Exchange) -> None:
    """A good answer with pauses, so that there are places to wait at."""
    exchange.pause(0.002)
    if not exchange.streamed:
        body = exchange.whole(acts.SAID)
        exchange.head(content_type="application/json", content_length=str(len(body)))
        for half in (body[: len(body) // 2], body[len(body) // 2 :]):
            exchange.pause(0.002)
            exchange.send(half)
        return
    exchange.begin_stream()
    for event in exchange.events(acts.SAID):
        exchange.pause(0.002)
        exchange.piece(event)
    exchange.end_stream()


class Counted:
    """An awaitable that carries out a coroutine and tells of each wait: its number, from 1, and what is waited for."""

    def __init__(self, work: Coroutine[Any, Any, Any], waits: Callable[[int, object], None]) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Any:
        number, error = 0, None
        while True:
            try:
                awaited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as done:
                return done.value
            error = None
            number += 1
            self._waits(number, awaited)
            try:
                yield awaited
            except BaseException as caught:
                error = caught


async def cancelled_at(bench: Bench, place: int, *, late: bool) -> bool:
    """Whether the call waited so often. It is cancelled there; where `late`, as what it waits for has come."""
    reached = False

    def waits(number: int, awaited: object) -> None:
        nonlocal reached
        if number != place:
            return
        reached = True
        if late and isinstance(awaited, asyncio.Future):
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(lambda: task.cancel())

    async def work() -> None:
        await Counted(bench.ask(), waits)

    task = asyncio.create_task(work())
    await within(5, asyncio.wait([task]))
    if not task.cancelled():
        task.result()  # it may have been too late, but nothing else
    return reached


@proves("cancel", "at each place where the call waits", "at each place, as what it waits for has come")
@pytest.mark.parametrize("late", [False, True], ids=["before", "as_it_comes"])
@EACH
async def test_a_call_may_be_cancelled_wherever_it_waits(open_bench: Open, kind: str, way: str, late: bool) -> None:
    """No task, socket or place is left, and what had been said was said once."""
    bench = open_bench(kind, way, in_steps)
    place = 1
    while await cancelled_at(bench, place, late=late):
        assert TEXT.startswith(bench.text)
        assert permits(bench) == 0
        await left_nothing()
        place += 1
        assert place < 200
    assert bench.text == TEXT
    assert place > 3
    await bench.still_works()


@proves("cancel", "between two attempts")
@EACH
async def test_a_call_may_be_cancelled_between_its_attempts(open_bench: Open, kind: str, way: str) -> None:
    bench = open_bench(kind, way, acts.status(500))
    bench.clock.longest = 3.0
    policy = RetryPolicy(base_delay=3, jitter="none")
    task = asyncio.create_task(bench.ask(bench.model.retry(policy)))
    await until(lambda: bench.server.requests)
    await asyncio.sleep(0.05)
    await cancelled(task)
    assert len(bench.server.requests) == 1
    await bench.still_works()


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, which must end by that and soon."""
    task.cancel()
    await within(SLACK, asyncio.wait([task]))
    assert task.cancelled()


@proves("cancel", "twice", "in its cleanup")
@pytest.mark.parametrize("turns", range(5))
@EACH
async def test_a_call_may_be_cancelled_again(open_bench: Open, kind: str, way: str, turns: int) -> None:
    """At once, or a few turns of the loop later, while it tidies up."""
    bench = open_bench(kind, way, acts.then(acts.begins, acts.silence))
    task = asyncio.create_task(bench.ask())
    await until(lambda: bench.text or (way == "whole" and bench.server.requests))
    task.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    await cancelled(task)
    await left_nothing()
    await bench.still_works()


@proves("cancel", "a sibling in a TaskGroup fails")
@EACH
async def test_a_sibling_that_fails_ends_the_call(open_bench: Open, kind: str, way: str) -> None:
    """The group's error is the sibling's alone."""
    bench = open_bench(kind, way, acts.then(acts.begins, acts.silence))

    async def sibling() -> None:
        await until(lambda: bench.text or (way == "whole" and bench.server.requests))
        raise LookupError("the sibling's own")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(bench.ask())
            group.create_task(sibling())
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    await left_nothing()
    await bench.still_works()


@proves("cancel", "a stream is left and forgotten (garbage collected)")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_is_forgotten_hangs_up(open_bench: Open, kind: str) -> None:
    bench = open_bench(kind, "streamed", acts.then(acts.begins, acts.silence))

    async def leave() -> None:
        async for chunk in bench.model.execute_streaming():
            if chunk.content:
                bench.server.heard.set()
                return

    await leave()
    gc.collect()
    await left_nothing()
    assert await asyncio.to_thread(bench.server.emptied)
    await bench.still_works()


@proves("cancel", "the event loop ends in the middle")
@EACH
def test_a_loop_that_ends_in_the_middle_leaves_the_next_one_alone(
    tmp_path: Path, trust: Trust, kind: str, way: str
) -> None:
    """Its call is never heard of again; a call on another loop, with the same registry, works."""
    before = sockets()
    with opened(tmp_path, trust, kind, way, acts.then(acts.begins, acts.silence)) as bench:
        with asyncio.Runner() as runner:
            left = runner.get_loop().create_task(bench.ask())
            runner.run(until(lambda: bench.server.requests))
        assert left.cancelled()
        asyncio.run(later(bench))
        assert bench.server.emptied()
    assert sockets() <= before


async def later(bench: Bench) -> None:
    await bench.still_works()
    await bench.registry.aclose()
    await left_nothing()


PROGRAM: Final = """
import asyncio, signal, sys
from pathlib import Path
from agentflow import AgentFlow, ModelRegistry

folder, way, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
registry = ModelRegistry.load(environ={"LAB_KEY": "key-of-nobody"}, cwd=folder, home=folder)
model = AgentFlow.model("m", registry=registry).prompt("Hi")

async def ask():
    if way == "whole":
        return await model.execute()
    async with model.execute_streaming() as stream:
        return await stream.text()

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    try:
        return await ask()
    finally:
        await registry.aclose()

if what == "close":
    loop = asyncio.new_event_loop()
    left = loop.create_task(ask())
    loop.run_until_complete(asyncio.sleep(0.3))
    loop.close()
try:
    sys.stdout.buffer.write(asyncio.run(main()).encode() + bytes([10]))
except asyncio.CancelledError:
    sys.exit(43)
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-W", "always", "-c", PROGRAM, str(folder), *arguments]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)


@proves("cancel", "SIGTERM, which cancels the program's main task")
@pytest.mark.parametrize("way", WAYS)
def test_sigterm_ends_a_program_in_the_middle_of_a_call(tmp_path: Path, trust: Trust, way: str) -> None:
    with opened(tmp_path, trust, "chat", way, acts.then(acts.headers, acts.silence)) as bench:
        with started(tmp_path, way, "wait") as child:
            ends = time.monotonic() + 30
            while not bench.server.requests and child.poll() is None and time.monotonic() < ends:
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            _, told = child.communicate(timeout=10)
        assert (told, child.returncode) == (b"", 43)
        assert bench.server.emptied()


@proves("cancel", "the event loop is closed in the middle")
@pytest.mark.parametrize("way", WAYS)
def test_a_loop_that_is_closed_in_the_middle_leaves_the_next_one_alone(tmp_path: Path, trust: Trust, way: str) -> None:
    """Nobody cancels its call, which never ends; Python is loud about that, so this is done in a program of its own."""
    act = acts.in_turn(acts.then(acts.headers, acts.silence), acts.works)
    with opened(tmp_path, trust, "chat", way, act) as bench:
        with started(tmp_path, way, "close") as child:
            said, told = child.communicate(timeout=20)
        assert (said.decode(), child.returncode) == (f"{TEXT}\n", 0), told.decode()
        assert bench.server.emptied()


# ---- the page ------------------------------------------------------------------------------------------------


def test_the_page_shows_this_table() -> None:
    """docs/faults.md says what is tested, no more and no less."""
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert filled(text) == text, "run `python scripts/fault_table.py`"


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [(group, each.name) for rows in (FAULTS, SCENARIOS) for group in rows for each in rows[group]]
    assert len(names) == len(set(names))
