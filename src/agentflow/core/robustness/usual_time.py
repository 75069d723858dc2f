"""How long a call usually takes, so that it is not begun when there is no time left for it.

    usual = UsualTime()
    usual.learn(1.3)                       after each success
    usual.wait(left=30.0)                  26.1: who has 30 s left may wait so long, and still gets its answer

A queue whose callers wait to the last moment serves each of them just too late, and all that it serves is lost. So a
wait ends before the deadline by what a call takes: the mean and four times the mean deviation, both moving (as the
time-out of RFC 6298 §2). But half of the time left may always be waited: a short call among long ones knows better.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["UsualTime"]

_MEAN: Final = 1 / 8
_DEVIATION: Final = 1 / 4
_DEVIATIONS: Final = 4.0
_MOST: Final = 0.5  # of the time left


class UsualTime:
    """It takes no lock: should two threads learn at the same moment, one sample may be lost."""

    __slots__ = ("_deviation", "_mean")

    def __init__(self) -> None:
        self._mean = self._deviation = 0.0

    def learn(self, seconds: float) -> None:
        mean = self._mean
        if mean:
            self._deviation += _DEVIATION * (abs(seconds - mean) - self._deviation)
            self._mean = mean + _MEAN * (seconds - mean)
        else:
            self._mean, self._deviation = seconds, seconds / 2

    @property
    def seconds(self) -> float:
        """What nearly all calls take; 0 before any has ended."""
        return self._mean + _DEVIATIONS * self._deviation

    def wait(self, left: float) -> float | None:
        """How much of the time left may be waited; None for any time."""
        return None if left == math.inf else left - min(self.seconds, left * _MOST)
