"""May what was learned decide? Only where a paired bootstrap says that it beats the best mixture of single models.

    resample the rows ──▶ quality(learned) − quality(hull at the same cost)   at the point aimed at
                      ──▶ the area between both curves                        over all costs
    both lower bounds above 0  ──▶  learned          else  ──▶  the hull itself

Paired: the same rows judge both, so what makes a row easy for everybody cancels out. Rows of one prompt (or group,
where whole groups will be new) are drawn together. Efron and Tibshirani (1993), chapter 13: percentile bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.curve import Aim, choices, hull_quality, lambdas
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["Experience", "Verdict", "judge"]

_RESAMPLES: Final = 800
_LAMBDAS: Final = 25
_COSTS: Final = 21
_AT_ONCE: Final = 4_000_000  # draws held in memory
_FEWEST_ROWS: Final = 60
_LEAST_EXPLORED: Final = 0.05
_FEWEST_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """What was forecast for rows that were not learned from, beside what was. All are (rows × models), costs in USD.

    `blocks` numbers what is drawn together.
    """

    forecast: Matrix
    expected: Matrix
    quality: Matrix
    cost: Matrix
    blocks: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gain` is quality over the hull's at the same cost, at the point aimed at; `area` the mean gain over all costs
    from the cheapest model's to the hull's end. Bounds are one-sided, at the level `confidence`."""

    deployed: bool
    gain: float
    gain_bound: float
    area: float
    area_bound: float
    confidence: float
    reason: str


def judge(
    experience: Experience, aim: Aim, *, explored: float = 1.0, confidence: float = 0.95, seed: int = 0
) -> Verdict:
    """`aim` holds the λs that were solved for; the first resample is the sample itself.

    `explored` is the share of rows in which every model had a chance: where that is next to none, nobody knows what
    another choice would have got, and what was learned from would only confirm itself.
    """
    if explored < _LEAST_EXPLORED:
        why = f"the hull stays: only {explored:.0%} of the log was decided by chance, so other choices cannot be judged"
        return Verdict(False, nan, nan, nan, nan, confidence, why)
    apart = len(np.unique(experience.blocks))
    if len(experience.forecast) < _FEWEST_ROWS or apart < _FEWEST_BLOCKS:
        few = f"the hull stays: {len(experience.forecast)} rows in {apart} parts are too few to tell"
        return Verdict(False, nan, nan, nan, nan, confidence, few)
    columns, models, points = _columns(experience, aim)
    means = _resampled(columns, experience.blocks, seed)
    quality, cost, there, spent, path, paid = np.split(means, np.cumsum([models, models, 1, 1, points]), axis=1)
    gains = _over_hull(quality, cost, there[:, 0], spent[:, 0])
    return _verdict(gains, _areas(quality, cost, path, paid), confidence)


def _columns(experience: Experience, aim: Aim) -> tuple[Matrix, int, int]:
    """All whose means are needed, (rows × columns): qualities and costs of each model, of the point aimed at, and of
    points all along the curve; and how many models and points there are."""
    rows = np.arange(len(experience.forecast))

    def got(value: float) -> tuple[Matrix, Matrix]:
        picked = choices(experience.forecast, experience.expected, value)
        return experience.quality[rows, picked], experience.cost[rows, picked]

    low, high = got(aim.low), got(aim.high)
    there = [(1 - aim.share) * one + aim.share * other for one, other in zip(low, high, strict=True)]
    tried = lambdas(experience.forecast, experience.expected, _LAMBDAS)
    path = [np.stack(each, axis=1) for each in zip(*(got(float(value)) for value in tried), strict=True)]
    columns = np.concatenate([experience.quality, experience.cost, np.stack(there, axis=1), *path], axis=1)
    return columns, experience.quality.shape[1], len(tried)


def _resampled(columns: Matrix, blocks: NDArray[np.int64], seed: int) -> Matrix:
    """(samples × columns) of means over blocks drawn with replacement, the first of them over all as they are."""
    _, block = np.unique(blocks, return_inverse=True)
    sizes = np.bincount(block).astype(float)
    sums = np.stack([np.bincount(block, each) for each in columns.T], axis=1)
    random_source = np.random.default_rng(seed)
    means = [sums.sum(axis=0, keepdims=True) / sizes.sum()]
    most = max(1, _AT_ONCE // sizes.size)
    for start in range(1, _RESAMPLES, most):
        many = min(most, _RESAMPLES - start)
        drawn = random_source.multinomial(sizes.size, np.full(sizes.size, 1 / sizes.size), size=many).astype(float)
        means.append(drawn @ sums / (drawn @ sizes)[:, None])
    return np.concatenate(means)


def _over_hull(quality: Matrix, cost: Matrix, got: Matrix, paid: Matrix) -> Matrix:
    return got - np.nan_to_num(hull_quality(quality, cost, paid), nan=np.inf)


def _areas(quality: Matrix, cost: Matrix, got: Matrix, paid: Matrix) -> Matrix:
    """The mean over costs of what the curve has over the hull, for each resample; NaN where the cheapest model is the
    best one, for there is no range of costs to look at."""
    samples = len(quality)
    first, last = cost.min(axis=1), cost[np.arange(samples), quality.argmax(axis=1)]
    at = first[:, None] + (last - first)[:, None] * np.linspace(0, 1, _COSTS)
    order = np.argsort(paid, axis=1, kind="stable")
    paid, got = np.take_along_axis(paid, order, axis=1), np.take_along_axis(got, order, axis=1)
    curve = np.stack([np.interp(*each) for each in zip(at, paid, got, strict=True)])
    each_cost = np.repeat(np.arange(samples), _COSTS)
    hull = hull_quality(quality[each_cost], cost[each_cost], at.ravel()).reshape(at.shape)
    gains = (curve - np.nan_to_num(hull, nan=np.inf))[:, 1:].mean(axis=1)
    return np.where(last > first * (1 + 1e-9), gains, np.nan)


def _verdict(gains: Matrix, areas: Matrix, confidence: float) -> Verdict:
    gain_bound = float(np.quantile(gains, 1 - confidence))
    ranged = areas[~np.isnan(areas)]
    decided = ranged.size > len(areas) / 2
    area_bound = float(np.quantile(ranged, 1 - confidence)) if decided else float("nan")
    deployed = gain_bound > 0 and (not decided or area_bound > 0)
    points = f"{100 * gains[0]:+.2f} points of quality over the hull at the same cost, at least {100 * gain_bound:+.2f}"
    area = f"over all costs at least {100 * area_bound:+.2f}" if decided else "one model is cheapest and best"
    word = "learned" if deployed else "the hull stays"
    return Verdict(
        deployed, float(gains[0]), gain_bound, float(areas[0]), area_bound, confidence, f"{word}: {points}; {area}"
    )
