"""What an exact cache would have answered: the log replayed against one with this lifetime and this room.

    asked   A ── B ── A ── A ──── A          ttl
    cache   miss miss hit  hit    miss       └── the answer to A had become too old, and is kept anew

The rules are those of `ResponseCache`: an answer is kept when it has come, for `ttl` seconds, however often it is
given; who asks for what is on its way waits for it; tenants share nothing; only whole answers to requests that may be
cached count. With a `capacity` the entry that was used longest ago leaves first, which is cruder than the real cache's
choice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from agentflow.mcp.optimization.cost.replay import State
from agentflow.mcp.optimization.cost.table import Bools, Ints, Table

__all__ = ["ExactCache", "hits"]


@dataclass(frozen=True, slots=True)
class ExactCache:
    """A change: a cache with a lifetime in seconds, and at most so many entries. With `all_requests`, requests whose
    answers vary (a temperature above 0) are cached too. `jitter` is that of `ResponseCache`, which shortens each
    lifetime by up to that share: here all are shortened by half of it."""

    ttl: float
    capacity: int | None = None
    all_requests: bool = False
    jitter: float = 0.1

    def replay(self, table: Table, state: State) -> None:
        found = hits(table, state.sent & self.covers(table), ttl=self.lifetime, capacity=self.capacity)
        state.sent &= ~found
        state.cost[found] = 0.0

    @property
    def lifetime(self) -> float:
        """Of an entry, in the middle."""
        return self.ttl * (1.0 - self.jitter / 2.0)

    def covers(self, table: Table) -> Bools:
        """The calls that it may answer."""
        identified = table.key >= 0
        return identified if self.all_requests else identified & table.cacheable


def hits(table: Table, these: Bools, *, ttl: float, capacity: int | None = None) -> Bools:
    """Which of these calls a cache that is empty at first would have answered."""
    found = np.zeros(len(table), dtype=bool)
    places = np.flatnonzero(these)
    repeated = np.bincount(table.key[places]) > 1 if len(places) else np.zeros(0, dtype=bool)
    if capacity is None:
        places = places[repeated[table.key[places]]] if len(places) else places
        order = np.lexsort((places, table.key[places]))
        found[_unbounded(table, places[order], ttl)] = True
    else:
        found[_bounded(table, places, ttl, capacity)] = True
    return found


def _unbounded(table: Table, places: Ints, ttl: float) -> Ints:
    """Of calls sorted by key, then by time. For each call it is looked up once which one would be the next miss if it
    were one itself; then all keys are followed from miss to miss at once."""
    if not len(places):
        return places
    _, room = np.unique(table.key[places], return_inverse=True)
    at = table.at[places] - table.at[places].min()
    stride = at.max() + 2.0  # each key has a stretch of the line to itself
    dies = np.minimum(at + table.seconds[places] + ttl, stride - 1.0)
    following = np.searchsorted(room * stride + at, room * stride + dies)
    following = np.maximum(following, np.arange(len(places)) + 1)
    is_hit = np.ones(len(places), dtype=bool)
    misses = np.flatnonzero(np.diff(room, prepend=-1))
    while len(misses):
        is_hit[misses] = False
        then = following[misses]
        inside = then < len(places)
        misses, then = misses[inside], then[inside]
        misses = then[room[then] == room[misses]]
    return places[is_hit]


def _bounded(table: Table, places: Ints, ttl: float, capacity: int) -> list[int]:
    """Of calls in the order of time."""
    found: list[int] = []
    entries: OrderedDict[int, float] = OrderedDict()
    for place in places.tolist():
        key, at = int(table.key[place]), float(table.at[place])
        if at < entries.get(key, -np.inf):
            found.append(place)
        else:
            entries[key] = at + float(table.seconds[place]) + ttl
        entries.move_to_end(key)
        if len(entries) > capacity:
            entries.popitem(last=False)
    return found
