"""Is one of two worse than the other? A test that may be looked at after every outcome, and stopped at any.

    first.add(0.9); second.add(0.4); …        worse(second, first, error=0.05)  ──▶  True, once there is no doubt

Looking again and again at an ordinary confidence interval ends up "significant" by chance. These intervals hold at all
times at once: the predictable plug-in empirical-Bernstein confidence sequence (Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", 2023, theorem 2), which is narrow where outcomes vary little.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Sequence", "worse"]

_MOST_BET: Final = 0.5  # the constant c of the paper, which must stay below 1


class Sequence:
    """Outcomes from 0 to 1 as they come, and between which bounds their mean lies.

    `error` is the probability that the mean ever lies outside of `bounds`, whenever one looks. Its size does not grow.
    """

    __slots__ = ("_bets", "_error", "_shift", "_squares", "_total", "_weighted", "count")

    def __init__(self, error: float) -> None:
        if not 0.0 < error < 1.0:
            raise ValueError(f"error is a probability between 0 and 1, not {error!r}")
        self._error = error
        self.count = 0
        self._total = 0.0
        self._squares = 0.0
        self._bets = 0.0
        self._weighted = 0.0
        self._shift = 0.0

    @property
    def mean(self) -> float:
        """Of what has come, and one outcome of 0.5 before it."""
        return (0.5 + self._total) / (1 + self.count)

    def add(self, outcome: float) -> None:
        """The next outcome. Raises ValueError for one that is not between 0 and 1."""
        if not 0.0 <= outcome <= 1.0:  # which NaN is not, either
            raise ValueError(f"an outcome is from 0 to 1, not {outcome!r}")
        before, variance = self.mean, (0.25 + self._squares) / (1 + self.count)
        self.count += 1
        doubt = 2.0 * math.log(2.0 / self._error)
        bet = min(math.sqrt(doubt / (variance * self.count * math.log(1 + self.count))), _MOST_BET)
        self._bets += bet
        self._weighted += bet * outcome
        self._shift += 4.0 * (outcome - before) ** 2 * (-math.log(1.0 - bet) - bet) / 4.0
        self._total += outcome
        self._squares += (outcome - self.mean) ** 2

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper."""
        if not self._bets:
            return 0.0, 1.0
        middle = self._weighted / self._bets
        radius = (math.log(2.0 / self._error) + self._shift) / self._bets
        return max(0.0, middle - radius), min(1.0, middle + radius)


def worse(one: Sequence, other: Sequence) -> bool:
    """Whether the mean of `one` is below that of `other`, as far as their bounds tell."""
    return one.bounds[1] < other.bounds[0]
