"""The last calls that a breaker remembers: how many there were, failed, and were slow.

    CountWindow(50)      the last 50 calls              ▢▢▣▢▢▢▣▢ … a ring of outcomes; the newest replaces the oldest
    TimeWindow(60.0)     the calls of the last 60 s     [12|9|0|31|…] a ring of buckets; the oldest goes as a whole

A window is a frozen description; `ring()` makes the memory. A ring has no clock and no lock: `now` is an argument, in
seconds that never go back, and its owner takes care of threads. Recording costs the same however much is remembered.
The oldest bucket of a TimeWindow goes when a new one begins, so what is remembered spans between seconds · (1 -
1/buckets) and seconds.

ValueError for a window that cannot be. The two kinds are resilience4j's (`CircuitBreakerConfig.slidingWindowType`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CountRing", "CountWindow", "Ring", "TimeRing", "TimeWindow", "Window"]


class Ring(Protocol):
    """What is remembered of the last calls. The numbers hold for the time of the last `record` or `move_to`.

    `quiet`: it is full of good and quick calls, so that one more of them would change nothing and need not be recorded.
    """

    total: int
    failures: int
    slow: int
    quiet: bool

    def record(self, now: float, failed: bool, slow: bool) -> bool:
        """Remember one call that ended at `now`. It may be both failed and slow.

        False where the shares of the failed and of the slow have not grown, nor the number of calls.
        """
        ...

    def move_to(self, now: float) -> None:
        """Forget what is too old by then."""
        ...


class Window(Protocol):
    """Which calls are remembered."""

    def ring(self) -> Ring:
        """An empty memory of that kind."""
        ...


@dataclass(frozen=True, slots=True)
class CountWindow:
    """The last `size` calls, however long ago they were."""

    size: int = 50

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 call, not {self.size}")

    def ring(self) -> CountRing:
        return CountRing(self.size)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The calls of the last `seconds`, in so many buckets: more of them forget in smaller steps."""

    seconds: float = 60.0
    buckets: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be a finite time above 0, not {self.seconds}")
        if self.buckets < 1:
            raise ValueError(f"buckets must be at least 1, not {self.buckets}")

    def ring(self) -> TimeRing:
        return TimeRing(self.seconds, self.buckets)


class CountRing:
    """One byte for each call: its lowest bit says failed, the next one slow."""

    __slots__ = ("_at", "_outcomes", "_size", "failures", "quiet", "slow", "total")

    def __init__(self, size: int) -> None:
        self.total = self.failures = self.slow = 0
        self.quiet = False
        self._size = size
        self._at = 0
        self._outcomes = bytearray(size)

    def record(self, now: float, failed: bool, slow: bool) -> bool:
        at = self._at
        self._at = at + 1 if at + 1 < self._size else 0
        oldest = self._outcomes[at]  # 0, too, where nothing stands yet
        if failed or slow or oldest:
            self._replace(at, oldest, failed | slow << 1)
        elif self.total == self._size:
            return False  # a good call in the place of a good one
        if self.total < self._size:
            self.total += 1
        self.quiet = self.total == self._size and not self.failures and not self.slow
        return not self.quiet

    def _replace(self, at: int, oldest: int, outcome: int) -> None:
        self.failures += (outcome & 1) - (oldest & 1)
        self.slow += (outcome >> 1) - (oldest >> 1)
        self._outcomes[at] = outcome

    def move_to(self, now: float) -> None:
        """Calls do not grow old here."""


class TimeRing:
    """Each bucket holds [total, failures, slow] of its share of the time; the sums are kept beside them."""

    __slots__ = ("_bucket", "_buckets", "_epoch", "_width", "failures", "quiet", "slow", "total")

    def __init__(self, seconds: float, buckets: int) -> None:
        self.total = self.failures = self.slow = 0
        self.quiet = False  # never: what is here grows old
        self._width = seconds / buckets
        self._buckets = [[0, 0, 0] for _ in range(buckets)]
        self._epoch: int | None = None  # the number of the newest bucket, counted from the clock's zero
        self._bucket = self._buckets[0]

    def record(self, now: float, failed: bool, slow: bool) -> bool:
        if now // self._width != self._epoch:
            self.move_to(now)
        bucket = self._bucket
        bucket[0] += 1
        self.total += 1
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1
        return self.failures > 0 or self.slow > 0

    def move_to(self, now: float) -> None:
        epoch = int(now // self._width)
        newest = epoch if self._epoch is None else self._epoch
        if epoch < newest:
            return  # another thread looked at the clock before us and came after us
        count = len(self._buckets)
        for passed in range(max(newest + 1, epoch - count + 1), epoch + 1):  # never more than there are buckets
            self._empty(self._buckets[passed % count])
        self._epoch = epoch
        self._bucket = self._buckets[epoch % count]

    def _empty(self, bucket: list[int]) -> None:
        self.total -= bucket[0]
        self.failures -= bucket[1]
        self.slow -= bucket[2]
        bucket[:] = (0, 0, 0)
