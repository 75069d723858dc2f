"""Fits the four experts: on everything for use, and fold by fold for forecasts of rows that were not learned from.

    texts ──▶ Encodings(pieces, vectors, shapes, space)
    quality, folds ──▶ CrossFitted(said: rows × experts × models, alike: rows)

Vocabulary and singular vectors see all texts of the table, and no outcome; everything that sees outcomes is fitted on
the other folds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.calibration import sigmoid
from agentflow.mcp.optimization.router.learning.hashing import BUCKETS, buckets
from agentflow.mcp.optimization.router.learning.knowledge import EXPERTS, Head, Neighbours
from agentflow.mcp.optimization.router.learning.shape import shape
from agentflow.mcp.optimization.router.learning.space import Embedder, Floats, TextSpace, embedded
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["CrossFitted", "Encodings", "Experts", "Read", "cross_fitted", "encodings", "experts_of"]

_VOCABULARY: Final = 20_000
_DIMENSIONS: Final = 64
_MOST_NEIGHBOURS: Final = 8_192  # so many are looked at within half a millisecond
_COUNTS: Final = (25, 50, 100, 200, 400)
_RIDGE_WORDS: Final = 3.3
_RIDGE_SHAPE: Final = 100.0
_RIDGE_PLACE: Final = 1.0
_POWERS: Final = 2
_TAIL: Final = 0.005
_BLOCK: Final = 512
_CLOSE: Final = 10
_SHRINK: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Encodings:
    """`pieces` is a sparse matrix (rows × vocabulary, scipy's), `vectors` and `shapes` dense."""

    pieces: Any
    vectors: Floats
    shapes: Floats
    space: TextSpace


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    words: Head
    shape: Head
    place: Head
    neighbours: Neighbours


@dataclass(frozen=True, slots=True, eq=False)
class CrossFitted:
    """What each expert said of rows it had not seen, how alike these were to the nearest ten, and the best count of
    neighbours."""

    said: Matrix
    alike: Matrix
    count: int


# ---- texts to numbers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A text's pieces and its shape, which depend on nothing else."""

    buckets: NDArray[np.int64]
    shape: Floats

    @classmethod
    def of(cls, text: str) -> Read:
        return cls(buckets(text), shape(text))


def encodings(
    texts: Sequence[str], *, embed: Embedder | None = None, seed: int = 0, read: Callable[[str], Read] = Read.of
) -> Encodings:
    from scipy.sparse import csr_matrix

    seen = [read(text) for text in texts]
    found = [each.buckets for each in seen]
    ids, idf = _vocabulary(found)
    shapes = np.array([each.shape for each in seen], np.float32)
    least, most = np.quantile(shapes, [_TAIL, 1 - _TAIL], axis=0).astype(np.float32)
    inside = np.clip(shapes, least, most)
    centre, scale = inside.mean(axis=0), inside.std(axis=0)
    scale = np.where(scale > 1e-3, scale, 1).astype(np.float32)
    outlook = centre, scale, least, most
    bare = TextSpace(ids, idf, np.zeros((ids.size, 1), np.float32), *outlook, embed)
    weighed = [bare.weigh(each) for each in found]
    sizes = np.cumsum([0, *(pieces.size for pieces, _ in weighed)])
    matrix = csr_matrix(
        (np.concatenate([weights for _, weights in weighed]), np.concatenate([pieces for pieces, _ in weighed]), sizes),
        shape=(len(texts), max(ids.size, 1)),
    )
    if embed is not None:
        return Encodings(matrix, embedded(embed, texts), bare.standard(shapes), bare)
    basis = _singular(matrix, seed)
    space = TextSpace(ids, idf, basis, *outlook)
    vectors = np.asarray(matrix @ basis, np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Encodings(matrix, vectors, space.standard(shapes), space)


def _vocabulary(found: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], Floats]:
    """The buckets that most texts have, but at least two, and how little each says."""
    counts = np.zeros(BUCKETS, np.int64)
    for each in found:
        counts[np.unique(each)] += 1
    ids = np.argsort(-counts, kind="stable")[:_VOCABULARY]
    ids = np.sort(ids[counts[ids] >= min(2, len(found))])
    if not ids.size:
        ids = np.array([0])
    return ids, (np.log((1 + len(found)) / (1 + counts[ids])) + 1).astype(np.float32)


def _singular(matrix: Any, seed: int) -> Floats:
    """The right singular vectors, by random projection and two power iterations (Halko, Martinsson and Tropp, 2011)."""
    rank = min(_DIMENSIONS, min(matrix.shape) - 1)
    if rank < 1:
        return np.zeros((matrix.shape[1], 1), np.float32)
    width = min(rank + 10, *matrix.shape)
    turned = matrix.T.tocsr()
    found = np.random.default_rng(seed).standard_normal((matrix.shape[1], width), np.float32)
    for _ in range(_POWERS):
        found, _ = np.linalg.qr(turned @ (matrix @ found))
    inner = matrix @ found
    _, turn = np.linalg.eigh(inner.T @ inner)  # the directions of the projected texts, the weakest first
    return np.ascontiguousarray((found @ turn[:, ::-1])[:, :rank], np.float32)


# ---- fitting ---------------------------------------------------------------------------------------------------


def experts_of(
    given: Encodings, quality: Matrix, weight: Matrix, base: Matrix, count: int, *, seed: int = 0
) -> Experts:
    """Of all rows."""
    kept = _kept(len(quality), seed)
    known = (~np.isnan(quality)).astype(np.float32) * np.minimum(weight, 20).astype(np.float32)
    gains = (np.nan_to_num(quality - base) * known).astype(np.float32)
    return Experts(
        logistic(given.pieces, quality, weight, _RIDGE_WORDS),
        logistic(given.shapes, quality, weight, _RIDGE_SHAPE),
        logistic(given.vectors, quality, weight, _RIDGE_PLACE),
        Neighbours(np.ascontiguousarray(given.vectors[kept].T), gains[kept], known[kept], count),
    )


def _kept(rows: int, seed: int) -> NDArray[np.intp]:
    if rows <= _MOST_NEIGHBOURS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_NEIGHBOURS])


