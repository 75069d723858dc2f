"""Cost against quality: what is chosen at each λ, the hull, and the point to aim at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.optimization.router.learning.curve import (
    MOST,
    choices,
    curve_of,
    hull_quality,
    lambdas,
    solve,
)
from agentflow.mcp.optimization.router.learning.hull_policy import HullPolicy
from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.learning.table import Matrix


def outcomes(rows: int, models: int, seed: int) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    quality = np.clip(rng.random((rows, models)) * 0.6 + np.linspace(0.1, 0.4, models), 0, 1)
    cost = rng.random((rows, models)) * 0.1 + np.linspace(0.1, 3, models)
    return quality, cost


def test_without_value_the_cheapest_is_chosen_and_with_endless_value_the_best() -> None:
    quality, cost = outcomes(50, 3, 0)
    assert (choices(quality, cost, 0.0) == cost.argmin(axis=1)).all()
    assert (choices(quality, cost, MOST) == quality.argmax(axis=1)).all()


def test_of_two_equals_the_cheaper_one_is_chosen() -> None:
    assert choices(np.array([[0.5, 0.5]]), np.array([[2.0, 1.0]]), MOST).tolist() == [1]


@settings(max_examples=40)
@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 99))
def test_expected_cost_and_quality_rise_with_the_value(rows: int, models: int, seed: int) -> None:
    quality, cost = outcomes(rows, models, seed)
    curve = curve_of(quality, cost, quality, cost)
    assert (np.diff(curve.quality) >= -1e-9).all()
    assert (np.diff(curve.cost) >= -1e-9).all()


@settings(max_examples=40)
@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 99), st.floats(0.05, 0.95))
def test_a_floor_is_met_exactly_and_a_budget_kept(rows: int, models: int, seed: int, part: float) -> None:
    quality, cost = outcomes(rows, models, seed)
    curve = curve_of(quality, cost, quality, cost)
    floor = float(curve.quality.min() + part * np.ptp(curve.quality))
    aim = solve(curve, Objective(quality_floor=floor))
    assert aim.quality >= floor - 1e-9
    assert aim.quality == pytest.approx(max(floor, curve.quality.min()), abs=1e-6)
    budget = float(curve.cost.min() + part * np.ptp(curve.cost))
    aim = solve(curve, Objective(budget_usd=budget))
    assert aim.cost <= budget + 1e-9


def test_what_cannot_be_reached_is_aimed_at_as_near_as_can_be() -> None:
    quality, cost = outcomes(20, 2, 1)
    curve = curve_of(quality, cost, quality, cost)
    assert solve(curve, Objective(quality_floor=1.0)).quality == pytest.approx(curve.quality.max())
    assert solve(curve, Objective(budget_usd=0.0)).cost == pytest.approx(curve.cost.min())


def test_what_is_given_as_a_value_is_used_as_it_is() -> None:
    """The point's λ is the best of those tried for that value."""
    quality, cost = outcomes(40, 2, 2)
    curve = curve_of(quality, cost, quality, cost)
    aim = solve(curve, Objective(value_usd=2.0))
    assert 2.0 * aim.quality - aim.cost == pytest.approx((2.0 * curve.quality - curve.cost).max())


def test_the_hull_leaves_out_who_is_dearer_and_no_better_than_a_mixture() -> None:
    policy = HullPolicy(("a", "b", "c", "d"), (0.5, 0.55, 0.9, 0.85), (1.0, 2.0, 3.0, 4.0))
    mixture = policy.aimed(Objective(quality_floor=0.7), {}).mixture(policy.models)
    assert (mixture.low, mixture.high) == ("a", "c")
    assert mixture.share == pytest.approx(0.5)
    assert (mixture.cost, mixture.quality) == (pytest.approx(2.0), pytest.approx(0.7))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.05, 0.99), st.floats(0.01, 9)), min_size=2, max_size=6, unique=True),
    st.floats(0, 1),
)
def test_two_ways_to_the_hull_agree(points: list[tuple[float, float]], part: float) -> None:
    """The chain of the policy, and the best of all mixtures of two in the gate."""
    quality, cost = np.array(points).T
    policy = HullPolicy(tuple(map(str, range(len(points)))), tuple(quality), tuple(cost))
    budget = float(cost.min() + part * np.ptp(cost))
    mixture = policy.aimed(Objective(budget_usd=budget), {}).mixture(policy.models)
    [best] = hull_quality(quality[None], cost[None], np.array([budget]))
    assert mixture.quality == pytest.approx(best, abs=1e-9)
    assert mixture.cost <= budget * (1 + 1e-9) + 1e-12


def test_values_are_tried_on_both_sides_of_every_turn() -> None:
    tried = lambdas(np.array([[0.2, 0.7]]), np.array([[1.0, 2.0]]))
    assert tried[0] == 0
    assert tried[-1] == MOST
    assert ((tried > 1.9) & (tried < 2.0)).any()
    assert ((tried > 2.0) & (tried < 2.1)).any()
