"""What each unit's bits do to the model's answers: KL of the whole model, one unit rounded at a time.

    windows ─▶ layer 0 ─▶ layer 1 ─▶ …  ─▶ logits                 the model as it is
                  ├─ q k v at 2 bits ─▶ layer 1 ─▶ … ─▶ logits     ┐
                  ├─ q k v at 3 bits ─▶ …                          │ streams, that all go through a layer
                  └─ …                                             ┘ while its weights are there

So the weights are read once, and the memory is that of the hidden states of units × widths, on few windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from agentflow.errors import CalibrationError
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.quantization.grid import rtn
from agentflow.mcp.compression.quantization.layers import HEAD, Layers, units_of
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.scheme import BITS
from agentflow.mcp.compression.work import Work

__all__ = ["Sensitivity", "divergence", "head_of", "measured"]

WINDOWS = 16  # at most
MEMORY = 2 << 30  # bytes of hidden states, at most
BATCH = 4
F32 = torch.float32
Names = tuple[str, ...]
Key = TypeVar("Key")


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
    head = head_of(blocks)
    losses: dict[Names, dict[int, float]] = {}
    for (names, bits), loss in divergences(blocks, hidden, streams, head, work.check).items():
        losses.setdefault(names, {})[bits] = loss
    if HEAD in layers.schemes:
        losses[HEAD,] = {
            bits: divergence(blocks, hidden, hidden, head, rtn(head, replace(layers.schemes[HEAD], bits=bits), F32))
            for bits in BITS
        }
    return Sensitivity(losses, windows, hidden)


def head_of(blocks: Blocks) -> torch.Tensor:
    """The weight that makes logits of states, (vocabulary, hidden size), in float32; of tied models the embeddings."""
    name = f"{HEAD}.weight"
    name = name if name in blocks.checkpoint.tensors else "model.embed_tokens.weight"
    return blocks.checkpoint.load(name).to(blocks.device, torch.float32)


def divergence(
    blocks: Blocks, hidden: torch.Tensor, other: torch.Tensor, head: torch.Tensor, rounded: QuantizedWeight | None
) -> float:
    """KL(source ‖ other) in nats a token, of states after the last layer; `rounded` is the other's head, if it has its
    own."""
    theirs = head if rounded is None else rounded.dequantize(torch.float32)
    return divergences(blocks, hidden, {0: other}, head, lambda: None, theirs)[0]


def divergences(
    blocks: Blocks,
    hidden: torch.Tensor,
    others: Mapping[Key, torch.Tensor],
    head: torch.Tensor,
    check: Callable[[], None],
    theirs: torch.Tensor | None = None,
) -> dict[Key, float]:
    """The same for many, a few windows at a time, so that no more than two sets of logits are held."""
    total = dict.fromkeys(others, 0.0)
    for at in range(0, len(hidden), BATCH):
        check()
        source = _log_probabilities(blocks, hidden[at : at + BATCH], head)
        likely = source.exp()
        for key, other in others.items():
            found = _log_probabilities(blocks, other[at : at + BATCH], head if theirs is None else theirs)
            total[key] += float((likely * (source - found)).sum())
    return {key: loss / hidden[..., 0].numel() for key, loss in total.items()}


def _log_probabilities(blocks: Blocks, hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return (blocks.normed(hidden) @ head.T).log_softmax(-1)


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


def _few(blocks: Blocks, layers: Layers, work: Work) -> torch.Tensor:
    windows = work.calibration
    if not windows.numel():
        raise CalibrationError("measuring what bits cost", needed=256, found=0)
    streams = 1 + len(BITS) * len(layers.schemes)
    one = windows.shape[1] * int(blocks.checkpoint.config["hidden_size"]) * 4 * streams
    return windows[: max(1, min(WINDOWS, MEMORY // one))]
