"""The tier in memory: bounded in bytes, and what leaves first is what saves the fewest dollars a byte.

    put ──▶ │ on trial: oldest … newest │ ──get──▶ │ proven: oldest … newest │
                │  too many bytes                      │  more than four fifths of the bytes
                ▼                                      ▼
            of the 8 oldest, the one that is       back on trial, as the newest
            worth the least a byte leaves

A segmented LRU (Karedla, Love, Wherry: "Caching strategies to improve disk system performance", 1994): what is asked
once and never again cannot drive out what is asked every day. An item's worth is what its answer cost, once for itself
and once for each time that it was found.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from itertools import islice
from typing import Final, Generic, TypeVar

__all__ = ["Item", "Memory"]

T = TypeVar("T")

_PROVEN: Final = 0.8  # of the bytes, at most
_SAMPLE: Final = 8  # of the oldest, of which the least worthy leaves
_OVERHEAD: Final = 400  # bytes that an item takes beside its content, about: names, labels, the two dictionaries


class Item(Generic[T]):
    """`size` is in bytes, `worth` in USD (0 where nobody knows)."""

    __slots__ = ("found", "labels", "size", "value", "worth")

    def __init__(self, value: T, size: int, worth: float, labels: Collection[str] = ()) -> None:
        self.value = value
        self.size = size + _OVERHEAD
        self.worth = worth
        self.labels = labels
        self.found = 0

    @property
    def density(self) -> float:
        """USD saved a byte."""
        return self.worth * (1 + self.found) / self.size


class Memory(Generic[T]):
    """May be used by several threads. `most` is in bytes; 0 keeps nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._trial: OrderedDict[str, Item[T]] = OrderedDict()
        self._proven: OrderedDict[str, Item[T]] = OrderedDict()
        self._proven_bytes = 0
        self._lock = threading.Lock()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._trial) + len(self._proven)

    def get(self, name: str) -> T | None:
        with self._lock:
            item = self._proven.get(name)
            if item is not None:
                self._proven.move_to_end(name)
                item.found += 1
                return item.value
            item = self._trial.pop(name, None)
            if item is None:
                return None
            item.found += 1
            self._prove(name, item)
            return item.value

    def put(self, name: str, item: Item[T]) -> bool:
        """False for what is larger than the whole tier. What was there under this name is replaced."""
        with self._lock:
            self._remove(name)
            if item.size > self._most:
                return False
            self._trial[name] = item
            self.bytes += item.size
            while self.bytes > self._most:
                self._evict()
            return True

    def drop(self, name: str) -> None:
        with self._lock:
            self._remove(name)

    def drop_labelled(self, labels: Collection[str]) -> int:
        """Everything that carries all of these labels; without labels, everything. Says how many that were."""
        with self._lock:
            wanted = frozenset(labels)
            names = [
                name
                for segment in (self._trial, self._proven)
                for name, item in segment.items()
                if wanted.issubset(item.labels)
            ]
            for name in names:
                self._remove(name)
            return len(names)

    def _prove(self, name: str, item: Item[T]) -> None:
        self._proven[name] = item
        self._proven_bytes += item.size
        while self._proven_bytes > _PROVEN * self._most and len(self._proven) > 1:
            older, demoted = self._proven.popitem(last=False)
            self._proven_bytes -= demoted.size
            self._trial[older] = demoted

    def _evict(self) -> None:
        segment = self._trial or self._proven
        name = min(islice(segment, _SAMPLE), key=lambda each: segment[each].density)  # of equals the oldest
        self._remove(name)
        self.evicted += 1

    def _remove(self, name: str) -> None:
        item = self._trial.pop(name, None)
        if item is None:
            item = self._proven.pop(name, None)
            if item is None:
                return
            self._proven_bytes -= item.size
        self.bytes -= item.size
