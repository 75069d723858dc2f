"""How long is too long: a time limit learned from how long the work has taken.

    latencies = Latencies(Adaptive(percentile=0.99, factor=2.0))
    latencies.add(0.8)                    after each success, and for each time-out of ours, at the limit it hit
    latencies.limit()                     twice what 99 of 100 took, once there are enough samples

A limit that learns from successes alone strangles itself: it cuts the slow calls off, sees only the fast ones that are
left, and falls again. So a time-out of ours counts as a sample, as long as the limit was: all that is known is that the
call took at least that. When more calls time out than the percentile leaves out, the percentile *is* the limit, and the
next limit is `factor` times as long, and so on up to the configured one: a provider that became ten times slower is
followed in four steps of factor 2. It grows once for each generation of calls, not for each call: those that were under
way together hit the same limit. As the samples of the bad time leave the window, it comes down again.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["Adaptive", "Latencies"]


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A limit of `factor` × the `percentile` (0.99: what 99 of 100 took) of the last `samples` calls, at least
    `minimum` and at most `maximum` seconds; `maximum` is None for the configured limit, which is never exceeded anyway.
    Without that many samples the configured limit stands."""

    percentile: float = 0.99
    factor: float = 2.0
    minimum: float = 1.0
    maximum: float | None = None
    samples: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise ValueError(f"percentile is a share, more than 0 and at most 1, not {self.percentile!r}")
        if not 1 < self.factor < math.inf:
            raise ValueError(f"factor is more than 1, or the limit could never grow again, not {self.factor!r}")
        if not 0 < self.minimum < math.inf:
            raise ValueError(f"minimum is a number of seconds, more than 0, not {self.minimum!r}")
        if self.maximum is not None and not self.maximum >= self.minimum:
            raise ValueError(f"maximum is a number of seconds, at least minimum ({self.minimum}), not {self.maximum!r}")
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(f"samples is a number of calls, 1 or more, not {self.samples!r}")


class Latencies:
    """The last samples of one operation, in order of time and of length."""

    __slots__ = ("_adaptive", "_limit", "_rank", "_recent", "_sorted")

    def __init__(self, adaptive: Adaptive) -> None:
        self._adaptive: Final = adaptive
        # The nearest rank: the smallest sample that so many do not exceed. Rounded, for 0.07 × 100 is more than 7.
        self._rank = math.ceil(round(adaptive.percentile * adaptive.samples, 9)) - 1
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._limit: float | None = None

    def add(self, seconds: float) -> None:
        """The oldest sample makes room for it."""
        if len(self._recent) == self._adaptive.samples:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) == self._adaptive.samples:
            self._limit = self._clamped(self._adaptive.factor * self._sorted[self._rank])

    def limit(self) -> float | None:
        """Seconds; None while there are too few samples."""
        return self._limit

    def _clamped(self, seconds: float) -> float:
        seconds = max(seconds, self._adaptive.minimum)
        return seconds if self._adaptive.maximum is None else min(seconds, self._adaptive.maximum)
