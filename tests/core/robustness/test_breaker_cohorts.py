"""Calls that began together: which share of them failed, in whatever order they end."""

from __future__ import annotations

import pytest

from agentflow.core.robustness.breaker_cohorts import Cohorts


def test_the_share_is_of_the_cohort_and_of_the_one_before() -> None:
    cohorts = Cohorts(10)
    for number in (1, 2, 11, 12, 13, 21):
        cohorts.failed(number)
    assert [cohorts.share(number, 1_000) for number in (1, 10)] == [0.2, 0.2]
    assert [cohorts.share(number, 1_000) for number in (11, 20)] == [0.25, 0.25]
    assert [cohorts.share(number, 1_000) for number in (21, 30)] == [0.2, 0.2]
    assert cohorts.share(31, 1_000) == 0.05
    assert cohorts.share(41, 1_000) == 0.0


@pytest.mark.parametrize(("begun", "share"), [(12, 1 / 12), (15, 1 / 15), (20, 1 / 20), (99, 1 / 20)])
def test_of_those_that_have_begun_so_far(begun: int, share: float) -> None:
    cohorts = Cohorts(10)
    cohorts.failed(12)
    assert cohorts.share(12, begun) == share


def test_dropped_ones_are_not_counted() -> None:
    cohorts = Cohorts(10)
    cohorts.failed(1)
    for number in range(2, 10):
        cohorts.dropped(number)
    assert cohorts.share(1, 10) == 0.5
    assert cohorts.share(11, 20) == 1 / 12


def test_nothing_is_divided_by_zero_where_all_were_dropped() -> None:
    cohorts = Cohorts(2)
    cohorts.dropped(1)
    assert cohorts.share(1, 1) == 0.0


def test_the_cohorts_that_were_noted_first_are_forgotten_when_there_are_thousands() -> None:
    cohorts = Cohorts(1)
    for number in range(1, 4_097):
        cohorts.failed(number)
    assert cohorts.share(1, 10_000) == 1.0
    cohorts.failed(5_000)
    assert cohorts.share(1, 10_000) == 0.0
    assert cohorts.share(2, 10_000) == 0.5
    assert len(cohorts._noted) == 4_096
