"""Measures of a router, held against curves whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest

from agentflow.mcp.optimization.router.learning.curve import curve_of
from agentflow.mcp.optimization.router.learning.evaluation import Measures, measures_of
from agentflow.mcp.optimization.router.learning.table import Matrix

ROWS = 4_000


def outcomes() -> tuple[Matrix, Matrix]:
    """The strong model is right always, the weak one in a half; calls cost 1 and 0."""
    quality = np.stack([np.arange(ROWS) % 2.0, np.ones(ROWS)], axis=1)
    return quality, np.tile([0.0, 1.0], (ROWS, 1))


def measured(forecast: Matrix) -> Measures:
    quality, cost = outcomes()
    return measures_of(curve_of(forecast, cost, quality, cost), quality, cost)


def test_the_hull_of_two_models_recovers_in_proportion() -> None:
    found = measures_of(None, *outcomes())
    assert (found.apgr, found.cpt50, found.cpt80) == pytest.approx((0.5, 0.5, 0.8), abs=1e-6)
    assert found.near_best_cost == pytest.approx(0.98, abs=1e-6)


def test_an_oracle_needs_the_strong_model_in_a_half_of_cases() -> None:
    """It recovers all at half of the cost: the area is 3/4."""
    quality, _ = outcomes()
    found = measured(np.clip(quality + np.random.default_rng(0).random(quality.shape) * 1e-3, 0, 2))
    assert (found.apgr, found.cpt50, found.cpt80) == pytest.approx((0.75, 0.25, 0.4), abs=0.01)
    assert found.near_best_cost == pytest.approx(0.49, abs=0.01)


def test_noise_recovers_like_the_hull() -> None:
    found = measured(np.random.default_rng(0).random((ROWS, 2)) * 0.1 + [0.4, 0.9])
    assert found.apgr == pytest.approx(0.5, abs=0.02)


def test_where_the_cheapest_is_the_best_there_is_nothing_to_recover() -> None:
    quality = np.array([[1.0, 0.0], [1.0, 1.0]])
    found = measures_of(None, quality, np.tile([0.1, 1.0], (2, 1)))
    assert np.isnan(found.apgr)
