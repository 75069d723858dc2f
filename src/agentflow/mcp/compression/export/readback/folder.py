"""tensors_of(folder): one record a weight, of a folder of safetensors, an ONNX folder, or a .gguf.

    TensorRecord(name="blk.0.attn_q.weight", shape=(256, 256), type="q4_0", bits=4, stored_bits=4.5, sparsity=0.11)

`bits` and `stored_bits` are counted from the bytes of the file. A weight whose settings say 4 bits, and that lies there
as bytes, has 8: that is what readers of a manifest want to know.
"""

from __future__ import annotations

from pathlib import Path

from agentflow.mcp.compression.artifact.manifest import TensorRecord
from agentflow.mcp.compression.export.readback.of_gguf import gguf_tensors
from agentflow.mcp.compression.export.readback.of_onnx import onnx_tensors
from agentflow.mcp.compression.export.readback.of_safetensors import safetensors_tensors

__all__ = ["tensors_of"]


def tensors_of(folder: Path) -> tuple[TensorRecord, ...]:
    """In the order of the file; one weight in memory at a time.

    Raises ArtifactError for a damaged .onnx or .gguf, ModelFolderError for damaged safetensors, or for a folder that
    holds none of the three.
    """
    if files := sorted(folder.glob("*.gguf")):
        return tuple(record for path in files for record in gguf_tensors(path))
    if files := sorted(folder.glob("*.onnx")):
        return tuple(record for path in files for record in onnx_tensors(path))
    return tuple(safetensors_tensors(folder))
