"""What llama.cpp must know of an architecture: its metadata, its names of tensors, and how it wants rows to stand.

    model.layers.0.self_attn.q_proj.weight ─▶ blk.0.attn_q.weight

Llama and Mistral turn pairs of neighbouring numbers by the rotary embedding in llama.cpp, but the two halves of a head
in transformers: their rows of query and key are reordered. Qwen's are turned by halves in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

from agentflow.errors import RecipeError

__all__ = ["GgufArchitecture"]

_ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """Of a model's config.json."""

    config: Mapping[str, Any]
    kind: gguf.MODEL_ARCH
    _names: gguf.TensorNameMap

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> GgufArchitecture:
        kind = _ARCHITECTURES[str(config["architectures"][0])]
        return cls(config, kind, gguf.get_tensor_name_map(kind, int(config["num_hidden_layers"])))

    @property
    def name(self) -> str:
        return gguf.MODEL_ARCH_NAMES[self.kind]

    def tensor(self, name: str) -> str:
        """llama.cpp's name. Raises RecipeError where it has none."""
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise RecipeError(f"gguf: {self.name} has no tensor for {name}")
        return found

    def order(self, name: str, rows: int) -> NDArray[np.int64] | None:
        """The rows of a tensor in llama.cpp's order; None where they stay."""
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if self.kind is not gguf.MODEL_ARCH.LLAMA or heads is None:
            return None
        count = int(self.config.get(heads) or self.config["num_attention_heads"])
        return np.arange(rows).reshape(count, 2, rows // count // 2).swapaxes(1, 2).reshape(rows)

    def write(self, writer: GGUFWriter) -> None:
        config = self.config
        heads = int(config["num_attention_heads"])
        width = int(config.get("head_dim") or config["hidden_size"] // heads)
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(int(config["hidden_size"]))
        writer.add_block_count(int(config["num_hidden_layers"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(heads)
        writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_vocab_size(int(config["vocab_size"]))
        writer.add_rope_dimension_count(width)
        self._write_rope(writer)

    def _write_rope(self, writer: GGUFWriter) -> None:
        rope = _rope(self.config)
        writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
        if rope["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))

    def rope_factors(self) -> NDArray[np.float32] | None:
        """By how much each frequency is slowed, of Llama 3.1 and later: shape (head size / 2,)."""
        rope = _rope(self.config)
        if rope["rope_type"] != "llama3":
            return None
        heads = int(self.config["num_attention_heads"])
        width = int(self.config.get("head_dim") or self.config["hidden_size"] // heads)
        return np.array([_slowed(rope, 2 * index / width) for index in range(width // 2)], dtype=np.float32)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the newer `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    found = {"rope_theta": config.get("rope_theta", 10000.0)}
    found |= config.get("rope_scaling") or {}
    found |= config.get("rope_parameters") or {}
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    if found["rope_type"] not in ("default", "linear", "llama3"):
        raise RecipeError(f"gguf: positions scaled by {found['rope_type']} are not written; export the model as onnx")
    return found


def _slowed(rope: Mapping[str, Any], power: float) -> float:
    """The rule of Llama 3.1: long waves are stretched by `factor`, short ones stay, those between in proportion."""
    wave: float = 2 * math.pi * float(rope["rope_theta"]) ** power
    factor, length = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    if wave < length / high:
        return 1.0
    if wave > length / low:
        return factor
    share = (length / wave - low) / (high - low)
    return 1 / ((1 - share) / factor + share)
