"""Where a text stands among those that were learned from: weighted pieces, a short vector, and its shape.

    text ──hashing──▶ counts ──(1 + log)·idf, length 1──▶ weights of known pieces ──basis──▶ a vector of length 1
         ──shape────▶ a few dozen numbers, standardised

With an `Embedder` the vector is what that says instead of the projection on the singular vectors (latent semantic
analysis; Deerwester et al., 1990). Nothing here is downloaded, and inference needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.hashing import BUCKETS, buckets
from agentflow.mcp.optimization.router.learning.shape import shape

__all__ = ["Embedder", "Encoded", "Floats", "TextSpace"]

Floats: TypeAlias = NDArray[np.float32]
Embedder: TypeAlias = Callable[[Sequence[str]], ArrayLike]
"""Texts to vectors of one length each, shape (texts, dimensions)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """`pieces` are places in the vocabulary, `weights` theirs (length 1 in all); `vector` (length 1, or 0 for a text
    that shares nothing with those seen) and `shape` are dense."""

    pieces: NDArray[np.int64]
    weights: Floats
    vector: Floats
    shape: Floats


@dataclass(frozen=True, slots=True, eq=False)
class TextSpace:
    """`ids` are the buckets that count, `idf` their weights, `basis` (pieces × dimensions) the projection, empty where
    an embedder gives the vectors; `centre` and `scale` are the shapes' means and deviations,
    `least` and `most` between what values nearly all of them lie."""

    ids: NDArray[np.int64]
    idf: Floats
    basis: Floats
    centre: Floats
    scale: Floats
    least: Floats
    most: Floats
    embed: Embedder | None = None
    slots: NDArray[np.int16] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        slots = np.full(BUCKETS, -1, np.int16)  # small, to stay in the processor's cache
        slots[self.ids] = np.arange(self.ids.size, dtype=np.int16)
        object.__setattr__(self, "slots", slots)

    def encode(self, text: str) -> Encoded:
        pieces, weights = self.weigh(buckets(text))
        vector = self.project(pieces, weights) if self.embed is None else embedded(self.embed, [text])[0]
        return Encoded(pieces, weights, unit(vector), self.standard(shape(text)))

    def project(self, pieces: NDArray[np.int64], weights: Floats) -> Floats:
        """Not by `@`, which would wake threads: on a busy machine waiting for them takes longer than the work."""
        return np.asarray(np.einsum("i,ij->j", weights, self.basis[pieces]))

    def weigh(self, found: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """The known pieces among these buckets, and their weights."""
        known = self.slots[found]
        known = known[known >= 0]
        known.sort()
        last = np.flatnonzero(known[1:] != known[:-1])  # of each run of equal ones, but for the last run
        ends = np.append(last, known.size - 1)[: known.size]
        pieces = known[ends].astype(np.int64)
        counts = (ends - np.append(-1, last)[: known.size]).astype(np.float32)
        return pieces, unit((1 + np.log(counts)) * self.idf[pieces])

    def standard(self, shapes: Floats) -> Floats:
        """What lies outside of all that was seen is taken for the nearest that was: nothing is extrapolated."""
        return np.asarray((np.minimum(np.maximum(shapes, self.least), self.most) - self.centre) / self.scale)


def unit(vector: Floats) -> Floats:
    length = float(np.sqrt(vector @ vector))
    return np.asarray(vector / np.float32(length)) if length > 0 else vector


def embedded(embed: Embedder, texts: Sequence[str]) -> Floats:
    """What the embedder says, each of length 1. Raises ConfigurationError where that is no vector for each text."""
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ConfigurationError(
            f"an embedder returns one vector of finite numbers for each text: {len(texts)} texts gave the shape "
            f"{vectors.shape}"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
