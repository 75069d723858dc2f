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
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.turn import Turn

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

    __slots__ = ("_counts", "_listener", "_now", "_turn", "minimum", "name", "ratio", "window")

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
        self._now = clock.monotonic
        self._listener = listener
        self._turn = Turn()
        self._counts = _Counts(window / _BUCKETS)

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"retries up to {self.ratio:.0%} of calls, and {self.minimum} in {self.window:g} s always"

    def request(self) -> None:
        """Note a first attempt. Takes the lock for one in a bucket alone, and never waits for it (see turn)."""
        now, counts = self._now(), self._counts
        if now < counts.end:
            next(counts.began)
        else:
            self._turn.soon(partial(counts.request, now))

    def try_spend(self) -> bool:
        """Take one retry, if there is one left. It is never given back: it is spent by being made."""
        with self._turn:
            granted = self._left(self._now()) > 0
            if granted:
                self._counts.retries += 1
        if not granted:
            tell(self._listener, "retry_refused", self.name, ratio=self.ratio, minimum=self.minimum)
        return granted

    def snapshot(self) -> BudgetSnapshot:
        """What the window holds now."""
        with self._turn:
            left = max(0, math.ceil(self._left(self._now())))
            return BudgetSnapshot(*self._counts.sums(), left)

    def _left(self, now: float) -> float:
        counts = self._counts
        counts.advance(now)
        requests, retries = counts.sums()
        return self.minimum + self.ratio * requests - _ROUNDING - retries

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, minimum={self.minimum}, window={self.window:g})"


class _Counts:
    """First attempts and retries: those of the current bucket, and the older ones in a ring.

    `began` counts all first attempts there ever were. To take its next number is a single step in C, between which no
    other thread and no garbage collector gets, so that needs no lock. To look at it takes a number, too.
    """

    __slots__ = ("_before", "_bucket", "_looks", "_older", "_width", "began", "end", "retries")

    def __init__(self, width: float) -> None:
        self._width = width
        self._bucket = self.end = -math.inf  # the current bucket's number, counted from the clock's zero, and its end
        self._older: deque[tuple[int, int]] = deque(maxlen=_BUCKETS - 1)
        self.began = count()
        self._looks = 0
        self._before = 0  # what `began` had counted when the bucket did
        self.retries = 0

    def request(self, now: float) -> None:
        """A first attempt that may begin a bucket."""
        self.advance(now)
        next(self.began)

    def advance(self, now: float) -> None:
        """Forget what is too old by then."""
        if now < self.end:
            return
        bucket = now // self._width
        for _ in range(int(min(bucket - self._bucket, _BUCKETS))):
            requests = self._requests()
            self._older.append((requests, self.retries))
            self._before += requests
            self.retries = 0
        self._bucket = bucket
        self.end = (bucket + 1) * self._width

    def sums(self) -> tuple[int, int]:
        """First attempts and retries of the whole window."""
        requests, retries = self._requests(), self.retries
        for older, repeated in self._older:
            requests += older
            retries += repeated
        return requests, retries

    def _requests(self) -> int:
        """First attempts of the current bucket."""
        found = next(self.began) - self._looks - self._before
        self._looks += 1
        return found
