"""The cheapest mix of models whose quality is good enough for sure: a linear program.

    minimise    Σ share_s · x_sm · cost_sm                    US dollars a call
    such that   Σ share_s · x_sm · quality_sm  ≥  q + margin
                Σ_m x_sm = 1,   x ≥ 0                         for each segment s

The margin is what makes it sure. Whoever chooses the best of estimates is flattered by them, and the more so the fewer
outcomes there are. So no mix is judged by the outcomes that it was chosen by (cross-fitting): the runs are dealt into
folds, the program is solved without each, and its mix is judged by that fold alone. What is proposed is the mean of
these mixes. Quality is linear in the shares, so the mean of the judgements is that of the mean mix, without flattery.

Margins are tried from the widest on, and the first one whose lower confidence bound is below q ends it: what came
before is proposed. In that order no allowance is needed for having tried several (fixed-sequence testing, as in
Angelopoulos et al. 2021, "Learn then test"). Where q is today's quality less something, it is the difference to today's
mix that is judged, in the same folds.

The dual of the quality row is what one more point of quality costs. Solved by HiGHS (Huangfu and Hall 2018) in scipy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.mcp.optimization.cost.cells import Cells
from agentflow.mcp.optimization.cost.table import Floats

__all__ = ["Goal", "Mix", "alone", "best_reachable", "cheapest", "front", "present_mix", "solved"]

_STEPS: Final = 20
_POINTS: Final = 25
_SLIVER: Final = 1e-9


@dataclass(frozen=True, eq=False)
class Goal:
    """A quality that must be reached, at a one-sided level. With `today` (a mix's shares) it was measured by today's
    own quality, and what is judged is the difference to that mix."""

    floor: float
    level: float = 0.95
    today: Floats | None = None


@dataclass(frozen=True, eq=False)
class Mix:
    """Which share of each segment's calls each model gets (segments × models; a row of zeros: it is left as it is).

    `cost` is US dollars a call and `quality` the mean score, both over the judged segments; `low` its lower confidence
    bound. `price` is what one more unit of quality costs, US dollars a call: a hundredth of it for one point.
    """

    shares: Floats
    cost: float
    quality: float
    low: float
    price: float = 0.0


def solved(cells: Cells, floor: float, goal: Goal, quality: Floats | None = None) -> Mix | None:
    """The cheapest mix whose estimated quality is at least `floor`; None where there is none. The bound is the goal's.
    `quality` stands in for the cells'."""
    from scipy.optimize import linprog

    segments, models = np.nonzero(cells.allowed)
    if not len(segments):
        return None
    share = cells.share[segments]
    known = (cells.quality if quality is None else quality)[segments, models]
    rows = np.zeros((len(cells.share), len(segments)))
    rows[segments, np.arange(len(segments))] = 1.0
    found = linprog(
        share * cells.cost[segments, models],
        A_ub=[-share * known],
        b_ub=[-floor],
        A_eq=rows[cells.judged],
        b_eq=np.ones(int(cells.judged.sum())),
        method="highs",
    )
    if found.status != 0 or found.x is None:
        return None
    shares = np.zeros(cells.allowed.shape)
    shares[segments, models] = np.where(found.x < _SLIVER, 0.0, found.x)
    return _described(cells, shares, goal, price=max(0.0, -float(found.ineqlin.marginals[0])))


def cheapest(cells: Cells, goal: Goal) -> Mix | None:
    """The cheapest mix that reaches the goal for sure; None where none does."""
    if not cells.judged.any():
        return None
    widest = min(_best(cells, fold.learned) for fold in cells.folds) - _SLIVER
    best: Mix | None = None
    for floor in np.linspace(widest, min(goal.floor, widest), _STEPS):
        tried = _crossed(cells, float(floor), goal)
        if tried is None or tried.low < goal.floor:
            break
        best = tried
    return best


def _crossed(cells: Cells, floor: float, goal: Goal) -> Mix | None:
    """The mean of the folds' mixes, each judged by the fold that it has not seen."""
    mixes = [solved(cells, floor, goal, fold.learned) for fold in cells.folds]
    found = [mix for mix in mixes if mix is not None]
    if len(found) < len(mixes):
        return None
    today = np.zeros(cells.allowed.shape) if goal.today is None else goal.today
    told, errors = [], []
    for mix, fold in zip(found, cells.folds, strict=True):
        weights = cells.share[:, None] * (mix.shares - today)
        told.append(float((weights * fold.held).sum()))
        errors.append(fold.error(weights))
    shares = np.mean([mix.shares for mix in found], axis=0)
    beside = float((cells.share[:, None] * today * np.nan_to_num(cells.quality)).sum())
    quality = beside + float(np.mean(told))
    error = float(np.sqrt(np.square(errors).sum())) / len(errors)
    return Mix(
        shares,
        float((cells.share[:, None] * shares * cells.cost).sum()),
        quality,
        quality - _one_sided(goal.level, cells.table.groups - len(errors)) * error,
        float(np.mean([mix.price for mix in found])),
    )


def _best(cells: Cells, quality: Floats) -> float:
    """The mean score that the best model of each segment comes to."""
    best = np.where(cells.allowed, quality, 0.0).max(axis=1)
    return float((cells.share * best).sum())


def best_reachable(cells: Cells, goal: Goal) -> Mix | None:
    """Every segment's best model, whatever it costs."""
    if not cells.judged.any():
        return None
    shares = np.zeros(cells.allowed.shape)
    best = np.argmax(np.where(cells.allowed, np.nan_to_num(cells.quality), -1.0), axis=1)
    shares[np.flatnonzero(cells.judged), best[cells.judged]] = 1.0
    return _described(cells, shares, goal)


def present_mix(cells: Cells, *, level: float = 0.95) -> Mix | None:
    """As the calls are divided now, among the models that are allowed."""
    shares = np.where(cells.allowed, cells.present, 0.0)
    whole = shares.sum(axis=1, keepdims=True)
    if not cells.judged.any():
        return None
    with np.errstate(invalid="ignore"):
        shares = np.where(whole > 0.0, shares / whole, np.where(cells.allowed, 1.0, 0.0))
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), _SLIVER)
    return _described(cells, np.where(cells.judged[:, None], shares, 0.0), Goal(0.0, level))


def alone(cells: Cells, *, level: float = 0.95) -> list[tuple[int, Mix]]:
    """Each model that every judged segment has outcomes of, as the only one."""
    usable = cells.allowed[cells.judged].all(axis=0)
    found = []
    for model in np.flatnonzero(usable).tolist():
        shares = np.zeros(cells.allowed.shape)
        shares[cells.judged, model] = 1.0
        found.append((model, _described(cells, shares, Goal(0.0, level))))
    return found


def front(cells: Cells, *, level: float = 0.95) -> list[Mix]:
    """The cheapest mixes from the cheapest of all to the best, for plots and tables."""
    goal = Goal(0.0, level)
    bottom, top = solved(cells, -1.0, goal), best_reachable(cells, goal)
    if bottom is None or top is None:
        return []
    floors = np.linspace(bottom.quality, top.quality - _SLIVER, _POINTS)
    return [mix for floor in floors if (mix := solved(cells, float(floor), goal)) is not None]


def _described(cells: Cells, shares: Floats, goal: Goal, price: float = 0.0) -> Mix:
    weights = cells.share[:, None] * shares
    quality = float((weights * np.nan_to_num(cells.quality)).sum())
    low = quality - _one_sided(goal.level, cells.table.groups - 1) * cells.error(weights)
    return Mix(shares, float((weights * cells.cost).sum()), quality, low, price)


def _one_sided(level: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1, freedom), level))
