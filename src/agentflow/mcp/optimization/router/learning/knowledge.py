"""What was learned, and how it forecasts: four experts a model, blended, calibrated, and humble where a text is new.

    text ──space──▶ words    logistic regression on weighted pieces        what is asked about
                    shape    logistic regression on the text's looks       how it is asked
                    place    logistic regression on the short vector       the neighbourhood's slope
                    near     shrunken mean of the nearest outcomes         the neighbourhood's level
             ──blend──▶ base + what is hard for all + where models differ ──calibration──▶ quality of each model

The blend has two sets of weights, both from validation: a text that is hard for every model says little about which of
them to ask. A text that is less like its neighbours than 99 % of all were gets the base rates and a wide interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.mcp.optimization.router.learning.calibration import Calibration
from agentflow.mcp.optimization.router.learning.lengths import Lengths
from agentflow.mcp.optimization.router.learning.space import Encoded, Floats, TextSpace
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["EXPERTS", "Guess", "Head", "Knowledge", "Neighbours", "blended"]

EXPERTS: Final = ("words", "shape", "place", "near")
_SHRINK: Final = 5.0
_FEWEST: Final = 4.0
_CLOSE: Final = 10
_LEAST: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Logistic regressions of all models: `weights` (columns × models), `bias` (models)."""

    weights: Floats
    bias: Floats

    def scores(self, columns: Floats) -> Floats:
        return np.asarray(columns @ self.weights + self.bias, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Outcomes at their places: `vectors` (dimensions × rows, columns of length 1), `gains` (rows × models:
    quality less the base rate, 0 where unknown), `known` (the same, 1 or 0); the nearest `count` of them speak."""

    vectors: Floats
    gains: Floats
    known: Floats
    count: int

    def near(self, vector: Floats) -> tuple[Floats, float, float]:
        """The shrunken mean gain of each model; how alike the nearest ten are; and for how many outcomes they count."""
        alike = np.einsum("ij,i->j", self.vectors, vector)  # `@` would wake threads, which wait for a busy machine
        if alike.size > self.count:
            nearest = np.argpartition(alike, alike.size - self.count)[-self.count :]
        else:
            nearest = np.arange(alike.size)
        said = alike[nearest]
        weights = np.square(np.maximum(said, 0))
        total = weights @ self.known[nearest]
        gain = (weights @ self.gains[nearest]) / (total + _SHRINK)
        closest = np.partition(said, said.size - _CLOSE)[-_CLOSE:] if said.size > _CLOSE else said
        return gain, float(closest.mean()), float(total.mean())


@dataclass(frozen=True, slots=True, eq=False)
class Guess:
    """For each model: quality, and its standard error. `novel`: the text is like nothing that was seen."""

    quality: Matrix
    error: Matrix
    novel: bool


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """`common` and `apart` weigh the experts (see `blended`); `least_alike` is where novelty begins."""

    models: tuple[str, ...]
    space: TextSpace
    base: Matrix
    words: Head
    shape: Head
    place: Head
    neighbours: Neighbours
    common: Matrix
    apart: Matrix
    calibrations: tuple[Calibration, ...]
    least_alike: float
    tokens: Lengths
    costs: Lengths

    def guess(self, text: Encoded) -> Guess:
        gain, alike, outcomes = self.neighbours.near(text.vector)
        if alike < self.least_alike:
            return Guess(self.base, _error(self.base, _FEWEST, np.zeros_like(self.base)), True)
        said = np.stack(
            [
                _chance(np.einsum("i,ij->j", text.weights, self.words.weights[text.pieces]) + self.words.bias),
                _chance(self.shape.scores(text.shape)),
                _chance(self.place.scores(text.vector)),
                self.base + gain,
            ]
        )
        mixed = blended(said, self.base, self.common, self.apart)
        quality = np.array([each(mixed[place]) for place, each in enumerate(self.calibrations)])
        return Guess(quality, _error(quality, _FEWEST + outcomes, said.std(axis=0) / 2), False)


def blended(said: Matrix, base: Matrix, common: Matrix, apart: Matrix) -> Matrix:
    """(…, experts, models) → (…, models): the base rates, moved by what all models share and by what parts them."""
    moved = said - base
    shared = moved.mean(axis=-1, keepdims=True)
    mixed = base + (common @ shared) + np.einsum("e,...em->...m", apart, moved - shared)
    return np.asarray(np.clip(mixed, _LEAST, 1 - _LEAST))


def _chance(scores: Floats) -> Matrix:
    return np.asarray(1 / (1 + np.exp(-np.clip(scores.astype(float), -40, 40))))


def _error(quality: Matrix, outcomes: float, spread: Matrix) -> Matrix:
    """Of a mean of so many outcomes, and of experts that disagree by so much."""
    return np.asarray(np.sqrt(quality * (1 - quality) / outcomes + np.square(spread)))
