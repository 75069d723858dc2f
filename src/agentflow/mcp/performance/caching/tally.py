"""What a cache has done, in dollars: counted as it happens, read as one value.

tally.hit(…), tally.miss("absent"), tally.spurned("length") ──▶ cache.statistics() ──▶ CacheStatistics
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

__all__ = ["CacheStatistics", "Tally"]


class CacheStatistics(Struct, frozen=True):
    """Since the cache was made, in this process.

    `hits` are answers that were there, `stale` those of them that were too old, and `semantic` those to a question in
    other words; `joined` are questions that waited for the same one. All of these cost nothing: `saved` is what the
    answers cost when a model gave them, US dollars, and `unpriced` how many have no known price. `misses` are counted
    by their reason, and so is what was not kept (`unkept`); `kept` is how many were. `entries`, `bytes` and `evicted`
    are of the tier in memory. `texts` and `texts_found` are those of embeddings. `trouble` says why what is kept beyond
    this process cannot be used.
    """

    hits: int = 0
    stale: int = 0
    semantic: int = 0
    joined: int = 0
    saved: float = 0.0
    unpriced: int = 0
    misses: Mapping[str, int] = {}
    kept: int = 0
    unkept: Mapping[str, int] = {}
    entries: int = 0
    bytes: int = 0
    evicted: int = 0
    texts: int = 0
    texts_found: int = 0
    trouble: str | None = None

    @property
    def missed(self) -> int:
        return sum(self.misses.values())

    @property
    def hit_rate(self) -> float:
        """Of all questions, those that no model was asked; 0 where there was none."""
        free = self.hits + self.joined
        asked = free + self.missed
        return free / asked if asked else 0.0


class Tally:
    """Counts. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._unkept: Counter[str] = Counter()
        self._saved = 0.0
        self._untold: Counter[str] = Counter()
        self._untold_saved = 0.0

    def hit(self, kind: str, worth: float | None) -> None:
        """`kind` is hits, stale, semantic or joined."""
        with self._lock:
            self._counts[kind] += 1
            if kind in ("stale", "semantic"):
                self._counts["hits"] += 1
            self._untold["hits"] += 1
            self._save(worth)

    def texts(self, asked: int, found: int, worth: float) -> None:
        with self._lock:
            self._counts["texts"] += asked
            self._counts["texts_found"] += found
            self._saved += worth
            self._untold_saved += worth

    def miss(self, reason: str) -> None:
        with self._lock:
            self._misses[reason] += 1
            self._untold["misses"] += 1

    def kept(self) -> None:
        with self._lock:
            self._counts["kept"] += 1

    def spurned(self, reason: str) -> None:
        with self._lock:
            self._unkept[reason] += 1

    def untold(self) -> Mapping[str, float]:
        """What has been counted since this was last asked, for the store."""
        with self._lock:
            told: dict[str, float] = {name: float(amount) for name, amount in self._untold.items()}
            if self._untold_saved:
                told["saved"] = self._untold_saved
            self._untold.clear()
            self._untold_saved = 0.0
            return told

    def read(self, *, entries: int, size: int, evicted: int, trouble: str | None) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(
                **self._counts,
                saved=self._saved,
                misses=dict(self._misses),
                unkept=dict(self._unkept),
                entries=entries,
                bytes=size,
                evicted=evicted,
                trouble=trouble,
            )

    def _save(self, worth: float | None) -> None:
        if worth is None:
            self._counts["unpriced"] += 1
        else:
            self._saved += worth
            self._untold_saved += worth
