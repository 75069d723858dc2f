"""Calls that go on after they have begun, such as streams: begun anew where they break, told to whoever watches, and
accounted for; and pipelines that share their guards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness import deadline as deadline_module
from agentflow.core.robustness.adaptive_limit import Fixed
from agentflow.core.robustness.attempt import idempotency_key
from agentflow.core.robustness.breaker_window import CountWindow
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.fault_injector import FaultInjector
from agentflow.core.robustness.hedging import Hedge
from agentflow.core.robustness.load_shedder import LoadShedder, Priority
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.pipeline_builder import PipelineBuilder
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import BadRequestError, ServerError

ANEW = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none", after_first_chunk=True)
ONCE = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none")


class Watcher:
    """Notes what it is told: kind, facts, and the number of the attempt."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object], int]] = []

    async def __call__(self, kind: str, facts: Mapping[str, object], attempt: int) -> None:
        self.remark(kind, facts, attempt)

    def remark(self, kind: str, facts: Mapping[str, object], attempt: int) -> None:
        self.told.append((kind, dict(facts), attempt))


def script(*outcomes: object) -> Callable[[], Coroutine[Any, Any, object]]:
    """A call with these outcomes, one each time: errors are raised, numbers are seconds that it takes."""
    left = iter(outcomes)

    async def call() -> object:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
        return outcome

    return call


def running(test: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    """Run it in virtual time, and see that no task and no deadline is left."""
    clock = VirtualClock()

    async def main() -> None:
        await test(clock)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not deadline_module._alarm_of(asyncio.get_running_loop())._waiting

    clock.run(main())


# ---- the same guards under another name


def test_a_pipeline_like_another_shares_its_guards_and_has_its_own_word_on_attempts() -> None:
    clock = VirtualClock()
    whole = Pipeline(
        "whole",
        timeout=60.0,
        shedder=LoadShedder(limit=Fixed(7), clock=clock),
        hedge=Hedge(after=1.0, clock=clock),
        retry=ONCE,
        budget=RetryBudget(ratio=0.5, clock=clock),
        repeats=(ServerError,),
        limiter=RateLimiter(requests_per_minute=60, clock=clock),
        breaker=CircuitBreaker(clock=clock),
        attempt_timeout=9.0,
        faults=FaultInjector(clock=clock),
        clock=clock,
    )
    same, other = whole.having("same"), whole.having("other", retry=RetryPolicy(max_attempts=8), attempt_timeout=3.0)
    assert same.describe().splitlines()[1:] == whole.describe().splitlines()[1:]
    assert same.name == same.describe().splitlines()[0] == "same"
    changed = zip(whole.describe().splitlines(), other.describe().splitlines(), strict=True)
    assert [after.split()[0] for before, after in changed if before != after] == ["other", "retry", "attempt"]
    for name in ("_shedder", "_hedge", "_budget", "_repeats", "_limiter", "_breaker", "_faults", "_clock", "_pool"):
        assert getattr(other, name) is getattr(whole, name)


@pytest.mark.parametrize("tokens", [None, 100])
def test_it_says_whether_tokens_are_worth_counting(tokens: int | None) -> None:
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=tokens)
    assert Pipeline(limiter=limiter).counts_tokens is (tokens is not None)
    assert Pipeline().counts_tokens is False


def test_it_says_whether_a_call_may_be_made_twice() -> None:
    plain, both = Pipeline(), Pipeline(retry=ONCE, hedge=Hedge(after=1.0))
    assert (plain.hedges, plain.repeats, both.hedges, both.repeats) == (False, False, True, True)


# ---- who watches


def test_whoever_watches_hears_of_each_state_of_a_breaker_once() -> None:
    """Opened by a failure, half open by time, closed by the probes: also where the calls between were not watched."""

    async def test(clock: VirtualClock) -> None:
        breaker = CircuitBreaker(
            name="b", window=CountWindow(10), min_calls=1, open_for=30.0, jitter=0.0, half_open_calls=1, clock=clock
        )
        pipeline, watcher = Pipeline("p", breaker=breaker, clock=clock), Watcher()

        async def call(outcome: object) -> None:
            operation = Operation(pipeline.deadline(), tell=watcher, remark=watcher.remark)
            held = await pipeline.open(script(outcome), operation)
            held.succeed()

        with pytest.raises(ServerError):
            await call(ServerError("down"))
        await clock.sleep(31.0)
        await call("fine")
        await call("fine")
        assert [(facts["from"], facts["to"]) for _, facts, _ in watcher.told] == [
            ("closed", "open"),
            ("open", "half_open"),
            ("half_open", "closed"),
        ]
        with pytest.raises(ServerError):
            await pipeline.run(script(ServerError("down again")))
        await clock.sleep(31.0)
        await pipeline.run(script("fine"))
        await call("fine")
        assert len(watcher.told) == 3  # it is closed again, as it was when anybody last heard of it

    running(test)


