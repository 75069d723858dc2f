"""Forecasts that come true as often as they say."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.router.learning.calibration import (
    Calibration,
    best_calibration,
    calibration_error,
    logit,
    sigmoid,
)
from agentflow.mcp.optimization.router.learning.table import Matrix

ROWS = 4_000
FOLDS = np.arange(ROWS) % 5


def outcomes(seed: int = 0) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 0.95, ROWS)
    return truth, (rng.random(ROWS) < truth).astype(float)


def fitted(forecast: Matrix, quality: Matrix) -> Calibration:
    return best_calibration(forecast, quality, np.ones(len(quality)), FOLDS[: len(quality)])


def test_too_bold_forecasts_are_brought_back() -> None:
    truth, quality = outcomes()
    bold = sigmoid(0.8 + 2.5 * logit(truth))
    found = fitted(bold, quality)
    assert found.kind in ("platt", "isotonic")
    assert calibration_error(bold, quality) > 0.1
    assert calibration_error(found(bold), quality) < 0.03


def test_what_no_line_can_bend_is_brought_back_by_steps() -> None:
    truth, quality = outcomes()
    odd = np.where(truth < 0.6, truth / 6, 0.9 + truth / 20)
    found = fitted(odd, quality)
    assert found.kind == "isotonic"
    assert calibration_error(found(odd), quality) < 0.03


def test_good_forecasts_are_hardly_moved() -> None:
    truth, quality = outcomes()
    assert np.abs(fitted(truth, quality)(truth) - truth).mean() < 0.02


def test_order_is_kept() -> None:
    truth, quality = outcomes()
    for bent in (truth**3, 1 - truth):
        found = fitted(bent, quality)
        assert (np.diff(found(np.linspace(0.01, 0.99, 50))) >= -1e-12).all()


def test_few_or_constant_outcomes_change_nothing() -> None:
    assert fitted(np.full(30, 0.7), np.ones(30)).kind == "none"
    assert fitted(np.full(5, 0.7), np.array([1.0, 0, 1, 0, 1])).kind == "none"


def test_unknown_outcomes_are_left_out_of_the_error() -> None:
    assert calibration_error(np.array([0.5, 0.9]), np.array([1.0, np.nan])) == 0.5
    assert np.isnan(calibration_error(np.array([0.5]), np.array([np.nan])))
