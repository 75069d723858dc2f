"""The nearest of many vectors, found exactly: one matrix times one vector.

    add(row of float32) ──▶ place      nearest(vector, 8) ──▶ [(place, cosine), …], the most alike first

The matrix doubles when it is full; what is removed leaves no hole, for the last row moves into it. 5,000 vectors of 384
numbers take a few tenths of a millisecond, which is why there is no approximate index here.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Index", "unit"]

K = TypeVar("K")
_FIRST: Final = 16


class Index(Generic[K]):
    """Keys by the vectors that stand for them. All vectors have the same length, and norm 1 (see `unit`)."""

    __slots__ = ("_keys", "_places", "_rows")

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] | None = None
        self._keys: list[K] = []
        self._places: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: K, vector: NDArray[np.float32]) -> None:
        """Raises ValueError for a vector of another length than those that are there."""
        if self._rows is None:
            self._rows = np.empty((_FIRST, len(vector)), np.float32)
        elif len(self._keys) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        place = self._places.get(key, len(self._keys))
        self._rows[place] = vector
        if place == len(self._keys):
            self._keys.append(key)
            self._places[key] = place

    def remove(self, key: K) -> None:
        place = self._places.pop(key, None)
        if place is None or self._rows is None:
            return
        last = self._keys.pop()
        if place < len(self._keys):
            self._rows[place] = self._rows[len(self._keys)]
            self._keys[place] = last
            self._places[last] = place

    def nearest(self, vector: NDArray[np.float32], most: int) -> list[tuple[K, float]]:
        """At most so many keys with their cosines, the most alike first."""
        if self._rows is None or not self._keys:
            return []
        alike = self._rows[: len(self._keys)] @ vector
        if len(alike) > most:
            places = np.argpartition(alike, -most)[-most:]
            places = places[np.argsort(-alike[places], kind="stable")]
        else:
            places = np.argsort(-alike, kind="stable")
        return [(self._keys[place], float(alike[place])) for place in places]


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The vector with norm 1; None for what has no direction, or holds what is no number."""
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm == 0.0:
        return None
    made: NDArray[np.float32] = (vector / norm).astype(np.float32)
    return made
