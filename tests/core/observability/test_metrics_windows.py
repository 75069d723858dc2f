"""Windows: what happened lately, held against a list of everything that happened."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.metrics.windows import LONGEST, SLOT, Parts, Recent, check_window
from agentflow.errors import ConfigurationError

happened = st.lists(st.tuples(st.floats(0.0, 900.0), st.integers(1, 9)), max_size=60)


def replayed(pauses: list[tuple[float, int]]) -> tuple[Recent[int], list[tuple[float, int]], float]:
    """What was kept, everything that happened with its time, and the time at the end."""
    recent: Recent[int] = Recent(operator.add)
    now, everything = 0.0, []
    for pause, amount in pauses:
        now += pause
        recent.add(int(now // SLOT), amount)
        everything.append((now, amount))
    return recent, everything, now


@given(happened, st.floats(0.0, 5000.0), st.sampled_from([1.0, 7.5, 60.0, 300.0, 301.0, 3600.0]))
def test_a_window_holds_what_happened_in_it_and_at_most_one_slot_more(
    pauses: list[tuple[float, int]], later: float, window: float
) -> None:
    """Nothing that happened within is missing; nothing older than the window and a slot is in it."""
    recent, everything, now = replayed(pauses)
    now += later
    width = SLOT if window <= 300.0 else 60.0
    parts = recent.parts(now)
    found = sum(parts.within(window))
    assert sum(amount for at, amount in everything if at > now - window) <= found
    assert found <= sum(amount for at, amount in everything if at > now - window - width)
    assert window <= parts.reach(window) + 1e-6 <= window + width + 1e-5
    assert found == sum(amount for at, amount in everything if at // width * width > now - parts.reach(window) - 1e-6)


@given(happened)
def test_no_more_is_kept_than_the_windows_need(pauses: list[tuple[float, int]]) -> None:
    """61 slots of either kind, however long it goes on."""
    recent, _, now = replayed(pauses * 10)
    parts = recent.parts(now)
    assert len(parts.fine) <= 61
    assert len(parts.coarse) <= 61
    assert all(0.0 <= age <= 305.0 for age, _ in parts.fine)
    assert all(0.0 <= age <= 3660.0 for age, _ in parts.coarse)


def test_what_comes_late_goes_where_it_belongs() -> None:
    """An amount for an earlier slot, as another process brings it; one that is too late is dropped."""
    recent: Recent[int] = Recent(operator.add)
    for slot in (100, 50, 70, 70, 20, 100):
        recent.add(slot, 1)
    assert [(int(age), amount) for age, amount in recent.parts(502.0).fine] == [(252, 1), (152, 2), (2, 2)]


def test_a_clock_that_jumps_ahead_leaves_the_past_behind() -> None:
    recent: Recent[int] = Recent(operator.add)
    recent.add(1, 5)
    recent.add(1_000_000, 1)
    assert sum(recent.parts(5_000_001.0).within(3600.0)) == 1


def test_parts_seen_later_are_older() -> None:
    """What no window reaches any more is left out."""
    parts = Parts(((2.0, 1), (100.0, 2), (290.0, 3)), ((2.0, 1), (100.0, 5)), 2.0)
    assert parts.older(60.0) == Parts(((62.0, 1), (160.0, 2)), ((62.0, 1), (160.0, 5)), 2.0)
    assert parts.older(1e9) == Parts((), (), 2.0)


def test_what_another_process_saw_takes_its_place_by_age() -> None:
    """The slot that has most of the other one's; what has just begun there has begun here, too."""
    recent: Recent[int] = Recent(operator.add)
    recent.add(20, 1)
    recent.absorb(Parts(((0.0, 2), (12.0, 4)), ((40.0, 6),), 40.0), 103.0)
    parts = recent.parts(103.0)
    assert parts.fine == ((13.0, 4), (3.0, 3))
    assert sum(parts.within(3600.0)) == 7


@pytest.mark.parametrize("window", [0.0, -60.0, LONGEST + 1, float("nan"), float("inf")])
def test_a_window_that_is_not_kept_is_refused(window: float) -> None:
    with pytest.raises(ConfigurationError, match="at most 3600 seconds"):
        check_window(window)
