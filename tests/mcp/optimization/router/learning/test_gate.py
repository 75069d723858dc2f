"""What was learned decides only where it is proven to be better than the best mixture of single models."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.router.learning.curve import curve_of, solve
from agentflow.mcp.optimization.router.learning.gate import Experience, Verdict, judge
from agentflow.mcp.optimization.router.learning.policy import Objective

COST = np.array([1.0, 10.0])


def verdict(
    signal: float, *, rows: int = 1_500, seed: int = 0, blocks: int | None = None, explored: float = 1
) -> Verdict:
    """`signal` mixes the truth into a forecast that is noise otherwise."""
    rng = np.random.default_rng(seed)
    hard = rng.random(rows) < 0.5
    truth = np.stack([np.where(hard, 0.3, 0.9), np.full(rows, 0.92)], axis=1)
    quality = (rng.random(truth.shape) < truth).astype(float)
    noise = quality.mean(axis=0) + rng.normal(0, 0.1, truth.shape)
    forecast = signal * truth + (1 - signal) * noise
    cost = np.tile(COST, (rows, 1))
    experience = Experience(forecast, cost, quality, cost, np.arange(rows) % (blocks or rows))
    aim = solve(curve_of(forecast, cost, quality, cost), Objective(quality_floor=0.85))
    return judge(experience, aim, explored=explored)


def test_a_real_signal_is_let_decide() -> None:
    found = verdict(1.0)
    assert found.deployed
    assert 0 < found.gain_bound < found.gain
    assert 0 < found.area_bound < found.area
    assert "learned" in found.reason


def test_noise_is_let_decide_in_few_of_forty_cases() -> None:
    """The bounds are one-sided at 95 %: two in forty are expected, both bounds are asked for."""
    assert sum(verdict(0.0, rows=400, seed=seed).deployed for seed in range(40)) <= 4


def test_few_rows_or_few_groups_prove_nothing() -> None:
    assert not verdict(1.0, rows=50).deployed
    assert not verdict(1.0, blocks=5).deployed
    assert "too few" in verdict(1.0, blocks=5).reason


def test_a_log_without_chance_proves_nothing() -> None:
    found = verdict(1.0, explored=0.01)
    assert not found.deployed
    assert "chance" in found.reason


def test_where_the_cheapest_is_the_best_only_the_point_counts() -> None:
    """There is no range of costs to average over, and nothing to gain: the hull stays, without a warning."""
    rng = np.random.default_rng(0)
    quality = (rng.random((300, 2)) < [0.9, 0.5]).astype(float)
    cost = np.tile(COST, (300, 1))
    forecast = np.tile([0.9, 0.5], (300, 1))
    experience = Experience(forecast, cost, quality, cost, np.arange(300))
    aim = solve(curve_of(forecast, cost, quality, cost), Objective(quality_floor=0.9))
    assert not judge(experience, aim).deployed


def test_the_same_seed_gives_the_same_verdict() -> None:
    assert verdict(0.5) == verdict(0.5)
