"""How long the answer will be: log-linear in what the text looks like and where it stands.

    shape, vector ──▶ log(1 + tokens) ──exp, corrected for the mean of the exponentials──▶ expected, and a 90 % quantile

The same head learns costs where a table knows those and no tokens. The correction is Duan's smearing estimate (1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.mcp.optimization.router.learning.space import Floats
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["Lengths", "fit_lengths"]

_RIDGE: Final = 10.0
_HIGH: Final = 0.9
_ENOUGH: Final = 30


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """`weights` is (1 + columns) × models, the first row constant; `scale` makes small numbers (dollars) like large
    ones. Where nothing is known of a model, `mean` is NaN; where too little is, the mean is all that is forecast."""

    weights: Matrix
    smear: Matrix
    high: Matrix
    mean: Matrix
    most: Matrix
    scale: float

    @property
    def silent(self) -> bool:
        """Whether nothing is known of any model."""
        return all(each != each for each in self.mean.tolist())

    def expected(self, columns: Matrix | Floats) -> Matrix:
        """(columns) → (models), or (rows × columns) → (rows × models); at most what was ever seen."""
        if self.silent:
            return np.full((*columns.shape[:-1], self.mean.size), np.nan)
        raised = np.exp(np.clip(self.weights[0] + columns @ self.weights[1:], 0, 25)) * self.smear - 1
        return np.asarray(np.clip(raised / self.scale, 0, self.most))


def fit_lengths(columns: Matrix, amounts: Matrix) -> Lengths:
    """`columns` (rows × columns) and `amounts` (rows × models, NaN where unknown)."""
    many = amounts.shape[1]
    weights = np.zeros((columns.shape[1] + 1, many))
    smear, high, mean, most = np.ones(many), np.ones(many), np.full(many, np.nan), np.full(many, np.nan)
    seen = amounts[~np.isnan(amounts) & (amounts > 0)]
    scale = 1.0 if not seen.size or np.median(seen) >= 1 else 100 / float(np.median(seen))
    for model in range(many):
        known = ~np.isnan(amounts[:, model])
        if not known.any():
            continue
        there, logs = columns[known], np.log1p(amounts[known, model] * scale)
        mean[model], most[model] = amounts[known, model].mean(), amounts[known, model].max()
        weights[:, model] = _ridge(there, logs) if known.sum() >= _ENOUGH else [logs.mean(), *[0.0] * columns.shape[1]]
        left = logs - weights[0, model] - there @ weights[1:, model]
        smear[model] = np.exp(left).mean()
        high[model] = float(np.quantile(np.exp(left), _HIGH)) / smear[model]
    return Lengths(weights, smear, high, mean, most, scale)


def _ridge(columns: Matrix, target: Matrix) -> Matrix:
    centre, level = columns.mean(axis=0), target.mean()
    centred = columns - centre
    gram = centred.T @ centred + _RIDGE * np.eye(columns.shape[1])
    slopes = np.linalg.solve(gram, centred.T @ (target - level))
    return np.concatenate([[level - centre @ slopes], slopes])
