"""The weights of a model folder as float32, whether they lie there so, in 16 bits, or as codes that Quantize wrote.

weights = FullPrecision(checkpoint)
weights.load("model.layers.0.mlp.up_proj.weight")   float32, of this one tensor
weights.codes.get(name)                             its QuantizedWeight, where it is quantised
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from agentflow.errors import RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.packed import QuantizedWeight, read_quantized

__all__ = ["FullPrecision"]

_OF_CODES = (".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx", ".input_scale")


class FullPrecision:
    """Reads one tensor at a time and keeps none."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.codes: Mapping[str, QuantizedWeight] = read_quantized(checkpoint)

    @classmethod
    def of_weights_alone(cls, checkpoint: Checkpoint) -> FullPrecision:
        """Raises RecipeError where activations are quantised too: ONNX and GGUF have no place for that."""
        source = cls(checkpoint)
        first = next(iter(source.codes), None)
        if first is not None and source.codes[first].activation_bits is not None:
            raise RecipeError("its activations are quantised too (w8a8): export it as compressed-tensors")
        return source

    @property
    def quantized(self) -> bool:
        return len(self.codes) > 0

    def __iter__(self) -> Iterator[str]:
        """The names of a model in full precision, those of quantised weights too."""
        plain = [name for name in self._checkpoint.tensors if not name.endswith(_OF_CODES)]
        return iter(dict.fromkeys([*plain, *self.codes]))

    def __contains__(self, name: object) -> bool:
        return name in self.codes or name in self._checkpoint.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.codes:
            return self.codes[name].shape
        return self._checkpoint.tensors[name].shape

    def load(self, name: str) -> torch.Tensor:
        """Raises ModelFolderError where it is missing or holds NaN."""
        if name in self.codes:
            return self.codes[name].dequantize(torch.float32)
        return self._checkpoint.load(name).to(torch.float32)

    @property
    def parameters(self) -> int:
        total = 0
        for name in self:
            product = 1
            for size in self.shape(name):
                product *= size
            total += product
        return total
