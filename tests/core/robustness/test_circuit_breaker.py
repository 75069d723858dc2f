"""The circuit breaker: when it opens, whom it lets probe, what it ignores, and that nobody leaves it stuck."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.abandoned import Collecting, abandon, for_ever
from tests.support.sweep import sweep

from agentflow.clock import SystemClock, VirtualClock
from agentflow.core.robustness.breaker_machine import BreakerCounts
from agentflow.core.robustness.breaker_permit import Permit
from agentflow.core.robustness.breaker_state import TRANSITIONS, BreakerEvent, BreakerState, diagram
from agentflow.core.robustness.breaker_window import CountWindow, TimeWindow, Window
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.decision import Decision
from agentflow.errors import BadRequestError, CircuitOpenError, OperationTimeoutError, RateLimitError, ServerError

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
DAY = 86_400.0


def breaker_of(clock: VirtualClock, **options: Any) -> CircuitBreaker:
    """A breaker that is easy to reason about: 4 calls, half of them, 10 s, no jitter."""
    defaults: dict[str, Any] = {
        "name": "test",
        "window": CountWindow(10),
        "min_calls": 4,
        "failure_rate": 0.5,
        "open_for": 10.0,
        "max_open": 60.0,
        "jitter": 0.0,
        "half_open_calls": 3,
        "half_open_wait": 60.0,
    }
    return CircuitBreaker(clock=clock, **{**defaults, **options})


def succeed(breaker: CircuitBreaker, times: int = 1, seconds: float | None = None) -> None:
    for _ in range(times):
        breaker.acquire().success(seconds)


def fail(breaker: CircuitBreaker, times: int = 1, error: BaseException | None = None) -> None:
    for _ in range(times):
        breaker.acquire().failure(error or ServerError("down"))


def refusal(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    return caught.value


def opened(clock: VirtualClock, **options: Any) -> CircuitBreaker:
    breaker = breaker_of(clock, **options)
    fail(breaker, 4)
    assert breaker.state is OPEN
    return breaker


def half_open(clock: VirtualClock, **options: Any) -> CircuitBreaker:
    breaker = opened(clock, **options)
    clock.advance(breaker.retry_after or 0.0)
    assert breaker.state is HALF_OPEN
    return breaker


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


# ---- closed: what opens it


def test_too_few_calls_open_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    fail(breaker, 3)
    assert breaker.state is CLOSED


def test_it_opens_exactly_at_the_failure_rate(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    succeed(breaker, 2)
    fail(breaker)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_just_below_the_failure_rate_it_stays_closed(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate=0.51)
    succeed(breaker, 2)
    fail(breaker, 2)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("percent", range(1, 101))
def test_no_rate_is_lost_to_rounding(clock: VirtualClock, percent: int) -> None:
    breaker = breaker_of(clock, window=CountWindow(100), min_calls=100, failure_rate=percent / 100)
    fail(breaker, percent - 1)
    succeed(breaker, 100 - percent)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_a_success_that_completes_the_minimum_may_open_it(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    fail(breaker, 3)
    succeed(breaker)
    assert breaker.state is OPEN


def test_old_calls_leave_the_count_window(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    succeed(breaker, 2)
    fail(breaker)
    succeed(breaker, 20)
    fail(breaker, 4)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_after_a_long_good_time_failures_open_it_as_soon_as_the_window_says(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    succeed(breaker, 1000)
    late = breaker.acquire()
    fail(breaker, 4)
    assert (breaker.state, breaker.counts().calls, breaker.counts().failures) == (CLOSED, 10, 4)
    late.success()
    assert breaker.counts().failures == 4
    fail(breaker)
    assert breaker.state is OPEN


def test_a_slow_call_after_a_long_good_time_is_recorded(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0)
    succeed(breaker, 100, seconds=1.0)
    succeed(breaker, 1, seconds=3.0)
    assert breaker.counts().slow == 1


def test_old_calls_leave_the_time_window_bucket_by_bucket(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, window=TimeWindow(10.0, 10))
    fail(breaker, 3)
    clock.advance(9.9)
    assert breaker.counts().calls == 3
    clock.advance(0.1)
    assert breaker.counts().calls == 0
    fail(breaker, 3)
    assert breaker.state is CLOSED


def test_a_success_may_open_it_when_older_ones_have_left_the_time_window(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, window=TimeWindow(10.0, 10))
    succeed(breaker, 4)
    clock.advance(5.0)
    fail(breaker, 3)
    assert breaker.state is CLOSED
    clock.advance(5.0)
    succeed(breaker)
    assert breaker.state is OPEN


def test_slow_calls_open_it_at_their_own_rate(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0, slow_rate=0.75)
    succeed(breaker, 1, seconds=0.1)
    succeed(breaker, 2, seconds=2.1)
    assert breaker.state is CLOSED
    succeed(breaker, 1, seconds=2.1)
    assert breaker.state is OPEN
    assert "3 of 4 calls took longer than 2 s" in str(refusal(breaker))


def test_the_reason_is_the_rate_that_was_reached(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0, slow_rate=0.75)
    fail(breaker)
    succeed(breaker, 3, seconds=2.1)
    assert "3 of 4 calls took longer than 2 s" in str(refusal(breaker))


def test_a_call_of_exactly_the_slow_time_is_not_slow(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0)
    succeed(breaker, 10, seconds=2.0)
    assert breaker.counts().slow == 0


def test_the_time_since_acquire_counts_where_none_is_given(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0)
    slow, quick, timed = breaker.acquire(), breaker.acquire(), breaker.acquire()
    quick.success()
    clock.advance(2.5)
    slow.success()
    timed.success(1.0)
    assert breaker.counts().slow == 1


def test_failed_calls_may_be_slow_too(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=2.0)
    breaker.acquire().failure(ServerError("down"), 3.0)
    counts = breaker.counts()
    assert (counts.failures, counts.slow) == (1, 1)


def test_without_a_slow_time_nothing_is_slow(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    succeed(breaker, 20, seconds=1e9)
    assert breaker.counts() == BreakerCounts(
        CLOSED, calls=10, failures=0, slow=0, under_way=0, probes=0, refused=0, generation=0
    )


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, 0.0])
def test_a_senseless_duration_is_not_slow(clock: VirtualClock, seconds: float) -> None:
    breaker = breaker_of(clock, slow_call=2.0)
    succeed(breaker, 1, seconds=seconds)
    assert (breaker.counts().calls, breaker.counts().slow) == (1, 0)


# ---- closed: calls under way


def begun(breaker: CircuitBreaker, times: int) -> list[Permit]:
    return [breaker.acquire() for _ in range(times)]


def failures_until_open(breaker: CircuitBreaker, permits: list[Permit]) -> int:
    for count, permit in enumerate(permits):
        if breaker.state is OPEN:
            return count
        permit.failure(OperationTimeoutError("total", 60.0))
    return len(permits)


def test_what_is_under_way_has_not_failed_yet(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    under_way = begun(breaker, 5)
    fail(breaker, 4)
    assert (breaker.state, breaker.counts().under_way) == (CLOSED, 5), "4 of 9"
    under_way.pop().failure(ServerError("down"))
    assert breaker.state is OPEN, "5 of 9"


def test_of_ten_thousand_under_way_five_hundred_may_fail_in_an_instant(clock: VirtualClock) -> None:
    """A cold start: one of twenty fails at once, and the answers take a minute."""
    breaker = CircuitBreaker(clock=clock)
    permits = begun(breaker, 10_000)
    for permit in permits[::20]:
        permit.failure(ServerError("down"))
    counts = breaker.counts()
    assert (counts.state, counts.calls, counts.failures, counts.under_way) == (CLOSED, 50, 50, 9_500)
    for permit in permits:
        permit.success()
    assert (breaker.state, breaker.counts().failures, breaker.counts().under_way) == (CLOSED, 0, 0)


@pytest.mark.parametrize("window", [CountWindow(50), TimeWindow(60.0)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("faults", "state"), [(0.05, CLOSED), (0.3, CLOSED), (0.7, OPEN), (1.0, OPEN)])
def test_it_opens_at_its_rate_however_much_sooner_failures_come_back(
    window: Window, seed: int, faults: float, state: BreakerState
) -> None:
    """A thousand places that are taken again at once; a failure takes up to 0.2 s, an answer 60."""
    clock = VirtualClock(seed=seed)
    breaker = CircuitBreaker(window=window, open_for=60.0, clock=clock)
    random = Random(seed)
    steps: list[list[Permit]] = [[] for _ in range(20)]  # those that will fail, by hundredths of a second
    free = 1_000
    for step in range(500):
        for _ in range(free):
            if breaker.state is CLOSED:
                permit = breaker.acquire()
                if random.random() < faults:
                    steps[(step + random.randrange(1, 20)) % 20].append(permit)
        ends = steps[step % 20]
        free = len(ends)
        for permit in ends:
            permit.failure(ServerError("down"))
        ends.clear()
        clock.advance(0.01)
    assert breaker.state is state


def test_a_full_outage_opens_after_the_fewest_calls_that_count(clock: VirtualClock) -> None:
    one_by_one, crowd = CircuitBreaker(clock=clock), CircuitBreaker(clock=clock)
    fail(one_by_one, 9)
    assert one_by_one.state is CLOSED
    fail(one_by_one)
    assert one_by_one.state is OPEN
    permits = begun(crowd, 10_000)
    assert failures_until_open(crowd, permits) == 25, "half of the fifty that began first"


def test_an_outage_opens_it_though_thousands_of_long_answers_are_under_way(clock: VirtualClock) -> None:
    breaker = CircuitBreaker(clock=clock)
    begun(breaker, 10_000)
    fail(breaker, 49)
    assert breaker.state is CLOSED, "as many that began just before are well, so far"
    fail(breaker, 1)
    assert breaker.state is OPEN


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_black_hole_opens_it_once_that_share_of_the_calls_has_timed_out(
    clock: VirtualClock, rate: float, seed: int
) -> None:
    """In any order: that some who began together have all timed out, comes no later."""
    breaker = CircuitBreaker(failure_rate=rate, clock=clock)
    permits = begun(breaker, 2_000)
    Random(seed).shuffle(permits)
    assert 0.5 * rate * 2_000 < failures_until_open(breaker, permits) <= rate * 2_000


def test_dropped_and_ignored_calls_are_not_under_way_any_more(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    dropped, ignored = begun(breaker, 50), begun(breaker, 50)
    for permit in dropped:
        permit.drop()
        permit.drop()
    for permit in ignored:
        permit.failure(RateLimitError("slow down"))
    assert breaker.counts().under_way == 0
    fail(breaker, 4)
    assert breaker.state is OPEN


def test_of_those_that_began_together_the_dropped_do_not_count(clock: VirtualClock) -> None:
    """Ten begin, and a thousand others after them: six are dropped, and two of the four that are left fail."""
    breaker = breaker_of(clock, min_calls=2)
    together = begun(breaker, 10)
    begun(breaker, 1_000)
    for permit in together[:6]:
        permit.drop()
    together[6].failure(ServerError("down"))
    assert breaker.state is CLOSED
    together[7].failure(ServerError("down"))
    assert breaker.state is OPEN


def test_slow_calls_open_it_whatever_is_under_way(clock: VirtualClock) -> None:
    """They end after the quick ones, so that they are never too many of those that have ended."""
    breaker = breaker_of(clock, slow_call=2.0, slow_rate=0.75)
    begun(breaker, 1_000)
    succeed(breaker, 4, seconds=3.0)
    assert breaker.state is OPEN


def test_calls_of_an_earlier_generation_are_not_under_way_in_this_one(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    earlier = begun(breaker, 100)
    breaker.reset()
    assert breaker.counts().under_way == 0
    fail(breaker, 3)
    for permit in earlier:
        permit.success()
    assert breaker.counts().under_way == 0
    fail(breaker, 1)
    assert breaker.state is OPEN


# ---- permits


def test_only_the_first_report_counts(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    permit = breaker.acquire()
    permit.success()
    permit.failure(ServerError("down"))
    permit.success()
    permit.drop()
    assert (breaker.counts().calls, breaker.counts().failures) == (1, 0)


def test_a_dropped_permit_records_nothing_even_if_it_reports_later(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    permit = breaker.acquire()
    permit.drop()
    permit.failure(ServerError("down"))
    assert breaker.counts().calls == 0


def test_an_ignored_error_records_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    fail(breaker, 20, RateLimitError("slow down"))
    assert breaker.counts().calls == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_is_no_exception_records_nothing_whatever_the_classifier_says(
    clock: VirtualClock, error: BaseException
) -> None:
    breaker = breaker_of(clock, classify=lambda _: "failure")
    fail(breaker, 20, error)
    assert breaker.counts().calls == 0


def test_our_own_time_out_is_a_failure(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    fail(breaker, 4, OperationTimeoutError("total", 1.0))
    assert breaker.state is OPEN


def test_a_classifier_decides(clock: VirtualClock) -> None:
    def classify(error: BaseException) -> Literal["failure", "ignore"]:
        return "failure" if isinstance(error, KeyError) else "ignore"

    breaker = breaker_of(clock, classify=classify)
    fail(breaker, 1, KeyError())
    fail(breaker, 1, ServerError("down"))
    assert (breaker.counts().calls, breaker.counts().failures) == (1, 1)


def test_a_classifier_that_raises_is_replaced_by_the_default(clock: VirtualClock) -> None:
    def classify(error: BaseException) -> Literal["failure", "ignore"]:
        raise ZeroDivisionError

    breaker = breaker_of(clock, classify=classify)
    fail(breaker)
    fail(breaker, 1, RateLimitError("slow down"))
    assert (breaker.counts().calls, breaker.counts().failures) == (1, 1)


# ---- open


def test_open_it_refuses_and_says_why_and_until_when(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, name="openai/gpt-4o")
    succeed(breaker, 2)
    fail(breaker, 2)
    clock.advance(2.5)
    error = refusal(breaker)
    assert str(error) == "openai/gpt-4o: open, because 2 of 4 calls failed; next probe in 7.5 s"
    assert (error.guard, error.retry_after) == ("openai/gpt-4o", 7.5)
    assert (breaker.retry_after, breaker.open_until) == (7.5, 10.0)


def test_check_refuses_as_acquire_does_and_takes_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    breaker.check()
    fail(breaker, 4)
    with pytest.raises(CircuitOpenError):
        breaker.check()
    clock.advance(10.0)
    for _ in range(10):
        breaker.check()
    assert breaker.counts().probes == 0
    for _ in range(3):
        breaker.acquire()
    with pytest.raises(CircuitOpenError):
        breaker.check()


def test_it_is_half_open_at_the_very_moment_its_time_is_over(clock: VirtualClock) -> None:
    breaker = opened(clock)
    clock.advance(9.999)
    assert breaker.state is OPEN
    clock.advance(0.001)
    assert (breaker.state, breaker.open_until, breaker.retry_after) == (HALF_OPEN, None, 0.0)


def test_a_late_result_neither_prolongs_nor_closes_it(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    late = [breaker.acquire() for _ in range(4)]
    fail(breaker, 4)
    until = breaker.open_until
    clock.advance(5.0)
    for permit in late[:2]:
        permit.failure(ServerError("down"))
    for permit in late[2:]:
        permit.success()
    assert (breaker.state, breaker.open_until) == (OPEN, until)
    assert breaker.counts().calls == 4  # what opened it


def test_a_late_result_is_no_probe(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    late = [breaker.acquire() for _ in range(4)]
    fail(breaker, 4)
    clock.advance(10.0)
    probe = breaker.acquire()
    for permit in late:
        permit.failure(ServerError("down"))
    assert (breaker.state, breaker.counts().calls, breaker.counts().probes) == (HALF_OPEN, 0, 1)
    probe.success()
    assert breaker.counts().calls == 1


def test_a_result_from_before_a_whole_round_is_ignored(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    late = breaker.acquire()
    fail(breaker, 4)
    clock.advance(10.0)
    succeed(breaker, 2)
    assert breaker.state is CLOSED
    late.failure(ServerError("down"))
    assert breaker.counts().calls == 0


# ---- how long it is open


def reopened(breaker: CircuitBreaker, clock: VirtualClock) -> float:
    """Fail the next probes; how long it is open then."""
    clock.advance(breaker.retry_after or 0.0)
    while breaker.state is HALF_OPEN:
        fail(breaker)
    return breaker.retry_after or 0.0


def test_each_opening_in_a_row_lasts_longer_up_to_the_cap(clock: VirtualClock) -> None:
    breaker = opened(clock, growth=2.0, max_open=60.0)
    assert breaker.retry_after == pytest.approx(10.0)
    assert [reopened(breaker, clock) for _ in range(4)] == pytest.approx([20.0, 40.0, 60.0, 60.0])


def test_a_good_end_resets_the_growth(clock: VirtualClock) -> None:
    breaker = opened(clock)
    assert reopened(breaker, clock) == pytest.approx(20.0)
    clock.advance(20.0)
    succeed(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker, 4)
    assert breaker.retry_after == pytest.approx(10.0)


def test_an_outage_of_years_overflows_nothing(clock: VirtualClock) -> None:
    breaker = opened(clock, growth=1e300, max_open=1e9)
    for _ in range(10):
        assert reopened(breaker, clock) == pytest.approx(1e9)


def test_jitter_spreads_the_openings_around_their_length() -> None:
    lengths = []
    for seed in range(300):
        clock = VirtualClock(seed=seed)
        lengths.append(opened(clock, jitter=0.2).retry_after or 0.0)
    assert 8.0 <= min(lengths) < 8.2
    assert 11.8 < max(lengths) <= 12.0
    assert sum(lengths) / len(lengths) == pytest.approx(10.0, abs=0.2)


def test_jitter_does_not_grow_into_the_next_opening() -> None:
    clock = VirtualClock(seed=3)
    breaker = opened(clock, jitter=0.1)
    assert 18.0 <= reopened(breaker, clock) <= 22.0


# ---- half open


def test_fifty_callers_at_once_let_three_through(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    through = 0

    async def call() -> str:
        nonlocal through
        with breaker.guard():
            through += 1
            await asyncio.sleep(1.0)
            return "fine"

    async def main() -> list[str | BaseException]:
        return await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)

    results = clock.run(main())
    assert through == 3
    assert results.count("fine") == 3
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 47
    assert breaker.state is CLOSED


def test_good_probes_close_it_with_a_fresh_window(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    succeed(breaker, 2)
    assert (breaker.state, breaker.counts().calls) == (CLOSED, 0)
    fail(breaker, 3)
    assert breaker.state is CLOSED


def test_bad_probes_open_it(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.state is OPEN
    assert "2 of 3 probes failed" in str(refusal(breaker))


@pytest.mark.parametrize(("slow_call", "state"), [(None, CLOSED), (2.0, HALF_OPEN)])
def test_it_closes_as_soon_as_no_probe_that_is_left_could_change_that(
    clock: VirtualClock, slow_call: float | None, state: BreakerState
) -> None:
    """Two are left: even if both failed, not all would have. But they may be slow, where slow ones count."""
    breaker = half_open(clock, failure_rate=1.0, slow_call=slow_call, slow_rate=0.1)
    succeed(breaker)
    assert breaker.state is state


def test_slow_probes_open_it(clock: VirtualClock) -> None:
    breaker = half_open(clock, slow_call=2.0, slow_rate=0.6)
    succeed(breaker, 2, seconds=3.0)
    assert breaker.state is OPEN
    assert "probes took longer than 2 s" in str(refusal(breaker))


def outcomes_of(breaker: CircuitBreaker, outcomes: tuple[bool, ...]) -> Iterator[BreakerState]:
    permits = [breaker.acquire() for _ in outcomes]
    for permit, failed in zip(permits, outcomes, strict=True):
        permit.failure(ServerError("down")) if failed else permit.success()
        yield breaker.state


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("outcomes", list(itertools.product([False, True], repeat=4)))
def test_probes_are_judged_as_the_whole_batch_is_and_no_later_than_needed(
    clock: VirtualClock, rate: float, outcomes: tuple[bool, ...]
) -> None:
    breaker = half_open(clock, half_open_calls=4, failure_rate=rate)
    end = OPEN if sum(outcomes) / 4 >= rate else CLOSED
    for known, state in enumerate(outcomes_of(breaker, outcomes), 1):
        ends = {sum(outcomes[:known]) / 4 + left / 4 >= rate for left in range(4 - known + 1)}
        assert state is (end if len(ends) == 1 else HALF_OPEN)


def test_one_probe_that_hangs_does_not_keep_out_everybody_if_the_others_decide(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    hanging = breaker.acquire()
    succeed(breaker, 2)
    assert breaker.state is CLOSED
    hanging.failure(ServerError("down"))
    assert breaker.counts().calls == 0


def test_dropped_and_ignored_probes_are_given_back(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    for _ in range(20):
        breaker.acquire().drop()
        fail(breaker, 1, RateLimitError("slow down"))
        fail(breaker, 1, asyncio.CancelledError())
    assert (breaker.state, breaker.counts().calls, breaker.counts().probes) == (HALF_OPEN, 0, 0)


def test_probes_that_ended_use_up_the_batch(clock: VirtualClock) -> None:
    breaker = half_open(clock, half_open_calls=2, failure_rate=1.0)
    fail(breaker)
    probe = breaker.acquire()
    refusal(breaker)
    probe.success()
    assert breaker.state is CLOSED


def test_while_probes_are_out_the_refusal_names_a_small_time(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    for _ in range(3):
        breaker.acquire()
    error = refusal(breaker)
    assert error.retry_after == breaker.retry_after == 1.0
    assert "half open (4 of 4 calls failed)" in str(error)
    clock.advance(59.5)
    assert refusal(breaker).retry_after == pytest.approx(0.5)


def test_a_probe_stuck_for_ever_opens_it_again_and_is_void(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    stuck = [breaker.acquire() for _ in range(3)]
    clock.advance(59.9)
    assert breaker.state is HALF_OPEN
    clock.advance(0.1)
    assert breaker.state is OPEN
    assert breaker.retry_after == pytest.approx(20.0)
    assert "a probe was out for 60 s" in str(refusal(breaker))
    clock.advance(20.0)
    for permit in stuck:
        permit.success()
    assert (breaker.state, breaker.counts().calls, breaker.counts().probes) == (HALF_OPEN, 0, 0)
    succeed(breaker, 2)
    assert breaker.state is CLOSED


def test_a_stuck_probes_own_late_report_finds_it_open(clock: VirtualClock) -> None:
    breaker = half_open(clock, half_open_calls=1)
    stuck = breaker.acquire()
    clock.advance(61.0)
    stuck.success()
    assert breaker.state is OPEN


def test_time_without_callers_is_no_fault_of_the_probes(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    clock.advance(DAY)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    clock.advance(DAY)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


# ---- the clock jumps


def test_an_end_in_the_middle_of_a_decision_is_entered_with_the_time_at_which_it_came(clock: VirtualClock) -> None:
    """The lock is held meanwhile: in real life by another thread."""
    breaker = breaker_of(clock, window=TimeWindow(60.0))
    permits = [breaker.acquire() for _ in range(4)]
    with breaker._ledger._turn:
        for permit in permits:
            permit.failure(ServerError("down"))
        clock.advance(3.0)
    assert breaker.state is OPEN
    assert breaker.retry_after == 10.0 - 3.0


def test_a_jump_of_a_day_makes_an_open_one_half_open(clock: VirtualClock) -> None:
    breaker = opened(clock)
    clock.advance(DAY)
    assert breaker.state is HALF_OPEN


def test_a_jump_of_a_day_with_probes_out_ends_half_open_after_both_changes() -> None:
    clock = VirtualClock()
    heard: list[Decision] = []
    breaker = half_open(clock, listener=heard.append)
    stuck = breaker.acquire()
    heard.clear()
    clock.advance(DAY)
    assert breaker.state is HALF_OPEN
    assert [decision.data["to"] for decision in heard] == ["open", "half_open"]
    stuck.failure(ServerError("down"))
    assert breaker.counts().calls == 0


def test_a_jump_of_a_day_empties_a_time_window(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, window=TimeWindow())
    fail(breaker, 3)
    clock.advance(DAY)
    fail(breaker, 3)
    assert (breaker.state, breaker.counts().calls) == (CLOSED, 3)


def test_a_day_of_outages_in_no_time(clock: VirtualClock) -> None:
    """Ten minutes of every hour the service is down; a caller comes each second."""
    breaker = breaker_of(clock, window=TimeWindow(60.0, 10))
    tried = {True: 0, False: 0}

    async def main() -> None:
        for second in range(int(DAY)):
            down = second % 3600 < 600
            try:
                permit = breaker.acquire()
            except CircuitOpenError:
                pass
            else:
                tried[down] += 1
                permit.failure(ServerError("down")) if down else permit.success()
            clock.advance(1.0)

    clock.run(main())
    assert tried[True] < 24 * 60  # of 24 × 600
    assert tried[False] > 24 * (3000 - 65)  # at most one longest opening is lost each time
    assert breaker.state is CLOSED


# ---- by hand


@pytest.mark.parametrize(
    ("command", "words"),
    [("force_open", "forced open by hand"), ("disable", "disabled by hand"), ("reset", "reset by hand")],
)
def test_the_listener_hears_that_it_was_done_by_hand(clock: VirtualClock, command: str, words: str) -> None:
    heard: list[Decision] = []
    getattr(opened(clock, listener=heard.append), command)()
    assert heard[-1].data["reason"] == words


def test_forced_open_refuses_until_reset(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    breaker.force_open()
    clock.advance(DAY)
    error = refusal(breaker)
    assert str(error) == "test: forced open by hand; reset() closes it"
    assert (breaker.state, error.retry_after, breaker.retry_after, breaker.open_until) == (
        FORCED_OPEN,
        None,
        None,
        None,
    )
    breaker.reset()
    assert breaker.state is CLOSED
    succeed(breaker)


def test_disabled_it_lets_all_through_and_counts(clock: VirtualClock) -> None:
    breaker = opened(clock)
    breaker.disable()
    fail(breaker, 8)
    breaker.check()
    assert (breaker.state, breaker.counts().calls, breaker.counts().failures) == (DISABLED, 8, 8)
    assert breaker.retry_after == 0.0
    breaker.reset()
    assert (breaker.state, breaker.counts().calls) == (CLOSED, 0)


def test_reset_forgets_the_calls_under_way_and_the_growth(clock: VirtualClock) -> None:
    breaker = opened(clock)
    reopened(breaker, clock)
    breaker.reset()
    late = breaker.acquire()
    breaker.reset()
    late.failure(ServerError("down"))
    assert breaker.counts().calls == 0
    fail(breaker, 4)
    assert breaker.retry_after == pytest.approx(10.0)


def test_a_command_comes_after_what_time_has_brought(clock: VirtualClock) -> None:
    heard: list[Decision] = []
    breaker = opened(clock, listener=heard.append)
    clock.advance(DAY)
    breaker.reset()
    assert [decision.data["to"] for decision in heard] == ["open", "half_open", "closed"]


def test_commands_that_change_nothing_are_quiet(clock: VirtualClock) -> None:
    heard: list[Decision] = []
    breaker = breaker_of(clock, listener=heard.append)
    breaker.force_open()
    breaker.force_open()
    breaker.disable()
    breaker.disable()
    assert [decision.data["to"] for decision in heard] == ["forced_open", "disabled"]
    assert breaker.counts().generation == 2


def test_held_open_it_is_open_for_so_long(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    late = breaker.acquire()
    breaker.hold_open(5.0)
    assert (breaker.state, breaker.retry_after) == (OPEN, 5.0)
    assert "held open for another process" in str(refusal(breaker))
    late.success()
    clock.advance(5.0)
    assert breaker.state is HALF_OPEN


def test_holding_an_open_one_takes_the_later_end(clock: VirtualClock) -> None:
    breaker = opened(clock)
    breaker.hold_open(5.0)
    assert breaker.retry_after == 10.0
    breaker.hold_open(12.0)
    assert breaker.retry_after == 12.0
    assert breaker.counts().generation == 1


def test_holding_a_half_open_one_voids_its_probes_and_no_growth_comes_of_it(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    probe = breaker.acquire()
    breaker.hold_open(5.0)
    probe.success()
    assert (breaker.state, breaker.counts().probes) == (OPEN, 0)
    assert reopened(breaker, clock) == pytest.approx(20.0)


@pytest.mark.parametrize("command", ["force_open", "disable"])
def test_holding_has_no_effect_on_what_is_set_by_hand(clock: VirtualClock, command: str) -> None:
    breaker = breaker_of(clock)
    getattr(breaker, command)()
    state = breaker.state
    breaker.hold_open(5.0)
    assert breaker.state is state


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_holding_for_a_time_that_is_over_does_nothing(clock: VirtualClock, seconds: float) -> None:
    breaker = breaker_of(clock)
    breaker.hold_open(seconds)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_holding_without_an_end_is_refused(clock: VirtualClock, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be finite"):
        breaker_of(clock).hold_open(seconds)


# ---- as a context manager and as a decorator


def test_a_block_is_recorded_by_how_it_ends(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    with breaker.guard():
        pass
    for error in (ServerError("down"), BadRequestError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), breaker.guard():
            raise error
    assert (breaker.counts().calls, breaker.counts().failures) == (2, 1)


def test_a_block_may_settle_its_permit_itself(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call=1.0)
    with breaker.guard() as permit:
        permit.success(0.3)
        clock.advance(100.0)
    assert (breaker.counts().calls, breaker.counts().slow) == (1, 0)


def test_a_guard_that_is_not_entered_holds_nothing(clock: VirtualClock) -> None:
    breaker = half_open(clock)
    guards = [breaker.guard() for _ in range(10)]
    with guards[0], guards[1], guards[2]:
        with pytest.raises(CircuitOpenError), guards[3]:
            pass


def test_a_permit_is_a_block_too(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    with breaker.acquire() as permit:
        assert isinstance(permit, Permit)
    assert breaker.counts().calls == 1


def test_it_decorates_coroutine_functions(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)

    @breaker
    async def ask(question: str, *, loud: bool = False) -> str:
        """Docs."""
        await asyncio.sleep(1.0)
        if loud:
            raise ServerError("down")
        return question

    assert inspect.iscoroutinefunction(ask)
    assert (ask.__name__, ask.__doc__) == ("ask", "Docs.")
    assert clock.run(ask("why")) == "why"
    for _ in range(3):
        with pytest.raises(ServerError):
            clock.run(ask("why", loud=True))
    with pytest.raises(CircuitOpenError):
        clock.run(ask("why"))


def test_it_decorates_plain_functions(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)

    @breaker
    def half(number: int) -> float:
        return 1 / number

    assert half(2) == 0.5
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            half(0)
    with pytest.raises(CircuitOpenError):
        half(2)


def test_a_function_that_returns_something_to_await_is_guarded_until_that_ends(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)

    async def work(answer: int) -> int:
        raise ServerError("down")

    @breaker
    def start(answer: int) -> Awaitable[int]:
        return work(answer)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ServerError):
                await start(42)
            with pytest.raises(ServerError):
                await breaker(partial(work, 42))()

    clock.run(main())
    assert breaker.state is OPEN


def test_it_does_not_decorate_generators(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match="is a generator"):
            breaker(function)


# ---- cancellation


def test_a_cancelled_probe_records_nothing_and_gives_its_permit_back(clock: VirtualClock) -> None:
    breaker = half_open(clock, half_open_calls=1)

    @breaker
    async def call() -> None:
        await asyncio.sleep(1.0)

    async def main() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0.5)
        refusal(breaker)
        task.cancel()
        await asyncio.wait([task])
        assert (breaker.counts().calls, breaker.counts().probes) == (0, 0)
        await call()
        assert breaker.state is CLOSED

    clock.run(main())


@pytest.mark.parametrize("form", ["guard", "decorator"])
def test_cancelled_anywhere_no_probe_stays_out_and_others_are_let_through(form: str) -> None:
    breakers: list[CircuitBreaker] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)

    async def guarded(breaker: CircuitBreaker) -> None:
        if form == "decorator":
            return await breaker(work)()
        with breaker.guard():
            await work()

    async def operation(clock: VirtualClock) -> None:
        breaker = half_open(clock, half_open_calls=2, failure_rate=1.0)
        breakers.append(breaker)
        fail(breaker)  # one probe is left: two callers contend for it, and the second comes after the first
        rival = asyncio.create_task(rivalry(breaker))
        try:
            await guarded(breaker)
        finally:
            rival.cancel()
            await asyncio.wait([rival])

    async def rivalry(breaker: CircuitBreaker) -> None:
        while True:
            await asyncio.sleep(0.05)
            if breaker.state is HALF_OPEN and breaker.retry_after == 0.0:
                breaker.acquire().drop()

    def check() -> None:
        breaker = breakers[-1]
        counts = breaker.counts()
        assert counts.probes == 0
        if breaker.state is HALF_OPEN:  # the call did not get to its end
            assert counts.calls == 1
            succeed(breaker)
        assert breaker.state is CLOSED

    assert sweep(operation, check) >= 3


# ---- the garbage collector


@pytest.mark.timeout(10)
def test_a_probe_that_the_collector_drops_in_the_midst_of_a_decision_does_not_hang() -> None:
    clock = Collecting()
    breaker = half_open(clock, jitter=0.1)

    async def probe() -> None:
        with breaker.guard():
            await for_ever()

    abandon(probe())
    assert breaker.counts().probes == 1
    probe_again = breaker.acquire()
    breaker.acquire().failure(ServerError("down"))
    clock.when = breaker._ledger._turn.lock.locked
    probe_again.failure(ServerError("down"))  # opens it, for a random time that is asked for under the lock
    assert clock.collected == 1
    assert breaker.state is OPEN
    assert breaker.counts().probes == 0


@pytest.mark.timeout(10)
def test_a_failure_that_is_recorded_in_the_midst_of_a_decision_is_told_after_it() -> None:
    heard: list[tuple[object, object]] = []
    held: list[Permit] = []

    class Recording(VirtualClock):
        def random(self) -> float:
            for permit in [*held]:
                held.remove(permit)
                permit.failure(ServerError("down"))
                assert not heard  # the listener may ask the breaker, whose lock is taken
            return super().random()

    def listen(decision: Decision) -> None:
        heard.append((decision.data["from"], decision.data["to"]))
        assert breaker.state is OPEN

    breaker = breaker_of(Recording(), jitter=0.1, listener=listen)
    held.append(breaker.acquire())
    fail(breaker, 4)
    assert heard == [("closed", "open")]


# ---- threads and loops


def test_threads_count_every_call_once() -> None:
    breaker = CircuitBreaker(window=TimeWindow(1e6, 2), failure_rate=1.0)

    def work(number: int) -> None:
        for _ in range(500):
            permit = breaker.acquire()
            permit.failure(ServerError("down")) if number % 2 else permit.success()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert (breaker.counts().calls, breaker.counts().failures) == (4000, 2000)


def test_threads_that_settle_one_permit_record_one_call() -> None:
    breaker = CircuitBreaker()
    for _ in range(50):
        permit, start = breaker.acquire(), threading.Barrier(4)

        def settle(permit: Permit = permit, start: threading.Barrier = start) -> None:
            start.wait()
            permit.success()

        threads = [threading.Thread(target=settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert breaker.counts().calls == 50


def test_threads_together_get_no_more_probes_than_there_are(clock: VirtualClock) -> None:
    for _ in range(20):
        breaker = half_open(clock)
        start = threading.Barrier(8)

        def attempt(_: int, breaker: CircuitBreaker = breaker, start: threading.Barrier = start) -> int:
            start.wait()
            try:
                breaker.acquire()
            except CircuitOpenError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(attempt, range(8))) == 3


def test_two_event_loops_in_two_threads_share_one_breaker() -> None:
    breaker = CircuitBreaker(min_calls=5, open_for=1e-6, max_open=1e-6, jitter=0.0, half_open_wait=30.0)
    inside, most = 0, 0
    lock = threading.Lock()

    async def call(number: int) -> None:
        nonlocal inside, most
        try:
            with breaker.guard():
                half = breaker.counts().state is HALF_OPEN
                with lock:
                    inside += half
                    most = max(most, inside)
                await asyncio.sleep(0)
                with lock:
                    inside -= half
                if number % 3:
                    raise ServerError("down")
        except (CircuitOpenError, ServerError):
            pass

    async def main() -> None:
        for _ in range(20):
            await asyncio.gather(*(call(number) for number in range(20)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.counts().probes == 0
    assert breaker.counts().generation > 2


# ---- the listener


def test_the_listener_hears_each_change_and_each_refusal(clock: VirtualClock) -> None:
    heard: list[Decision] = []
    breaker = breaker_of(clock, listener=heard.append)
    fail(breaker, 4)
    clock.advance(4.0)
    refusal(breaker)
    clock.advance(6.0)
    succeed(breaker, 2)
    assert [(decision.kind, decision.guard, dict(decision.data)) for decision in heard] == [
        (
            "breaker_state",
            "test",
            {"from": "closed", "to": "open", "reason": "4 of 4 calls failed", "open_for": 10.0},
        ),
        ("breaker_refused", "test", {"state": "open", "reason": "4 of 4 calls failed", "retry_after": 6.0}),
        (
            "breaker_state",
            "test",
            {"from": "open", "to": "half_open", "reason": "4 of 4 calls failed", "open_for": None},
        ),
        (
            "breaker_state",
            "test",
            {"from": "half_open", "to": "closed", "reason": "the probes went well", "open_for": None},
        ),
    ]


def test_a_listener_that_raises_changes_nothing(clock: VirtualClock) -> None:
    def listener(decision: Decision) -> None:
        raise RuntimeError(decision.kind)

    breaker = half_open(clock, listener=listener)
    fail(breaker, 2)
    refusal(breaker)
    clock.advance(20.0)
    succeed(breaker, 2)
    assert breaker.state is CLOSED


def test_a_listener_may_ask_the_breaker_and_command_it(clock: VirtualClock) -> None:
    states: list[BreakerState] = []

    def listener(decision: Decision) -> None:
        states.append(breaker.state)
        if decision.data.get("to") == "open":
            breaker.force_open()

    breaker = breaker_of(clock, listener=listener)
    fail(breaker, 4)
    assert (states, breaker.state) == ([OPEN, FORCED_OPEN], FORCED_OPEN)


def test_refusals_are_counted(clock: VirtualClock) -> None:
    breaker = opened(clock)
    refusal(breaker)
    with pytest.raises(CircuitOpenError):
        breaker.check()
    assert breaker.counts().refused == 2


# ---- the table


def test_the_diagram_holds_exactly_the_transitions_of_the_table() -> None:
    first, start, *lines = diagram().splitlines()
    assert (first, start.strip()) == ("stateDiagram-v2", "[*] --> closed")
    drawn = [re.fullmatch(r" {4}(\w+) --> (\w+): ([a-z ]+)", line) for line in lines]
    pairs = [
        ((BreakerState(match[1]), BreakerEvent(match[3].replace(" ", "_"))), BreakerState(match[2]))
        for match in drawn
        if match
    ]
    assert len(pairs) == len(lines) == len(TRANSITIONS)
    assert dict(pairs) == dict(TRANSITIONS)


def test_every_state_can_be_left_and_reached_and_every_event_is_used() -> None:
    assert {old for old, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(BreakerState)
    assert {event for _, event in TRANSITIONS} == set(BreakerEvent)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[CLOSED, BreakerEvent.WAITED] = OPEN  # type: ignore[index]


# ---- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_calls": 0}, "min_calls must be at least 1, not 0"),
        ({"min_calls": 51}, "min_calls must be at most the window's size (50), not 51"),
        ({"half_open_calls": 0}, "half_open_calls must be at least 1, not 0"),
        ({"failure_rate": 0.0}, "failure_rate must be a share above 0 and up to 1, not 0"),
        ({"failure_rate": 50}, "failure_rate must be a share above 0 and up to 1, not 50"),
        ({"slow_rate": float("nan")}, "slow_rate must be a share above 0 and up to 1, not nan"),
        ({"slow_call": 0.0}, "slow_call must be a finite time above 0 s, not 0"),
        ({"open_for": -1.0}, "open_for must be a finite time above 0 s, not -1"),
        ({"open_for": 300.0}, "max_open must be at least open_for (300 s), not 60"),
        ({"max_open": float("inf")}, "max_open must be a finite time above 0 s, not inf"),
        ({"half_open_wait": 0.0}, "half_open_wait must be a finite time above 0 s, not 0"),
        ({"growth": 0.5}, "growth must be a finite factor of at least 1, not 0.5"),
        ({"jitter": 1.0}, "jitter must be a share from 0 to below 1, not 1"),
        ({"jitter": -0.1}, "jitter must be a share from 0 to below 1, not -0.1"),
    ],
)
def test_senseless_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CircuitBreaker(**options)


def test_the_borders_of_the_arguments_are_allowed() -> None:
    CircuitBreaker(min_calls=50, failure_rate=1, slow_rate=1, growth=1, jitter=0, half_open_calls=1, max_open=15.0)
    CircuitBreaker(min_calls=1000, window=TimeWindow())


def test_it_tells_its_name_and_state() -> None:
    breaker = CircuitBreaker(name="openai", clock=SystemClock())
    assert (repr(breaker), breaker.name) == ("<CircuitBreaker 'openai' closed>", "openai")


# ---- against a naive model


class Model(RuleBasedStateMachine):
    """The rules as one would write them down: lists that are never cleaned up, and every batch tried to its end."""

    window: Window = TimeWindow(30.0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.breaker = breaker_of(self.clock, window=self.window, slow_call=2.0, slow_rate=0.75)
        self.permits: list[tuple[Permit, int, int, float]] = []  # with its generation, number and time
        self.generation = 0
        self.refused = 0
        self.openings = 0
        self.enter(CLOSED)

    def enter(self, state: BreakerState, seconds: float | None = None, at: float | None = None) -> None:
        self.state = state
        self.seen: list[tuple[float, bool, bool]] = [] if state is not OPEN else self.seen
        self.begun: list[str] = []  # what became of each call of this generation, in the order of beginning
        self.out: dict[Permit, float] = {}
        self.until = None if seconds is None else (self.now if at is None else at) + seconds

    def change(self, state: BreakerState, seconds: float | None = None, at: float | None = None) -> None:
        self.generation += 1
        self.enter(state, seconds, at)

    def open(self, at: float | None = None) -> None:
        self.openings += 1
        self.change(OPEN, min(60.0, 10.0 * 2.0 ** (self.openings - 1)), at)

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def rates_reached(self, calls: list[tuple[float, bool, bool]]) -> bool:
        failed, slow = sum(call[1] for call in calls), sum(call[2] for call in calls)
        return failed >= 0.5 * len(calls) or slow >= 0.75 * len(calls)

    def failing(self, number: int) -> bool:
        """As far as those under way allow it; else those that began together, and the group before them."""
        calls, size = self.recent(), self.window.size if isinstance(self.window, CountWindow) else 50
        failed = sum(call[1] for call in calls)
        if failed < 0.5 * len(calls):
            return False
        first = number // size * size
        together = [end for end in self.begun[max(0, first - size) : first + size] if end != "dropped"]
        return failed >= 0.5 * (len(calls) + self.begun.count("under way")) or together.count("failed") >= 0.5 * len(
            together
        )

    def slowed(self) -> bool:
        calls = self.recent()
        return sum(call[2] for call in calls) >= 0.75 * len(calls)

    def pass_time(self) -> None:
        if self.state is HALF_OPEN and self.out and self.now >= min(self.out.values()) + 60.0:
            self.open(at=min(self.out.values()) + 60.0)
        if self.state is OPEN and self.until is not None and self.now >= self.until:
            self.change(HALF_OPEN)

    def recent(self) -> list[tuple[float, bool, bool]]:
        if isinstance(self.window, CountWindow):
            return self.seen[-self.window.size :]
        return [call for call in self.seen if call[0] // 10.0 > self.now // 10.0 - 3]

    def record(self, permit: Permit, generation: int, number: int, failed: bool, slow: bool) -> None:
        self.pass_time()
        if generation != self.generation:
            return
        self.begun[number] = "failed" if failed else "good"
        self.out.pop(permit, None)
        before = self.recent()
        self.seen.append((self.now, failed, slow))
        if self.state is CLOSED:
            news = failed or slow or len(self.recent()) > len(before) or before[0][1:] != (False, False)
            if news and len(self.recent()) >= 4 and (self.slowed() or self.failing(number)):
                self.open()
        elif self.state is HALF_OPEN:
            kinds = list(itertools.product([False, True], repeat=2))
            ends = {
                self.rates_reached([*self.seen, *((0.0, failed, slow) for failed, slow in rest)])
                for rest in itertools.product(kinds, repeat=3 - len(self.seen))
            }
            if ends == {True}:
                self.open()
            elif ends == {False}:
                self.openings = 0
                self.change(CLOSED)

    @rule()
    def acquire(self) -> None:
        self.pass_time()
        full = len(self.out) + len(self.seen) >= 3
        refused = self.state in (OPEN, FORCED_OPEN) or (self.state is HALF_OPEN and full)
        try:
            permit = self.breaker.acquire()
        except CircuitOpenError:
            assert refused
            self.refused += 1
            return
        assert not refused
        self.permits.append((permit, self.generation, len(self.begun), self.now))
        self.begun.append("under way")
        if self.state is HALF_OPEN:
            self.out[permit] = self.now

    @precondition(lambda self: self.permits)
    @rule(
        index=st.integers(0, 50),
        end=st.sampled_from(["success", "success", "failure", "failure", "ignored", "dropped"]),
        seconds=st.sampled_from([None, 0.5, 3.0]),
    )
    def settle(self, index: int, end: str, seconds: float | None) -> None:
        permit, generation, number, since = self.permits.pop(index % len(self.permits))
        slow = (self.now - since if seconds is None else seconds) > 2.0
        if end in ("ignored", "dropped"):
            self.pass_time()
            if generation == self.generation:
                self.begun[number] = "dropped"
            self.out.pop(permit, None)
            permit.failure(RateLimitError("slow down")) if end == "ignored" else permit.drop()
            return
        self.record(permit, generation, number, end == "failure", slow)
        permit.failure(ServerError("down"), seconds) if end == "failure" else permit.success(seconds)
        permit.failure(ServerError("down"))  # what comes second never counts

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0, 20.0, 60.0, DAY]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def hold_open(self, seconds: float) -> None:
        self.pass_time()
        self.breaker.hold_open(seconds)
        if self.state in (CLOSED, HALF_OPEN):
            self.change(OPEN, seconds)
        elif self.until is not None:
            self.until = max(self.until, self.now + seconds)

    @rule(command=st.sampled_from(["force_open", "disable", "reset", "reset", "reset"]))
    def command(self, command: str) -> None:
        self.pass_time()
        getattr(self.breaker, command)()
        state = {"force_open": FORCED_OPEN, "disable": DISABLED, "reset": CLOSED}[command]
        if command == "reset" or state is not self.state:
            self.openings = 0
            self.change(state)

    @invariant()
    def they_agree(self) -> None:
        self.pass_time()
        counts = self.breaker.counts()
        assert (counts.state, counts.generation, counts.refused) == (self.state, self.generation, self.refused)
        assert counts.probes == len(self.out)
        assert counts.under_way == self.begun.count("under way")
        assert self.breaker.open_until == self.until
        if self.state in (CLOSED, DISABLED, HALF_OPEN):
            kept = self.seen if self.state is HALF_OPEN else self.recent()
            assert counts.calls == len(kept)
            assert (counts.failures, counts.slow) == (sum(call[1] for call in kept), sum(call[2] for call in kept))


class CountModel(Model):
    window = CountWindow(5)


TestAgainstTheModel = Model.TestCase
TestAgainstTheModel.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestAgainstTheModelThatCounts = CountModel.TestCase
TestAgainstTheModelThatCounts.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("model", [Model, CountModel])
def test_with_many_under_way_it_agrees_with_the_model_too(model: type[Model], seed: int) -> None:
    """Up to a hundred at once, which end in any order: more than the machine gets together by itself."""
    random, both = Random(seed), model()
    faults = random.choice([0.4, 0.5, 0.6, 0.8])
    for _ in range(300):
        if both.state is not CLOSED:
            both.command("reset")
        if random.random() < 0.2:
            for _ in range(random.randrange(1, 100 - min(98, len(both.permits)))):
                both.acquire()
        elif both.permits:
            end = random.choices(["failure", "success", "dropped"], [faults, 0.9 - faults, 0.1])[0]
            both.settle(random.randrange(len(both.permits)), end, 0.5)
        both.they_agree()
