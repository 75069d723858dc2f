"""Where the codes of a weight lie on the number line: a scale a group, and a zero point where the scheme has one.

    fit(weight, scheme) ──▶ Grid ──encode(weight)──▶ codes ──▶ QuantizedWeight

Round-to-nearest (RTN) is just that. The range of a group is divided as compressed-tensors and llm-compressor divide it:
symmetric, max|w| · 2 / (2^bits − 1); asymmetric, (max − min) / (2^bits − 1), with 0 always representable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentflow.errors import RecipeError
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["Grid", "fit", "groups_of", "rtn"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """`scales` and `zeros` of shape (rows, groups); scales as they are stored, so that what is computed is what is read
    back. `zeros` is int8 or None."""

    scheme: Scheme
    scales: torch.Tensor
    zeros: torch.Tensor | None

    def encode(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest codes of a float32 weight of shape (rows, columns), as int8."""
        grouped = weight.reshape(weight.shape[0], self.scales.shape[1], -1)
        zeros = None if self.zeros is None else self.zeros.unsqueeze(-1)
        return self.round(grouped, self.scales.unsqueeze(-1), zeros).to(torch.int8).reshape(weight.shape)

    def round(self, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None) -> torch.Tensor:
        """Codes as floats; shapes broadcast."""
        steps = weight / scales.to(torch.float32)
        if zeros is not None:
            steps = steps + zeros.to(torch.float32)
        return steps.clamp(self.scheme.lowest, self.scheme.highest).round()

    def nearest(self, weight: torch.Tensor) -> QuantizedWeight:
        return self.holding(self.encode(weight))

    def holding(self, codes: torch.Tensor) -> QuantizedWeight:
        """A weight of codes that were found otherwise."""
        return QuantizedWeight(
            codes, self.scales, self.zeros, self.scheme.bits, self.scheme.group, self.scheme.activation_bits
        )


def fit(weight: torch.Tensor, scheme: Scheme, dtype: torch.dtype, shrink: torch.Tensor | float = 1.0) -> Grid:
    """The grid of a float32 weight of shape (rows, columns), with scales stored as `dtype`.

    `shrink` is the share of each group's range that is kept, (rows, groups) or one for all; what is beyond is clipped.
    """
    grouped = weight.reshape(weight.shape[0], groups_of(weight.shape[1], scheme), -1)
    low = grouped.amin(-1).clamp(max=0) * shrink
    high = grouped.amax(-1).clamp(min=0) * shrink
    steps = (1 << scheme.bits) - 1
    if scheme.symmetric:
        return Grid(scheme, stored(torch.maximum(-low, high) / (steps / 2), dtype), None)
    scales = stored((high - low) / steps, dtype)
    zeros = (scheme.lowest - low / scales.to(torch.float32)).clamp(scheme.lowest, scheme.highest)
    return Grid(scheme, scales, zeros.round().to(torch.int8))


def stored(scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Scales as they are kept: never 0, by which nothing can be divided."""
    kept = scales.to(dtype)
    return torch.where(kept == 0, torch.finfo(dtype).eps, kept)


def groups_of(columns: int, scheme: Scheme, name: str = "the weight") -> int:
    """How many groups a row has. Raises RecipeError where they do not fill it: no runtime reads a part of one."""
    group = scheme.group or columns
    if columns % group:
        fitting = [size for size in (256, 128, 64, 32, 16, 8) if columns % size == 0]
        advice = f"groups of {', '.join(map(str, fitting))} fit" if fitting else "no group fits"
        raise RecipeError(
            f"{name} has {columns} input channels, which groups of {group} do not fill: {advice}, or ignore it"
        )
    return columns // group


def rtn(weight: torch.Tensor, scheme: Scheme, dtype: torch.dtype) -> QuantizedWeight:
    """Every weight to the nearest code: no calibration, and what every other method is held against."""
    return fit(weight, scheme, dtype).nearest(weight)
