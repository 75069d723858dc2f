"""The tensors of a Hugging Face folder, in full precision or of compressed-tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from agentflow.mcp.compression.artifact.manifest import TensorRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.quantization.packed import QuantizedWeight

__all__ = ["safetensors_tensors"]


def safetensors_tensors(folder: Path) -> Iterator[TensorRecord]:
    checkpoint = Checkpoint.open(folder)
    try:
        source = FullPrecision(checkpoint)
        for name in source:
            if name in source.codes:
                yield _quantized(checkpoint, name, source.codes[name])
            else:
                yield _plain(checkpoint, name)
    finally:
        checkpoint.close()


def _plain(checkpoint: Checkpoint, name: str) -> TensorRecord:
    facts = checkpoint.tensors[name]
    bits = 8 * facts.bytes / max(1, facts.count)
    zeros = float((checkpoint.load(name) == 0).float().mean()) if facts.count else 0.0
    return TensorRecord(name=name, shape=facts.shape, type=facts.dtype, bits=bits, stored_bits=bits, sparsity=zeros)


def _quantized(checkpoint: Checkpoint, name: str, weight: QuantizedWeight) -> TensorRecord:
    own = [facts for each, facts in checkpoint.tensors.items() if each == name or each.startswith(f"{name}_")]
    stored = checkpoint.tensors.get(name)  # codes as a tensor of their own type, a byte or more each, whatever was said
    bits = 8 * stored.bytes / stored.count if stored is not None else weight.bits
    rows, columns = weight.shape
    return TensorRecord(
        name=name,
        shape=(rows, columns),
        type=_kind(weight, bits),
        bits=bits,
        stored_bits=8 * sum(facts.bytes for facts in own) / (rows * columns),
        sparsity=float(_zeros(weight).float().mean()),
    )


def _kind(weight: QuantizedWeight, bits: float) -> str:
    group = f" g{weight.group}" if weight.group else ""
    asymmetric = "" if weight.zeros is None else " asym"
    activations = "" if weight.activation_bits is None else f" a{weight.activation_bits}"
    return f"int{bits:g}{group}{asymmetric}{activations}"


def _zeros(weight: QuantizedWeight) -> torch.Tensor:
    """Where the weight is nothing: its code is its zero point, or its scale is 0."""
    rows, columns = weight.shape
    grouped = weight.codes.view(rows, weight.scales.shape[1], -1)
    zeros = 0 if weight.zeros is None else weight.zeros.unsqueeze(-1)
    return ((grouped == zeros) | (weight.scales.unsqueeze(-1) == 0)).view(rows, columns)
