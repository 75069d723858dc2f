"""What a breaker remembers: the last calls by number or by time, counted as a plain list would count them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.robustness.breaker_window import CountWindow, Ring, TimeWindow

OUTCOMES = st.tuples(st.booleans(), st.booleans())
DAY = 86_400.0


def sums(ring: Ring) -> tuple[int, int, int]:
    return ring.total, ring.failures, ring.slow


def counted(outcomes: list[tuple[bool, bool]]) -> tuple[int, int, int]:
    return len(outcomes), sum(failed for failed, _ in outcomes), sum(slow for _, slow in outcomes)


# ---- the last calls by number


@given(st.integers(1, 12), st.lists(OUTCOMES, max_size=60))
def test_a_count_ring_holds_the_last_calls(size: int, outcomes: list[tuple[bool, bool]]) -> None:
    ring = CountWindow(size).ring()
    for number, (failed, slow) in enumerate(outcomes, 1):
        ring.record(0.0, failed, slow)
        assert sums(ring) == counted(outcomes[:number][-size:])


@given(st.integers(1, 6), st.lists(st.sampled_from([(False, False)] * 5 + [(True, False), (False, True)]), max_size=40))
def test_a_count_ring_is_quiet_when_one_more_good_call_changes_nothing(
    size: int, outcomes: list[tuple[bool, bool]]
) -> None:
    ring = CountWindow(size).ring()
    assert not ring.quiet
    for number, (failed, slow) in enumerate(outcomes, 1):
        ring.record(0.0, failed, slow)
        assert ring.quiet == (number >= size and counted(outcomes[:number][-size:]) == (size, 0, 0))


def test_a_time_ring_is_never_quiet() -> None:
    ring = TimeWindow(1.0, 1).ring()
    for _ in range(100):
        ring.record(0.0, False, False)
        assert not ring.quiet


def test_a_call_may_be_both_failed_and_slow() -> None:
    ring = CountWindow(2).ring()
    ring.record(0.0, True, True)
    assert sums(ring) == (1, 1, 1)


def test_a_count_ring_does_not_grow_old() -> None:
    ring = CountWindow(3).ring()
    ring.record(0.0, True, False)
    ring.move_to(1000 * DAY)
    assert sums(ring) == (1, 1, 0)


def test_two_rings_of_one_window_share_nothing() -> None:
    window = CountWindow(3)
    window.ring().record(0.0, True, True)
    assert sums(window.ring()) == (0, 0, 0)


# ---- the last calls by time


@given(
    st.integers(1, 8),
    st.sampled_from([1.0, 7.0, 60.0]),
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.one_of(st.floats(0, 20), st.floats(0, 1000)), OUTCOMES), max_size=40),
)
def test_a_time_ring_holds_the_calls_of_its_newest_buckets(
    buckets: int, seconds: float, now: float, steps: list[tuple[float, tuple[bool, bool]]]
) -> None:
    ring = TimeWindow(seconds, buckets).ring()
    width = seconds / buckets
    seen: list[tuple[float, tuple[bool, bool]]] = []
    for step, outcome in steps:
        now += step
        ring.record(now, *outcome)
        seen.append((now, outcome))
        kept = [outcome for when, outcome in seen if when // width > now // width - buckets]
        assert sums(ring) == counted(kept)


def test_the_oldest_bucket_goes_when_a_new_one_begins() -> None:
    ring = TimeWindow(60.0, 10).ring()
    for when in (0.0, 5.9, 6.0, 59.9):
        ring.record(when, True, False)
    assert ring.total == 4
    ring.move_to(60.0)  # the first bucket, 0 to 6, goes
    assert sums(ring) == (2, 2, 0)
    ring.move_to(65.9)
    assert ring.total == 2
    ring.move_to(66.0)
    assert ring.total == 1


def test_a_call_exactly_at_the_border_belongs_to_the_new_bucket() -> None:
    ring = TimeWindow(10.0, 2).ring()
    ring.record(5.0, True, False)
    ring.move_to(14.9)
    assert ring.total == 1
    ring.move_to(15.0)
    assert ring.total == 0


def test_moving_on_without_a_call_forgets() -> None:
    ring = TimeWindow(10.0, 5).ring()
    ring.record(0.0, True, True)
    ring.move_to(10.0)
    assert sums(ring) == (0, 0, 0)


def test_a_jump_of_a_day_forgets_all_and_costs_no_more_than_the_buckets() -> None:
    ring = TimeWindow(0.001, 4).ring()
    for _ in range(5):
        ring.record(0.0, True, True)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        ring.record(DAY, False, False)
    finally:
        sys.setprofile(None)
    assert sums(ring) == (1, 0, 0)
    assert calls <= 2 + 4


def test_a_time_that_another_thread_has_overtaken_counts_as_the_newest() -> None:
    ring = TimeWindow(10.0, 5).ring()
    ring.record(100.0, False, False)
    ring.record(97.0, True, False)
    assert sums(ring) == (2, 1, 0)
    ring.move_to(109.9)
    assert sums(ring) == (2, 1, 0)
    ring.move_to(110.0)
    assert sums(ring) == (0, 0, 0)


def test_a_clock_may_begin_below_zero() -> None:
    ring = TimeWindow(10.0, 5).ring()
    ring.record(-1.0, True, False)
    ring.record(0.5, False, False)
    assert sums(ring) == (2, 1, 0)


# ---- the descriptions


def test_windows_are_values() -> None:
    assert CountWindow() == CountWindow(50)
    assert TimeWindow() == TimeWindow(60.0, 10)
    assert len({CountWindow(5), CountWindow(5), TimeWindow(5.0)}) == 2
    with pytest.raises(AttributeError):
        CountWindow().size = 3  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, -1])
def test_a_count_window_remembers_at_least_one_call(size: int) -> None:
    with pytest.raises(ValueError, match=f"size must be at least 1 call, not {size}"):
        CountWindow(size)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_window_is_a_finite_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be a finite time above 0"):
        TimeWindow(seconds)


def test_a_time_window_has_at_least_one_bucket() -> None:
    with pytest.raises(ValueError, match="buckets must be at least 1, not 0"):
        TimeWindow(60.0, 0)
