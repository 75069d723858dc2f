"""Intervals hold the next period as often as they say, and are as narrow as the noise lets them be."""

from __future__ import annotations

import numpy as np
import pytest

from agentflow.mcp.optimization.cost.forecast import Estimate, forecast


def dealt(amounts: np.ndarray, groups: int = 50) -> list[float]:
    return [float(amounts[group::groups].sum()) for group in range(groups)]


def test_of_ninety_five_per_cent_about_that_many_hold_the_next_period() -> None:
    """Amounts of runs are skewed as real ones are, and the number of runs is chance too."""
    chance = np.random.default_rng(7)
    inside = widths = 0.0
    for _ in range(400):
        seen, coming = (chance.lognormal(0.0, 1.0, size=int(chance.poisson(800))) for _ in range(2))
        estimate = forecast(float(seen.sum()), dealt(seen), runs=len(seen), days=1.0)
        inside += estimate.holds(float(coming.sum()))
        widths += estimate.width or 0.0
    assert 0.92 <= inside / 400 <= 0.985
    # The truth's own spread: 2 × 1.96 × √2 × (standard deviation of the sum / the sum).
    ideal = 2 * 1.96 * 2**0.5 * (np.exp(1.0) ** 0.5) / 800**0.5
    assert widths / 400 == pytest.approx(ideal, rel=0.15)


def test_too_few_runs_have_no_bounds() -> None:
    estimate = forecast(3.0, [1.0] * 3, runs=19, days=2.0)
    assert (estimate.value, estimate.low, estimate.high, estimate.width) == (1.5, None, None, None)
    assert not estimate.holds(1.5)


def test_what_a_few_of_many_runs_have_brought_has_no_bounds() -> None:
    assert forecast(6.0, [2.0] * 3 + [0.0] * 47, runs=600, days=1.0).low is None
    assert forecast(6.0, [0.5] * 12 + [0.0] * 38, runs=600, days=1.0).low is not None


def test_what_cannot_cost_has_no_lower_bound_below_nothing() -> None:
    drops = [0.05] * 49 + [0.4]
    assert forecast(0.5, drops, runs=60, days=1.0, least=0.0).low == 0.0
    assert (forecast(0.5, drops, runs=60, days=1.0).low or 0.0) < 0.0


def test_a_month_is_thirty_days_and_a_bit() -> None:
    month = Estimate(1.0, 0.5, 2.0).a_month()
    assert (month.value, month.low, month.high) == pytest.approx((30.4375, 15.21875, 60.875))
