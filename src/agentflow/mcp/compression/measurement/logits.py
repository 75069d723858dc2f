"""Perplexity, divergence and agreement out of logits, added up window by window, so that no more is ever in memory.

    tally = Tally()
    tally.add(tokens, logits, reference)      (n,), (n, vocabulary), (n, vocabulary)
    tally.perplexity · tally.kl · tally.top1

After each token but the last the model says what follows: n − 1 predictions a window.

    perplexity = exp(mean of −log q(next))        kl = mean of Σ p·(log p − log q)        top1 = share of equal argmax

p is the reference's distribution, q the measured model's; logarithms are natural, sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import CompressionError

__all__ = ["Tally"]

_AT_ONCE = 4_000_000  # logits that are turned into float64 together
_HIGHEST = 700.0  # nats: exp() of more is no float


class Tally:
    """Sums over all windows that were added."""

    def __init__(self) -> None:
        self.tokens = 0
        self._compared = 0
        self._nats = 0.0
        self._divergence = 0.0
        self._agreed = 0

    def add(
        self, tokens: NDArray[np.int64], logits: NDArray[np.float32], reference: NDArray[np.float32] | None = None
    ) -> None:
        """Raises CompressionError for logits that are not finite, or of another vocabulary than the reference's."""
        if reference is not None and reference.shape != logits.shape:
            raise CompressionError(
                f"logits of shape {logits.shape} cannot be held against the source's of {reference.shape}: another "
                "vocabulary"
            )
        for rows in _pieces(len(tokens) - 1, logits.shape[1]):
            said = log_softmax(logits[rows])
            following = tokens[1:][rows]
            self._nats -= float(said[np.arange(len(following)), following].sum())
            self.tokens += len(following)
            if reference is not None:
                self._compare(said, log_softmax(reference[rows]))

    def _compare(self, said: NDArray[np.float64], source: NDArray[np.float64]) -> None:
        self._divergence += float((np.exp(source) * (source - said)).sum())
        self._agreed += int((said.argmax(axis=1) == source.argmax(axis=1)).sum())
        self._compared += len(said)

    @property
    def perplexity(self) -> float | None:
        return math.exp(min(self._nats / self.tokens, _HIGHEST)) if self.tokens else None

    @property
    def kl(self) -> float | None:
        """Never below 0, whatever rounding says."""
        return max(0.0, self._divergence / self._compared) if self._compared else None

    @property
    def top1(self) -> float | None:
        return self._agreed / self._compared if self._compared else None


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Over the last axis. Raises CompressionError for what is not finite."""
    wide = logits.astype(np.float64)
    if not np.isfinite(wide).all():
        raise CompressionError("its logits are NaN or infinite: the model is damaged, or its numbers overflow")
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def _pieces(rows: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, _AT_ONCE // vocabulary)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
