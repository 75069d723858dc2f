"""The last latencies of calls of one kind, and how slow a slow one is."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

__all__ = ["REMEMBERED", "Latencies"]

REMEMBERED: Final = 200


class Latencies:
    """The last latencies, in the order they came and in order of size."""

    __slots__ = ("_minimum", "_order", "_recent", "percentile")

    def __init__(self, percentile: float, minimum: int) -> None:
        self.percentile = percentile
        self._minimum = minimum
        self._recent: deque[float] = deque()
        self._order: list[float] = []

    def add(self, seconds: float) -> None:
        if len(self._recent) == REMEMBERED:
            del self._order[bisect_left(self._order, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self._order, seconds)

    @property
    def slow(self) -> float | None:
        """The smallest latency that the given share of calls did not exceed."""
        count = len(self._order)
        return self._order[math.ceil(self.percentile * count) - 1] if count >= self._minimum else None
