"""Where the time of something went that other things happened in: the critical path through them, added up.

    node   ├───own───┼──────── call A: limiter 3 s, generation 2 s ────────┼─own─┤
                     ├─ call B: generation 4 s ─┤                                   B ran beside A: it cost no time

Of what runs side by side, what ended last counts, then what had ended last when that began, and so on: what ran beside
it cost nothing. This is the last-finishing-child rule of critical-path tools (CRISP: Zhang et al., "CRISP: Critical
Path Analysis of Large-Scale Microservice Architectures", USENIX ATC 2022), worked out as things end, so that what is
kept does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

__all__ = ["ORDER", "Account", "Entry", "Parts", "merged"]

Parts: TypeAlias = Mapping[str, float]
"""Seconds by what they were spent on, without zeros: `{"limiter": 3.0, "generation": 2.0}`."""

ORDER: Final = (
    "queue",
    "limiter",
    "pool",
    "backoff",
    "failed",
    "connect",
    "first_token",
    "generation",
    "tools",
    "own",
    "waiting",
    "stopped",
    "unattributed",
)
"""What time is spent on: waiting to be admitted, for the rate limit, for a connection; between attempts; in attempts
that came to nothing; connecting; until the first piece of an answer; until its last; in tools; in one's own code;
parked, for a person's answer or a timer; stopped, because its process died or was told to, until somebody went on with
it; and what none of these accounts for."""

_NOTHING: Final[Parts] = {}


class Entry:
    """Something that runs inside: what had ended last when it began, and when that was.

    `cover` is something that ran already, but had not ended, since before this began: no time between is one's own.
    """

    __slots__ = ("before", "began", "cover", "ended", "parts", "since")
    began: float
    since: float
    before: Parts
    cover: Entry | None
    ended: float | None
    parts: Parts


class Account:
    """The critical path through what runs inside something that began at `started`, so far. `own` is what the time is
    called that nothing inside accounts for."""

    __slots__ = ("_frontier", "_open", "_path", "own", "started")

    def __init__(self, started: float, own: str) -> None:
        self.started = started
        self.own = own
        self._open: dict[Entry, None] = {}
        self._frontier = started
        self._path: dict[str, float] = {}

    def begin(self, entry: Entry, now: float) -> None:
        entry.began = now
        entry.since = self._frontier
        entry.before = self._path
        entry.cover = next(iter(self._open)) if self._open and now > self._frontier else None
        entry.ended = None
        self._open[entry] = None

    def end(self, entry: Entry, now: float, parts: Parts) -> None:
        """What began as `entry` is over, and this is where its time went."""
        del self._open[entry]
        entry.ended, entry.parts = now, parts
        if now >= self._frontier:
            self._extend(entry, now, parts)
        entry.cover, entry.before = None, _NOTHING  # each would keep the one before it, back to the first

    def _extend(self, entry: Entry, now: float, parts: Parts) -> None:
        """The path so far ends with it."""
        path = self._path
        if self._open or entry.before is not path:  # others that run began behind the path as it is
            path = self._path = dict(entry.before)
        if entry.began > entry.since:
            self._fill(path, entry)
        elif entry.began < entry.since:  # told late, by another thread: what it ran before that is accounted for
            share = (now - entry.since) / (now - entry.began)
            parts = {name: seconds * share for name, seconds in parts.items()}
        for name, seconds in parts.items():
            path[name] = path.get(name, 0.0) + seconds
        self._frontier = now

    def total(self, now: float) -> Parts:
        """Where the time went until `now`."""
        rest = now - self._frontier
        return merged(self._path, {self.own: rest}) if rest > 0.0 else dict(self._path)

    def _fill(self, path: dict[str, float], entry: Entry) -> None:
        """Add what the time was spent on between the last end and this beginning."""
        gap, cover = entry.began - entry.since, entry.cover
        covered = 0.0 if cover is None else min(gap, entry.began - cover.began)
        if gap > covered:
            path[self.own] = path.get(self.own, 0.0) + gap - covered
        if cover is None or not covered:
            return
        if cover.ended is None or cover.ended <= cover.began:  # it is not known yet what it was spent on
            path["unattributed"] = path.get("unattributed", 0.0) + covered
            return
        share = covered / (cover.ended - cover.began)
        for name, seconds in cover.parts.items():
            path[name] = path.get(name, 0.0) + seconds * share


def merged(*several: Parts) -> Parts:
    """The sum. An empty part costs nothing."""
    total: dict[str, float] = {}
    for parts in several:
        for name, seconds in parts.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