def test_whoever_waits_for_a_place_is_told_how_long_and_it_is_accounted_for() -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline, watcher = Pipeline("p", shedder=LoadShedder(name="gate", limit=Fixed(1), clock=clock)), Watcher()
        other = asyncio.create_task(pipeline.run(script(3.0)))
        await asyncio.sleep(0)
        operation = Operation(pipeline.deadline(), tell=watcher, remark=watcher.remark)
        held = await pipeline.open(script("late"), operation)
        held.succeed()
        await other
        assert watcher.told == [("shedder_wait", {"guard": "gate", "seconds": 3.0}, 1)]
        assert operation.queue == 3.0

    running(test)


def test_the_facts_of_each_decision() -> None:
    async def test(clock: VirtualClock) -> None:
        limiter = RateLimiter(requests_per_minute=60, burst=1 / 60, clock=clock)
        breaker = CircuitBreaker(name="b", window=CountWindow(10), min_calls=2, open_for=30.0, jitter=0.0, clock=clock)
        pipeline, watcher = Pipeline("p", retry=ONCE, limiter=limiter, breaker=breaker, clock=clock), Watcher()
        await limiter.reserve()
        operation = Operation(pipeline.deadline(), tell=watcher, remark=watcher.remark)
        with pytest.raises(ServerError):
            await pipeline.open(script(ServerError("one"), ServerError("two")), operation)
        kinds = [(kind, attempt) for kind, _, attempt in watcher.told]
        assert kinds == [("limiter_wait", 1), ("retry", 1), ("breaker_state", 2), ("retry", 2), ("rejected", 3)]
        facts = [facts for _, facts, _ in watcher.told]
        assert facts[0] == {"guard": "p", "seconds": pytest.approx(1.0)}
        assert facts[1] == {"error": "one", "error_type": "ServerError", "delay": 1.0}
        assert facts[2] == {"guard": "b", "from": "closed", "to": "open", "retry_after": 30.0}
        assert facts[4]["guard"] == "b"
        assert facts[4]["error_type"] == "CircuitOpenError"
        assert facts[4]["retry_after"] == pytest.approx(28.0)

    running(test)


def test_a_place_is_asked_for_with_the_calls_own_priority_and_tenant() -> None:
    asked: list[tuple[object, object]] = []

    class Shedder(LoadShedder):
        def try_admit(self, priority: Priority = Priority.NORMAL, tenant: str | None = None) -> Any:
            asked.append((priority, tenant))
            return super().try_admit(priority, tenant)

    async def test(clock: VirtualClock) -> None:
        await Pipeline(shedder=Shedder(clock=clock)).run(script("it"), priority=Priority.LOW, tenant="ann")

    running(test)
    assert asked == [(Priority.LOW, "ann")]


# ---- the account


def test_what_failed_and_what_was_waited_for_adds_up() -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(retry=ONCE, clock=clock)

        async def work() -> str:
            await asyncio.sleep(2.0)
            if clock.monotonic() < 8.0:
                raise ServerError("not yet")
            return "it"

        operation = Operation(pipeline.deadline())
        (await pipeline.open(work, operation)).succeed()
        timing = operation.timing(clock.monotonic(), 0.0)
        assert (timing.failed, timing.backoff, timing.generation, timing.total) == (4.0, 3.0, 2.0, 9.0)
        assert timing.attempts == 3

    running(test)


def test_of_hedged_calls_the_winners_account_is_that_of_the_call() -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(hedge=Hedge(after=1.0, budget=1.0, clock=clock), clock=clock)
        watcher, lost = Watcher(), []
        operation = Operation(
            pipeline.deadline(50.0), tell=watcher, remark=watcher.remark, on_loss=lambda: lost.append(clock.monotonic())
        )
        (await pipeline.open(script(9.0, 2.0), operation)).succeed()
        timing = operation.timing(clock.monotonic(), 0.0)
        assert (timing.failed, timing.generation, timing.total, timing.attempts) == (1.0, 2.0, 3.0, 1)
        assert watcher.told == [("hedge", {"guard": "hedge", "number": 2}, 1)]
        assert lost == [3.0]
        operation.deadline.close()

    running(test)


# ---- begun anew


@pytest.mark.parametrize(
    ("own", "callers", "anew"),
    [(None, None, False), (ONCE, None, False), (ANEW, None, True), (ONCE, ANEW, True), (ANEW, ONCE, False)],
)
def test_a_broken_call_is_begun_anew_where_the_nearest_policy_says_so(
    own: RetryPolicy | None, callers: RetryPolicy | None, anew: bool
) -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(retry=own, clock=clock)
        repetition = pipeline.repetition(Operation(pipeline.deadline(), policy=callers))
        assert (repetition is not None) is anew

    running(test)


