"""Pipelines around nodes and flows: where they stand, what a refusal is, what is told, and who inherits the time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import operator
import sys
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from tests.support.sweep import sweep

from agentflow import END, AsyncFlow, AsyncNode, Each, Flow, Node, node
from agentflow.clock import VirtualClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed
from agentflow.core.robustness.breaker_window import CountWindow
from agentflow.core.robustness.circuit_breaker import BreakerState, CircuitBreaker
from agentflow.core.robustness.hedging import Hedge
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.timeout import remaining
from agentflow.core.state import Key, SharedState
from agentflow.errors import (
    AgentFlowError,
    BadRequestError,
    CircuitOpenError,
    GraphError,
    LimiterError,
    LoadShedError,
    NodeError,
    OperationTimeoutError,
    OverloadedError,
    ServerError,
)

T = TypeVar("T")

RUNS = Key[int]("runs", reduce=operator.add)
EVEN = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none")


class Guards:
    """A pipeline with a shedder, a limiter and a breaker, on a clock that jumps."""

    def __init__(self, clock: VirtualClock | None = None, **stages: Any) -> None:
        self.clock = clock or VirtualClock()
        self.shedder = LoadShedder(name="shed", limit=Fixed(2), target_wait=None, clock=self.clock)
        self.limiter = RateLimiter(name="limit", concurrency=2, clock=self.clock)
        self.breaker = CircuitBreaker(name="break", window=CountWindow(4), min_calls=2, jitter=0.0, clock=self.clock)
        given: dict[str, Any] = {"shedder": self.shedder, "limiter": self.limiter, "breaker": self.breaker}
        self.pipeline = Pipeline("guard", clock=self.clock, **{**given, **stages})

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.clock.run(main)

    def assert_free(self) -> None:
        assert (self.shedder.in_flight, self.shedder.queued) == (0, 0)
        assert (self.limiter.in_use, self.limiter.waiting) == (0, 0)
        assert self.breaker.counts().probes == 0


def opened() -> Pipeline:
    breaker = CircuitBreaker(name="break")
    breaker.force_open()
    return Pipeline("guard", breaker=breaker)


async def events_of(flow: AsyncFlow) -> list[ExecutionEvent]:
    found: list[ExecutionEvent] = []
    with pytest.raises(AgentFlowError):
        async with flow.stream({}) as events:
            async for event in events:
                found.append(event)
    return found


# ---- where a guard can stand ---------------------------------------------------------------------------------


class Attribute(AsyncNode[None, str]):
    guard = opened()

    async def exec(self, item: None) -> str:
        raise AssertionError("never called")


class Argument(AsyncNode[None, str]):
    async def exec(self, item: None) -> str:
        raise AssertionError("never called")


class Sync(Node[None, str]):
    guard = opened()

    def exec(self, item: None) -> str:
        raise AssertionError("never called")


@node(guard=opened())
async def whole(state: SharedState) -> None:
    raise AssertionError("never called")


@node(writes="said", guard=opened())
async def short() -> str:
    raise AssertionError("never called")


@node(writes="said", guard=opened())
def sync_short() -> str:
    raise AssertionError("never called")


async def never(item: object) -> object:
    raise AssertionError("never called")


@pytest.mark.parametrize(
    "make",
    [
        Attribute,
        lambda: Argument(guard=opened()),
        Sync,
        lambda: whole,
        lambda: short,
        lambda: sync_short,
        lambda: Each(never, over="items", guard=opened()),
    ],
)
def test_a_refusal_is_the_nodes_error_with_the_guards_as_its_cause(make: Callable[[], Any]) -> None:
    flow = AsyncFlow(make(), name="f")
    with pytest.raises(NodeError) as caught:
        asyncio.run(flow.run({"items": [1]}))
    cause = caught.value.__cause__
    assert isinstance(cause, CircuitOpenError)
    assert cause.guard == "break"
    assert caught.value.node.startswith("f/")


def test_the_arguments_guard_wins_over_the_class_attribute() -> None:
    free = Attribute(guard=Pipeline("free"))
    with pytest.raises(NodeError) as caught:
        asyncio.run(AsyncFlow(free).run({}))
    assert isinstance(caught.value.__cause__, AssertionError)


def test_retry_and_timeout_of_the_node_win_over_the_guards() -> None:
    clock = VirtualClock()
    calls: list[float] = []

    async def work() -> str:
        calls.append(clock.monotonic())
        raise OverloadedError("busy")

    guard = Pipeline("guard", retry=RetryPolicy(max_attempts=9), clock=clock)
    flow = AsyncFlow(node(writes="said", retry=EVEN, guard=guard)(work), clock=clock)
    with pytest.raises(NodeError) as caught:
        clock.run(flow.run({}))
    assert calls == [0.0, 1.0, 3.0]
    assert caught.value.attempt == 3


def test_a_guard_is_shared_by_all_nodes_that_have_it() -> None:
    guards = Guards(limiter=None, breaker=None)
    now = most = 0

    async def work(item: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        return item

    flow = AsyncFlow(Each(work, over="items", into="done", guard=guards.pipeline), clock=guards.clock)
    result = guards.run(flow.run({"items": list(range(6))}))
    assert (result.state["done"], most, guards.clock.monotonic()) == ([0, 1, 2, 3, 4, 5], 2, 3.0)
    guards.assert_free()


def test_a_fallback_answers_for_a_refusal() -> None:
    class Careful(AsyncNode[None, str]):
        guard = opened()

        async def exec(self, item: None) -> str:
            raise AssertionError("never called")

        async def post(self, state: SharedState, item: None, result: str) -> None:
            state["said"] = result

        async def fallback(self, item: None, error: Exception) -> str:
            return type(error).__name__

    assert asyncio.run(AsyncFlow(Careful()).run({})).state["said"] == "CircuitOpenError"


def test_failures_of_a_node_open_its_breaker_and_success_closes_it() -> None:
    guards = Guards(shedder=None, limiter=None)
    fails = True

    async def work() -> str:
        if fails:
            raise ServerError("down")
        return "fine"

    flow = AsyncFlow(node(writes="said", guard=guards.pipeline)(work), clock=guards.clock)

    async def main() -> None:
        nonlocal fails
        for _ in range(2):
            with pytest.raises(NodeError, match="down"):
                await flow.run({})
        with pytest.raises(NodeError, match="break"):
            await flow.run({})
        fails = False
        await asyncio.sleep(200)
        for _ in range(3):
            await flow.run({})

    guards.run(main())
    assert guards.breaker.state is BreakerState.CLOSED


def test_a_hedged_node_writes_once() -> None:
    """Both may come to their end: only the state of the one that won is applied."""
    clock = VirtualClock()
    guard = Pipeline("guard", hedge=Hedge(after=1.0, clock=clock), clock=clock)
    runs = 0

    @node(guard=guard)
    async def count(state: SharedState) -> None:
        nonlocal runs
        runs += 1
        mine = runs
        await asyncio.sleep(2.0 if mine == 1 else 1.0)  # both end at the same moment
        state.add(RUNS, 1)

    result = clock.run(AsyncFlow(count, clock=clock).run({}))
    assert runs == 2
    assert result.state[RUNS] == 1


# ---- flows ---------------------------------------------------------------------------------------------------


async def nothing() -> str:
    return "done"


def flow_of(guard: Pipeline | None, clock: VirtualClock | None = None, **options: Any) -> AsyncFlow:
    return AsyncFlow(node(writes="said", name="say")(nothing), name="inner", guard=guard, clock=clock, **options)


def test_a_refused_run_raises_the_guards_own_error() -> None:
    with pytest.raises(CircuitOpenError, match="break"):
        asyncio.run(flow_of(opened()).run({}))
    with pytest.raises(CircuitOpenError, match="break"):
        Flow(node(writes="said")(nothing), guard=opened()).run({})


def test_a_refused_nested_flow_fails_the_run_around_it() -> None:
    with pytest.raises(CircuitOpenError, match="break"):
        asyncio.run(AsyncFlow(flow_of(opened()), name="outer").run({}))


def test_refused_runs_of_a_batch_are_collected_or_raised() -> None:
    guards = Guards(limiter=None, breaker=None, shedder=LoadShedder(limit=Fixed(1), max_queue=0))
    inner = node(writes="said")(sleepy)
    flow = AsyncFlow(inner, guard=guards.pipeline, clock=guards.clock)

    async def main() -> None:
        results = await flow.run_batch([{}, {}, {}], concurrency=3)
        assert sorted(result.status for result in results) == ["done", "failed", "failed"]
        assert {type(result.error) for result in results} == {type(None), LoadShedError}
        with pytest.raises(LoadShedError):
            await flow.run_batch([{}, {}, {}], concurrency=3, on_error="raise")

    guards.run(main())


async def sleepy() -> str:
    await asyncio.sleep(1)
    return "done"


def test_a_stream_of_a_refused_run_tells_of_the_refusal_with_the_flows_path() -> None:
    found = asyncio.run(events_of(flow_of(opened())))
    assert [event.kind for event in found] == ["flow_start", "breaker_state", "rejected", "flow_error"]
    (rejected,) = [event for event in found if event.kind == "rejected"]
    assert (rejected.path, rejected.data["guard"]) == ("inner", "break")


def test_each_item_of_an_each_over_a_guarded_flow_passes_its_guard() -> None:
    guards = Guards(limiter=None, breaker=None)
    inner = AsyncFlow(node(writes="said")(sleepy), guard=guards.pipeline, clock=guards.clock)
    flow = AsyncFlow(Each(inner, over="items", into="all", collect="said"), clock=guards.clock)
    assert guards.run(flow.run({"items": [1, 2, 3, 4]})).state["all"] == ["done"] * 4
    assert guards.clock.monotonic() == 2.0  # two at once
    guards.assert_free()


def test_a_total_time_out_around_a_flow_ends_what_runs_in_it() -> None:
    clock = VirtualClock()
    cancelled: list[bool] = []

    async def long() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return "never"

    flow = AsyncFlow(node(writes="said")(long), name="f", guard=Pipeline("f", timeout=5, clock=clock), clock=clock)
    with pytest.raises(OperationTimeoutError, match="f took longer than 5 s") as caught:
        clock.run(flow.run({}))
    assert not isinstance(caught.value, NodeError)
    assert (cancelled, clock.monotonic()) == ([True], 5.0)


@pytest.mark.parametrize("stages", [{"retry": EVEN}, {"hedge": Hedge(after=1.0)}])
def test_a_flow_is_neither_repeated_nor_hedged(stages: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="give retry= and hedges to the nodes"):
        flow_of(Pipeline("guard", **stages))


def test_a_node_has_its_guard_or_an_each_has_not() -> None:
    with pytest.raises(GraphError, match="guard= and on= are for plain functions"):
        Each(Argument(), over="items", guard=opened())


def test_overload_in_a_node_lowers_the_limit_of_its_flows_shedder() -> None:
    clock = VirtualClock()
    shedder = LoadShedder(limit=AIMD(initial=100), target_wait=None, clock=clock)

    async def work() -> str:
        raise OverloadedError("529")

    flow = AsyncFlow(node(writes="said")(work), guard=Pipeline("f", shedder=shedder, clock=clock), clock=clock)
    with pytest.raises(NodeError):
        clock.run(flow.run({}))
    assert shedder.limit < 100


def test_what_is_wrong_with_a_request_in_a_node_opens_no_breaker_of_its_flow() -> None:
    guards = Guards(limiter=None, shedder=None)

    async def work() -> str:
        raise BadRequestError("nonsense")

    flow = AsyncFlow(node(writes="said")(work), guard=guards.pipeline, clock=guards.clock)
    for _ in range(5):
        with pytest.raises(NodeError, match="nonsense"):
            guards.run(flow.run({}))


# ---- events --------------------------------------------------------------------------------------------------


def test_decisions_of_a_nodes_guard_are_told_with_the_nodes_path() -> None:
    guards = Guards(retry=EVEN)

    async def work() -> str:
        raise ServerError("bump")

    flow = AsyncFlow(
        node(writes="said", name="work", guard=guards.pipeline)(work) >> node(name="end")(ended) >> END,
        name="f",
        clock=guards.clock,
    )
    found = guards.run(events_of(flow))
    told = [(event.kind, event.path) for event in found if not event.kind.startswith(("flow", "node"))]
    assert told == [(kind, "f/work#1") for kind in ("retry", "breaker_state", "retry", "rejected")]


async def ended(state: SharedState) -> None:
    return None


def test_a_wait_in_a_nodes_guard_is_told() -> None:
    guards = Guards(limiter=None, breaker=None, shedder=None)
    limiter = RateLimiter(name="limit", concurrency=1, clock=guards.clock)
    shedder = LoadShedder(name="shed", limit=Fixed(2), target_wait=None, clock=guards.clock)
    guard = Pipeline("guard", limiter=limiter, shedder=shedder, clock=guards.clock)

    async def work(item: int) -> int:
        await asyncio.sleep(1)
        return item

    flow = AsyncFlow(Each(work, over="items", into="done", name="each", guard=guard), name="f", clock=guards.clock)
    found: list[ExecutionEvent] = []

    async def main() -> None:
        async with flow.stream({"items": [0, 1, 2]}) as events:
            async for event in events:
                found.append(event)

    guards.run(main())
    waits = [(event.kind, event.path) for event in found if event.kind.endswith("_wait")]
    assert ("limiter_wait", "f/each#1/1") in waits
    assert ("shedder_wait", "f/each#1/2") in waits


# ---- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["node", "flow", "nested", "each", "whole"])
def test_a_run_cancelled_anywhere_gives_everything_back_and_records_nothing(where: str) -> None:
    made: list[Guards] = []

    def guarded(guard: Pipeline, clock: VirtualClock) -> AsyncFlow:
        async def work(item: object = None) -> str:
            await asyncio.sleep(1)
            return "done"

        async def on_state(state: SharedState) -> None:
            await asyncio.sleep(1)

        if where == "node":
            return AsyncFlow(node(writes="said", guard=guard)(nullary(work)), clock=clock)
        if where == "whole":
            return AsyncFlow(node(guard=guard)(on_state), clock=clock)
        if where == "each":
            return AsyncFlow(Each(work, over="items", into="all", guard=guard), clock=clock)
        flow = AsyncFlow(node(writes="said")(nullary(work)), guard=guard, clock=clock)
        return flow if where == "flow" else AsyncFlow(flow, clock=clock)

    async def operation(clock: VirtualClock) -> None:
        guards = Guards(clock)
        made[:] = [guards]
        flow = guarded(guards.pipeline, clock)
        others = [asyncio.create_task(flow.run({"items": [1, 2]})) for _ in range(2)]
        try:
            await flow.run({"items": [1, 2]})
        finally:
            results = await asyncio.gather(*others)  # whoever leaves
            assert [result.status for result in results] == ["done", "done"]

    def check() -> None:
        made[0].assert_free()
        assert made[0].breaker.counts().failures == 0

    assert sweep(operation, check) >= 2


def nullary(work: Callable[[], Coroutine[Any, Any, str]]) -> Callable[[], Coroutine[Any, Any, str]]:
    async def call() -> str:
        return await work()

    return call


# ---- time that is inherited ----------------------------------------------------------------------------------


def test_what_runs_in_a_node_knows_how_much_time_it_has() -> None:
    clock = VirtualClock()
    found: list[float] = []

    async def work() -> str:
        await asyncio.sleep(1)
        found.append(remaining())
        return "done"

    flow = AsyncFlow(node(writes="said", timeout=5)(work), clock=clock)
    clock.run(flow.run({}))
    assert found == [4.0]


def test_a_task_and_a_thread_in_a_node_inherit_its_time() -> None:
    found: list[float] = []

    async def task() -> None:
        found.append(remaining())

    async def work() -> str:
        await asyncio.create_task(task())
        return "done"

    def blocking() -> str:
        found.append(remaining())
        return "done"

    flow = AsyncFlow(
        node(writes="a", name="a", timeout=50)(work) >> node(writes="b", name="b", timeout=60)(blocking) >> END
    )
    asyncio.run(flow.run({}))
    assert 49 < found[0] <= 50
    assert 59 < found[1] <= 60


def test_the_time_of_each_attempt_is_its_own_and_the_total_bounds_all() -> None:
    """A second attempt has what is left of the total, also where its own limit would be longer."""
    clock = VirtualClock()
    found: list[float] = []

    async def work() -> str:
        found.append(remaining())
        await asyncio.sleep(8)
        raise OverloadedError("busy")

    guard = Pipeline("guard", timeout=15, attempt_timeout=10, retry=EVEN, clock=clock)
    flow = AsyncFlow(node(writes="said", guard=guard)(work), clock=clock)
    with pytest.raises(NodeError):
        clock.run(flow.run({}))
    assert found == [10.0, 6.0]


def test_a_guard_within_a_guard_gives_up_a_wait_that_cannot_fit() -> None:
    """The node has five seconds; its limiter would let the call through after a hundred: it says so at once."""
    clock = VirtualClock()
    limiter = RateLimiter(name="limit", clock=clock)
    limiter.drain(100.0)
    inner = Pipeline("inner", limiter=limiter, clock=clock)

    async def work() -> str:
        return await inner.run(nothing)

    flow = AsyncFlow(node(writes="said", timeout=5)(work), clock=clock)
    with pytest.raises(NodeError) as caught:
        clock.run(flow.run({}))
    assert isinstance(caught.value.__cause__, LimiterError)
    assert clock.monotonic() == 0.0


def test_the_time_of_a_flows_guard_reaches_its_nodes() -> None:
    clock = VirtualClock()
    found: list[float] = []

    async def work() -> str:
        found.append(remaining())
        return "done"

    flow = AsyncFlow(node(writes="said")(work), guard=Pipeline("f", timeout=7, clock=clock), clock=clock)
    clock.run(AsyncFlow(flow, clock=clock).run({}))
    assert found == [7.0]


# ---- what is left behind -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [False, True])
def test_a_failed_node_leaves_no_cycle_that_keeps_its_state_alive(guarded: bool) -> None:
    class Down(ServerError):
        pass

    async def work() -> str:
        raise Down("x")

    clock = VirtualClock()
    flow = AsyncFlow(node(writes="said", retry=EVEN if guarded else None)(work), clock=clock)
    found: list[weakref.ref[BaseException]] = []

    async def main() -> None:
        try:
            await flow.run({})
        except NodeError as error:
            found.extend([weakref.ref(error), weakref.ref(error.__cause__ or error)])

    gc.collect()
    gc.disable()
    try:
        clock.run(main())
        assert [ref() for ref in found] == [None, None]
    finally:
        gc.enable()


def test_a_guarded_call_that_is_closed_from_outside_ends_quietly() -> None:
    """As the end of an event loop does it: in another context, without a task."""
    guards = Guards(retry=EVEN, attempt_timeout=5.0)
    unraisable: list[object] = []

    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        for waiting in (guards.pipeline.run(wait), EVEN.run(wait)):
            contextvars.copy_context().run(waiting.send, None)
            waiting.close()

    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        guards.run(main())
    finally:
        sys.unraisablehook = hook
    assert not unraisable
    guards.assert_free()
