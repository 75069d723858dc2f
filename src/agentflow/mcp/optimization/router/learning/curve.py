"""Cost against quality: what each λ would choose, the best mixture of single models, and the point to aim at.

    quality                     ·····●  the dearest choice (λ → ∞)
       │            ·····  /
       │       ···     ●  /     ··· what max λ·quality − cost gets, λ from 0 to ∞
       │    ··    /    B         /  hull: mixtures of single models ("zero router"); B lies below it and is not used
       │  ●  /
       └──────────────────── cost

Between two neighbouring points of a curve chance decides, so every cost between them can be had (RouterBench; Hu et
al., 2024). All costs are USD a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["MOST", "Aim", "Curve", "choices", "curve_of", "hull_quality", "lambdas", "solve"]

MOST: Final = 1e12
"""The λ at which cost no longer counts."""

_POINTS: Final = 161


@dataclass(frozen=True, slots=True)
class Aim:
    """Decide with `low`, and with `high` in the share `share` of all cases; equal where chance has no part in it.

    `cost` and `quality` are what that gets on average.
    """

    low: float
    high: float
    share: float
    cost: float
    quality: float


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Points in the order of `settings` (λ), costs and qualities of each."""

    settings: Matrix
    cost: Matrix
    quality: Matrix

    def quality_at(self, cost: Matrix) -> Matrix:
        """Between points in a straight line; NaN below the cheapest one, and the last one's beyond it."""
        order = np.argsort(self.cost, kind="stable")
        return np.interp(cost, self.cost[order], self.quality[order], left=np.nan)


def choices(quality: Matrix, cost: Matrix, value: float) -> NDArray[np.intp]:
    """The model of each row at λ = `value`; the cheaper one of two that are worth the same."""
    worth = value * quality - cost
    best = worth.max(axis=1, keepdims=True)
    tied = worth >= best - 1e-15 * max(1.0, value)
    result: NDArray[np.intp] = np.where(tied, cost, np.inf).argmin(axis=1)
    return result


def lambdas(quality: Matrix, cost: Matrix, points: int = _POINTS) -> Matrix:
    """Where choices change, thinned out to quantiles; 0 and `MOST` are always among them."""
    found = []
    for one in range(quality.shape[1]):
        for other in range(quality.shape[1]):
            dearer = cost[:, other] - cost[:, one]
            better = quality[:, other] - quality[:, one]
            turns = (dearer > 0) & (better > 1e-9)
            found.append(dearer[turns] / better[turns])
    turning = np.concatenate(found) if found else np.empty(0)
    turning = turning[turning < MOST]
    inner = np.quantile(turning, np.linspace(0, 1, points)) if turning.size else np.empty(0)
    edges = np.array([0.0, MOST])
    return np.unique(np.concatenate([edges, inner * (1 - 1e-9), inner * (1 + 1e-9)]))


def curve_of(
    forecast: Matrix, expected: Matrix, quality: Matrix, cost: Matrix, settings: Matrix | None = None
) -> Curve:
    """What decisions by `forecast` and `expected` cost would have got, by what was: `quality` and `cost`."""
    tried = lambdas(forecast, expected) if settings is None else settings
    rows = np.arange(len(forecast))
    picked = [choices(forecast, expected, float(value)) for value in tried]
    return Curve(
        tried,
        np.array([cost[rows, each].mean() for each in picked]),
        np.array([quality[rows, each].mean() for each in picked]),
    )


def hull_quality(quality: Matrix, cost: Matrix, at: Matrix) -> Matrix:
    """The hull's quality at a cost, for many samples at once: (samples × models), (samples × models), (samples).

    The best of all mixtures of two models, and of all single ones, that cost no more. NaN below the cheapest.
    """
    best = np.where(cost <= at[:, None] * (1 + 1e-12), quality, -np.inf).max(axis=1)
    for one in range(quality.shape[1]):
        for other in range(quality.shape[1]):
            low, high = cost[:, one], cost[:, other]
            between = (low <= at) & (at < high)
            share = np.where(between, (at - low) / np.where(between, high - low, 1), 0)
            mixed = quality[:, one] + share * (quality[:, other] - quality[:, one])
            best = np.where(between, np.maximum(best, mixed), best)
    return np.where(np.isfinite(best), best, np.nan)


def solve(curve: Curve, objective: Objective) -> Aim:
    """The point of a curve that an objective asks for; the nearest one where none fulfils it.

    A floor: the cheapest point that reaches it. A budget: the best one that keeps to it. Chance mixes two neighbours so
    that the floor or the budget is met to the letter.
    """
    if objective.value_usd is not None:
        worth = objective.value_usd * curve.quality - curve.cost
        return _at(curve, int(worth.argmax()))
    order = np.argsort(curve.cost, kind="stable")
    if objective.quality_floor is not None:
        return _cheapest(curve, order, objective.quality_floor)
    assert objective.budget_usd is not None
    return _best(curve, order, objective.budget_usd)


def _cheapest(curve: Curve, order: NDArray[np.intp], floor: float) -> Aim:
    reached = np.flatnonzero(curve.quality[order] >= floor)
    if not reached.size:
        return _at(curve, int(curve.quality.argmax()))
    place = int(reached[0])
    if place == 0:
        return _at(curve, int(order[0]))
    before, after = int(order[place - 1]), int(order[place])
    return _mixed(
        curve, before, after, (floor - curve.quality[before]) / (curve.quality[after] - curve.quality[before])
    )


def _best(curve: Curve, order: NDArray[np.intp], budget: float) -> Aim:
    kept = np.flatnonzero(curve.cost[order] <= budget)
    if not kept.size:
        return _at(curve, int(order[0]))
    best = int(order[kept[curve.quality[order][kept].argmax()]])
    place = int(kept[-1])
    if place + 1 < len(order):
        before, after = int(order[place]), int(order[place + 1])
        share = (budget - curve.cost[before]) / (curve.cost[after] - curve.cost[before])
        mixed = _mixed(curve, before, after, share)
        if mixed.quality > curve.quality[best]:
            return mixed
    return _at(curve, best)


def _at(curve: Curve, place: int) -> Aim:
    setting = float(curve.settings[place])
    return Aim(setting, setting, 0.0, float(curve.cost[place]), float(curve.quality[place]))


def _mixed(curve: Curve, before: int, after: int, share: float) -> Aim:
    return Aim(
        float(curve.settings[before]),
        float(curve.settings[after]),
        float(share),
        float(curve.cost[before] + share * (curve.cost[after] - curve.cost[before])),
        float(curve.quality[before] + share * (curve.quality[after] - curve.quality[before])),
    )
