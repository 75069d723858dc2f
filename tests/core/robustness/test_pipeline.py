"""The pipeline: its one order, what each attempt pays, what is given back, and that whoever leaves leaves nothing."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed
from agentflow.core.robustness.attempt import current_attempt, idempotency_key
from agentflow.core.robustness.breaker_window import CountWindow
from agentflow.core.robustness.circuit_breaker import BreakerState, CircuitBreaker
from agentflow.core.robustness.fault_injector import FaultInjector
from agentflow.core.robustness.hedging import Hedge
from agentflow.core.robustness.load_shedder import LoadShedder, Priority
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.pipeline import Pipeline, lent
from agentflow.core.robustness.pipeline_builder import PipelineBuilder, PipelineOrderWarning
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.resource_pool import ResourcePool
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.core.robustness.timeout import limit, remaining
from agentflow.errors import (
    BadRequestError,
    CircuitOpenError,
    LimiterError,
    LoadShedError,
    OperationTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)

T = TypeVar("T")

QUICK = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none")


class Guards:
    """One of each guard, on a clock that jumps, and the pipeline of them."""

    def __init__(self, clock: VirtualClock | None = None, **stages: Any) -> None:
        self.clock = clock or VirtualClock()
        self.shedder = LoadShedder(limit=Fixed(2), target_wait=None, clock=self.clock)
        self.limiter = RateLimiter(
            requests_per_minute=60, tokens_per_minute=6000, concurrency=2, burst=0.1, clock=self.clock
        )
        self.breaker = CircuitBreaker(
            name="b", window=CountWindow(10), min_calls=3, open_for=30.0, jitter=0.0, clock=self.clock
        )
        options: dict[str, Any] = {
            "timeout": 100.0,
            "retry": QUICK,
            "shedder": self.shedder,
            "limiter": self.limiter,
            "breaker": self.breaker,
            "clock": self.clock,
        }
        self.pipeline = Pipeline("p", **{**options, **stages})

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.clock.run(main)

    def assert_free(self) -> None:
        assert (self.shedder.in_flight, self.shedder.queued) == (0, 0)
        assert (self.limiter.in_use, self.limiter.waiting) == (0, 0)
        assert self.breaker.counts().probes == 0


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


# ---- the order


def test_the_description_names_every_stage_in_the_order_in_which_a_call_passes_it() -> None:
    guards = Guards(attempt_timeout=10.0)
    lines = guards.pipeline.describe().splitlines()
    titles = ["p", "total time-out", "load shedder", "retry", "each attempt:", "rate limiter", "circuit breaker"]
    assert [line.strip().startswith(title) for line, title in zip(lines, titles, strict=False)] == [True] * 7
    assert lines[-2:] == ["    attempt time-out  10 s", "    the call"]


def test_stages_named_in_another_order_warn_and_run_in_the_right_one() -> None:
    builder = PipelineBuilder("odd").retry(QUICK).timeout(5)
    with pytest.warns(PipelineOrderWarning, match=r"odd: timeout was named after retry, but it comes before it: "):
        odd = builder.freeze()
    with warnings.catch_warnings(action="error"):
        assert PipelineBuilder("odd").timeout(5).retry(QUICK).freeze().describe() == odd.describe()


def test_a_builder_is_a_value_and_takes_each_stage_once() -> None:
    builder = PipelineBuilder("p").timeout(5)
    builder.retry(QUICK)
    assert "retry" not in builder.freeze().describe()
    with pytest.raises(ValueError, match=r"timeout was named twice"):
        builder.timeout(6)


def test_every_stage_can_be_named_and_is_described() -> None:
    clock = VirtualClock()

    async def make() -> int:
        return 1

    builder = (
        PipelineBuilder("all")
        .timeout(60)
        .shed(LoadShedder(clock=clock))
        .hedge(Hedge(after=1.0, clock=clock))
        .retry(QUICK, budget=RetryBudget(clock=clock))
        .limit(RateLimiter(clock=clock))
        .pool(ResourcePool(make, clock=clock))
        .breaker(CircuitBreaker(clock=clock))
        .attempt_timeout(5)
        .faults(FaultInjector(seed=1, clock=clock))
        .clock(clock)
    )
    with warnings.catch_warnings(action="error"):
        text = builder.freeze().describe()
    assert len(text.splitlines()) == 12
    assert " object at 0x" not in text


@pytest.mark.parametrize("stage", ["timeout", "attempt_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_out_that_is_none_is_refused(stage: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{stage} is seconds above 0"):
        Pipeline(**{stage: seconds})  # type: ignore[arg-type]


# ---- calls


def test_what_the_call_returns_is_returned_and_everything_is_given_back() -> None:
    guards = Guards()
    assert guards.run(guards.pipeline.run(script("done"))) == "done"
    guards.assert_free()
    assert guards.breaker.counts().calls == 1


def test_a_pipeline_without_stages_is_the_call_alone() -> None:
    error = ValueError("mine")
    pipeline = Pipeline()
    assert VirtualClock().run(pipeline.run(script("done"))) == "done"
    with pytest.raises(ValueError, match=r"^mine$") as caught:
        VirtualClock().run(pipeline.run(script(error)))
    assert caught.value is error


def test_as_a_decorator_it_keeps_name_arguments_and_type() -> None:
    guards = Guards()

    @guards.pipeline
    async def double(number: int, *, plus: int = 0) -> int:
        """Twice."""
        return 2 * number + plus

    assert guards.run(double(3, plus=1)) == 7
    assert (double.__name__, double.__doc__) == ("double", "Twice.")


def test_an_error_is_tried_again_and_each_attempt_pays_for_itself() -> None:
    guards = Guards()
    call = script(OverloadedError("busy"), ServerError("down"), "done")
    assert guards.run(guards.pipeline.run(call, input_tokens=10)) == "done"
    assert guards.clock.monotonic() == 1.0 + 2.0
    counts = guards.breaker.counts()
    assert (counts.calls, counts.failures) == (3, 2)
    guards.assert_free()


def test_the_last_failure_is_raised_itself_with_those_before_as_notes() -> None:
    guards = Guards(breaker=None)
    errors = [OverloadedError("busy"), ServerError("down"), ServerError("still")]
    with pytest.raises(ServerError) as caught:
        guards.run(guards.pipeline.run(script(*errors)))
    assert caught.value is errors[2]
    assert [note.split(";")[0] for note in caught.value.__notes__] == [
        "attempt 1 of 3: OverloadedError: busy",
        "attempt 2 of 3: ServerError: down",
    ]


def test_only_the_errors_that_may_be_repeated_are() -> None:
    pipeline = Pipeline(retry=QUICK, repeats=(ServerError,))
    call = script(ValueError("a bug"), "never")
    with pytest.raises(ValueError, match="a bug"):
        VirtualClock().run(pipeline.run(call))
    assert VirtualClock().run(call()) == "never"


def test_a_wait_that_would_outlast_the_limit_is_not_begun() -> None:
    guards = Guards(timeout=5.0)
    error = RateLimitError("slow down", retry_after=20.0)
    with pytest.raises(RateLimitError) as caught:
        guards.run(guards.pipeline.run(script(error, "never")))
    assert caught.value is error
    assert guards.clock.monotonic() == 0.0


def test_calls_share_a_budget_for_retries() -> None:
    budget = RetryBudget(ratio=0.0, minimum=3, clock=VirtualClock())
    pipeline = Pipeline(retry=QUICK, budget=budget)
    attempts = 0

    async def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise ServerError("down")

    async def storm() -> None:
        for _ in range(10):
            with pytest.raises(ServerError):
                await pipeline.run(fail)

    VirtualClock().run(storm())
    assert attempts == 10 + 3


# ---- limits of time


def test_the_total_limit_spans_attempts_and_waits() -> None:
    guards = Guards(timeout=10.0)
    with pytest.raises(OperationTimeoutError, match=r"^p took longer than 10 s") as caught:
        guards.run(guards.pipeline.run(script(ServerError("x"), 60.0)))
    assert caught.value.seconds == 10.0
    assert guards.clock.monotonic() == 10.0
    guards.assert_free()


def test_the_callers_limit_wins_over_the_pipelines() -> None:
    guards = Guards(timeout=10.0)
    with pytest.raises(OperationTimeoutError):
        guards.run(guards.pipeline.run(script(60.0), timeout=3.0))
    assert guards.clock.monotonic() == 3.0


def test_an_attempt_has_its_own_limit_and_the_next_one_anew() -> None:
    guards = Guards(attempt_timeout=5.0)
    assert guards.run(guards.pipeline.run(script(60.0, 60.0, 4.0))) == 4.0
    assert guards.clock.monotonic() == 5 + 1 + 5 + 2 + 4


def test_time_spent_in_a_queue_does_not_count_for_the_attempt() -> None:
    guards = Guards(attempt_timeout=5.0, shedder=None)

    async def main() -> list[object]:
        return await asyncio.gather(*(guards.pipeline.run(script(4.0)) for _ in range(6)))

    assert guards.run(main()) == [4.0] * 6  # two at once: the last two wait for eight seconds


def test_what_runs_inside_has_no_more_time_than_what_is_around() -> None:
    inner = Pipeline("inner", timeout=60.0)
    outer = Pipeline("outer", timeout=10.0)
    seen: list[float] = []

    async def deep() -> None:
        seen.append(remaining())
        await asyncio.sleep(60)

    with pytest.raises(OperationTimeoutError):
        VirtualClock().run(outer.run(lambda: inner.run(deep)))
    assert seen == [10.0]


def test_a_limit_around_bounds_the_pipeline_and_its_waits() -> None:
    guards = Guards()

    async def main() -> None:
        with limit(2.0, "request"):
            await guards.pipeline.run(script(RateLimitError("slow", retry_after=5.0), "never"))

    with pytest.raises(RateLimitError):
        guards.run(main())
    assert guards.clock.monotonic() == 0.0


def test_the_attempts_limit_bounds_what_runs_inside_as_well() -> None:
    seen: list[float] = []

    async def deep() -> None:
        seen.append(remaining())

    VirtualClock().run(Pipeline(timeout=60.0, attempt_timeout=5.0).run(deep))
    assert seen == [5.0]


def test_a_task_that_outlives_the_call_is_not_bound_by_its_limit_any_more() -> None:
    async def main() -> float:
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def later() -> None:
            await asyncio.sleep(30)
            done.set_result(remaining())

        async def call() -> asyncio.Task[None]:
            return asyncio.create_task(later())

        task = await Pipeline(timeout=10.0).run(call)
        await task
        return await done

    assert VirtualClock().run(main()) == float("inf")


# ---- what the guards hear


def test_nobody_queues_for_what_is_known_to_be_down() -> None:
    guards = Guards(retry=None, shedder=None)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ServerError):
                await guards.pipeline.run(script(ServerError("down")))
        (await guards.limiter.reserve(requests=3)).release()  # nothing is left: who comes now has to wait
        with pytest.raises(CircuitOpenError):
            await guards.pipeline.run(script("never"))

    guards.run(main())
    assert guards.limiter.waiting == 0


def test_a_breaker_that_opens_while_one_waits_refuses_and_the_limiter_gets_its_share_back() -> None:
    guards = Guards(retry=None, shedder=None)

    async def main() -> None:
        held = [await guards.limiter.reserve() for _ in range(2)]
        waiting = asyncio.create_task(guards.pipeline.run(script("never"), input_tokens=50))
        await asyncio.sleep(0)
        guards.breaker.force_open()
        for reservation in held:
            reservation.cancel()
        with pytest.raises(CircuitOpenError):
            await waiting

    guards.run(main())
    guards.assert_free()
    assert guards.limiter.available().tokens == 600


def test_a_refusal_of_our_own_is_not_repeated_and_costs_nothing() -> None:
    guards = Guards()
    guards.breaker.force_open()
    call = script("never")
    with pytest.raises(CircuitOpenError):
        guards.run(guards.pipeline.run(call))
    assert guards.clock.monotonic() == 0.0
    assert guards.run(call()) == "never"


def test_when_the_breaker_opens_between_attempts_the_real_failure_is_raised() -> None:
    guards = Guards(retry=RetryPolicy(max_attempts=9, base_delay=1.0, jitter="none"))
    errors = [ServerError(str(number)) for number in range(9)]
    with pytest.raises(ServerError) as caught:
        guards.run(guards.pipeline.run(script(*errors)))
    assert caught.value is errors[2]  # the third opens it
    assert "not tried again: b: " in caught.value.__notes__[-1]


def test_a_429_drains_the_limiter_and_leaves_the_breaker_alone() -> None:
    guards = Guards(retry=None, shedder=None)

    async def main() -> float:
        for _ in range(5):
            with pytest.raises(RateLimitError):
                await guards.pipeline.run(script(RateLimitError("slow down", retry_after=7.0)))
        await guards.pipeline.run(script("done"))
        return guards.clock.monotonic()

    assert guards.run(main()) == pytest.approx(5 * 7.0)
    assert guards.breaker.state is BreakerState.CLOSED
    guards.assert_free()


@pytest.mark.parametrize("error", [QuotaExceededError("no money", retry_after=7.0), BadRequestError("wrong")])
def test_what_waiting_does_not_mend_drains_nothing(error: Exception) -> None:
    guards = Guards(retry=None)

    async def main() -> object:
        with pytest.raises(type(error)):
            await guards.pipeline.run(script(error))
        return await guards.pipeline.run(script("done"))

    assert guards.run(main()) == "done"
    assert guards.clock.monotonic() == 0.0


def test_one_absurd_retry_after_does_not_close_the_limiter_for_a_month() -> None:
    guards = Guards(retry=None, timeout=None, shedder=None)

    async def main() -> None:
        with pytest.raises(RateLimitError):
            await guards.pipeline.run(script(RateLimitError("never", retry_after=4_294_967.0)))
        await guards.pipeline.run(script("done"))

    guards.run(main())
    assert guards.clock.monotonic() == pytest.approx(300.0)


def test_a_failed_attempt_gives_its_tokens_back_and_an_unknown_one_keeps_them() -> None:
    def left(outcome: object) -> float:
        guards = Guards(retry=None, timeout=5.0)
        with pytest.raises((ServerError, OperationTimeoutError)):
            guards.run(guards.pipeline.run(script(outcome), input_tokens=600))
        guards.assert_free()
        return guards.limiter.available().tokens

    assert left(ServerError("down")) == 600
    assert left(60.0) == pytest.approx(500)  # 600 were taken, and five seconds gave 500 back


def test_signs_of_overload_lower_the_shedders_limit_also_when_a_later_attempt_succeeds() -> None:
    clock = VirtualClock()
    shedder = LoadShedder(limit=AIMD(initial=100), clock=clock)
    pipeline = Pipeline(shedder=shedder, retry=QUICK, clock=clock)
    assert clock.run(pipeline.run(script(OverloadedError("busy"), "done"))) == "done"
    assert (shedder.limit, shedder.in_flight) == (9, 0)  # of a limit that was hardly used


def test_a_queue_is_bounded_by_the_time_that_is_left() -> None:
    guards = Guards(timeout=5.0)

    async def main() -> list[object]:
        calls = [guards.pipeline.run(script(4.0)) for _ in range(2)]
        calls += [guards.pipeline.run(script(0.5), priority=Priority.LOW, timeout=2.0)]
        return await asyncio.gather(*calls, return_exceptions=True)

    *served, refused = guards.run(main())
    assert served == [4.0, 4.0]
    assert isinstance(refused, LoadShedError)
    guards.assert_free()


def test_a_limiter_that_cannot_serve_in_time_refuses_at_once() -> None:
    guards = Guards(timeout=5.0, retry=None, shedder=None)

    async def main() -> None:
        for _ in range(6):
            await guards.pipeline.run(script("done"), input_tokens=100)
        await guards.pipeline.run(script("never"), input_tokens=600)

    with pytest.raises(LimiterError) as caught:
        guards.run(main())
    assert caught.value.retry_after == pytest.approx(6.0)
    assert guards.clock.monotonic() == 0.0


# ---- nested calls


def test_three_layers_that_repeat_make_the_attempts_of_one() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise ServerError("down")

    layers = [Pipeline(f"layer {number}", retry=QUICK) for number in range(3)]
    work: Callable[[], Coroutine[Any, Any, None]] = fail
    for layer in layers:
        work = layer(work)
    with pytest.raises(ServerError):
        VirtualClock().run(work())
    assert calls == 3


def test_an_inner_layer_takes_over_what_the_outer_was_told_explicitly() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise ServerError("down")

    async def main() -> None:
        outer, inner = Pipeline("outer", retry=QUICK), Pipeline("inner", retry=QUICK)
        explicit = RetryPolicy(max_attempts=5, base_delay=0.0)
        await outer.open(lambda: inner.run(fail), Operation(outer.deadline(), policy=explicit))

    with pytest.raises(ServerError):
        VirtualClock().run(main())
    assert calls == 5


def test_one_idempotency_key_for_all_attempts_and_another_for_the_next_call() -> None:
    keys: list[str | None] = []
    outcomes = [ServerError("x"), ServerError("y"), "done", "done"]

    async def call() -> object:
        keys.append(idempotency_key())
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def main() -> None:
        pipeline = Pipeline(retry=QUICK)
        await pipeline.run(call)
        await pipeline.run(call)

    VirtualClock().run(main())
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert current_attempt.get() is None


# ---- a pool, faults, hedges


def test_each_attempt_is_lent_a_resource_of_the_pool() -> None:
    made: list[int] = []
    seen: list[int] = []

    async def make() -> int:
        made.append(len(made))
        return made[-1]

    async def main() -> None:
        pool = ResourcePool(make, size=1)
        pipeline = Pipeline(pool=pool, retry=QUICK)
        outcomes = [ServerError("x"), None]

        async def use() -> None:
            seen.append(lent(pool))
            if (error := outcomes.pop(0)) is not None:
                raise error

        await pipeline.run(use)
        assert (pool.in_use, pool.idle) == (0, 1)
        with pytest.raises(LookupError, match="nothing of this pool is lent here"):
            lent(pool)
        await pool.aclose()

    VirtualClock().run(main())
    assert (made, seen) == ([0], [0, 0])


def test_an_injected_fault_is_like_one_of_the_call() -> None:
    guards = Guards()
    faults = FaultInjector(seed=1, error=lambda: ServerError("injected"), error_rate=1.0, clock=guards.clock)
    pipeline = Pipeline("p", retry=QUICK, breaker=guards.breaker, faults=faults, clock=guards.clock)
    with pytest.raises(ServerError, match="injected"):
        guards.run(pipeline.run(script("never")))
    assert guards.breaker.counts().failures == 3


def test_of_hedged_calls_the_first_answer_counts_and_the_other_is_cancelled_and_told() -> None:
    guards = Guards(hedge=Hedge(after=2.0, budget=1.0), retry=None)
    lost: list[str] = []

    async def main() -> object:
        deadline = guards.pipeline.deadline()
        held = await guards.pipeline.open(script(50.0, 1.0), Operation(deadline, on_loss=lambda: lost.append("one")))
        held.succeed()
        deadline.close()
        return held.value

    assert guards.run(main()) == 1.0
    assert guards.clock.monotonic() == 3.0
    assert lost == ["one"]
    guards.assert_free()


@pytest.mark.parametrize("hedged", [False, True])
def test_a_key_that_is_given_is_that_of_all_attempts_but_not_of_a_request_beside_them(hedged: bool) -> None:
    """One that must be the same in another process; a server would take a second request with it for the first."""
    keys: list[str | None] = []
    hedge = Hedge(after=2.0, budget=1.0) if hedged else None
    guards = Guards(hedge=hedge, retry=QUICK)

    async def work() -> str:
        keys.append(idempotency_key())
        await asyncio.sleep(50.0 if hedged and len(keys) == 1 else 0.0)
        if len(keys) < 3:
            raise ServerError("x")
        return "done"

    async def main() -> None:
        deadline = guards.pipeline.deadline()
        operation = Operation(deadline)
        operation.key = "f" * 32
        (await guards.pipeline.open(work, operation)).succeed()
        deadline.close()

    guards.run(main())
    assert keys[0] == "f" * 32
    assert keys[1:].count("f" * 32) == (0 if hedged else 2)
    assert keys[1] == keys[2]


# ---- what is held


@pytest.mark.parametrize("end", ["succeed", "fail", "leave"])
def test_what_an_open_call_holds_is_held_until_it_ends_and_given_back_once(end: str) -> None:
    guards = Guards(retry=None)

    async def main() -> None:
        deadline = guards.pipeline.deadline()
        held = await guards.pipeline.open(script("stream"), Operation(deadline, input_tokens=100))
        assert (guards.shedder.in_flight, guards.limiter.in_use) == (1, 1)
        ends: Mapping[str, Callable[[], None]] = {
            "succeed": lambda: held.succeed(input_tokens=100, output_tokens=50),
            "fail": lambda: held.fail(ServerError("cut")),
            "leave": held.leave,
        }
        ends[end]()
        for other in ends.values():
            other()
        deadline.close()

    guards.run(main())
    guards.assert_free()
    counts = guards.breaker.counts()
    assert (counts.calls, counts.failures) == {"succeed": (1, 0), "fail": (1, 1), "leave": (0, 0)}[end]
    assert guards.limiter.available().tokens == {"succeed": 450, "fail": 500, "leave": 500}[end]  # it had begun


# ---- who watches


def test_every_decision_is_told_with_its_attempt() -> None:
    guards = Guards(retry=RetryPolicy(max_attempts=5, base_delay=1.0, jitter="none"))
    told: list[tuple[str, int]] = []

    async def tell(kind: str, facts: Mapping[str, object], attempt: int) -> None:
        told.append((kind, attempt))

    async def main() -> None:
        held = [await guards.limiter.reserve() for _ in range(2)]
        asyncio.get_running_loop().call_later(3.0, lambda: [each.cancel() for each in held])
        deadline = guards.pipeline.deadline()
        operation = Operation(deadline, tell=tell, remark=lambda kind, _, attempt: told.append((kind, attempt)))
        with pytest.raises(ServerError):
            await guards.pipeline.open(script(*[ServerError("x")] * 5), operation)
        deadline.close()
        timing = operation.timing(guards.clock.monotonic(), 0.0)
        assert (timing.limiter, timing.backoff, timing.attempts) == (3.0, 1.0 + 2.0 + 4.0, 4)

    guards.run(main())
    assert told == [
        ("limiter_wait", 1),
        ("retry", 1),
        ("retry", 2),
        ("breaker_state", 3),
        ("retry", 3),
        ("rejected", 4),
    ]


# ---- leaving


def busy(guards: Guards, outcomes: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    """The call under test, between others that crowd it."""

    async def main() -> object:
        others = [asyncio.create_task(guards.pipeline.run(script(2.0), input_tokens=50)) for _ in range(3)]
        try:
            await asyncio.sleep(0)
            return await guards.pipeline.run(script(ServerError("x"), outcomes(), "done"), input_tokens=50)
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    return main


@pytest.mark.parametrize("hedged", [False, True])
def test_cancelled_at_any_wait_it_leaves_nothing_behind(hedged: bool) -> None:
    current: list[Guards] = []

    async def operation(clock: VirtualClock) -> object:
        stages: dict[str, Any] = {"hedge": Hedge(after=0.5, budget=1.0, clock=clock)} if hedged else {}
        guards = Guards(clock, attempt_timeout=10.0, **stages)
        current.append(guards)
        return await busy(guards, lambda: 1.5)()

    places = sweep(operation, lambda: current[-1].assert_free())
    assert places >= 5


def test_the_callers_cancellation_is_neither_success_nor_failure() -> None:
    guards = Guards()

    async def main() -> None:
        task = asyncio.create_task(guards.pipeline.run(script(60.0)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    guards.run(main())
    guards.assert_free()
    assert guards.breaker.counts().calls == 0
    assert guards.shedder.limit == 2


def test_a_stray_cancellation_of_what_it_waited_for_is_a_failure_of_the_call() -> None:
    guards = Guards(retry=None)

    async def stray() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(RuntimeError, match="something it awaited was cancelled"):
        guards.run(guards.pipeline.run(stray))
    guards.assert_free()


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(["ok", "slow", "server", "busy", "limited", "bad", "hang"]), min_size=1, max_size=4
            ),
            st.floats(0, 20),  # when it begins
            st.one_of(st.none(), st.floats(0, 15)),  # after how long its caller leaves
            st.sampled_from(list(Priority)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_happens_everything_is_free_in_the_end(
    calls: list[tuple[list[str], float, float | None, Priority]],
) -> None:
    guards = Guards(timeout=30.0)
    kinds: dict[str, Callable[[], object]] = {
        "ok": lambda: "done",
        "slow": lambda: 3.0,
        "server": lambda: ServerError("down"),
        "busy": lambda: OverloadedError("busy"),
        "limited": lambda: RateLimitError("slow down", retry_after=4.0),
        "bad": lambda: BadRequestError("wrong"),
        "hang": lambda: 1000.0,
    }

    async def one(names: list[str], start: float, leave: float | None, priority: Priority) -> None:
        await asyncio.sleep(start)
        call = script(*[kinds[name]() for name in names], *["done"] * 4)
        async with asyncio.timeout(leave):
            await guards.pipeline.run(call, input_tokens=30, output_tokens=20, priority=priority)

    async def main() -> None:
        await asyncio.gather(*(one(*call) for call in calls), return_exceptions=True)
        guards.assert_free()
        await asyncio.sleep(1000)
        assert guards.limiter.available().tokens == 600

    guards.run(main())
