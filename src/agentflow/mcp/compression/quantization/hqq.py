"""HQQ: scales and zero points that fit most weights well, at the price of a few, found without any text.

Badri, Shaji: "Half-Quadratic Quantization of Large Machine Learning Models" (2023). Large errors are forgiven, since an
outlier should not widen the grid of its group: with 0 < p < 1,

    minimise Σ |W − s · (q − z)|^p    split into    E = shrink(W − s · (q − z))    and    min ‖W − E − s · (q − z)‖²

which is solved in turns. The original fits z alone, as any real number, and compressed-tensors holds none but integers
of the codes' width. So here the second half is solved for s, by least squares, and for z among those integers; rounding
z at the end instead would throw away what was won. A symmetric scheme has s alone. Every group keeps the best of what
it passed through, as the file will hold it: HQQ is never worse than RTN by its own measure.
"""

from __future__ import annotations

import torch

from agentflow.mcp.compression.quantization.grid import Grid, fit, stored
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["hqq", "misfit"]

NORM = 0.7  # p
TURNS = 20
STIFFNESS = 10.0  # β of the paper: how much of an error must be explained by E
GROWTH = 1.01  # of β, a turn


def hqq(weight: torch.Tensor, scheme: Scheme, dtype: torch.dtype) -> QuantizedWeight:
    """`weight` is float32 of shape (rows, columns)."""
    best = fit(weight, scheme, dtype)
    lowest = misfit(weight, best)
    grid, stiffness = best, STIFFNESS
    for _ in range(TURNS):
        grid = _turn(weight, grid, stiffness)
        found = misfit(weight, grid)
        better = found < lowest
        best, lowest = _where(better, grid, best), torch.where(better, found, lowest)
        stiffness *= GROWTH
    return best.nearest(weight)


def misfit(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Σ |W − Ŵ|^p of each group, (rows, groups)."""
    error = (weight - grid.nearest(weight).dequantize(torch.float32)).abs()
    return error.reshape(*grid.scales.shape, -1).pow(NORM).sum(-1)


def _turn(weight: torch.Tensor, grid: Grid, stiffness: float) -> Grid:
    """One alternation: the outliers' part E, then z, then s. Errors are in steps of the grid, however large the weights
    are."""
    scales = grid.scales.to(torch.float32).unsqueeze(-1)
    codes = grid.encode(weight).to(torch.float32).reshape(*grid.scales.shape, -1)
    steps = weight.reshape(codes.shape) / scales
    zeros = torch.zeros_like(scales) if grid.zeros is None else grid.zeros.to(torch.float32).unsqueeze(-1)
    fitted = steps - _shrunk(steps - (codes - zeros), stiffness)
    if grid.zeros is not None:
        zeros = (codes - fitted).mean(-1, keepdim=True).round().clamp(grid.scheme.lowest, grid.scheme.highest)
    return Grid(
        grid.scheme,
        stored(_least_squares(codes - zeros, fitted) * grid.scales.to(torch.float32), grid.scales.dtype),
        None if grid.zeros is None else zeros.squeeze(-1).to(torch.int8),
    )


def _shrunk(error: torch.Tensor, stiffness: float) -> torch.Tensor:
    """The generalised soft threshold that solves the first half for an |·|^p norm."""
    size = error.abs().clamp(min=1e-8)
    return error.sign() * (size - size.pow(NORM - 1) / stiffness).clamp(min=0)


def _least_squares(codes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """By how much each group's scale is to be multiplied, (rows, groups); 1 where a group is zero throughout."""
    square = codes.square().sum(-1)
    factor = (codes * steps).sum(-1) / square.clamp(min=1e-8)
    return torch.where((square > 0) & (factor > 0), factor, torch.ones_like(factor))


def _where(better: torch.Tensor, one: Grid, other: Grid) -> Grid:
    zeros = None
    if one.zeros is not None and other.zeros is not None:
        zeros = torch.where(better, one.zeros, other.zeros)
    return Grid(one.scheme, torch.where(better, one.scales, other.scales), zeros)
