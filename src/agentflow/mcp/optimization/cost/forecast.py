"""How sure a saving is: what it was on the log, and between which bounds a further period of the same sort will lie.

    total = 12.40     drops = [0.31, 0.22, …]     ──▶  Estimate(12.40, 9.95, 14.85)
                      by how much the total falls when a fiftieth of the runs is left out

**Method.** Delete-a-group jackknife (Kott 2001), clustered by run: runs are dealt into at most fifty groups, and the
whole replay is done anew without each. Resampling with replacement would be wrong here: it doubles requests, and a
doubled request is a cache's hit. What is left out takes its own part and what others had of it, so the drops show the
noise at the log's own density. The interval is one of *prediction*: it must hold the next period of the same length,
whose noise is as great as that of this one, so the variance counts twice. The number of runs is taken to vary as a
Poisson's. Student's t with (groups - 1) degrees of freedom.

It holds for traffic like that of the log. It knows nothing of growth, of weekends that the log has not seen, nor of
dependence between runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["FEWEST_RUNS", "GROUPS", "LEVEL", "Estimate", "forecast"]

GROUPS: Final = 50
FEWEST_RUNS: Final = 20
FEWEST_CARRIERS: Final = 8.0
"""How many groups an amount must come from, at least: what three runs have brought says nothing of the next three."""
LEVEL: Final = 0.95
_MONTH: Final = 365.25 / 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """An amount a day, and the bounds within which it will lie at `level` in a further period as long as the log.

    `low` and `high` are None where there are too few runs to say, or too few that matter.
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float = LEVEL

    @property
    def width(self) -> float | None:
        """Of the interval, relative to the amount."""
        if self.low is None or self.high is None or not self.value:
            return None
        return (self.high - self.low) / abs(self.value)

    def a_month(self) -> Estimate:
        """The same for 30.4 days. The bounds are cautious: longer periods vary less."""
        return self.times(_MONTH)

    def times(self, factor: float) -> Estimate:
        low, high = (None if bound is None else bound * factor for bound in (self.low, self.high))
        return Estimate(self.value * factor, low, high, self.level)

    def holds(self, amount: float) -> bool:
        """Whether it lies within the bounds."""
        return self.low is not None and self.high is not None and self.low <= amount <= self.high


def forecast(
    total: float, drops: Sequence[float], *, runs: int, days: float, level: float = LEVEL, least: float = -math.inf
) -> Estimate:
    """What a period of so many `days` will bring, a day. `drops` has one number a group; `least` is what it cannot
    fall below, as a cache cannot cost."""
    if runs < FEWEST_RUNS or _carriers(drops) < FEWEST_CARRIERS:
        return Estimate(total / days, level=level)
    half = _quantile(level, len(drops) - 1) * math.sqrt(2.0 * _variance(drops, runs))
    return Estimate(total / days, max(total - half, least) / days, (total + half) / days, level)


def _carriers(drops: Sequence[float]) -> float:
    """The number of groups that would matter as much if all mattered alike (Kish's effective size)."""
    squares = sum(drop * drop for drop in drops)
    return sum(map(abs, drops)) ** 2 / squares if squares else 0.0


def _variance(drops: Sequence[float], runs: int) -> float:
    """Of the sum over a period: that between runs, and that of their number."""
    groups, whole = len(drops), sum(drops)
    mean = whole / groups
    between = groups / (groups - 1) * sum((drop - mean) ** 2 for drop in drops)
    return between + whole * whole / runs


def _quantile(level: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2.0))
