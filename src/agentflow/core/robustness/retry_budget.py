"""How many retries many callers may make together, so that an outage is not answered with three times the load.

    budget = RetryBudget(ratio=0.2, minimum=10)          one for each provider, shared by all its calls
    budget.request()                                      a first attempt
    if budget.try_spend(): …                              a retry, where one is left

    retries in the window  <  minimum + ratio · first attempts in the window

While little fails, everybody may retry. When everything fails, the load is bounded by (1 + ratio) instead of by
max_attempts. As in Envoy's and failsafe-go's retry budgets (20 %, and a minimum for callers that call seldom) and the
per-client budget in Google's "Site Reliability Engineering", chapter 21, "Handling Overload" (10 %).

It counts in ten buckets of a tenth of the window, so the window is exact to a tenth. It serves many threads at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener, tell

__all__ = ["BudgetSnapshot", "RetryBudget"]

_BUCKETS: Final = 10
_ROUNDING: Final = 1e-9  # 0.1 · 30 is 3.0000000000000004, and must not be good for a fourth retry
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """What the window holds now. `left` is how many retries may be made at once."""

    requests: int
    retries: int
    left: int


class RetryBudget:
    """Retries as a share of the calls. All methods are quick and never raise."""

    __slots__ = ("_clock", "_counts", "_listener", "_lock", "minimum", "name", "ratio", "window")

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        minimum: int = 10,
        window: float = 10.0,
        name: str = "retry budget",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        if not 0 <= ratio < math.inf:
            raise ValueError(f"ratio is retries per call, finite and 0 or more, not {ratio}")
        if not 0 <= minimum < math.inf:
            raise ValueError(f"minimum is retries per window, finite and 0 or more, not {minimum}")
        if not 0 < window < math.inf:
            raise ValueError(f"window is finite seconds above 0, not {window}")
        self.ratio = ratio
        self.minimum = minimum
        self.window = window
        self.name = name
        self._clock = clock
        self._listener = listener
        self._lock = Lock()
        self._counts = _Counts(window / _BUCKETS)

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"retries up to {self.ratio:.0%} of calls, and {self.minimum} in {self.window:g} s always"

    def request(self) -> None:
        """Note a first attempt."""
        with self._lock:
            counts = self._counts
            counts.advance(self._clock.monotonic())
            counts.requests += 1
            counts.current[0] += 1

    def try_spend(self) -> bool:
        """Take one retry, if there is one left. It is never given back: it is spent by being made."""
        with self._lock:
            counts = self._counts
            counts.advance(self._clock.monotonic())
            granted = counts.retries < self._allowed()
            if granted:
                counts.retries += 1
                counts.current[1] += 1
        if not granted:
            tell(self._listener, "retry_refused", self.name, ratio=self.ratio, minimum=self.minimum)
        return granted

    def snapshot(self) -> BudgetSnapshot:
        """What the window holds now."""
        with self._lock:
            counts = self._counts
            counts.advance(self._clock.monotonic())
            left = max(0, math.ceil(self._allowed() - counts.retries))
            return BudgetSnapshot(counts.requests, counts.retries, left)

    def _allowed(self) -> float:
        return self.minimum + self.ratio * self._counts.requests - _ROUNDING

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, minimum={self.minimum}, window={self.window:g})"


class _Counts:
    """First attempts and retries of the last buckets; `advance` forgets what is older, and is O(1) a call."""

    __slots__ = ("_bucket", "_end", "_place", "_ring", "_width", "current", "requests", "retries")

    def __init__(self, width: float) -> None:
        self._width = width
        self._bucket = self._end = -math.inf  # the current bucket's number, counted from the clock's zero, and its end
        self._place = 0
        self._ring = [[0, 0] for _ in range(_BUCKETS)]
        self.current = self._ring[0]
        self.requests = 0
        self.retries = 0

    def advance(self, now: float) -> None:
        if now < self._end:
            return
        bucket = now // self._width
        for _ in range(int(min(bucket - self._bucket, _BUCKETS))):
            self._place = (self._place + 1) % _BUCKETS
            self.current = self._ring[self._place]
            self.requests -= self.current[0]
            self.retries -= self.current[1]
            self.current[0] = self.current[1] = 0
        self._bucket = bucket
        self._end = (bucket + 1) * self._width
