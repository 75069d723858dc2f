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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.mcp.optimization.router.learning.calibration import Calibration
from agentflow.mcp.optimization.router.learning.lengths import Lengths
from agentflow.mcp.optimization.router.learning.space import Encoded, Floats, TextSpace
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["EXPERTS", "Blend", "Guess", "Head", "Knowledge", "Neighbours", "calibrated"]

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
        # `@` would wake threads, and waiting for them takes long on a busy machine.
        alike = np.einsum("ij,i->j", self.vectors, vector)
        if alike.size > self.count:
            nearest = np.argpartition(alike, alike.size - self.count)[-self.count :]
        else:
            nearest = np.arange(alike.size)
        said = alike[nearest]
        weights = np.square(np.maximum(said, 0))
        total = weights @ self.known[nearest]
        gain = (weights @ self.gains[nearest]) / (total + _SHRINK)
        closest = np.partition(said, said.size - _CLOSE)[-_CLOSE:] if said.size > _CLOSE else said
        return gain, float(closest.sum()) / closest.size, float(total.sum()) / total.size


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Weights of the experts: `common` for what they say of all models alike, `apart` for what they say of each model
    beside that. `axes` (models × models) keeps of the latter the directions that come true: among many models noise
    alone makes one of them look best (the winner's curse), and most differences are along few directions."""

    common: Matrix
    apart: Matrix
    axes: Matrix

    def of(self, said: Matrix, base: Matrix) -> Matrix:
        """(…, experts, models) → (…, models): the base rates, moved by what all models share and what parts them."""
        moved = said - base
        shared = moved.sum(axis=-1, keepdims=True) / base.size
        mixed = base + self.common @ shared + (self.apart @ (moved - shared)) @ self.axes
        return np.asarray(np.minimum(np.maximum(mixed, _LEAST), 1 - _LEAST))


@dataclass(frozen=True, slots=True, eq=False)
class Guess:
    """For each model: quality, and its standard error. `novel`: the text is like nothing that was seen."""

    quality: Matrix
    error: Matrix
    novel: bool


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """`least_alike` is where novelty begins."""

    models: tuple[str, ...]
    space: TextSpace
    base: Matrix
    words: Head
    shape: Head
    place: Head
    neighbours: Neighbours
    blend: Blend
    calibrations: tuple[Calibration, ...]
    least_alike: float
    tokens: Lengths
    costs: Lengths

    def guess(self, text: Encoded) -> Guess:
        gain, alike, outcomes = self.neighbours.near(text.vector)
        if alike < self.least_alike:
            return Guess(self.base, np.sqrt(self.base * (1 - self.base) / _FEWEST), True)
        said = np.empty((len(EXPERTS), self.base.size))
        said[0] = np.einsum("i,ij->j", text.weights, self.words.weights[text.pieces]) + self.words.bias
        said[1] = self.shape.scores(text.shape)
        said[2] = self.place.scores(text.vector)
        said[:3] = 1 / (1 + np.exp(-said[:3]))
        said[3] = self.base + gain
        mixed = self.blend.of(said, self.base)
        quality = calibrated(mixed, self.calibrations)
        middle = said.sum(axis=0) / len(EXPERTS)
        spread = np.square(said - middle).sum(axis=0) / (4 * len(EXPERTS))
        return Guess(quality, np.sqrt(quality * (1 - quality) / (_FEWEST + outcomes) + spread), False)


def calibrated(mixed: Matrix, calibrations: Sequence[Calibration]) -> Matrix:
    """(…, models) → (…, models)."""
    found = mixed.copy()
    for place, each in enumerate(calibrations):
        if each.kind != "none":
            found[..., place] = each(mixed[..., place])
    return found
