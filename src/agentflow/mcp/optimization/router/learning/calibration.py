"""Makes a forecast of 0.8 come true in 80 of 100 cases, and measures how far it is from that.

    raw forecast ──σ(a + b·logit)──▶ Platt (temperature where a = 0)      ──isotonic steps──▶ where there is enough data

Which of them, or none, is chosen by cross-validated log loss for each model. Platt (1999); Guo et al. (2017); Zadrozny
and Elkan (2002). The expected calibration error is over bins of equal count (Nixon et al., 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["Calibration", "best_calibration", "calibration_error", "logit", "sigmoid"]

_LEAST: Final = 1e-3
_BINS: Final = 10
_ENOUGH_FOR_STEPS: Final = 1_000
_STEP_HURDLE: Final = 1e-2  # of log loss: steps make ties, and ties are decided by chance


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """`kind` is `none`, `temperature`, `platt` or `isotonic`; `xs` and `ys` are the steps' edges (isotonic alone)."""

    kind: str
    offset: float = 0.0
    slope: float = 1.0
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()

    def __call__(self, forecast: Matrix) -> Matrix:
        if self.kind == "isotonic":
            return np.clip(np.interp(forecast, self.xs, self.ys), _LEAST, 1 - _LEAST)
        return np.clip(sigmoid(self.offset + self.slope * logit(forecast)), _LEAST, 1 - _LEAST)


def best_calibration(forecast: Matrix, quality: Matrix, weight: Matrix, folds: NDArray[np.int64]) -> Calibration:
    """Fitted on forecasts for rows that were not learned from; `folds` numbers the parts they are judged in."""
    known = ~np.isnan(quality)
    if known.sum() < 2 * _BINS or np.ptp(quality[known]) == 0:
        return Calibration("none")
    fitters = {"none": _none, "temperature": _temperature, "platt": _platt}
    if known.sum() >= _ENOUGH_FOR_STEPS:
        fitters["isotonic"] = _isotonic
    given = forecast[known], quality[known], weight[known]
    parts = folds[known]
    losses = {kind: _judged(fit, *given, parts) for kind, fit in fitters.items()}
    losses["isotonic"] = losses.get("isotonic", np.inf) + _STEP_HURDLE
    return fitters[min(losses, key=lambda kind: losses[kind])](*given)


def _judged(
    fit: Callable[[Matrix, Matrix, Matrix], Calibration],
    forecast: Matrix,
    quality: Matrix,
    weight: Matrix,
    folds: NDArray[np.int64],
) -> float:
    total = 0.0
    for fold in np.unique(folds):
        inside = folds != fold
        if inside.all() or not inside.any():
            return float("inf")
        fitted = fit(forecast[inside], quality[inside], weight[inside])
        total += float(_losses(fitted(forecast[~inside]), quality[~inside]) @ weight[~inside])
    return total / float(weight.sum())


def _losses(forecast: Matrix, quality: Matrix) -> Matrix:
    return np.asarray(-quality * np.log(forecast) - (1 - quality) * np.log(1 - forecast))


def _none(forecast: Matrix, quality: Matrix, weight: Matrix) -> Calibration:
    return Calibration("none")


def _temperature(forecast: Matrix, quality: Matrix, weight: Matrix) -> Calibration:
    slope = _newton(logit(forecast)[:, None], quality, weight)
    return Calibration("temperature", 0.0, max(float(slope[0]), 0.0))


def _platt(forecast: Matrix, quality: Matrix, weight: Matrix) -> Calibration:
    scores = logit(forecast)
    fitted = _newton(np.stack([np.ones_like(scores), scores], axis=1), quality, weight)
    return Calibration("platt", float(fitted[0]), max(float(fitted[1]), 0.0))


def _newton(columns: Matrix, quality: Matrix, weight: Matrix) -> Matrix:
    """Logistic regression on one or two columns, a little ridge towards no change."""
    start = np.zeros(columns.shape[1])
    start[-1] = 1.0
    found = start.copy()
    for _ in range(25):
        guess = sigmoid(columns @ found)
        slope = columns.T @ (weight * (guess - quality)) + (found - start)
        curvature = (columns.T * (weight * guess * (1 - guess))) @ columns + np.eye(columns.shape[1])
        step = np.linalg.solve(curvature, slope)
        found = found - step
        if np.abs(step).max() < 1e-8:
            break
    return found


def _isotonic(forecast: Matrix, quality: Matrix, weight: Matrix) -> Calibration:
    """Steps, kept as straight lines between the middles of neighbouring ones."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(forecast, kind="stable")
    fitted = isotonic_regression(quality[order], weights=np.maximum(weight[order], 1e-9))
    first, last = fitted.blocks[:-1], fitted.blocks[1:] - 1
    middles = (forecast[order][first] + forecast[order][last]) / 2
    return Calibration("isotonic", xs=tuple(map(float, middles)), ys=tuple(map(float, fitted.x[first])))


def calibration_error(forecast: Matrix, quality: Matrix, bins: int = _BINS) -> float:
    """The mean distance between what was forecast and what came, over bins of equal count; NaN rows are left out."""
    known = ~np.isnan(quality)
    if not known.any():
        return float("nan")
    order = np.argsort(forecast[known], kind="stable")
    said, was = forecast[known][order], quality[known][order]
    parts = np.array_split(np.arange(said.size), min(bins, said.size))
    return float(sum(abs(said[part].mean() - was[part].mean()) * part.size for part in parts) / said.size)


def logit(probability: Matrix) -> Matrix:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(inside) - np.log1p(-inside)


def sigmoid(score: Matrix) -> Matrix:
    return 1 / (1 + np.exp(-np.clip(score, -40, 40)))
