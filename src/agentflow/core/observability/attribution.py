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
    "unattributed",
)
"""What time is spent on: waiting to be admitted, for the rate limit, for a connection; between attempts; in attempts
that came to nothing; connecting; until the first piece of an answer; until its last; in tools; in one's own code; and
what none of these accounts for."""

_NOTHING: Final[Parts] = {}


class Entry:
    """Something that runs inside: what had ended last when it began, and when that was.

    `cover` is something that ran already, but had not ended, since before this began: no time between is one's own.
    """

    __slots__ = ("before", "began", "cover", "ended", "parts", "since")

    def __init__(self, began: float, since: float, before: Parts, cover: Entry | None) -> None:
        self.began = began
        self.since = since
        self.before = before
        self.cover = cover
        self.ended: float | None = None
        self.parts = _NOTHING


class Account:
    """The critical path through what runs inside something that began at `started`, so far."""

    __slots__ = ("_frontier", "_open", "_path", "own", "started")

    def __init__(self, started: float, own: str) -> None:
        self.started = started
        self.own = own
        """What the time is called that nothing inside accounts for."""
        self._open: dict[Entry, None] = {}
        self._frontier = started
        self._path: Parts = _NOTHING

    def begin(self, now: float) -> Entry:
        cover = next(iter(self._open), None) if now > self._frontier else None
        entry = Entry(now, self._frontier, self._path, cover)
        self._open[entry] = None
        return entry

    def end(self, entry: Entry, now: float, parts: Parts) -> None:
        """What began as `entry` is over, and this is where its time went."""
        self._open.pop(entry, None)
        entry.ended, entry.parts = now, parts
        if now >= self._frontier:
            self._path = merged(entry.before, self._gap(entry), parts)
            self._frontier = now

    def total(self, now: float) -> Parts:
        """Where the time went until `now`."""
        rest = now - self._frontier
        return merged(self._path, {self.own: rest}) if rest > 0.0 else self._path

    def _gap(self, entry: Entry) -> Parts:
        """What the time was spent on between the last end and this beginning."""
        gap = entry.began - entry.since
        if gap <= 0.0:
            return _NOTHING
        cover = entry.cover
        if cover is None:
            return {self.own: gap}
        covered = min(gap, entry.began - cover.began)
        alone = gap - covered
        if cover.ended is None or cover.ended <= cover.began:  # it is not known yet what it was spent on
            return merged({self.own: alone} if alone > 0.0 else _NOTHING, {"unattributed": covered})
        share = covered / (cover.ended - cover.began)
        shared = {name: seconds * share for name, seconds in cover.parts.items()}
        return merged({self.own: alone} if alone > 0.0 else _NOTHING, shared)


def merged(*several: Parts) -> Parts:
    """The sum. An empty part costs nothing."""
    total: dict[str, float] = {}
    for parts in several:
        for name, seconds in parts.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
