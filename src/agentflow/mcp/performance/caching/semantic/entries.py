"""The answers that can be given again, and the wordings they were asked for in: found by likeness, bounded in number.

    answer ──┬── "How far is the moon?"            entries.nearest(frame, vector, 8) ──▶ [(wording, cosine), …]
             └── "Distance to the moon, please"

Every question that turned out to mean the same is one more wording of the answer, so that the next one finds a nearer
one, while what was learned of the answer stays together. Each frame (tenant, model, all but the words) has an index of
its own, so what may not meet cannot meet. The answer that has been of no use for longest leaves first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentflow.mcp.performance.caching.semantic.index import Index
from agentflow.mcp.performance.caching.semantic.likelihood import Evidence
from agentflow.mcp.performance.caching.semantic.marks import Marks

__all__ = ["MOST_WORDINGS", "Entries", "Entry", "Wording"]

MOST_WORDINGS: Final = 24
"""Of one answer; what comes after these is near to one of them."""


class Entry(Struct, eq=False):
    """An answer. `key` names it in the exact tier, `kept` is its digest for the judge, `realm` whose it is. `anchored`
    says whether its questions bear numbers, names or the like, which a veto guards. `evidence` is None until there is
    a label."""

    id: int
    realm: str
    frame: bytes
    key: str
    kept: bytes
    anchored: bool
    evidence: Evidence | None = None
    wordings: list[int] = []


class Wording(Struct, eq=False, frozen=True):
    """One of the questions that an answer was given to."""

    id: int
    entry: Entry
    marks: Marks


class Entries:
    """Answers with at most `most` wordings in all, over all frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: OrderedDict[int, Entry] = OrderedDict()  # the one used last stands last
        self._by_key: dict[str, int] = {}
        self._wordings: dict[int, Wording] = {}
        self._frames: dict[bytes, Index[int]] = {}

    def __len__(self) -> int:
        """How many wordings there are."""
        return len(self._wordings)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def __contains__(self, entry: Entry) -> bool:
        return self._by_id.get(entry.id) is entry

    def add(self, wording: Wording, vector: NDArray[np.float32]) -> list[Entry]:
        """The entries that had to leave for it. Raises ValueError for a vector of another length."""
        entry = wording.entry
        self._frames.setdefault(entry.frame, Index()).add(wording.id, vector)
        self._wordings[wording.id] = wording
        entry.wordings.append(wording.id)
        self._by_id[entry.id] = entry
        self._by_id.move_to_end(entry.id)
        self._by_key[entry.key] = entry.id
        left = []
        while len(self._wordings) > self._most and len(self._by_id) > 1:
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
        for wording in entry.wordings:
            index.remove(wording)
            del self._wordings[wording]
        if not index:
            del self._frames[entry.frame]

    def nearest(self, frame: bytes, vector: NDArray[np.float32], most: int) -> list[tuple[Wording, float]]:
        index = self._frames.get(frame)
        if index is None:
            return []
        return [(self._wordings[found], cosine) for found, cosine in index.nearest(vector, most)]

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
