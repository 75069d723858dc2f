"""How likely it is that a batch is done in time: from how long earlier ones took, and from how long it has taken.

    chance(durations, waited=1800, left=1800)     P(T ≤ 3600 | T > 1800)

Durations of batches of the same model are counted; before there are any, a prior speaks, which counts like
`_WEIGHT` of them: none is done in a minute, half are in 7 and 90 % in an hour (as OpenRouter published of the batches
that it passes on), 99 % within the provider's window. Between those points the logarithm of time is linear. The
estimate is the share of outcomes, prior and seen, that lie in time among those that lie beyond what has been waited:

    F(t) = (w · prior(t) + #{d ≤ t}) / (w + n)          P = (F(waited + left) − F(waited)) / (1 − F(waited))
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["DAY", "chance"]

DAY = 86_400.0
_WEIGHT = 3.0
_KNOWN = ((60.0, 0.0), (420.0, 0.5), (3600.0, 0.9))
_LAST = 0.99


def chance(durations: Sequence[float], *, waited: float, left: float, window: float = DAY) -> float:
    """The probability, in [0, 1]. `durations` are seconds, in any order; a batch that expired counts as infinite."""
    if left <= 0:
        return 0.0
    ordered = sorted(durations)
    before, by_then = (_share(ordered, seconds, window) for seconds in (waited, waited + left))
    return 0.0 if before >= 1.0 else min(1.0, max(0.0, (by_then - before) / (1.0 - before)))


def _share(ordered: Sequence[float], seconds: float, window: float) -> float:
    """The share of batches that take no longer than that."""
    seen = bisect_right(ordered, seconds)
    return (_WEIGHT * _prior(seconds, window) + seen) / (_WEIGHT + len(ordered))


def _prior(seconds: float, window: float) -> float:
    points = (*_KNOWN, (max(window, 2 * _KNOWN[-1][0]), _LAST))
    if seconds <= points[0][0]:
        return 0.0
    for (low, share), (high, more) in pairwise(points):
        if seconds <= high:
            return share + (more - share) * math.log(seconds / low) / math.log(high / low)
    return _LAST