def cross_fitted(
    given: Encodings, quality: Matrix, weight: Matrix, folds: NDArray[np.int64], base: Matrix, *, seed: int = 0
) -> CrossFitted:
    said = np.tile(base, (len(quality), len(EXPERTS), 1))
    near, alike = _cross_neighbours(given.vectors, quality, weight, folds, base, seed)
    for fold in np.unique(folds):
        inside = folds != fold
        if not inside.any():
            continue
        for place, (columns, ridge) in enumerate(
            ((given.pieces, _RIDGE_WORDS), (given.shapes, _RIDGE_SHAPE), (given.vectors, _RIDGE_PLACE))
        ):
            head = logistic(columns[inside], quality[inside], weight[inside], ridge)
            said[~inside, place] = sigmoid((columns[~inside] @ head.weights + head.bias).astype(float))
    best = _best_count(near, quality, base)
    said[:, -1] = near[best]
    return CrossFitted(said, alike, _COUNTS[best])


def _cross_neighbours(
    vectors: Floats, quality: Matrix, weight: Matrix, folds: NDArray[np.int64], base: Matrix, seed: int
) -> tuple[list[Matrix], Matrix]:
    """For each count, the shrunken means of the nearest rows of other folds."""
    kept = _kept(len(vectors), seed)
    known = (~np.isnan(quality[kept])) * np.minimum(weight[kept], 20)
    gains = np.nan_to_num(quality[kept] - base) * known
    found = [np.empty(quality.shape) for _ in _COUNTS]
    alike = np.empty(len(vectors))
    most = min(_COUNTS[-1], len(kept))
    for start in range(0, len(vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        likeness = vectors[rows] @ vectors[kept].T
        likeness[folds[rows][:, None] == folds[kept]] = -2
        nearest = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
        said = np.take_along_axis(likeness, nearest, axis=1)
        order = np.argsort(-said, axis=1)
        nearest, said = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(said, order, axis=1)
        weights = np.square(np.maximum(said, 0))[:, :, None].astype(float)
        up, down = np.cumsum(weights * gains[nearest], axis=1), np.cumsum(weights * known[nearest], axis=1)
        for place, count in enumerate(_COUNTS):
            last = min(count, most) - 1
            found[place][rows] = base + up[:, last] / (down[:, last] + _SHRINK)
        alike[rows] = np.maximum(said[:, :_CLOSE], -1).mean(axis=1)
    return found, alike


def _best_count(near: Sequence[Matrix], quality: Matrix, base: Matrix) -> int:
    """The count whose forecasts tell models apart best, by least squares where every outcome is known."""
    whole = ~np.isnan(quality).any(axis=1)
    rows = whole if whole.sum() >= 30 else np.ones(len(quality), bool)
    target = np.nan_to_num(quality[rows] - base)
    losses = []
    for said in near:
        moved = said[rows] - base
        left = (target - target.mean(axis=1, keepdims=True)) - (moved - moved.mean(axis=1, keepdims=True))
        losses.append(float(np.square(left).mean()))
    return int(np.argmin(losses))


def logistic(columns: Any, quality: Matrix, weight: Matrix, ridge: float) -> Head:
    """One regression a model, all at once; quality may be a grade from 0 to 1. Unknown outcomes weigh nothing.

    Minimises Σ weight·cross-entropy + ridge/2·‖weights‖² with L-BFGS; the bias is free.
    """
    from scipy.optimize import fmin_l_bfgs_b

    width, many = columns.shape[1], quality.shape[1]
    counted = np.where(np.isnan(quality), 0.0, weight)
    total = counted.sum(axis=0)
    label = np.nan_to_num(quality)
    start = np.zeros((width + 1, many))
    mean = ((label * counted).sum(axis=0) + 1) / (total + 2)
    start[-1] = np.log(mean / (1 - mean))
    label = (label * (total + 2) + 1) / (total + 4) if total.min() > 0 else label * 0.99 + 0.005
    turned = columns.T.tocsr() if hasattr(columns, "tocsr") else columns.T

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        now = flat.reshape(width + 1, many)
        scores = np.asarray(columns @ now[:-1].astype(np.float32)) + now[-1]  # no copy of the matrix in doubles
        slope = counted * (sigmoid(scores) - label)
        value = float((counted * (np.logaddexp(0, scores) - label * scores)).sum()) + ridge / 2 * float(
            np.square(now[:-1]).sum()
        )
        weights_slope = np.asarray(turned @ slope.astype(np.float32)) + ridge * now[:-1]
        return value, np.concatenate([weights_slope, slope.sum(axis=0)[None]]).ravel()

    best, _, _ = fmin_l_bfgs_b(loss, start.ravel(), maxiter=30, factr=1e10)
    found = best.reshape(width + 1, many)
    return Head(found[:-1].astype(np.float32), found[-1].astype(np.float32))
