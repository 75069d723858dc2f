"""Scaling the inputs of layers without another operation: what stands before them gives less, their weights take more.

    norm(x) · w  ─▶  W          becomes          norm(x) · (w / s)  ─▶  W · s          the same function

`s` is positive, one a channel. Where a linear layer stands before, its rows are divided; v_proj's rows serve several
heads of queries where keys and values are grouped, so that these share a scale.
"""

from __future__ import annotations

import torch
from torch import nn

from agentflow.mcp.compression.blocks import Block
from agentflow.mcp.compression.quantization.layers import Unit

__all__ = ["fold", "shared"]

SMALLEST = 1e-4  # of a scale: beyond 1e4 nothing is won, and 16-bit weights overflow


def shared(scales: torch.Tensor, block: Block, unit: Unit) -> torch.Tensor:
    """`scales` of shape (columns,), made equal where they must be: for the query heads that read one value head."""
    if unit.after_norm or (rows := len(_weight(_module(block, unit)))) == len(scales):
        return scales
    width = _head_width(block)
    heads = rows // width
    grouped = scales.reshape(heads, -1, width)
    return grouped.log().mean(1, keepdim=True).exp().expand_as(grouped).reshape(-1)


def fold(scales: torch.Tensor, block: Block, unit: Unit, dtype: torch.dtype) -> torch.Tensor:
    """Divide the unit's input by `scales` (as `shared` made them) and multiply its weights; the scales that came out.

    Those differ a little where the norm is stored as 16-bit `dtype`: what is written is what is made up for.
    """
    before = _module(block, unit)
    scales = scales.clamp(SMALLEST, 1 / SMALLEST)
    if unit.after_norm:
        scales = _divide_norm(before, scales, dtype)
    else:
        _divide_rows(before, scales, block)
    linears = block.linears()
    for name in unit.names:
        linears[name].weight.data *= scales
    return scales


def _divide_norm(norm: nn.Module, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    old = _weight(norm)
    new = (old / scales).to(dtype).to(torch.float32)
    sound = (new != 0) & new.isfinite()
    norm.weight.data = torch.where(sound, new, old)
    return torch.where(sound, old / torch.where(sound, new, 1.0), torch.ones_like(old))


def _divide_rows(linear: nn.Module, scales: torch.Tensor, block: Block) -> None:
    weight = _weight(linear)
    if len(scales) != len(weight):
        width = _head_width(block)
        scales = scales.reshape(len(weight) // width, -1, width)[:, 0].reshape(-1)
    linear.weight.data = weight / scales.unsqueeze(1)
    if isinstance(linear.bias, torch.Tensor):
        linear.bias.data = linear.bias.data / scales


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.data


def _head_width(block: Block) -> int:
    width = block.module.get_submodule("self_attn").head_dim
    assert isinstance(width, int)
    return width


def _module(block: Block, unit: Unit) -> nn.Module:
    return block.module.get_submodule(unit.before.removeprefix(f"{block.name}."))
