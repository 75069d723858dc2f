"""Bits by layer, so that a budget is kept: what each unit costs and loses, what is chosen, and what came of it.

"3.5 bits" counts what a weight takes in the file, its share of scales and zero points included. "kl 0.02" is what the
quantised model may differ from its source, in nats a token on calibration texts; it is measured once the model is
written, and where it is more than allowed the next try allows less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from agentflow.errors import RecipeError
from agentflow.mcp.compression.blocks import Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.allocation import Choice, cheapest, fitting
from agentflow.mcp.compression.quantization.grid import groups_of
from agentflow.mcp.compression.quantization.layers import Layers
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.quantization.sensitivity import Sensitivity, divergence, head_of, measured
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.scheme import BITS, Scheme
from agentflow.mcp.compression.work import Work

__all__ = ["Budget"]

MOST = max(BITS)
TRIES = 100  # at allowing a tenth less, until something changes
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What `Quantize.budget` allows, and what the layers would lose."""

    stage: Quantize
    layers: Layers
    sensitivity: Sensitivity
    choices: dict[Names, tuple[Choice, ...]]
    blocks: Blocks

    @classmethod
    def of(cls, stage: Quantize, checkpoint: Checkpoint, layers: Layers, work: Work) -> Budget:
        """Reads the model once. Raises RecipeError for what is no decoder, CalibrationError without texts."""
        blocks = Blocks(checkpoint, work.device)
        sensitivity = measured(blocks, layers, work)
        choices = {
            names: tuple(
                Choice(bits, sum(_size(checkpoint, layers, name, bits) for name in names), loss)
                for bits, loss in losses.items()
            )
            for names, losses in sensitivity.losses.items()
        }
        return cls(stage, layers, sensitivity, choices, blocks)

    def chosen(self, allowed: float) -> Layers:
        """The layers with their bits, where `allowed` is the limit, or less where a try went over it."""
        kind, _ = self.stage.limit()
        found = (
            fitting(self.choices, allowed * self.layers.weights) if kind == "bits" else cheapest(self.choices, allowed)
        )
        return self.layers.given({name: choice.bits for names, choice in found.items() for name in names})

    def kl(self, hidden: torch.Tensor, head: QuantizedWeight | None) -> float:
        """Of the written model, from its states after the last layer on the calibration windows, and its head where
        that was quantised."""
        ours = hidden[: len(self.sensitivity.windows)]
        return divergence(self.blocks, self.sensitivity.hidden, ours, head_of(self.blocks), head)

    def after(self, allowed: float, found: float, layers: Layers) -> tuple[float, Layers]:
        """What to allow next, and the layers that come of it, after `layers` differed by `found`.

        Raises RecipeError where all of them have the most bits already.
        """
        _, limit = self.stage.limit()
        if all(scheme.bits == MOST for scheme in layers.schemes.values()):
            raise RecipeError(
                f"a KL of {limit:g} cannot be kept: with {MOST} bits everywhere it is {found:.3g}; "
                "allow more, or ignore more layers"
            )
        allowed = min(allowed, sum(self._losses(layers))) * min(0.9, limit / found)
        for _ in range(TRIES):
            following = self.chosen(allowed)
            if following.schemes != layers.schemes:
                return allowed, following
            allowed *= 0.9
        return allowed, layers.given(dict.fromkeys(layers.schemes, MOST))

    def _losses(self, layers: Layers) -> list[float]:
        return [self.sensitivity.losses[names][layers.schemes[names[0]].bits] for names in self.choices]


def _size(checkpoint: Checkpoint, layers: Layers, name: str, bits: int) -> float:
    """What the layer takes in the file, in bits."""
    rows, columns = layers.shapes[name]
    scheme: Scheme = replace(layers.schemes[name], bits=bits)
    scale = 32 if checkpoint.tensors[f"{name}.weight"].dtype not in ("F16", "BF16") else 16
    zero = 0 if scheme.symmetric else bits
    return rows * (math.ceil(columns * bits / 32) * 32 + groups_of(columns, scheme, name) * (scale + zero))
