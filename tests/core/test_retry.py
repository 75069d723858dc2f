"""Attempts: exec alone is tried again, each attempt has its time-out, and the fallback answers at last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, AsyncNode, BaseNode, FlowResult, Node, Parallel, RetryPolicy, SharedState, node
from agentflow.errors import BadRequestError, NodeError, OperationTimeoutError, ServerError


class Script(AsyncNode[None, str]):
    """A node whose exec fails as often as it is told, and which remembers what was called."""

    def __init__(self, *outcomes: Exception | str | float, **options: Any) -> None:
        super().__init__(**options)
        self.outcomes = iter(outcomes)
        self.calls: list[str] = []

    async def prep(self, state: SharedState) -> None:
        self.calls.append("prep")

    async def exec(self, item: None) -> str:
        self.calls.append("exec")
        outcome = next(self.outcomes)
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
            return f"after {outcome:g} s"
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def post(self, state: SharedState, item: None, result: str) -> None:
        self.calls.append("post")
        state["result"] = result


def run(vertex: BaseNode, clock: VirtualClock | None = None) -> FlowResult:
    clock = clock or VirtualClock()
    return clock.run(AsyncFlow(vertex, name="f", clock=clock).run())


def failures(count: int) -> Sequence[Exception]:
    return [ValueError(f"number {index}") for index in range(1, count + 1)]


# ---- the policy


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True), st.floats(0, 100), st.floats(0, 1000))
def test_a_wait_is_drawn_below_the_exponential_bound(attempt: int, chance: float, base: float, cap: float) -> None:
    wait = RetryPolicy(base_delay=base, max_delay=cap).delay(attempt, chance)
    assert 0 <= wait <= cap
    assert wait <= base * 2.0 ** min(attempt - 1, 900) or attempt > 900


def test_without_jitter_the_wait_is_the_bound_itself() -> None:
    policy = RetryPolicy(base_delay=0.5, max_delay=3, jitter="none")
    assert [policy.delay(attempt, 0.1) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


def test_full_jitter_is_a_share_of_the_bound() -> None:
    assert RetryPolicy(base_delay=1, max_delay=30).delay(3, 0.25) == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"base_delay": -1},
        {"max_delay": float("inf")},
        {"base_delay": float("nan")},
        {"jitter": "half"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_attempts|delay|jitter"):
        RetryPolicy(**options)


# ---- attempts


def test_max_attempts_1_runs_once() -> None:
    script = Script(*failures(1), "never", retry=RetryPolicy(max_attempts=1))
    with pytest.raises(NodeError) as caught:
        run(script)
    assert script.calls == ["prep", "exec"]
    assert caught.value.attempt == 1


def test_without_a_policy_it_runs_once() -> None:
    script = Script(*failures(1), "never")
    with pytest.raises(NodeError):
        run(script)
    assert script.calls == ["prep", "exec"]


def test_exec_alone_is_tried_again() -> None:
    script = Script(*failures(2), "third", retry=RetryPolicy(max_attempts=3))
    assert run(script).state["result"] == "third"
    assert script.calls == ["prep", "exec", "exec", "exec", "post"]


@pytest.mark.parametrize("phase", ["prep", "post"])
def test_prep_and_post_are_never_tried_again(phase: str) -> None:
    calls = 0

    async def fail(self: object, state: SharedState, *_: object) -> None:
        nonlocal calls
        calls += 1
        raise ValueError(phase)

    kind = type("Odd", (AsyncNode,), {phase: fail})
    with pytest.raises(NodeError, match=f"failed in {phase}: "):
        run(kind(retry=RetryPolicy(max_attempts=5)))
    assert calls == 1


def test_the_last_failure_is_raised_with_its_attempt() -> None:
    errors = failures(3)
    with pytest.raises(NodeError, match=r"^f/script#1 failed in exec, attempt 3: ValueError: number 3$") as caught:
        run(Script(*errors, retry=RetryPolicy(max_attempts=3)))
    assert caught.value.attempt == 3
    assert caught.value.__cause__ is errors[2]


def test_the_waits_follow_the_flows_clock_and_its_chance() -> None:
    clock, twin = VirtualClock(seed=3), VirtualClock(seed=3)
    policy = RetryPolicy(max_attempts=4, base_delay=10, max_delay=25)
    run(Script(*failures(3), "done", retry=policy), clock)

    assert clock.monotonic() == pytest.approx(sum(policy.delay(attempt, twin.random()) for attempt in (1, 2, 3)))


def test_an_error_that_is_not_worth_repeating_is_not_repeated() -> None:
    script = Script(BadRequestError("wrong"), "never", retry=RetryPolicy(max_attempts=3))
    with pytest.raises(NodeError):
        run(script)
    assert script.calls.count("exec") == 1

    again = Script(ServerError("down"), "up", retry=RetryPolicy(max_attempts=3))
    assert run(again).state["result"] == "up"


def test_a_retry_is_an_event_with_its_attempt_error_and_delay() -> None:
    clock = VirtualClock()
    flow = AsyncFlow(
        Script(*failures(2), "done", retry=RetryPolicy(base_delay=2, jitter="none")), name="f", clock=clock
    )

    async def watch() -> list[tuple[str, int, object, object]]:
        async with flow.stream() as events:
            return [
                (event.path, event.attempt, event.data["error"], event.data["delay"])
                async for event in events
                if event.kind == "retry"
            ]

    assert clock.run(watch()) == [
        ("f/script#1", 1, "ValueError: number 1", 2.0),
        ("f/script#1", 2, "ValueError: number 2", 4.0),
    ]


def test_parallel_visits_of_one_node_do_not_share_the_counter() -> None:
    """The same node object runs in many runs at once; each fails twice before it succeeds."""
    clock = VirtualClock()
    tries: dict[str, int] = {}

    @node(reads="name", writes="done", retry=RetryPolicy(max_attempts=3))
    async def flaky(name: str) -> int:
        tries[name] = tries.get(name, 0) + 1
        await asyncio.sleep(1)
        if tries[name] < 3:
            raise ValueError("not yet")
        return tries[name]

    flow = AsyncFlow(flaky, clock=clock)
    results = clock.run(flow.run_batch([{"name": str(index)} for index in range(10)]))
    assert [result.state["done"] for result in results] == [3] * 10


def test_a_node_visited_again_starts_counting_anew() -> None:
    script = Script(*failures(2), "one", *failures(2), "two", retry=RetryPolicy(max_attempts=3))

    @node
    async def again(state: SharedState) -> str:
        return "again" if state["result"] == "one" else "done"

    clock = VirtualClock()
    flow = AsyncFlow(
        script >> again, again.on("again") >> script, again.on("done") >> AsyncNode(name="end"), clock=clock
    )
    assert clock.run(flow.run()).state["result"] == "two"


@pytest.mark.parametrize("form", ["async", "sync", "inline"])
def test_function_nodes_are_tried_again_too(form: str) -> None:
    outcomes: list[Exception | str] = [ValueError("no"), "yes"]

    def work() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def later() -> str:
        return work()

    made: Callable[[Any], BaseNode] = node(writes="result", retry=RetryPolicy(), inline=form == "inline")
    assert run(made(later if form == "async" else work)).state["result"] == "yes"


def test_a_whole_lifecycle_function_that_is_tried_again_leaves_no_writes_of_a_failed_attempt() -> None:
    attempts = 0

    @node(retry=RetryPolicy(max_attempts=3))
    async def work(state: SharedState) -> str:
        nonlocal attempts
        attempts += 1
        state[f"attempt {attempts}"] = True
        if attempts < 3:
            raise ValueError("no")
        return "done"

    result = run(work)
    assert (result.state, result.action) == ({"attempt 3": True}, "done")


# ---- time-outs


def test_a_time_out_belongs_to_each_attempt() -> None:
    clock = VirtualClock()
    policy = RetryPolicy(max_attempts=3, base_delay=0)
    script = Script(60.0, 60.0, 3.0, retry=policy, timeout=5)

    assert run(script, clock).state["result"] == "after 3 s"
    assert clock.monotonic() == pytest.approx(5 + 5 + 3)


def test_a_time_out_is_an_error_of_ours_that_names_node_and_seconds() -> None:
    with pytest.raises(NodeError, match=r"^f/script#1 failed in exec: exec of script took longer than 5 s$") as caught:
        run(Script(60.0, timeout=5))
    cause = caught.value.__cause__
    assert isinstance(cause, OperationTimeoutError)
    assert isinstance(cause, TimeoutError)
    assert (cause.operation, cause.seconds) == ("exec of script", 5)


def test_a_time_out_of_the_nodes_own_stays_its_own() -> None:
    own = TimeoutError("mine")
    with pytest.raises(NodeError) as caught:
        run(Script(own, timeout=5))
    assert caught.value.__cause__ is own


def test_prep_and_post_have_no_time_out() -> None:
    class Slow(AsyncNode[None, None]):
        timeout = 1.0

        async def prep(self, state: SharedState) -> None:
            await asyncio.sleep(100)

        async def post(self, state: SharedState, item: None, result: None) -> None:
            await asyncio.sleep(100)

    clock = VirtualClock()
    run(Slow(), clock)
    assert clock.monotonic() == pytest.approx(200)


async def test_a_sync_node_that_is_late_times_out_and_its_result_is_dropped() -> None:
    release, finished = threading.Event(), threading.Event()

    class Late(Node[None, str]):
        timeout = 0.01

        def exec(self, item: None) -> str:
            release.wait(10)
            finished.set()
            return "late"

        def post(self, state: SharedState, item: None, result: str) -> None:
            state["result"] = result

    state = SharedState()
    with pytest.raises(NodeError, match=r"exec of late took longer than 0.01 s"):
        await AsyncFlow(Late()).run(state)
    release.set()
    assert await asyncio.to_thread(finished.wait, 10)
    assert state == {}


def test_the_callers_cancellation_is_no_time_out_and_is_not_tried_again() -> None:
    clock = VirtualClock()
    script = Script(60.0, 60.0, retry=RetryPolicy(max_attempts=3), timeout=30)

    async def main() -> None:
        async with asyncio.timeout(5):
            await AsyncFlow(script, clock=clock).run()

    with pytest.raises(TimeoutError) as caught:
        clock.run(main())
    assert not isinstance(caught.value, OperationTimeoutError)
    assert script.calls.count("exec") == 1


def test_the_callers_cancellation_ends_a_wait_between_attempts() -> None:
    clock = VirtualClock()
    script = Script(*failures(5), retry=RetryPolicy(max_attempts=5, base_delay=100, max_delay=100, jitter="none"))

    async def main() -> None:
        async with asyncio.timeout(5):
            await AsyncFlow(script, clock=clock).run()

    with pytest.raises(TimeoutError):
        clock.run(main())
    assert script.calls.count("exec") == 1


def test_a_cancellation_that_nobody_asked_for_is_a_failure_of_the_node() -> None:
    tries = 0

    @node(writes="result", retry=RetryPolicy(max_attempts=2))
    async def stray() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise asyncio.CancelledError("from a cancelled future")
        return "fine"

    assert run(stray).state["result"] == "fine"


# ---- fallback


class Cautious(Script):
    async def fallback(self, item: None, error: Exception) -> str:
        self.calls.append("fallback")
        return f"instead of {error}"


class Blocking(Node[str, str]):
    def prep(self, state: SharedState) -> str:
        return "item"

    def exec(self, item: str) -> str:
        raise ValueError("no")

    def fallback(self, item: str, error: Exception) -> str:
        return f"{item}: {error}"

    def post(self, state: SharedState, item: str, result: str) -> None:
        state["result"] = result


def test_the_fallback_answers_when_exec_has_finally_failed() -> None:
    script = Cautious(*failures(2), retry=RetryPolicy(max_attempts=2))
    assert run(script).state["result"] == "instead of number 2"
    assert script.calls == ["prep", "exec", "exec", "fallback", "post"]


def test_the_fallback_is_not_asked_while_an_attempt_succeeds() -> None:
    script = Cautious(*failures(1), "fine", retry=RetryPolicy(max_attempts=2))
    assert run(script).state["result"] == "fine"
    assert "fallback" not in script.calls


def test_a_fallback_answers_for_a_time_out_and_without_a_policy() -> None:
    assert run(Cautious(60.0, timeout=1)).state["result"] == "instead of exec of cautious took longer than 1 s"
    assert run(Cautious(*failures(1))).state["result"] == "instead of number 1"


def test_a_sync_fallback_gets_item_and_error() -> None:
    assert run(Blocking()).state["result"] == "item: no"


def test_a_fallback_that_raises_is_the_failure_and_keeps_what_it_answered_for() -> None:
    class Hopeless(Script):
        async def fallback(self, item: None, error: Exception) -> str:
            raise LookupError("nothing in store either")

    first = ValueError("no")
    with pytest.raises(NodeError, match="failed in exec, attempt 2: LookupError: nothing in store") as caught:
        run(Hopeless(*failures(1), first, retry=RetryPolicy(max_attempts=2)))
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.__cause__.__context__ is first


def test_a_fallback_that_raises_the_same_error_changes_nothing() -> None:
    class Again(Script):
        async def fallback(self, item: None, error: Exception) -> str:
            raise error

    error = ValueError("no")
    with pytest.raises(NodeError, match="failed in exec: ValueError: no") as caught:
        run(Again(error))
    assert caught.value.__cause__ is error


def test_one_branch_waiting_for_its_next_attempt_is_cancelled_by_a_failing_sibling() -> None:
    clock = VirtualClock()
    patient = Script(*failures(9), retry=RetryPolicy(max_attempts=9, base_delay=100, max_delay=100, jitter="none"))
    hasty = Script(1.0, name="hasty", timeout=0.5)

    with pytest.raises(NodeError, match="hasty"):
        clock.run(AsyncFlow(Parallel(patient, hasty), clock=clock).run())
    assert clock.monotonic() == pytest.approx(0.5)
    assert patient.calls.count("exec") == 1
