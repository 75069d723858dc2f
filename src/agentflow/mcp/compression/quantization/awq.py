"""AWQ: the few channels that carry the largest inputs are written larger, so that rounding hurts them less.

Lin et al.: "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv:2306.00978. With the
mean size a of each input channel, over a grid of α from 0 to 1:

    s = a^α      minimise  ‖Q(W · s) · (s⁻¹ · X) − W X‖²      then, group by group, the range that is kept of W · s

The objective needs X only as Σ x xᵀ, so that it is exact over all calibration tokens and costs no memory of them. α = 0
is RTN, and a clipping that makes a layer worse is not taken: on the calibration texts AWQ is never worse than RTN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from agentflow.mcp.compression.quantization.grid import fit, groups_of, rtn
from agentflow.mcp.compression.quantization.inputs import Inputs
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["clipped", "objective", "searched"]

ALPHAS = 20
SHRINKS = tuple(1 - 0.05 * step for step in range(11))  # of a group's range: 1 to 0.5
ROWS = 512  # that are clipped at once


def searched(
    weights: Sequence[torch.Tensor],
    inputs: Inputs,
    schemes: Sequence[Scheme],
    dtype: torch.dtype,
    shared: Callable[[torch.Tensor], torch.Tensor] = lambda scales: scales,
) -> torch.Tensor | None:
    """The scales of the input that suit these layers best together, (columns,); None where none are better.

    `shared` makes those equal that have to be.
    """
    best, lowest = None, objective(weights, inputs, schemes, dtype, None)
    size = inputs.mean.clamp(min=1e-8)
    for step in range(1, ALPHAS + 1):
        scales = shared(_centred(size.pow(step / ALPHAS)))
        found = objective(weights, inputs, schemes, dtype, scales)
        if found < lowest:
            best, lowest = scales, found
    return best


def objective(
    weights: Sequence[torch.Tensor],
    inputs: Inputs,
    schemes: Sequence[Scheme],
    dtype: torch.dtype,
    scales: torch.Tensor | None,
) -> float:
    """The paper's L(s) = ‖Q(W · diag(s)) diag(s)⁻¹ X − W X‖², over all layers that read X."""
    total = 0.0
    for weight, scheme in zip(weights, schemes, strict=True):
        scaled = weight if scales is None else weight * scales
        rounded = rtn(scaled, scheme, dtype).dequantize(torch.float32)
        total += float(inputs.loss((rounded if scales is None else rounded / scales) - weight))
    return total


def clipped(weight: torch.Tensor, inputs: Inputs, scheme: Scheme, dtype: torch.dtype) -> QuantizedWeight:
    """Rounded within the range of each group that suits its inputs best."""
    plain = rtn(weight, scheme, dtype)
    groups = groups_of(weight.shape[1], scheme)
    width = weight.shape[1] // groups
    at = torch.arange(groups, device=weight.device)
    grams = inputs.gram.reshape(groups, width, groups, width)[at, :, at]  # each group's own, (groups, width, width)
    shrink = torch.cat([_shrink(part, grams, scheme, dtype) for part in torch.split(weight, ROWS)])
    tight = fit(weight, scheme, dtype, shrink).nearest(weight)
    better = inputs.loss(tight.dequantize(torch.float32) - weight) < inputs.loss(
        plain.dequantize(torch.float32) - weight
    )
    return tight if better else plain


def _shrink(weight: torch.Tensor, grams: torch.Tensor, scheme: Scheme, dtype: torch.dtype) -> torch.Tensor:
    """The share of each group's range to keep, (rows, groups)."""
    shape = (len(weight), *grams.shape[:2])
    best = torch.ones(shape[:2], device=weight.device)
    lowest = torch.full_like(best, torch.inf)
    for share in SHRINKS:
        error = (fit(weight, scheme, dtype, share).nearest(weight).dequantize(torch.float32) - weight).reshape(shape)
        loss = torch.einsum("rgi,gij,rgj->rg", error, grams, error)
        best = torch.where(loss < lowest, share, best)
        lowest = torch.minimum(loss, lowest)
    return best


def _centred(scales: torch.Tensor) -> torch.Tensor:
    """Around 1, so that neither weights nor inputs drift: the function is the same whatever all are multiplied by."""
    return scales / (scales.max() * scales.min()).sqrt()
