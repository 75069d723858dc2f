"""Accounts of time: what they begin with, how two calls are added, and what one that came to nothing is worth."""

from __future__ import annotations

from dataclasses import asdict

from agentflow.core.robustness.timing import Timing

FULL = Timing(
    queue=1.0,
    limiter=2.0,
    pool=4.0,
    backoff=8.0,
    failed=16.0,
    first_token=32.0,
    generation=64.0,
    total=128.0,
    attempts=2,
)


def test_an_account_begins_with_one_attempt_and_no_time() -> None:
    assert Timing() == Timing(
        queue=0.0,
        limiter=0.0,
        pool=0.0,
        backoff=0.0,
        failed=0.0,
        first_token=None,
        generation=0.0,
        total=0.0,
        attempts=1,
    )


def test_two_calls_one_after_the_other_took_the_sum_of_everything() -> None:
    other = Timing(
        queue=0.5, limiter=0.25, pool=0.125, backoff=5.0, failed=6.0, first_token=7.0, generation=8.0, total=9.0
    )
    assert FULL + other == Timing(
        queue=1.5,
        limiter=2.25,
        pool=4.125,
        backoff=13.0,
        failed=22.0,
        first_token=39.0,
        generation=72.0,
        total=137.0,
        attempts=3,
    )


def test_an_answer_that_came_whole_adds_no_first_token() -> None:
    assert (Timing() + Timing()).first_token is None
    assert (Timing() + Timing(first_token=0.0)).first_token == 0.0
    assert (FULL + Timing()).first_token == (Timing() + FULL).first_token == 32.0


def test_the_time_of_a_call_that_came_to_nothing_has_failed() -> None:
    """What it waited for stays what it was."""
    failure = FULL.failure
    assert (failure.failed, failure.first_token, failure.generation) == (16.0 + 32.0 + 64.0, None, 0.0)
    assert failure.total == FULL.total
    assert (failure.queue, failure.limiter, failure.pool, failure.backoff, failure.attempts) == (1.0, 2.0, 4.0, 8.0, 2)
    assert Timing(generation=3.0).failure.failed == 3.0


def test_a_timing_as_a_dict_has_all_its_fields() -> None:
    timing = Timing(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10)
    assert timing.as_dict() == asdict(timing)


def test_the_parts_of_a_timing_are_what_is_not_zero_and_what_is_left() -> None:
    timing = Timing(limiter=2.0, first_token=1.0, generation=3.0, total=7.0)
    assert timing.parts == {"limiter": 2.0, "first_token": 1.0, "generation": 3.0, "unattributed": 1.0}
    assert Timing().parts == {}
