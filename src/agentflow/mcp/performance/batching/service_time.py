"""How long a batch takes, by its size: learned from those that came back.

learn(tokens, seconds)      an average for each power of two that forgets (EWMA, weight 0.2 for the newest)
expected(tokens)            of that power; of the next smaller known one, stretched; of the next larger, as it is
"""

from __future__ import annotations

from typing import Final

__all__ = ["ServiceTime"]

_NEWEST: Final = 0.2


class ServiceTime:
    """Sizes are in tokens, or whatever grows with the work; times in seconds."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def learn(self, size: int, seconds: float) -> None:
        step = size.bit_length()
        known = self._known.get(step)
        self._known[step] = seconds if known is None else known + _NEWEST * (seconds - known)

    def expected(self, size: int) -> float:
        """0.0 before anything is known."""
        step = size.bit_length()
        if step in self._known:
            return self._known[step]
        smaller = max((each for each in self._known if each < step), default=None)
        if smaller is not None:
            return self._known[smaller] * 2.0 ** (step - smaller)  # at most: a batch gains by being large
        larger = min(self._known, default=None)
        return 0.0 if larger is None else self._known[larger]
