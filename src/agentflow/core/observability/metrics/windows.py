"""What happened lately: amounts by slots of time, 5 s each for five minutes and 60 s each for an hour.

    5 s    ┌─┬─┬─┬─┬─┬─┐ … 5 min        a window of up to 5 min adds up these
    60 s   ┌───────┬───────┬─ … 1 h     a longer one these

    recent.add(slot, amount)            # `slot` is the number of a slot of 5 s on a clock that never goes back
    recent.parts(now)                   # → Parts: amounts with their age
    parts.within(300.0)                 # → those of the last five minutes

A window takes whole slots: it reaches back as far as was asked for, and up to one slot farther. A clock that jumps
ahead makes what it has jumped over old; one that goes back is taken to stand still.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from agentflow.errors import ConfigurationError

__all__ = ["LONGEST", "SLOT", "Parts", "Recent", "check_window"]

T = TypeVar("T")

SLOT: Final = 5.0
"""Seconds of a fine slot."""

LONGEST: Final = 3600.0
"""Seconds of the longest window."""

_FINE: Final = 300.0  # the longest window that is made of fine slots
_COARSE: Final = 12  # fine slots in a coarse one
_KEPT: Final = 61  # slots of each kind: a window's, and the one that has just begun


def check_window(window: float) -> None:
    """Raises ConfigurationError for a window that is not kept."""
    if not 0.0 < window <= LONGEST:
        raise ConfigurationError(
            f"a window is more than 0 and at most {LONGEST:g} seconds, not {window!r}; None is since the beginning"
        )


@dataclass(frozen=True, slots=True)
class Parts(Generic[T]):
    """Amounts with the seconds since their slot began. `fine` and `coarse` hold the same, cut differently; `into` is
    how long ago the slot of 60 s began that is the present one."""

    fine: tuple[tuple[float, T], ...] = ()
    coarse: tuple[tuple[float, T], ...] = ()
    into: float = 0.0

    def within(self, window: float) -> list[T]:
        """The amounts of the last `window` seconds."""
        parts = self.fine if window <= _FINE else self.coarse
        width = _width(window)
        return [amount for age, amount in parts if age - width < window]

    def reach(self, window: float) -> float:
        """How many seconds that is: whole slots, and what has passed of the present one."""
        width = _width(window)
        passed = self.into % width
        return passed + width * max(0, math.ceil((window - passed) / width))

    def older(self, seconds: float) -> Parts[T]:
        """The same, seen that much later; without what no window reaches any more."""
        return Parts(
            tuple([(age + seconds, each) for age, each in self.fine if age + seconds < _FINE + SLOT]),
            tuple([(age + seconds, each) for age, each in self.coarse if age + seconds < LONGEST + SLOT * _COARSE]),
            self.into,
        )

    def joined(self, other: Parts[T]) -> Parts[T]:
        return Parts((*self.fine, *other.fine), (*self.coarse, *other.coarse), self.into)


class Recent(Generic[T]):
    """Amounts by slot. `plus` adds two of them up."""

    __slots__ = ("_coarse", "_fine", "_plus")

    def __init__(self, plus: Callable[[T, T], T]) -> None:
        self._plus = plus
        self._fine: tuple[list[int], list[T]] = ([], [])
        self._coarse: tuple[list[int], list[T]] = ([], [])

    def add(self, slot: int, amount: T) -> None:
        """In a slot that need not be the last one."""
        self.add_fine(slot, amount)
        self.add_coarse(slot // _COARSE, amount)

    def add_fine(self, slot: int, amount: T) -> None:
        _put(self._fine, slot, amount, self._plus)

    def add_coarse(self, slot: int, amount: T) -> None:
        """`slot` is the number of a slot of 60 s."""
        _put(self._coarse, slot, amount, self._plus)

    def absorb(self, parts: Parts[T], now: float) -> None:
        """What happened elsewhere at the same time."""
        for age, amount in parts.fine:
            self.add_fine(_nearest(now - age, now, SLOT), amount)
        for age, amount in parts.coarse:
            self.add_coarse(_nearest(now - age, now, SLOT * _COARSE), amount)

    def parts(self, now: float) -> Parts[T]:
        coarse = SLOT * _COARSE
        return Parts(_aged(self._fine, now, SLOT), _aged(self._coarse, now, coarse), now % coarse)


def _width(window: float) -> float:
    return SLOT if window <= _FINE else SLOT * _COARSE


def _nearest(began: float, now: float, width: float) -> int:
    """The slot that has most of one which began then, on another clock; none that is still to come."""
    return int(min(now // width, (began + width / 2) // width))


def _put(ring: tuple[list[int], list[T]], slot: int, amount: T, plus: Callable[[T, T], T]) -> None:
    slots, amounts = ring
    at = len(slots) if not slots or slot > slots[-1] else bisect_left(slots, slot)
    if at < len(slots) and slots[at] == slot:
        amounts[at] = plus(amounts[at], amount)
        return
    slots.insert(at, slot)
    amounts.insert(at, amount)
    while slots[0] <= slots[-1] - _KEPT:
        del slots[0], amounts[0]


def _aged(ring: tuple[list[int], list[T]], now: float, width: float) -> tuple[tuple[float, T], ...]:
    slots, amounts = ring
    oldest = now - width * _KEPT
    return tuple(
        [
            (max(0.0, now - slot * width), amount)
            for slot, amount in zip(slots, amounts, strict=True)
            if slot * width > oldest
        ]
    )
