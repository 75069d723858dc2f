"""A weight as codes and scales, and how it lies in a compressed-tensors folder: what was chosen is what is read back.

    QuantizedWeight ──tensors()──▶ up_proj.weight_packed, .weight_scale, .weight_shape (, .weight_zero_point)
                                   up_proj.weight (int8), .weight_scale (, .input_scale)        of w8a8
    read_quantized(checkpoint)["model.layers.0.mlp.up_proj.weight"] ──▶ QuantizedWeight

Packing itself is done by the `compressed-tensors` library: the bits of codes follow each other without gaps, so that
three-bit codes cross the borders of words. Older versions of the library (0.15) left gaps there; such a folder is
refused rather than misread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from agentflow.errors import ModelFolderError
from agentflow.mcp.compression.checkpoint import Checkpoint

__all__ = ["QuantizedWeight", "read_quantized"]

PACKED = "weight_packed"


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """weight[r, c] ≈ (codes[r, c] − zeros[r, g]) · scales[r, g], where g = c // group.

    `codes` are int8 of shape (rows, columns), from −2^(bits−1) to 2^(bits−1) − 1. `scales` and `zeros` have shape
    (rows, groups); `zeros` is int8 in the range of the codes, or None where it is 0 throughout. `group=None`: one scale
    for each row. `activation_bits` is set where the layer's inputs are rounded too; `input_scale`, of shape (1,), where
    their scale was found beforehand.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    bits: int
    group: int | None
    activation_bits: int | None = None
    input_scale: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.codes.shape
        return rows, columns

    @property
    def stored_bits(self) -> float:
        """Bits a weight that codes, scales and zero points take in the file."""
        rows, columns = self.shape
        packed = math.ceil(columns * self.bits / 32) * 32 if self.activation_bits is None else columns * 8
        scale = self.scales.element_size() * 8 + (0 if self.zeros is None else self.bits)
        return (rows * packed + self.scales.numel() * scale) / (rows * columns)

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight that a runtime computes with: shape (rows, columns), of the scales' type unless told."""
        rows, columns = self.shape
        grouped = self.codes.to(torch.float32).view(rows, self.scales.shape[1], -1)
        if self.zeros is not None:
            grouped = grouped - self.zeros.to(torch.float32).unsqueeze(-1)
        weight = (grouped * self.scales.to(torch.float32).unsqueeze(-1)).view(rows, columns)
        # First as the runtime rounds it, to the scales' type; only then as the caller wants it.
        return weight.to(self.scales.dtype).to(dtype or self.scales.dtype)

    def tensors(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        """As compressed-tensors stores the layer `name`: pack-quantized, or int-quantized where inputs are rounded."""
        if self.activation_bits is not None:
            yield f"{name}.weight", self.codes
            yield f"{name}.weight_scale", self.scales
            if self.input_scale is not None:
                yield f"{name}.input_scale", self.input_scale
            return
        pack, _ = _packing()
        yield f"{name}.{PACKED}", pack(self.codes.cpu(), self.bits)
        yield f"{name}.weight_scale", self.scales
        yield f"{name}.weight_shape", torch.tensor(self.shape, dtype=torch.int64)
        if self.zeros is not None:
            yield f"{name}.weight_zero_point", pack(self.zeros.cpu(), self.bits, packed_dim=0)


def read_quantized(checkpoint: Checkpoint) -> Mapping[str, QuantizedWeight]:
    """The quantised weights of a compressed-tensors folder, by the names they had in full precision
    ("model.layers.0.mlp.up_proj.weight"); each is read when it is asked for, and not kept. Empty for a model in full
    precision.

    Raises ModelFolderError for another way of quantising, and for tensors that contradict their configuration.
    """
    return _Weights(checkpoint)


class _Weights(Mapping[str, QuantizedWeight]):
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._schemes = _schemes(checkpoint)
        # Modules whose scales are stored; a list, as order is the file's.
        scaled = [name.removesuffix(".weight_scale") for name in checkpoint.tensors if name.endswith(".weight_scale")]
        self._names = {f"{module}.weight": module for module in scaled} if self._schemes else {}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without reading it

    def __getitem__(self, name: str) -> QuantizedWeight:
        module = self._names[name]
        scheme = self._scheme_of(module)
        weights, inputs = scheme.weights, scheme.input_activations
        packed = f"{module}.{PACKED}" in self._checkpoint.tensors
        read = self._packed if packed else self._plain
        codes, scales, zeros = read(module, weights.num_bits)
        input_scale = f"{module}.input_scale"
        return QuantizedWeight(
            codes=codes,
            scales=scales,
            zeros=zeros if not weights.symmetric else None,
            bits=weights.num_bits,
            group=_group(weights, codes.shape[1], scales.shape[1], self._checkpoint, module),
            activation_bits=None if inputs is None else inputs.num_bits,
            input_scale=self._checkpoint.load(input_scale) if input_scale in self._checkpoint.tensors else None,
        )

    def _packed(self, module: str, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        _, unpack = _packing()
        load = self._checkpoint.load
        words, scales = load(f"{module}.{PACKED}"), load(f"{module}.weight_scale")
        shape = load(f"{module}.weight_shape")
        rows, columns = int(shape[0]), int(shape[1])
        if words.shape != (rows, math.ceil(columns * bits / 32)):
            self._wrong(module, f"{columns} columns of {bits} bits are not {words.shape[1]} words: an older version of "
                                "compressed-tensors packed them")  # fmt: skip
        zeros = None
        if f"{module}.weight_zero_point" in self._checkpoint.tensors:
            # Turned here and not by the library, which stumbles over the strides of a single row of words.
            turned = load(f"{module}.weight_zero_point").T.clone(memory_format=torch.contiguous_format)
            zeros = unpack(turned, bits, torch.Size(scales.T.shape)).T.contiguous()
        return unpack(words, bits, torch.Size((rows, columns))), scales, zeros

    def _plain(self, module: str, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        load = self._checkpoint.load
        codes = load(f"{module}.weight")
        if codes.dtype != torch.int8:
            self._wrong(module, f"its weight is {codes.dtype}, not codes of {bits} bits")
        zero = f"{module}.weight_zero_point"
        return codes, load(f"{module}.weight_scale"), load(zero) if zero in self._checkpoint.tensors else None

    def _scheme_of(self, module: str) -> Any:
        from compressed_tensors.utils.match import match_name

        if f"{module}.weight_g_idx" in self._checkpoint.tensors:
            self._wrong(module, "its columns are spread over groups by an index (act-order 'group')")
        for scheme in self._schemes:
            if any(target == "Linear" or match_name(module, target) for target in scheme.targets):
                return scheme
        return self._wrong(module, "no group of quantization_config names it")

    def _wrong(self, module: str, problem: str) -> Any:
        raise ModelFolderError(self._checkpoint.folder, f"{module}: {problem}")


def _schemes(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """The config groups, those that name layers before those that mean all of a type."""
    found = checkpoint.quantization
    if found is None:
        return ()
    if found.get("quant_method") != "compressed-tensors":
        raise ModelFolderError(checkpoint.folder, f"it is quantised by {found.get('quant_method')}, not readable here")
    from compressed_tensors.quantization import QuantizationConfig

    keys = {key: value for key, value in found.items() if key in QuantizationConfig.model_fields}
    try:
        groups = QuantizationConfig.model_validate(keys).config_groups.values()
    except ValueError as error:
        raise ModelFolderError(checkpoint.folder, f"its quantization_config is no such thing: {error}") from error
    for group in groups:
        if isinstance(group, list) or group.weights is None or group.weights.type != "int":
            raise ModelFolderError(checkpoint.folder, "its weights are not integers, which alone are read here")
    return tuple(sorted(groups, key=lambda group: "Linear" in getattr(group, "targets", ())))


def _group(weights: Any, columns: int, groups: int, checkpoint: Checkpoint, module: str) -> int | None:
    if weights.strategy != "group":
        return None
    if weights.group_size * groups != columns:
        problem = f"{module}: {groups} groups of {weights.group_size} are not its {columns} columns"
        raise ModelFolderError(checkpoint.folder, problem)
    return int(weights.group_size)


def _packing() -> tuple[Any, Any]:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    return pack_to_int32, unpack_from_int32
