"""What each unit's bits do to the model's answers: KL of the whole model, one unit rounded at a time.

    windows ─▶ layer 0 ─▶ layer 1 ─▶ …  ─▶ logits                 the model as it is
                  ├─ q k v at 2 bits ─▶ layer 1 ─▶ … ─▶ logits     ┐
                  ├─ q k v at 3 bits ─▶ …                          │ streams, that all go through a layer
                  └─ …                                             ┘ while its weights are there

So the weights are read once, and the memory is that of the hidden states of units × widths, on few windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from agentflow.errors import CalibrationError
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.quantization.grid import rtn
from agentflow.mcp.compression.quantization.layers import HEAD, Layers, units_of
from agentflow.mcp.compression.scheme import BITS
from agentflow.mcp.compression.work import Work

__all__ = ["Sensitivity", "divergence", "measured"]

WINDOWS = 16  # at most
MEMORY = 2 << 30  # bytes of hidden states, at most
BATCH = 4
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """`losses[unit][bits]`: the KL, in nats a token. `windows` is what was read, `hidden` the states of the source
    after the last layer."""

    losses: Mapping[Names, Mapping[int, float]]
    windows: torch.Tensor
    hidden: torch.Tensor


def measured(blocks: Blocks, layers: Layers, work: Work) -> Sensitivity:
    """By RTN, whatever method follows. Raises CalibrationError where there is no text."""
    windows = _few(blocks, layers, work)
    streams: dict[tuple[Names, int], torch.Tensor] = {}

    def visit(block: Block) -> None:
        work.progress("sensitivity", block.index, blocks.checkpoint.layers)
        for key, hidden in streams.items():
            work.check()
            streams[key] = replace(block, hidden=hidden).run()
        for names, bits in _widths(layers, block):
            work.check()
            streams[names, bits] = _rounded(block, layers, names, bits)

    hidden = blocks.walk(windows, visit, check=work.check)
    losses: dict[Names, dict[int, float]] = {}
    for (names, bits), ended in streams.items():
        work.check()
        losses.setdefault(names, {})[bits] = divergence(blocks, hidden, ended)
    if HEAD in layers.schemes:
        losses[HEAD,] = {bits: _head(blocks, layers, hidden, bits) for bits in BITS}
    return Sensitivity(losses, windows, hidden)


def divergence(blocks: Blocks, hidden: torch.Tensor, other: torch.Tensor, head: torch.Tensor | None = None) -> float:
    """KL(source ‖ other) in nats a token, of states after the last layer; `head` is the other's, if it has its own."""
    total = 0.0
    for at in range(0, len(hidden), BATCH):
        source = blocks.logits(hidden[at : at + BATCH]).log_softmax(-1)
        states = other[at : at + BATCH]
        logits = blocks.logits(states) if head is None else blocks.normed(states) @ head.T
        total += float((source.exp() * (source - logits.log_softmax(-1))).sum())
    return total / hidden[..., 0].numel()


def _widths(layers: Layers, block: Block) -> Iterator[tuple[Names, int]]:
    for unit in units_of(layers, block.name):
        for bits in BITS:
            yield unit.names, bits


def _rounded(block: Block, layers: Layers, names: Names, bits: int) -> torch.Tensor:
    """The states after the layer with these weights rounded, which are then put back."""
    linears = block.linears()
    kept = {name: linears[name].weight.data for name in names}
    try:
        for name, weight in kept.items():
            scheme = replace(layers.schemes[name], bits=bits)
            linears[name].weight.data = rtn(weight, scheme, torch.float32).dequantize()
        return block.run()
    finally:
        for name, weight in kept.items():
            linears[name].weight.data = weight


def _head(blocks: Blocks, layers: Layers, hidden: torch.Tensor, bits: int) -> float:
    weight = blocks.checkpoint.load(f"{HEAD}.weight").to(blocks.device, torch.float32)
    rounded = rtn(weight, replace(layers.schemes[HEAD], bits=bits), torch.float32).dequantize()
    return divergence(blocks, hidden, hidden, rounded)


def _few(blocks: Blocks, layers: Layers, work: Work) -> torch.Tensor:
    windows = work.calibration
    if not windows.numel():
        raise CalibrationError("measuring what bits cost", needed=256, found=0)
    streams = 1 + len(BITS) * len(layers.schemes)
    one = windows.shape[1] * int(blocks.checkpoint.config["hidden_size"]) * 4 * streams
    return windows[: max(1, min(WINDOWS, MEMORY // one))]
