"""How long a call usually takes, and that a pipeline lets nobody wait until there is no time left for the call."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.adaptive_limit import AIMD
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.usual_time import UsualTime
from agentflow.errors import OperationTimeoutError, RejectedError


def test_before_anything_is_known_all_of_the_time_left_may_be_waited() -> None:
    usual = UsualTime()
    assert usual.seconds == 0.0
    assert usual.wait(30.0) == 30.0


def test_without_a_deadline_any_time_may_be_waited() -> None:
    usual = UsualTime()
    usual.learn(1.0)
    assert usual.wait(math.inf) is None


def test_the_first_call_is_believed_with_a_wide_margin() -> None:
    """RFC 6298: the deviation begins as half of the first sample."""
    usual = UsualTime()
    usual.learn(1.0)
    assert usual.seconds == pytest.approx(3.0)


def test_each_further_call_moves_the_mean_by_an_eighth_and_the_deviation_by_a_quarter() -> None:
    """RFC 6298, section 2.3: the deviation first, from the mean as it was."""
    usual = UsualTime()
    usual.learn(1.0)
    usual.learn(2.0)  # the deviation was 0.5 and is 0.5 + (1 - 0.5) / 4; the mean was 1
    assert usual.seconds == pytest.approx(1.125 + 4 * 0.625)
    usual.learn(2.0)
    assert usual.seconds == pytest.approx(1.234375 + 4 * (0.625 + (0.875 - 0.625) / 4))


def test_calls_that_all_take_the_same_need_no_margin() -> None:
    usual = UsualTime()
    for _ in range(100):
        usual.learn(2.0)
    assert usual.seconds == pytest.approx(2.0)
    assert usual.wait(30.0) == pytest.approx(28.0)


def test_it_follows_a_provider_that_becomes_slow_and_fast_again() -> None:
    usual = UsualTime()
    for seconds in [1.0] * 50 + [8.0] * 50:
        usual.learn(seconds)
    assert usual.seconds == pytest.approx(8.0, rel=0.05)
    for _ in range(100):
        usual.learn(1.0)
    assert usual.seconds == pytest.approx(1.0, rel=0.05)


def test_half_of_the_time_left_may_always_be_waited() -> None:
    """A short call among long ones is not refused for a wait of a moment."""
    usual = UsualTime()
    usual.learn(60.0)
    assert usual.wait(10.0) == 5.0
    assert usual.wait(0.0) == 0.0


def crowd(pipeline: Pipeline, clock: VirtualClock, *, calls: int, every: float) -> Counter[str]:
    """How calls of one second end that come faster than they can be served, each with ten seconds of patience."""

    async def main() -> Counter[str]:
        ends: Counter[str] = Counter()

        async def call() -> None:
            try:
                await pipeline.run(lambda: asyncio.sleep(1.0))
                ends["answered"] += 1
            except RejectedError:
                ends["refused"] += 1
            except OperationTimeoutError:
                ends["cut off"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(call())
                await asyncio.sleep(every)
        return ends

    return clock.run(main())


def test_a_crowd_before_a_limiter_is_answered_or_refused_and_never_cut_off() -> None:
    """Six calls a second where two are allowed: the queue is full to the brim of everybody's patience. Were they let
    wait to the end of it, each would be cut off within its second of work."""
    clock = VirtualClock()
    limiter = RateLimiter(requests_per_minute=120, burst=1 / 60, clock=clock)
    ends = crowd(Pipeline("crowd", timeout=10.0, limiter=limiter, clock=clock), clock, calls=1_200, every=1 / 6)
    assert ends["cut off"] == 0
    assert ends["answered"] == pytest.approx(400, abs=20)
    assert limiter.in_use == 0


def test_a_crowd_before_a_shedder_does_not_drive_its_limit_down() -> None:
    """A call that was begun too late and cut off would count as a sign of overload, though only our own queue was slow:
    the limit would fall, the queue grow, and more calls be cut off, down to one at a time and for good."""
    clock = VirtualClock(seed=3)
    shedder = LoadShedder(limit=AIMD(initial=4, maximum=4), target_wait=None, clock=clock)
    ends = crowd(Pipeline("crowd", timeout=10.0, shedder=shedder, clock=clock), clock, calls=1_800, every=1 / 12)
    assert ends["cut off"] == 0
    assert ends["answered"] == pytest.approx(600, abs=40)
    assert shedder.limit == 4
    assert shedder.in_flight == 0
