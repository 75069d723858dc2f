"""What is kept of a model, and what becomes of each tensor and of config.json: no weight is judged here.

Cut(shape, layers=(0, 2), channels=…, groups=…)

model.layers.1.…                 gone
model.layers.2.…                 becomes model.layers.1.…
  mlp.gate_proj, up_proj         rows of the channels that are kept    down_proj: columns
  self_attn.k_proj, v_proj       rows of the groups that are kept
  self_attn.q_proj               rows of the queries that read them    o_proj: columns
  q_norm, k_norm, o_proj.bias    as they were: they know nothing of single heads
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from agentflow.mcp.compression.checkpoint import Checkpoint

__all__ = ["Cut", "Shape"]

_LAYER: Final = re.compile(r"(?P<stem>(?:model\.layers|(?:bert\.)?encoder\.layer)\.)(?P<index>\d+)(?P<rest>\..+)")


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that pruning changes, and those that it needs for that. `heads` are queries, `groups` the keys and
    values that `heads / groups` of them read together."""

    layers: int
    channels: int
    heads: int
    groups: int
    head_size: int
    hidden: int
    layer_types: tuple[str, ...] | None  # "full_attention" or "sliding_attention", where the architecture has them

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Shape:
        """As transformers reads config.json, so that what it leaves out has the architecture's own default."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        heads = config.num_attention_heads
        types = getattr(config, "layer_types", None)
        return cls(
            layers=config.num_hidden_layers,
            channels=config.intermediate_size,
            heads=heads,
            groups=getattr(config, "num_key_value_heads", None) or heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            hidden=config.hidden_size,
            layer_types=tuple(types) if types else None,
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """`layers` are kept, by their old numbers, in order. `channels` and `groups` are kept of each of them: old layer →
    old numbers, in order, as many of every layer; None keeps all."""

    shape: Shape
    layers: tuple[int, ...]
    channels: Mapping[int, torch.Tensor] | None = None
    groups: Mapping[int, torch.Tensor] | None = None

    def name(self, name: str) -> str | None:
        """What the tensor is called afterwards; None where it is gone."""
        found = _LAYER.fullmatch(name)
        if found is None:
            return name
        index = int(found["index"])
        return f"{found['stem']}{self.layers.index(index)}{found['rest']}" if index in self.layers else None

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What is kept of the tensor with the old name `name`, in the type that it had."""
        found = _LAYER.fullmatch(name)
        if found is None:
            return tensor
        layer, (part, kind) = int(found["index"]), found["rest"].split(".")[-2:]
        if self.channels is not None and part in ("gate_proj", "up_proj"):
            return tensor[self.channels[layer]]
        if self.channels is not None and (part, kind) == ("down_proj", "weight"):
            return tensor[:, self.channels[layer]]
        if self.groups is not None and part in ("k_proj", "v_proj"):
            return tensor[self._rows(layer, self.shape.head_size)]
        if self.groups is not None and part == "q_proj":
            return tensor[self._rows(layer, self._of_a_group)]
        if self.groups is not None and (part, kind) == ("o_proj", "weight"):
            return tensor[:, self._rows(layer, self._of_a_group)]
        return tensor

    @property
    def _of_a_group(self) -> int:
        """Rows of q_proj that belong to one group."""
        return self.shape.heads // self.shape.groups * self.shape.head_size

    def _rows(self, layer: int, each: int) -> torch.Tensor:
        assert self.groups is not None
        return (self.groups[layer][:, None] * each + torch.arange(each)).flatten()

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """config.json afterwards. What is not about a number that changed stays as it stood there."""
        changed = {**config, "num_hidden_layers": len(self.layers)}
        if self.shape.layer_types is not None:
            changed["layer_types"] = [self.shape.layer_types[layer] for layer in self.layers]
        if "max_window_layers" in config:  # the layers before it see everything, those behind it a window
            changed["max_window_layers"] = sum(layer < config["max_window_layers"] for layer in self.layers)
        if self.channels is not None:
            changed["intermediate_size"] = len(self.channels[self.layers[0]])
        if self.groups is not None:
            groups = len(self.groups[self.layers[0]])
            changed["num_key_value_heads"] = groups
            changed["num_attention_heads"] = groups * (self.shape.heads // self.shape.groups)
            changed["head_dim"] = self.shape.head_size  # else it would be taken for hidden_size / heads
        return changed
