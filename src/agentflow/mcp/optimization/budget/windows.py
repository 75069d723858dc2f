"""Which slice of time a call is charged to: hours, days and months by a calendar, or rolling.

    calendar   │ Monday, Europe/Berlin │ Tuesday │           all of a day is one slice, which ends at midnight
    rolling    ▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏▏now                 a day is 96 slices; each counts for a day and one slice

A rolling window counts a little longer than it says (an hour 1 minute, a day 15, a month 6 hours), never shorter: so
no stretch of that length ever holds more than the limit. A rolling month is 30 days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentflow.errors import ConfigurationError

__all__ = ["FOR_EVER", "Calendar", "Kind", "Period", "Place", "Rolling", "Windows", "windows"]

Period: TypeAlias = Literal["hour", "day", "month"]
Kind: TypeAlias = Literal["calendar", "rolling"]

FOR_EVER: Final = 90 * 86_400.0
"""Seconds for which what has no window of its own, a run, is remembered after its last call."""

_HOUR: Final = 3_600
_SLICES: Final = {"hour": (60, 60), "day": (900, 96), "month": (21_600, 120)}  # seconds of a slice, slices


class Place(NamedTuple):
    """A slice: what it is called, when it stops to count, and when there may be room again."""

    slice: int
    ends: float
    resets: float


_NEVER: Final = (0.0, Place(0, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Calendar:
    """Windows that begin with the hour, the day or the month in a time zone."""

    zone: ZoneInfo
    _last: dict[Period, tuple[float, Place]] = field(default_factory=dict, repr=False, compare=False)

    def place(self, period: Period, now: float) -> Place:
        begun, place = self._last.get(period, _NEVER)
        if not begun <= now < place.ends:
            begun, end = self._bounds(period, now)
            place = Place(int(begun), end, end)
            self._last[period] = begun, place
        return place

    def _bounds(self, period: Period, now: float) -> tuple[float, float]:
        local = datetime.fromtimestamp(now, self.zone)
        if period == "hour":
            offset = (local.utcoffset() or timedelta()).total_seconds()
            start = (now + offset) // _HOUR * _HOUR - offset
            return start, start + _HOUR
        day = datetime(local.year, local.month, local.day)
        if period == "month":
            day = day.replace(day=1)
        following = day + timedelta(days=1 if period == "day" else 31)
        if period == "month":
            following = following.replace(day=1)
        return self._moment(day), self._moment(following)

    def _moment(self, midnight: datetime) -> float:
        return midnight.replace(tzinfo=self.zone).timestamp()


@dataclass(frozen=True, slots=True)
class Rolling:
    """Windows that end now."""

    def place(self, period: Period, now: float) -> Place:
        width, count = _SLICES[period]
        number = int(now // width)
        return Place(number, float((number + count + 1) * width), float((number + 1) * width))


Windows: TypeAlias = Calendar | Rolling


def windows(kind: Kind, time_zone: str) -> Windows:
    """Raises ConfigurationError for a time zone that this machine does not know."""
    if kind == "rolling":
        return Rolling()
    try:
        return Calendar(ZoneInfo(time_zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"budget: no time zone {time_zone!r} is known here: write one such as Europe/Berlin or UTC"
            " (where a machine knows none, `pip install tzdata` brings them)"
        ) from None
