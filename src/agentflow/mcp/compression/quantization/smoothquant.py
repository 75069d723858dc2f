"""SmoothQuant: part of what makes inputs hard to round is moved into the weights, which are easy.

Xiao et al.: "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
arXiv:2211.10438. For each input channel j of the layers after a norm, s_j = max|X_j|^α / max|W_j|^(1−α); the norm is
divided by it and the weights are multiplied, which changes nothing but the numbers' ranges.

Inputs are rounded to 8 bits, symmetric: a scale a token, found while the model runs (dynamic), or one a layer, found
here (static): max|x| · 2 / 255, as compressed-tensors divides a range.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agentflow.mcp.compression.quantization.grid import stored
from agentflow.mcp.compression.quantization.inputs import Inputs

__all__ = ["input_scale", "round_inputs", "smoothing"]

ALPHA = 0.5
_STEPS = 255 / 2


def smoothing(weights: Sequence[torch.Tensor], inputs: Inputs, alpha: float = ALPHA) -> torch.Tensor:
    """The scales s, (columns,), by which the input of these layers is divided. 1 for channels that are never used."""
    size = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    used = (size > 0) & (inputs.highest > 0)
    scales = inputs.highest.clamp(min=1e-5).pow(alpha) / size.clamp(min=1e-5).pow(1 - alpha)
    return torch.where(used, scales, torch.ones_like(scales))


def input_scale(inputs: Inputs, dtype: torch.dtype) -> torch.Tensor:
    """The static scale of a layer's inputs, shape (1,)."""
    return stored((inputs.highest.max() / _STEPS).reshape(1), dtype)


def round_inputs(linear: nn.Linear, scale: torch.Tensor | None) -> None:
    """From now on the layer sees its inputs as 8-bit codes would hold them; `scale=None`: one a token."""

    def rounded(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        rows = given[0]
        step = scale.to(rows) if scale is not None else stored(rows.abs().amax(-1, keepdim=True) / _STEPS, rows.dtype)
        return ((rows / step).clamp(-128, 127).round() * step, *given[1:])

    linear.register_forward_pre_hook(rounded)
