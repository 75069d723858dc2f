"""Percentiles, means, shares, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.optimization.benchmark.percentiles import (
    BATCHES,
    batches_of,
    mean,
    percentile,
    quantile,
    rank_bounds,
    share,
)

VALUES = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=200)


@given(values=VALUES, p=st.floats(0.001, 1.0))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], p: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, p)
    assert found in values
    assert sum(value <= found for value in values) >= p * len(values) - 1e-6
    assert sum(value < found for value in values) < p * len(values) + 1e-6


@given(values=VALUES, p=st.floats(0.01, 0.999))
def test_an_interval_holds_its_own_estimate(values: list[float], p: float) -> None:
    found = percentile(sorted(values), p, [(value,) for value in values])
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.value <= found.high


@pytest.mark.parametrize(
    ("count", "p", "bounds"),
    [(10, 0.5, (2, 9)), (100, 0.5, (40, 61)), (100, 0.9, (84, 96)), (1_000, 0.99, (983, 997))],
)
def test_the_ranks_are_those_of_the_tables(count: int, p: float, bounds: tuple[int, int]) -> None:
    """Of the exact binomial, as `scipy.stats.binom.ppf` gives them."""
    assert rank_bounds(count, p) == bounds


@settings(max_examples=50)
@given(count=st.integers(1, 3_000), p=st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99, 0.999]))
def test_ranks_cover_with_the_probability_they_claim_and_are_no_wider_than_need_be(count: int, p: float) -> None:
    binom = pytest.importorskip("scipy.stats").binom
    low, high = rank_bounds(count, p)
    assert low == 0 or binom.cdf(low - 1, count, p) <= 0.025 + 1e-9 < binom.cdf(low, count, p) + 2e-9
    assert high == count + 1 or binom.cdf(high - 1, count, p) >= 0.975 - 1e-9
    assert high in (1, count + 1) or binom.cdf(high - 2, count, p) < 0.975 + 1e-9


def test_p999_has_an_upper_end_from_3688_values_on() -> None:
    assert rank_bounds(3_687, 0.999)[1] == 3_688
    assert rank_bounds(3_688, 0.999)[1] == 3_688
    assert percentile([1.0] * 3_687, 0.999).high is None


def coverage(draw: Callable[[Random], list[float]], p: float, truth: float, runs: int = 200) -> tuple[float, float]:
    """How often the interval held the truth: ours, and the one that believes in independence."""
    dice, ours, plain = Random(11), 0, 0
    for _ in range(runs):
        values = draw(dice)
        ordered = sorted(values)
        for groups in ([(value,) for value in values], None):
            found = percentile(ordered, p, groups)
            held = (found.low or 0.0) <= truth <= (math.inf if found.high is None else found.high)
            ours, plain = (ours + held, plain) if groups else (ours, plain + held)
    return ours / runs, plain / runs


def independent(dice: Random) -> list[float]:
    return [dice.lognormvariate(0.0, 1.0) for _ in range(400)]


def dependent(dice: Random) -> list[float]:
    """Neighbours share 90 % of what makes them slow, as under a queue."""
    state, values = dice.gauss(0.0, 1.0), []
    for _ in range(1_200):
        state = 0.9 * state + math.sqrt(1.0 - 0.81) * dice.gauss(0.0, 1.0)
        values.append(math.exp(state))
    return values


@pytest.mark.parametrize("p", [0.5, 0.95])
def test_intervals_of_independent_values_hold_the_truth_in_95_of_100_runs(p: float) -> None:
    truth = math.exp(NormalDist().inv_cdf(p))
    assert coverage(independent, p, truth)[0] >= 0.93


@pytest.mark.parametrize("p", [0.5, 0.95])
def test_intervals_of_dependent_values_hold_it_where_plain_ones_are_far_too_narrow(p: float) -> None:
    truth = math.exp(NormalDist().inv_cdf(p))
    ours, plain = coverage(dependent, p, truth, runs=100)
    assert ours >= 0.88
    assert plain <= 0.65


def test_the_mean_s_interval_holds_the_truth_for_dependent_values_too() -> None:
    dice, held = Random(3), 0
    for _ in range(100):
        found = mean(dependent(dice))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= math.exp(0.5) <= found.high
    assert held / 100 >= 0.88


def test_a_share_s_interval_holds_the_truth_also_near_zero() -> None:
    dice, held = Random(5), 0
    for _ in range(300):
        found = share([float(dice.random() < 0.02) for _ in range(300)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.02 <= found.high
    assert held / 300 >= 0.93


@given(size=st.integers(0, 300))
def test_batches_hold_every_value_once_and_in_order(size: int) -> None:
    values = [(float(number), 1) for number in range(size)]
    batches = batches_of(values)
    assert [value for batch in batches for value in batch] == values
    assert len(batches) == min(size, BATCHES)
    assert not batches or max(map(len, batches)) - min(map(len, batches)) <= 1


def test_infinite_values_stand_at_the_end_and_make_the_mean_infinite() -> None:
    assert quantile([1.0, 2.0, math.inf], 0.5) == 2.0
    assert percentile([1.0, 2.0, math.inf], 0.99).value == math.inf
    assert mean([1.0, math.inf]).value == math.inf
