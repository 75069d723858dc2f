"""GPTQ: column after column is rounded, and those still to come make up for its error.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv:2210.17323. With H = Σ x xᵀ of the layer's inputs and U the upper Cholesky factor of H⁻¹:

    for each column j:   q = nearest(w_j)      e = (w_j − q) / U_jj      w_k −= e · U_jk  for k > j

Columns are taken by falling H_jj, the paper's act-order, and each keeps the group that it lies in: the scales are
fitted before the first column moves, so that the file needs no index of columns. (Fitting a group's scale when its turn
comes, to weights that the errors before have moved, was tried: at 2 and 3 bits it lost, for the range grows.)
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
    places = torch.arange(columns, device=weight.device)
    if order:
        places = torch.argsort(gram.diagonal(), descending=True, stable=True)
    factor = _factor(gram[places][:, places], damping)
    grid = fit(weight, scheme, dtype)
    moved = weight[:, places]
    rounded = torch.empty_like(weight, dtype=torch.int8)
    group_of = (places // (scheme.group or columns)).tolist()
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        codes, errors = _block(moved[:, start:end], factor[start:end, start:end], grid, group_of[start:end])
        rounded[:, places[start:end]] = codes
        moved[:, end:] -= errors @ factor[start:end, end:]
    return grid.holding(rounded)


def _block(
    part: torch.Tensor, factor: torch.Tensor, grid: Grid, group_of: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round some columns in turn, each after the errors of those before: codes, and the errors left to the rest."""
    codes = torch.empty_like(part, dtype=torch.int8)
    errors = torch.empty_like(part)
    for at, group in enumerate(group_of):
        scales = grid.scales[:, group]
        zeros = None if grid.zeros is None else grid.zeros[:, group]
        found = grid.round(part[:, at], scales, zeros)
        decoded = (found if zeros is None else found - zeros) * scales.to(torch.float32)
        codes[:, at] = found.to(torch.int8)
        errors[:, at] = (part[:, at] - decoded) / factor[at, at]
        part[:, at + 1 :] -= errors[:, at : at + 1] * factor[at, at + 1 :]
    return codes, errors


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
