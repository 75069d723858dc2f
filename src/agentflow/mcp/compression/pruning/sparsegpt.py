"""SparseGPT: drop a weight, and let the weights to its right make up for it (Frantar & Alistarh, arXiv:2301.00774).

    columns  0 … 127 │ 128 … 255 │ …        left to right, a block at a time
             what goes is chosen when its block (or its run of neighbours) begins, as the weights are by then
             the error of each column is spread over the columns behind it, by the inverse of the Hessian

The Hessian of ‖W·X − W'·X‖² is X·Xᵀ, the same for every row. Row j of the upper Cholesky factor of its inverse holds
what the update of column j needs once the columns before it are fixed, so that nothing is inverted twice.
"""

from __future__ import annotations

from typing import Final

import torch

from agentflow.errors import CompressionError
from agentflow.mcp.compression.pruning.pattern import Pattern

__all__ = ["DAMPING", "sparsegpt"]

DAMPING: Final = 0.01  # of the mean of the diagonal, added to it: calibration texts do not say everything
_BLOCK: Final = 128  # columns


def sparsegpt(weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern, *, block: int = _BLOCK) -> torch.Tensor:
    """The weights afterwards, (out, in) and float32 as those before; `hessian` is X·Xᵀ, (in, in).

    Raises CompressionError where the Hessian cannot be inverted.
    """
    weight, hessian = weight.float().clone(), hessian.float().clone()
    silent = hessian.diagonal() == 0  # inputs that were never anything but 0: their weights are worth nothing
    weight[:, silent] = 0
    hessian.diagonal()[silent] = 1
    factor = _factor(hessian)
    rows, columns = weight.shape
    if pattern.among is not None:
        block = max(1, block // pattern.among[1]) * pattern.among[1]
    done = 0
    for start in range(0, columns, block):
        end = min(start + block, columns)
        drop = pattern.zeros(rows * end) - done
        done += drop
        errors = _treat(weight[:, start:end], factor[start:end, start:end], pattern, drop)
        weight[:, end:] -= errors @ factor[start:end, end:]
    return weight


def _treat(weight: torch.Tensor, factor: torch.Tensor, pattern: Pattern, drop: int) -> torch.Tensor:
    """Drop weights of one block, in place; what each column leaves for those behind the block, (out, columns)."""
    diagonal = factor.diagonal()
    keep = _worth_most(weight, diagonal, drop) if pattern.among is None else torch.ones_like(weight, dtype=torch.bool)
    errors = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        if pattern.among is not None and column % pattern.among[1] == 0:
            run = slice(column, column + pattern.among[1])
            keep[:, run] = pattern.lowest((weight[:, run] / diagonal[run]).square())
        kept = weight[:, column] * keep[:, column]
        errors[:, column] = (weight[:, column] - kept) / diagonal[column]
        weight[:, column] = kept
        weight[:, column + 1 :] -= errors[:, column, None] * factor[column, column + 1 :]
    return errors


def _worth_most(weight: torch.Tensor, diagonal: torch.Tensor, drop: int) -> torch.Tensor:
    """What it costs to drop a weight is w² / [H⁻¹]ⱼⱼ (Optimal Brain Surgeon); the `drop` cheapest of the block go."""
    costs = (weight / diagonal).square().flatten()
    keep = torch.ones_like(costs, dtype=torch.bool)
    keep[costs.argsort(stable=True)[:drop]] = False
    return keep.view_as(weight)


def _factor(hessian: torch.Tensor) -> torch.Tensor:
    """Upper triangular U with Uᵀ·U = (H + damping)⁻¹."""
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    return _cholesky(torch.cholesky_inverse(_cholesky(hessian)), upper=True)


def _cholesky(matrix: torch.Tensor, *, upper: bool = False) -> torch.Tensor:
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix, upper=upper)
    if int(failed):
        raise CompressionError("SparseGPT: the calibration activations have no inverse; give other, or more, texts")
    return factor
