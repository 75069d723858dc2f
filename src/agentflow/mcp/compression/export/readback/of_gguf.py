"""The tensors of a .gguf, by the reader of the gguf package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.manifest import TensorRecord

__all__ = ["gguf_tensors"]

ROWS = 1024  # that are decoded together
_WIDTH = re.compile(r"[A-Z]*(\d+)")


def gguf_tensors(path: Path) -> Iterator[TensorRecord]:
    try:
        reader = GGUFReader(str(path))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ArtifactError(path, f"it cannot be read as GGUF: {error}") from error
    for tensor in reader.tensors:
        kind, count = tensor.tensor_type, int(tensor.n_elements)
        width = _WIDTH.match(kind.name)  # Q4_K, IQ4_XS, F16
        yield TensorRecord(
            name=tensor.name,
            shape=tuple(int(size) for size in reversed(tensor.shape)),
            type=kind.name.lower() if kind.name.startswith(("Q", "I", "T")) else kind.name,
            bits=float(width[1]) if width else 0.0,
            stored_bits=8 * int(tensor.n_bytes) / max(1, count),
            sparsity=_zeros(tensor.data, kind) / max(1, count),
        )


def _zeros(data: NDArray[np.generic], kind: GGMLQuantizationType) -> int:
    rows = data.reshape(-1, data.shape[-1])
    pieces = (quants.dequantize(rows[at : at + ROWS], kind) for at in range(0, len(rows), ROWS))
    return sum(piece.size - int(np.count_nonzero(piece)) for piece in pieces)
