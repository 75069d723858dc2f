"""GPTQ: column after column is rounded, and those still to come make up for its error.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv:2210.17323. With H = Σ x xᵀ of the layer's inputs and U the upper Cholesky factor of H⁻¹:

    for each column j:   q = nearest(w_j)      e = (w_j − q) / U_jj      w_k −= e · U_jk  for k > j

Columns are taken by falling H_jj, the paper's act-order, and each keeps the group that it lies in: the scales are
fitted before the first column moves, so that the file needs no index of columns. Without `order` the columns are taken
as they lie, and each group's scale is fitted when its turn comes, to weights that hold the errors of all groups before.
"""

from __future__ import annotations

import torch

from agentflow.errors import CompressionError
from agentflow.mcp.compression.quantization.grid import Grid, fit
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["gptq"]

DAMPING = 0.01  # of the mean of H's diagonal, as in the paper
BLOCK = 128  # columns whose errors are gathered before they move to the rest


def gptq(
    weight: torch.Tensor,
    gram: torch.Tensor,
    scheme: Scheme,
    dtype: torch.dtype,
    *,
    order: bool = True,
    damping: float = DAMPING,
) -> QuantizedWeight:
    """`weight` is float32 of shape (rows, columns), `gram` Σ x xᵀ of its inputs, (columns, columns).

    Raises CompressionError where no damping makes `gram` invertible: it holds NaN or infinity.
    """
    columns = weight.shape[1]
    moved = weight.clone()
    places = torch.argsort(gram.diagonal(), descending=True, stable=True) if order else torch.arange(columns)
    places = places.to(weight.device)
    factor = _factor(gram[places][:, places], damping)
    columns_of = _Columns(moved[:, places], places, fit(weight, scheme, dtype), fitted=order)
    for start in range(0, columns, columns_of.block):
        columns_of.round(start, factor)
    codes = torch.empty_like(columns_of.codes)
    codes[:, places] = columns_of.codes
    return columns_of.grid.holding(codes)


class _Columns:
    """The weight on its way, its columns in the order they are taken."""

    def __init__(self, moved: torch.Tensor, places: torch.Tensor, grid: Grid, *, fitted: bool) -> None:
        self.moved = moved
        self.grid = grid
        self.fitted = fitted or grid.scheme.group is None
        self.group = grid.scheme.group or moved.shape[1]
        self.group_of = (places // self.group).tolist()
        # A group that is fitted in its turn begins where a block does, so that every error before has reached it.
        self.block = BLOCK if self.fitted else self.group
        self.codes = torch.empty(moved.shape, dtype=torch.int8, device=moved.device)

    def round(self, start: int, factor: torch.Tensor) -> None:
        """Round the columns of one block, then move their errors to all that follow."""
        end = min(start + self.block, self.moved.shape[1])
        if not self.fitted:
            self._fit(start, end)
        within = factor[start:end, start:end]
        part = self.moved[:, start:end]
        errors = torch.empty_like(part)
        for at in range(end - start):
            rounded, decoded = self._column(part[:, at], self.group_of[start + at])
            self.codes[:, start + at] = rounded.to(torch.int8)
            errors[:, at] = (part[:, at] - decoded) / within[at, at]
            part[:, at + 1 :] -= errors[:, at : at + 1] * within[at, at + 1 :]
        self.moved[:, end:] -= errors @ factor[start:end, end:]

    def _column(self, weights: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        scales = self.grid.scales[:, group]
        zeros = None if self.grid.zeros is None else self.grid.zeros[:, group]
        rounded = self.grid.round(weights, scales, zeros)
        steps = rounded if zeros is None else rounded - zeros.to(torch.float32)
        return rounded, steps * scales.to(torch.float32)

    def _fit(self, start: int, end: int) -> None:
        found = fit(self.moved[:, start:end], self.grid.scheme, self.grid.scales.dtype)
        group = start // self.group
        self.grid.scales[:, group] = found.scales[:, 0]
        if self.grid.zeros is not None and found.zeros is not None:
            self.grid.zeros[:, group] = found.zeros[:, 0]


def _factor(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the damped inverse. Channels that were never seen stand alone: just rounded."""
    diagonal = gram.diagonal()
    dead = diagonal == 0
    typical = diagonal.mean().clamp(min=torch.finfo(torch.float32).tiny)
    identity = torch.eye(len(gram), device=gram.device)
    while damping <= 1:
        damped = gram / typical + identity * damping + torch.diag(dead.to(gram.dtype))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper: torch.Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper
        damping *= 10
    raise CompressionError("gptq: the inputs of a layer hold NaN or infinity; is the model itself sound?")
