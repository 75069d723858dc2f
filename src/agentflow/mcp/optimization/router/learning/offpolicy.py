"""What another policy would have got, from outcomes that a known one has logged.

    logged:  text → chose "small" with propensity 0.9 → quality 1        (what "large" would have done: nobody knows)

    ips(…)     mean of  1[same choice] / propensity · quality           unbiased where every choice had a chance
    snips(…)   the same, divided by the mean weight                      a little bias, less variance
    doubly_robust(…)  forecast + 1[asked] / propensity · (quality − forecast), for each model: fills the matrix so that
                      its mean is unbiased if either the propensities or the forecasts are right

Horvitz and Thompson (1952); Swaminathan and Joachims (2015); Dudík, Langford and Li (2011).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["LEAST_PROPENSITY", "doubly_robust", "explored_share", "ips", "propensities", "snips"]

LEAST_PROPENSITY: Final = 0.02
"""A weight is at most its inverse: a little bias for a lot less variance."""


def ips(quality: Matrix, propensity: Matrix, choices: NDArray[np.intp]) -> float:
    """The mean quality of `choices` (a model for each row). Both matrices are (rows × models), NaN where not asked."""
    gains, _ = _matched(quality, propensity, choices)
    return float(gains.mean()) if gains.size else float("nan")


def snips(quality: Matrix, propensity: Matrix, choices: NDArray[np.intp]) -> float:
    """As `ips`, self-normalised; NaN where no choice was the logged one."""
    gains, weights = _matched(quality, propensity, choices)
    return float(gains.sum() / weights.sum()) if weights.sum() > 0 else float("nan")


def _matched(quality: Matrix, propensity: Matrix, choices: NDArray[np.intp]) -> tuple[Matrix, Matrix]:
    rows = np.arange(len(quality))
    seen, chance = quality[rows, choices], propensity[rows, choices]
    weights = np.where(np.isnan(seen), 0.0, 1 / chance)
    return np.where(np.isnan(seen), 0.0, np.nan_to_num(seen) * weights), weights


def doubly_robust(quality: Matrix, propensity: Matrix, forecast: Matrix) -> Matrix:
    """The matrix without gaps: what is logged as it is where every model was asked (propensity 1), else corrected."""
    known = ~np.isnan(quality)
    weight = np.where(known, 1 / np.maximum(propensity, LEAST_PROPENSITY), 0.0)
    return np.asarray(forecast + weight * (np.where(known, quality, 0.0) - np.where(known, forecast, 0.0)))


def propensities(quality: Matrix, logged: Matrix) -> Matrix:
    """The chance with which each model's outcome came to be known: as logged; where it was not, as often as it is."""
    known = ~np.isnan(quality)
    share = known.mean(axis=0)
    return np.where(np.isnan(logged), np.maximum(share, LEAST_PROPENSITY), logged)


def explored_share(quality: Matrix, propensity: Matrix) -> float:
    """The share of rows of which all is known, or in which chance had at least a fiftieth part."""
    known = ~np.isnan(quality)
    certain = (known & (propensity > 1 - LEAST_PROPENSITY)).any(axis=1)
    return float((known.all(axis=1) | ~certain).mean())
