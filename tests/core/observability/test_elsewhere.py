"""Events of code that runs elsewhere: on other loops, in threads that outlive their run, in what was thrown away."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from tests.support.span_rules import misfits

from agentflow.clock import SystemClock, VirtualClock
from agentflow.core import AsyncFlow, Each, ExecutionEvent, Flow, SharedState, emit, emit_blocking, node, observe
from agentflow.core.observability import errand
from agentflow.core.observability.observers import observations
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.portal import run_blocking


class Seen:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class Kept:
    """A reader that keeps all it is given; `behind` holds who puts."""

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []
        self.behind: asyncio.Event | None = None

    def leave(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    async def put(self, event: ExecutionEvent) -> None:
        self.events.append(event)
        if self.behind is not None:
            await self.behind.wait()


@pytest.fixture
def seen() -> Iterator[Seen]:
    told = Seen()
    with observe(told):
        yield told


@pytest.fixture(autouse=True)
def a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "_LOOK", 0.01)


async def work_in(scope: Scope) -> None:
    """What a model call does, as far as telling goes."""
    call = scope.inside("generation")
    await call.begin("model_start")
    await call.send("retry")
    await call.end("model_success")


CALL = ["model_start", "retry", "model_success"]


# ---- threads -------------------------------------------------------------------------------------------------


def a_thread_beside(work: Callable[[], object]) -> tuple[AsyncFlow, threading.Event, list[object]]:
    """A flow of one sync node, whose thread does `work` once it is let go; and what came of it."""
    go, outcome = threading.Event(), list[object]()

    @node
    def stay(state: SharedState) -> None:
        go.wait(30)
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    return AsyncFlow(stay, name="flow"), go, outcome


async def cancelled(running: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(running)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])


def until(condition: Callable[[], object]) -> None:
    end = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        end.wait(0.01)
    raise AssertionError("it did not come")


def calls() -> None:
    scope = current_scope.get()
    assert scope is not None
    run_blocking(lambda: work_in(scope))


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "standing still"])
@pytest.mark.parametrize("work", [calls, lambda: emit_blocking("mine")], ids=["a call", "emit_blocking"])
def test_a_thread_that_outlives_its_run_goes_on_and_is_told_of(
    seen: Seen, closed: bool, work: Callable[[], object]
) -> None:
    flow, go, outcome = a_thread_beside(work)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(cancelled(flow.run()))
    if closed:
        loop.close()
    go.set()
    until(lambda: outcome)
    loop.close()
    assert outcome == [None]
    assert seen.kinds[:4] == ["flow_start", "node_start", "node_cancelled", "flow_cancelled"]
    assert seen.kinds[4:] in (CALL, ["mine"])
    assert misfits(seen.events) == []


def test_an_observer_of_one_run_sees_what_outlives_it_end() -> None:
    flow, go, outcome = a_thread_beside(calls)
    seen = Seen()
    asyncio.run(cancelled(flow.run(observers=[seen])))
    go.set()
    until(lambda: outcome)
    assert seen.kinds[-3:] == CALL
    assert misfits(seen.events) == []


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "standing still"])
def test_nobody_waits_for_a_reader_whose_loop_runs_no_more(closed: bool) -> None:
    reader, scopes = Kept(), list[Scope]()

    async def begin() -> None:
        scopes.append(Scope(Channel("run", SystemClock(), reader), "flow/n#1", "n", 1))
        await scopes[0].begin("node_start")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    if closed:
        loop.close()
    asyncio.run(asyncio.wait_for(work_in(scopes[0]), 30))
    current_scope.set(scopes[0])
    emit_blocking("mine")
    current_scope.set(None)
    if not closed:
        loop.run_until_complete(asyncio.sleep(0))  # what was left for the reader
        assert [event.kind for event in reader.events] == ["node_start", *CALL, "mine"]
    loop.close()


def test_a_call_in_a_thread_is_a_part_of_the_node_that_made_it(seen: Seen) -> None:
    flow, go, outcome = a_thread_beside(calls)
    go.set()
    asyncio.run(flow.run())
    assert outcome == [None]
    assert misfits(seen.events) == []
    start = next(event for event in seen.events if event.kind == "model_start")
    assert (start.path, start.parent) == ("flow/stay#1", seen.events[1].span)


async def test_who_tells_from_elsewhere_waits_while_the_reader_is_behind() -> None:
    reader = Kept()
    reader.behind = asyncio.Event()
    scope = Scope(Channel("run", SystemClock(), reader), "flow/n#1", "n", 1)
    there = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(work_in(scope))))
    while not reader.events:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert [event.kind for event in reader.events] == CALL[:1]
    reader.behind.set()
    await there
    assert [(event.kind, event.sequence) for event in reader.events] == [(kind, n) for n, kind in enumerate(CALL, 1)]


async def test_what_is_cancelled_while_it_is_told_elsewhere_has_ended_once(seen: Seen) -> None:
    reader = Kept()
    reader.behind = asyncio.Event()
    scope = Scope(Channel("run", SystemClock(), reader, observations()), "flow/n#1", "n", 1)

    async def left() -> None:
        call = scope.inside("generation")
        try:
            await call.begin("model_start")
        finally:
            call.leave("model_cancelled")

    async def cancels() -> None:
        task = asyncio.create_task(left())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])

    await asyncio.to_thread(lambda: asyncio.run(cancels()))
    await asyncio.sleep(0)
    assert seen.kinds == ["model_start", "model_cancelled"]
    assert [event.kind for event in reader.events] == seen.kinds


def test_many_threads_tell_at_once_and_nothing_is_lost_or_twice(seen: Seen) -> None:
    @node
    def busy(state: SharedState) -> None:
        for _ in range(20):
            calls()
            emit_blocking("mine")

    async def busy_item(number: int) -> int:
        await emit("mine")
        return number

    inner = AsyncFlow(busy, name="inner")
    flow = AsyncFlow(Each(inner, over="xs", name="each") >> Each(busy_item, over="xs", name="more"), name="flow")
    asyncio.run(flow.run({"xs": range(8)}))
    by_number = sorted(seen.events, key=lambda event: event.sequence)
    assert misfits(by_number) == []
    assert seen.kinds.count("model_success") == 160
    assert seen.kinds.count("mine") == 168


# ---- what was thrown away ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_what_a_closed_loop_leaves_behind_has_ended_when_it_is_collected(seen: Seen) -> None:
    async def forever(number: int) -> int:
        await asyncio.get_running_loop().create_future()
        return number

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!", which is so
    flow = AsyncFlow(Each(AsyncFlow(node(forever, reads="x"), name="in"), over="xs", item="x"), name="flow")

    async def start() -> None:
        asyncio.ensure_future(flow.run({"xs": [1, 2]})).add_done_callback(lambda _: None)
        await asyncio.sleep(0.01)

    loop.run_until_complete(start())
    loop.close()
    gc.collect()
    assert sorted(misfits(seen.events)) == []
    assert {kind for kind in seen.kinds if not kind.endswith("_start")} == {"node_cancelled", "flow_cancelled"}


async def test_nothing_of_a_run_is_kept_and_nothing_is_current_after_it(seen: Seen) -> None:
    async def item(number: int) -> int:
        await asyncio.sleep(0.001 * (1 + number % 3))
        return number

    gc.collect()
    before, most = scopes_alive(), 0

    @node
    def look(state: SharedState) -> None:
        nonlocal most
        gc.collect()
        most = scopes_alive()

    clock = VirtualClock()
    flow = AsyncFlow(Each(item, over="xs", concurrency=4, name="each") >> look, name="flow", clock=clock)
    await asyncio.to_thread(lambda: clock.run(flow.run({"xs": range(500)})))
    assert most - before <= 4  # the flow's, that of the node that looks, and the last ones of workers
    gc.collect()
    assert scopes_alive() == before
    assert current_scope.get() is None


def scopes_alive() -> int:
    return sum(type(each) is Scope for each in gc.get_objects())


# ---- runs within runs ----------------------------------------------------------------------------------------


async def test_a_sync_run_inside_a_running_loop_is_a_run_of_its_own(seen: Seen) -> None:
    @node
    async def inner(state: SharedState) -> None:
        await emit("mine")

    @node
    async def outer(state: SharedState) -> None:
        Flow(inner, name="inside").run({}, run_id="in")

    await AsyncFlow(outer, name="around").run({}, run_id="out")
    assert misfits(seen.events) == []
    (mine,) = [event for event in seen.events if event.kind == "mine"]
    assert (mine.run_id, mine.path) == ("in", "inside/inner#1")


async def test_a_run_within_a_run_leaves_its_surroundings_as_they_were(seen: Seen) -> None:
    @node
    async def quiet(state: SharedState) -> None: ...

    @node
    async def outer(state: SharedState) -> None:
        before = current_scope.get()
        await AsyncFlow(quiet, name="inside").run({})
        assert current_scope.get() is before
        await emit("mine")

    await AsyncFlow(outer, name="around").run({}, run_id="out")
    assert misfits(seen.events) == []
    (mine,) = [event for event in seen.events if event.kind == "mine"]
    assert (mine.run_id, mine.path) == ("out", "around/outer#1")


def test_one_flow_on_several_loops_at_once_is_as_many_runs(seen: Seen) -> None:
    @node
    async def step(state: SharedState) -> None:
        await emit("mine")
        await asyncio.sleep(0)

    flow = AsyncFlow(step, name="flow")
    threads = [threading.Thread(target=lambda: asyncio.run(flow.run())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert misfits(seen.events) == []
    assert len({event.run_id for event in seen.events}) == 8
