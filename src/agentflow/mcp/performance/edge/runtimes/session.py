"""An ONNX file opened by ONNX Runtime, or the error that says which file is damaged."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from agentflow.errors import ArtifactError

__all__ = ["session_of"]

_ERRORS_ALONE = 3


def session_of(folder: Path, file: str, *, threads: int | None = None) -> ort.InferenceSession:
    """On the processor. Raises ArtifactError where the file cannot be loaded."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ALONE
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(folder, f"ONNX Runtime does not load {file}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
