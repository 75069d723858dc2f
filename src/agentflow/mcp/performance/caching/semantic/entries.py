"""The questions whose answers are kept: found by likeness, bounded in number.

    entries.add(Entry(…), vector)     entries.nearest(frame, vector, 8) ──▶ [(entry, cosine), …]

Each frame (tenant, model, all but the words) has an index of its own, so what may not meet cannot meet. The entry that
has been of no use for longest leaves first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentflow.mcp.performance.caching.semantic.index import Index
from agentflow.mcp.performance.caching.semantic.likelihood import Evidence
from agentflow.mcp.performance.caching.semantic.vetoes import Marks

__all__ = ["Entries", "Entry"]


class Entry(Struct, eq=False):
    """A question that was answered. `key` names its answer in the exact tier, `kept` is the answer's digest for the
    judge, `realm` whose it is; `evidence` is None until there is a label."""

    id: int
    realm: str
    frame: bytes
    key: str
    kept: bytes
    marks: Marks
    evidence: Evidence | None = None


class Entries:
    """At most `most` of them, over all frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: OrderedDict[int, Entry] = OrderedDict()  # the one used last stands last
        self._by_key: dict[str, int] = {}
        self._frames: dict[bytes, Index[int]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def __contains__(self, entry: Entry) -> bool:
        return self._by_id.get(entry.id) is entry

    def add(self, entry: Entry, vector: NDArray[np.float32]) -> list[Entry]:
        """The entries that had to leave for it. Raises ValueError for a vector of another length."""
        self._frames.setdefault(entry.frame, Index()).add(entry.id, vector)
        self._by_id[entry.id] = entry
        self._by_key[entry.key] = entry.id
        left = []
        while len(self._by_id) > self._most:
            oldest = next(iter(self._by_id.values()))
            self.remove(oldest)
            left.append(oldest)
        return left

    def remove(self, entry: Entry) -> None:
        if self._by_id.pop(entry.id, None) is None:
            return
        if self._by_key.get(entry.key) == entry.id:
            del self._by_key[entry.key]
        index = self._frames[entry.frame]
        index.remove(entry.id)
        if not index:
            del self._frames[entry.frame]

    def nearest(self, frame: bytes, vector: NDArray[np.float32], most: int) -> list[tuple[Entry, float]]:
        index = self._frames.get(frame)
        if index is None:
            return []
        return [(self._by_id[found], cosine) for found, cosine in index.nearest(vector, most)]

    def of_key(self, key: str) -> Entry | None:
        """The entry whose answer has that name."""
        found = self._by_key.get(key)
        return None if found is None else self._by_id[found]

    def rename(self, entry: Entry, key: str) -> None:
        """Its answer stands under another name from now on."""
        if self._by_key.get(entry.key) == entry.id:
            del self._by_key[entry.key]
        entry.key = key
        self._by_key[key] = entry.id

    def use(self, entry: Entry) -> None:
        self._by_id.move_to_end(entry.id)

    def of_realm(self, realm: str) -> list[Entry]:
        return [entry for entry in self._by_id.values() if entry.realm == realm]
