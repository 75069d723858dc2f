"""The two routers that the learned one is compared with: nearest neighbours, and matrix factorisation.

Both see the same rows, the same vectors (or the better of two sorts) and the same part of the rows to choose their
settings by, and both forecast a quality for each model, so that everything after that is the same for all.

    kNN   the mean outcome of the k most alike rows; k by validation
    MF    σ(w·(vₘ ∘ (W x + b)) + cₘ), a vector for each model (RouteLLM's, Ong et al., 2024), trained on outcomes with
          Adam; stopped, and its decay chosen, by validation
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vectors = NDArray[np.float32]

COUNTS = (10, 25, 50, 100, 200, 400)
DECAYS = (1e-4, 1e-3, 1e-2)
LATENT = 32
EPOCHS = 40


def parting_loss(forecast: Matrix, quality: Matrix) -> float:
    """The squared error of differences between models, which routing lives by."""
    left = (quality - quality.mean(axis=1, keepdims=True)) - (forecast - forecast.mean(axis=1, keepdims=True))
    return float(np.square(left).mean())


def nearest(vectors: Vectors, quality: Matrix, held: NDArray[np.bool_], asked: Vectors) -> Matrix:
    """`held` are the rows that k is chosen by; with it, all rows are neighbours."""
    there = neighbours(vectors[~held], quality[~held], vectors[held], COUNTS)
    count = min(COUNTS, key=lambda each: parting_loss(there[each], quality[held]))
    return neighbours(vectors, quality, asked, (count,))[count]


def neighbours(vectors: Vectors, quality: Matrix, asked: Vectors, counts: Sequence[int]) -> dict[int, Matrix]:
    most = min(max(counts), len(vectors))
    found: dict[int, list[Matrix]] = {count: [] for count in counts}
    for start in range(0, len(asked), 512):
        alike = asked[start : start + 512] @ vectors.T
        places = np.argpartition(-alike, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(alike, places, axis=1), axis=1)
        sums = np.cumsum(quality[np.take_along_axis(places, order, axis=1)], axis=1)
        for count in counts:
            last = min(count, most)
            found[count].append(sums[:, last - 1] / last)
    return {count: np.concatenate(parts) for count, parts in found.items()}


@dataclass(slots=True)
class Factors:
    project: Matrix
    shift: Matrix
    models: Matrix
    weights: Matrix
    bias: Matrix

    def parts(self) -> list[Matrix]:
        return [self.project, self.shift, self.models, self.weights, self.bias]

    def forecast(self, asked: Matrix) -> Matrix:
        hidden = asked @ self.project + self.shift
        return 1 / (1 + np.exp(-(hidden @ (self.models * self.weights).T + self.bias)))


def factorised(vectors: Vectors, quality: Matrix, held: NDArray[np.bool_], asked: Vectors, seed: int) -> Matrix:
    """Trained on the rows that are not held, stopped by those that are; then on all, for as long."""
    scale = vectors.std() or 1.0
    given = vectors.astype(float) / scale
    parts = given[~held], quality[~held], given[held], quality[held]
    tried = {decay: _trained(*parts, decay, seed) for decay in DECAYS}
    decay = min(DECAYS, key=lambda each: tried[each][0])
    epochs = tried[decay][1]
    factors = _epochs(given, quality, decay, seed, epochs)[-1]
    return factors.forecast(asked.astype(float) / scale)


def _trained(given: Matrix, quality: Matrix, held: Matrix, truth: Matrix, decay: float, seed: int) -> tuple[float, int]:
    """The least loss on held rows, and after how many epochs it came."""
    losses = [parting_loss(each.forecast(held), truth) for each in _epochs(given, quality, decay, seed, EPOCHS)]
    best = int(np.argmin(losses))
    return losses[best], best + 1


def _epochs(given: Matrix, quality: Matrix, decay: float, seed: int, epochs: int) -> list[Factors]:
    """The factors after each epoch of Adam (Kingma and Ba, 2015)."""
    rng = np.random.default_rng(seed)
    many = quality.shape[1]
    mean = np.clip(quality.mean(axis=0), 0.01, 0.99)
    now = Factors(
        rng.normal(0, 1 / np.sqrt(given.shape[1]), (given.shape[1], LATENT)),
        np.zeros(LATENT),
        rng.normal(0, 0.1, (many, LATENT)),
        np.ones(LATENT),
        np.log(mean / (1 - mean)),
    )
    first = [np.zeros_like(part) for part in now.parts()]
    second = [np.zeros_like(part) for part in now.parts()]
    step, seen = 0, []
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(given)), max(1, len(given) // 512)):
            step += 1
            for place, slope in enumerate(_slopes(now, given[rows], quality[rows], decay)):
                first[place] = 0.9 * first[place] + 0.1 * slope
                second[place] = 0.999 * second[place] + 0.001 * slope**2
                part = first[place] / (1 - 0.9**step)
                now.parts()[place] -= 0.003 * part / (np.sqrt(second[place] / (1 - 0.999**step)) + 1e-8)
        seen.append(Factors(*(part.copy() for part in now.parts())))
    return seen


def _slopes(now: Factors, given: Matrix, quality: Matrix, decay: float) -> list[Matrix]:
    hidden = given @ now.project + now.shift
    joined = now.models * now.weights
    wrong = (1 / (1 + np.exp(-(hidden @ joined.T + now.bias))) - quality) / len(given)
    back = wrong @ joined
    outer = wrong.T @ hidden
    return [
        given.T @ back + decay * now.project,
        back.sum(axis=0),
        outer * now.weights + decay * now.models,
        (outer * now.models).sum(axis=0),
        wrong.sum(axis=0),
    ]
