"""How likely a cached answer is right for a question of a given similarity: a logistic model for each cached answer.

    label (similarity, was it right?) ──▶ likelihood over a grid of curves ──┐
    all other answers' labels ──▶ weights of the curves (the population) ────┴──▶ posterior ──▶ bound(similarity)

This is the model of vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", ICLR 2026) with its
uncertainty computed in full instead of by an asymptotic band. What is implemented:

1. The curve. The paper has P(right | s) = L(s; t, γ) = 1 / (1 + exp(−γ (s − t))), with a threshold t and a steepness γ
   for each cached answer. Here it is (1 − λ) L(s; t, γ): the lapse λ is the share of questions that are wrong however
   similar they look (another year, another name), without which a curve promises too much near s = 1. λ = 0 is the
   paper's.
2. The evidence. After labels (sᵢ, cᵢ) a curve θ = (t, γ, λ) has the likelihood ∏ P(sᵢ; θ)^cᵢ (1 − P(sᵢ; θ))^(1 − cᵢ):
   the cross-entropy that the paper minimises. It is kept for all 1,230 curves of a grid, so that one label is one
   addition, and labels that a line separates (for which no best fit exists) are nothing special.
3. The prior. The paper takes each cached answer for itself. Here the weights of the curves are learned from all
   (`Population`): the mixture that makes all labels likeliest, by EM, with three answers of even weights added
   (empirical Bayes; the maximum-likelihood mixture of Kiefer and Wolfowitz 1956). So an answer that was just cached
   starts from what its like have shown. Answers to questions with names or numbers, which vetoes guard, and answers to
   others are populations of their own. `pooled=False` keeps the even weights.
4. The bound. The paper takes, for the best ε, (1 − ε) times the lower end of a confidence band of level 1 − ε. Here
   it is m − κ d, with mean m and standard deviation d of P(s; θ) under the posterior: m alone is what a Bayesian would
   bet on, κ is what is held back because the best of many answers look better than they are, and because the prior
   itself is only estimated: κ = κ₀ (1 + √(200 / labels of the population)). (The paper's form over the same posterior
   was tried: the best of (1 − ε) q_ε, where q_ε is the ε-quantile. It gives hardly any answer.)

All arrays are NumPy, of shape (1230,) unless said otherwise; similarities are cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curves", "Evidence", "Label", "Population"]

Floats: TypeAlias = NDArray[np.float32]

_THRESHOLDS: Final = np.linspace(0.2, 1.2, 41)
"""Above 1 lie curves of answers that are never right."""
_STEEPNESSES: Final = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_LAPSES: Final = (0.0, 0.02, 0.08, 0.25, 0.6)
_EARLY: Final = 200.0  # labels of a population at which twice as much is held back as at the end
_SURE: Final = 1e-6
"""No curve is so sure of itself that one label could rule it out for good: labels may be mistaken."""


@dataclass(frozen=True, slots=True)
class Label:
    """What was seen once: a question of this `similarity` to the cached one, and whether the cached answer was `right`
    for it."""

    similarity: float
    right: bool


class Curves:
    """The grid of curves: how likely each of them says that an answer is right."""

    def __init__(self) -> None:
        grid = np.array(list(product(_THRESHOLDS, _STEEPNESSES, _LAPSES)), np.float32)
        self._threshold, self._steepness, lapse = grid.T.copy()
        self._ceiling = 1.0 - lapse
        self.size = len(grid)

    def right(self, similarity: float) -> Floats:
        """P(right | similarity) of every curve."""
        slope = np.clip(self._steepness * (self._threshold - np.float32(similarity)), -30.0, 30.0)
        made: Floats = self._ceiling / (1.0 + np.exp(slope))
        return made

    def log_likelihood(self, label: Label) -> Floats:
        """The logarithm of how likely every curve says that this label is."""
        right = np.clip(self.right(label.similarity), _SURE, 1.0 - _SURE)
        made: Floats = np.log(right if label.right else 1.0 - right)
        return made


CURVES: Final = Curves()


class Evidence:
    """The labels of one cached answer, the newest `window` of them, and the log-likelihood of every curve."""

    __slots__ = ("_window", "labels", "log_likelihood")

    def __init__(self, labels: Sequence[Label] = (), *, window: int = 256) -> None:
        self._window = window
        self.labels: list[Label] = []
        self.log_likelihood: Floats = np.zeros(CURVES.size, np.float32)
        for label in labels[-window:]:
            self.add(label)

    def add(self, label: Label) -> None:
        self.labels.append(label)
        self.log_likelihood += CURVES.log_likelihood(label)
        if len(self.labels) > self._window:
            self.log_likelihood -= CURVES.log_likelihood(self.labels.pop(0))


class Population:
    """What the curves of cached answers are like in general, learned from all of them.

    The weights are fitted anew whenever the labels have grown by a tenth (and at least 20), from the newest 512 answers
    that have any: a few milliseconds, and ever rarer.
    """

    __slots__ = ("_fitted_at", "_labels", "_pooled", "weights")

    def __init__(self, *, pooled: bool = True) -> None:
        self._pooled = pooled
        self._labels = 0
        self._fitted_at = 0
        self.weights = _EVEN

    def note(self, labels: int = 1) -> bool:
        """So many more labels were seen; whether it is time for `fit`."""
        self._labels += labels
        return self._pooled and self._labels >= self._fitted_at + max(20, self._fitted_at // 10)

    def fit(self, evidences: Sequence[Evidence], *, rounds: int = 30) -> None:
        """Weights under which what all answers have shown is likeliest (EM for a mixture over a fixed grid)."""
        self._fitted_at = self._labels
        if not evidences:
            return
        table = np.stack([evidence.log_likelihood for evidence in evidences[-512:]])
        likely = np.exp(table - table.max(axis=1, keepdims=True))  # (answers, curves)
        weights = self.weights
        for _ in range(rounds):
            shares = weights * (1.0 / (likely @ weights) @ likely)  # answers that follow each curve
            weights = (_CAUTION * _EVEN + shares) / (_CAUTION + len(likely))
        self.weights = weights.astype(np.float32)

    def bound(self, evidence: Evidence | None, similarity: float, *, caution: float) -> float:
        """A lower bound of the probability that the cached answer is right: equation 4, with κ₀ = `caution`."""
        weights = self.weights
        if evidence is not None and evidence.labels:
            log = evidence.log_likelihood
            weights = weights * np.exp(log - log.max())
        right = CURVES.right(similarity)
        whole = float(weights.sum())
        mean = float(weights @ right) / whole
        variance = float(weights @ (right * right)) / whole - mean * mean
        held_back = caution * (1.0 + math.sqrt(_EARLY / max(self._labels, 1)))
        return mean - held_back * math.sqrt(max(variance, 0.0))


_EVEN: Final[Floats] = np.full(CURVES.size, 1.0 / CURVES.size, np.float32)
_CAUTION: Final = 3.0
"""How many answers, spread evenly over all curves, are taken to be there beside those that were seen."""
