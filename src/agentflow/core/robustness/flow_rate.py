"""How many calls a second have been answered of late, for next to nothing per call.

    flow.ended()                 a call was answered
    flow.per_second(now)         over the last second or two; over more where fewer than 16 were answered in it

A look at the clock is half of what a reservation costs, so only each 16th answer looks. No lock: two threads that count
at once may lose a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["FlowRate"]

_SELDOM: Final = 15
_SECOND: Final = 1.0


class FlowRate:
    """Counts from when it was made. `ended` may be written out where each call counts: add to `count`, and `look` where
    its lowest four bits are 0."""

    __slots__ = ("_before", "_now", "_since", "count")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.count = 0
        self._since = self._before = (now(), 0)  # when the newest second began, and how many there were; the one before

    def ended(self) -> None:
        self.count += 1
        if not self.count & _SELDOM:
            self.look()

    def look(self) -> None:
        """Begin a new second if this one is over."""
        now = self._now()
        if now - self._since[0] >= _SECOND:
            self._before, self._since = self._since, (now, self.count)

    def per_second(self, now: float) -> float:
        since, count = self._before if now - self._since[0] < _SECOND else self._since
        return (self.count - count) / max(_SECOND, now - since)
