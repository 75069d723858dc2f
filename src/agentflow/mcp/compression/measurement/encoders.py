"""What a compressed classifier or embedding model has kept: labels and vectors held against the source's.

labels_said(labeller, rows)                       (texts,): the index of each text's label; (texts, labels) of
                                                  noughts and ones where several labels may hold
vectors_said(embedder, rows)                      (texts, dimensions)
similarity(vectors, reference)                    mean cosine, and Spearman's ρ of the pairs' similarities

Spearman's ρ (C. Spearman, 1904) of all pairs' cosines says whether what was alike is alike still, which is what search
needs; it can be said of vectors with other dimensions, too, which the mean cosine cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import CompressionError
from agentflow.mcp.performance.edge.runtime import Embedder, Labeller

__all__ = ["labels_said", "share_equal", "similarity", "spearman", "vectors_said"]

BATCH = 32  # texts that go through the model together
MOST = 1_000  # texts of which all pairs are looked at: half a million pairs
Rows = Sequence[Sequence[int]]


def labels_said(labeller: Labeller, rows: Rows, *, check: Callable[[], None] = lambda: None) -> NDArray[np.int64]:
    """A label of several that may hold is said where it is likelier than not: its logit is above 0."""
    scores = _batched(labeller.scores, rows, check)
    said: NDArray[np.int64] = (scores > 0).astype(np.int64) if labeller.multi_label else scores.argmax(axis=1)
    return said


def vectors_said(embedder: Embedder, rows: Rows, *, check: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
    return _batched(embedder.vectors, rows, check)


def share_equal(said: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """The share of texts whose label, or every one of whose labels, is what is expected.

    Raises CompressionError where they are not equally many.
    """
    if said.shape != expected.shape:
        raise CompressionError(f"labels of shape {said.shape} were said and {expected.shape} are expected")
    equal = said == expected
    return float((equal if equal.ndim == 1 else equal.all(axis=1)).mean())


def similarity(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> tuple[float | None, float | None]:
    """Mean cosine of each text's two vectors (None for other dimensions), and Spearman's ρ of the similarities of all
    pairs of the first 1,000 texts (None for fewer than 3 texts, or where all are equally alike)."""
    if len(vectors) != len(reference):
        raise CompressionError(f"{len(vectors)} vectors cannot be held against {len(reference)}")
    ones, others = _of_length_1(vectors), _of_length_1(reference)
    cosine = float((ones * others).sum(axis=1).mean()) if ones.shape == others.shape else None
    if len(ones) < 3:
        return cosine, None
    upper = np.triu_indices(min(len(ones), MOST), k=1)
    alike = [(each[:MOST] @ each[:MOST].T)[upper] for each in (ones, others)]
    return cosine, spearman(alike[0], alike[1])


def spearman(ones: NDArray[np.float64], others: NDArray[np.float64]) -> float | None:
    """The correlation of ranks; equal values share the mean of their ranks. None where one side is constant."""
    ranks = [_ranks(each) - (len(each) - 1) / 2 for each in (ones, others)]
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0.0 else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 on."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[where]
    return ranks


def _of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = vectors.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def _batched(call: Callable[[Rows], NDArray[np.float32]], rows: Rows, check: Callable[[], None]) -> NDArray[np.float32]:
    if not rows:
        raise CompressionError("there are no texts to measure with")
    found = []
    for start in range(0, len(rows), BATCH):
        check()
        found.append(call(rows[start : start + BATCH]))
    said = np.concatenate(found)
    if not np.isfinite(said).all():
        raise CompressionError("it says NaN or infinity: the model is damaged, or its numbers overflow")
    return said
