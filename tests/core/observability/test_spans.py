"""Events as a tree, and where each part of it says its time went."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from tests.support.span_rules import misfits

from agentflow.clock import VirtualClock
from agentflow.core import (
    AsyncFlow,
    AsyncNode,
    Each,
    ExecutionEvent,
    FaultInjector,
    Hedge,
    Parallel,
    Pipeline,
    RateLimiter,
    RetryPolicy,
    SharedState,
    emit,
    node,
)
from agentflow.core.observability.attribution import Parts
from agentflow.core.observability.scope import current_scope
from agentflow.errors import AgentFlowError


class Seen:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    def breakdown(self, path: str) -> Parts:
        (end,) = [event for event in self.events if event.path == path and event.duration is not None]
        parts: Parts = end.data["breakdown"]  # type: ignore[assignment]
        return parts


def run(flow: AsyncFlow, clock: VirtualClock, **values: object) -> Seen:
    seen = Seen()

    async def main() -> None:
        with suppress(AgentFlowError):
            await flow.run(values, observers=[seen])

    clock.run(main())
    return seen


def sleeper(name: str, seconds: float) -> AsyncNode[None, None]:
    @node(name=name)
    async def sleep(state: SharedState) -> None:
        await asyncio.sleep(seconds)

    return sleep  # type: ignore[return-value]


def test_every_span_names_the_one_around_it():
    inner = AsyncFlow(sleeper("x", 1), name="inner")
    flow = AsyncFlow(Each(inner, over="xs", name="each") >> sleeper("y", 1), name="flow")
    events = run(flow, VirtualClock(), xs=[1, 2]).events
    path_of = {event.span: event.path for event in events if event.sequence == event.span}
    around = {path_of[event.span]: event.parent and path_of[event.parent] for event in events}
    assert around == {
        "flow": None,
        "flow/each#1": "flow",
        "flow/each#1/0/inner#1": "flow/each#1",
        "flow/each#1/0/inner#1/x#1": "flow/each#1/0/inner#1",
        "flow/each#1/1/inner#1": "flow/each#1",
        "flow/each#1/1/inner#1/x#1": "flow/each#1/1/inner#1",
        "flow/y#1": "flow",
    }


def test_an_events_own_moment_counts_from_the_beginning_of_the_run():
    @node
    async def late(state: SharedState) -> None:
        await asyncio.sleep(7)
        await emit("told")

    events = run(AsyncFlow(late, clock=(clock := VirtualClock())), clock).events
    assert [event.at for event in events] == [0, 0, 7, 7, 7]
    told = events[2]
    assert (told.kind, told.span, told.parent) == ("told", events[1].sequence, events[0].sequence)


def test_what_runs_inside_is_its_own_and_between_the_nodes_is_the_flows():
    clock = VirtualClock()
    seen = run(AsyncFlow(sleeper("a", 2) >> sleeper("b", 3), name="flow", clock=clock), clock)
    assert seen.breakdown("flow/a#1") == {"own": 2}
    assert seen.breakdown("flow") == {"own": 5}


def test_branches_count_by_the_critical_path():
    clock = VirtualClock()
    flow = AsyncFlow(Parallel(sleeper("slow", 9), sleeper("quick", 1)) >> sleeper("end", 1), name="flow", clock=clock)
    assert run(flow, clock).breakdown("flow") == {"own": 10}


def test_waits_for_a_nodes_guards_are_found_and_are_not_its_own_time():
    clock = VirtualClock()
    tries = iter([ValueError("once"), None])

    class Limited(AsyncNode[None, None]):
        async def exec(self, item: None) -> None:
            await asyncio.sleep(2)
            if (error := next(tries)) is not None:
                raise error

    limiter = RateLimiter(requests_per_minute=60, burst=1 / 60, clock=clock)
    policy = RetryPolicy(max_attempts=2, base_delay=5, jitter="none")
    guard = Pipeline("work", limiter=limiter, retry=policy, clock=clock)
    first = sleeper("before", 0)

    async def spend() -> None:
        await limiter.reserve()

    async def main() -> Seen:
        seen = Seen()
        await spend()
        await AsyncFlow(first >> Limited(name="x", guard=guard), name="flow", clock=clock).run({}, observers=[seen])
        return seen

    seen = clock.run(main())
    parts = seen.breakdown("flow/x#1")
    assert parts == pytest.approx({"limiter": 1, "own": 4, "backoff": 5}, abs=1e-3)
    assert seen.breakdown("flow") == pytest.approx({"limiter": 1, "own": 4, "backoff": 5}, abs=1e-3)


def test_what_a_hedged_node_waits_for_beside_its_own_work_adds_up():
    """The first request runs for nine seconds; the second, which wins, waits three for the limiter beside it."""
    clock = VirtualClock()
    slow = iter([9.0, 1.0])

    class Hedged(AsyncNode[None, None]):
        async def exec(self, item: None) -> None:
            outer = current_scope.get()
            assert outer is not None
            call = outer.inside("generation")
            await call.begin("model_start")
            try:
                await asyncio.sleep(next(slow))
            finally:
                call.leave("model_cancelled")

    limiter = RateLimiter(requests_per_minute=15, burst=1 / 15, clock=clock)
    guard = Pipeline("work", hedge=Hedge(after=1.0, clock=clock), limiter=limiter, clock=clock)
    seen = run(AsyncFlow(Hedged(name="x", guard=guard), name="flow", clock=clock), clock)
    assert misfits(seen.events) == []
    assert [event.kind for event in seen.events].count("limiter_wait") == 1


def test_an_error_that_is_not_ours_ends_a_flow_as_an_error():
    clock = VirtualClock()
    faults = FaultInjector(error=lambda: OSError("cable"), error_rate=1.0, clock=clock)
    guard = Pipeline("work", faults=faults, clock=clock)
    seen = Seen()

    async def main() -> None:
        with suppress(OSError):
            await AsyncFlow(sleeper("x", 1), name="flow", clock=clock, guard=guard).run({}, observers=[seen])

    clock.run(main())
    assert [(event.kind, event.data.get("error_type")) for event in seen.events] == [
        ("flow_start", None),
        ("flow_error", "OSError"),
    ]


def test_what_passes_until_the_end_is_told_is_accounted_for_as_well():
    clock = VirtualClock()

    @node
    async def ask(state: SharedState) -> None:
        outer = current_scope.get()
        assert outer is not None
        call = outer.inside("unattributed")
        await call.begin("model_start")
        await asyncio.sleep(3)
        await call.end("model_success", parts={"generation": 2.5, "unattributed": 0.25})

    seen = run(AsyncFlow(ask, name="flow", clock=clock), clock)
    assert misfits(seen.events) == []
    assert seen.breakdown("flow") == {"generation": 2.5, "unattributed": 0.5}


def test_failed_nodes_have_a_breakdown_too():
    @node
    async def fail(state: SharedState) -> None:
        await asyncio.sleep(3)
        raise ValueError("no")

    clock = VirtualClock()
    seen = run(AsyncFlow(fail, name="flow", clock=clock), clock)
    assert [event.kind for event in seen.events[-2:]] == ["node_error", "flow_error"]
    assert seen.breakdown("flow/fail#1") == {"own": 3}


def test_a_wall_clock_that_jumps_changes_no_duration():
    clock = VirtualClock()

    @node
    async def jump(state: SharedState) -> None:
        await asyncio.sleep(2)
        clock._start -= 3_600.0

    seen = run(AsyncFlow(jump, name="flow", clock=clock), clock)
    assert [event.duration for event in seen.events] == [None, None, 2, 2]
    assert [event.at for event in seen.events] == [0, 0, 2, 2]
    assert seen.events[-1].time < seen.events[0].time


# ---- checkers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda answer: answer == "fine", {"source": "checker", "score": 1.0}),
        (lambda answer: 0.25, {"source": "checker", "score": 0.25}),
        (lambda answer: 1 / 0, {"source": "checker", "error_type": "ZeroDivisionError"}),
        (lambda answer: 7, {"source": "checker", "error_type": "ConfigurationError"}),
    ],
    ids=["true", "a score", "raises", "no score"],
)
def test_a_checker_says_how_good_a_result_is_and_changes_nothing(check, said):
    @node(writes="answer", check=check)
    async def answer() -> str:
        return "fine"

    clock = VirtualClock()
    seen = run(AsyncFlow(answer, name="flow", clock=clock), clock)
    (event,) = [event for event in seen.events if event.kind == "feedback"]
    assert {name: event.data[name] for name in said} == said
    assert event.path == "flow/answer#1"
    assert seen.events[-1].kind == "flow_success"


async def test_a_checker_that_nobody_would_hear_is_not_asked():
    def refuse(answer: str) -> float:
        raise AssertionError

    @node(writes="answer", check=refuse)
    async def answer() -> str:
        return "fine"

    assert (await AsyncFlow(answer).run()).state["answer"] == "fine"


def test_a_node_class_checks_by_a_method():
    class Answer(AsyncNode[None, str]):
        async def exec(self, item: None) -> str:
            return "fine"

        async def check(self, result: str) -> float:
            return 0.5

    clock = VirtualClock()
    seen = run(AsyncFlow(Answer(), clock=clock), clock)
    assert [event.data["score"] for event in seen.events if event.kind == "feedback"] == [0.5]


def test_a_checker_that_waits_for_something_cancelled_fails_alone():
    async def check(answer: str) -> float:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone

    @node(writes="answer", check=check)
    async def answer() -> str:
        return "fine"

    clock = VirtualClock()
    events = run(AsyncFlow(answer, clock=clock), clock).events
    assert [event.data["error_type"] for event in events if event.kind == "feedback"] == ["RuntimeError"]
    assert events[-1].kind == "flow_success"


# ---- where a run went ----------------------------------------------------------------------------------------


def test_a_node_that_chose_its_way_says_which():
    @node
    async def judge(state: SharedState) -> str:
        return "again" if state.get("n") is None else "fine"

    @node
    async def count(state: SharedState) -> None:
        state["n"] = 1

    clock = VirtualClock()
    flow = AsyncFlow(judge.on("again") >> count >> judge, judge.on("fine") >> sleeper("end", 1), clock=clock)
    ends = [(event.node, event.data.get("action")) for event in run(flow, clock).events if event.kind == "node_success"]
    assert ends == [("judge", "again"), ("count", None), ("judge", "fine"), ("end", None)]


def test_the_first_event_of_a_run_outlines_its_graph():
    clock = VirtualClock()
    first = run(AsyncFlow(sleeper("a", 1) >> sleeper("b", 1), name="flow", clock=clock), clock).events[0]
    assert first.data["graph"]["edges"] == [["a", "default", "b"]]  # type: ignore[index]