def test_a_stream_that_broke_goes_on_as_another_attempt_of_the_same_call() -> None:
    keys: list[str | None] = []

    async def test(clock: VirtualClock) -> None:
        pipeline, watcher = Pipeline(retry=ANEW, clock=clock), Watcher()

        async def work() -> str:
            keys.append(idempotency_key())
            return "stream"

        operation = Operation(pipeline.deadline(), tell=watcher, remark=watcher.remark)
        repetition = pipeline.repetition(operation)
        assert repetition is not None
        held = await pipeline.open(work, operation)
        await asyncio.sleep(5.0)
        failure = ServerError("cut")
        held.fail(failure)
        anew = await pipeline.again(work, operation, held, failure, repetition)
        assert anew is not None
        anew.succeed()
        timing = operation.timing(clock.monotonic(), 0.0)
        assert (timing.failed, timing.backoff, timing.attempts) == (5.0, 1.0, 2)
        assert watcher.told == [("retry", {"error": "cut", "error_type": "ServerError", "delay": 1.0}, 1)]

    running(test)
    assert keys[0] is not None
    assert keys[0] == keys[1], "the server sees one operation"


def test_what_may_not_be_repeated_at_all_is_not_begun_anew() -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(retry=ANEW, repeats=(ServerError,), clock=clock)
        operation = Operation(pipeline.deadline())
        repetition = pipeline.repetition(operation)
        assert repetition is not None
        for failure in (LookupError("ours"), BadRequestError("wrong")):
            held = await pipeline.open(script("stream"), operation)
            held.fail(failure)
            assert await pipeline.again(script("stream"), operation, held, failure, repetition) is None
        assert clock.monotonic() == 0.0

    running(test)


def test_where_a_guard_refuses_the_new_beginning_what_broke_before_is_what_is_wrong() -> None:
    async def test(clock: VirtualClock) -> None:
        breaker = CircuitBreaker(name="b", window=CountWindow(10), min_calls=1, jitter=0.0, clock=clock)
        pipeline = Pipeline(retry=ANEW, breaker=breaker, clock=clock)
        operation = Operation(pipeline.deadline())
        repetition = pipeline.repetition(operation)
        assert repetition is not None
        held = await pipeline.open(script("stream"), operation)
        failure = ServerError("cut")
        held.fail(failure)
        assert await pipeline.again(script("stream"), operation, held, failure, repetition) is None
        assert "not tried again: " in "".join(failure.__notes__)

    running(test)


def test_what_fails_as_it_begins_anew_is_raised_with_what_came_before() -> None:
    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(retry=ANEW, clock=clock)
        operation = Operation(pipeline.deadline())
        repetition = pipeline.repetition(operation)
        assert repetition is not None
        held = await pipeline.open(script("stream"), operation)
        failure = ServerError("cut")
        held.fail(failure)
        with pytest.raises(BadRequestError, match="wrong") as caught:
            await pipeline.again(script(BadRequestError("wrong")), operation, held, failure, repetition)
        assert "cut" in "".join(caught.value.__notes__)

    running(test)


def test_a_callers_policy_shares_the_budget_unless_it_brings_one() -> None:
    common, own = RetryBudget(minimum=0, ratio=0.0), RetryBudget(minimum=5)

    async def test(clock: VirtualClock) -> None:
        pipeline = Pipeline(retry=ONCE, budget=common, clock=clock)
        for policy, attempts in ((ONCE, 1), (RetryPolicy(max_attempts=2, base_delay=1.0, budget=own), 2)):
            operation = Operation(pipeline.deadline(), policy=policy)
            with pytest.raises(ServerError):
                await pipeline.open(script(*[ServerError("down")] * 3), operation)
            assert operation.attempts == attempts

    running(test)
    assert cast("int", own.snapshot().retries) == 1


def test_a_built_pipeline_repeats_what_it_was_told_to_and_no_more_than_its_budget_allows() -> None:
    async def test(clock: VirtualClock) -> None:
        nothing = RetryBudget(minimum=0, ratio=0.0, clock=clock)
        builder = PipelineBuilder("p").clock(clock)
        for pipeline, failure, attempts in (
            (builder.retry(ONCE, repeats=(ServerError,)).freeze(), ServerError("down"), 3),
            (builder.retry(ONCE, repeats=(ServerError,)).freeze(), LookupError("ours"), 1),
            (builder.retry(ONCE, budget=nothing).freeze(), ServerError("down"), 1),
        ):
            operation = Operation(pipeline.deadline())
            with pytest.raises(type(failure)):
                await pipeline.open(script(*[failure] * 3), operation)
            assert operation.attempts == attempts

    running(test)
