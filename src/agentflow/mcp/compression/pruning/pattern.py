"""How many weights become zero, and among which: the same rule when they are chosen and when they are counted.

    Pattern(0.5)              half of all
    Pattern(0.5, (2, 4))      two zeros in every four neighbours of a row

A score says what a weight is worth, and the lowest go: |weight| alone (magnitude), or |weight| · ‖input‖ (Wanda).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from agentflow.mcp.compression.recipe import Sparsify

__all__ = ["Pattern", "magnitude", "wanda"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """`among`: (zeros, neighbours) for N:M, None for unstructured. Masks are True where a weight is kept."""

    sparsity: float
    among: tuple[int, int] | None = None

    @classmethod
    def of(cls, stage: Sparsify) -> Pattern:
        if stage.pattern == "unstructured":
            return cls(stage.sparsity)
        zeros, _, neighbours = stage.pattern.partition(":")
        return cls(stage.sparsity, (int(zeros), int(neighbours)))

    def zeros(self, count: int) -> int:
        """Of so many weights: rounded down, but that 0.29 of 100 is 29."""
        return math.floor(self.sparsity * count + 1e-6)

    def lowest(self, scores: torch.Tensor) -> torch.Tensor:
        """The mask that drops the lowest scores of each row, or of each run of neighbours in it. (rows, columns)"""
        if self.among is None:
            return _without_lowest(scores, self.zeros(scores.shape[1]))
        zeros, neighbours = self.among
        return _without_lowest(scores.reshape(-1, neighbours), zeros).view_as(scores)

    def shortfall(self, weight: torch.Tensor) -> int:
        """How many zeros are missing in `weight` (rows, columns) for what was asked for."""
        if self.among is None:
            wanted = len(weight) * self.zeros(weight.shape[1])
            return max(0, wanted - int((weight == 0).sum()))
        zeros, neighbours = self.among
        found = (weight.reshape(-1, neighbours) == 0).sum(1)
        return int((zeros - found).clamp(min=0).sum())


def magnitude(weight: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The mask that drops the smallest weights: of the whole matrix, or of each run of neighbours."""
    scores = weight.abs()
    if pattern.among is not None:
        return pattern.lowest(scores)
    return _without_lowest(scores.reshape(1, -1), pattern.zeros(weight.numel())).view_as(weight)


def wanda(weight: torch.Tensor, norms: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Wanda (Sun et al., arXiv:2306.11695): |weight| · ‖input‖₂ compared within each output row.

    `weight` has shape (out, in), `norms` (in,): the length of each input channel over all calibration tokens.
    """
    return pattern.lowest(weight.double().abs() * norms.double())


def _without_lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True but for the `count` lowest of each row; of equals the first go."""
    mask = torch.ones_like(scores, dtype=torch.bool)
    return mask.scatter(1, scores.argsort(dim=1, stable=True)[:, :count], False)
