"""Whether what compression is built on is installed, said before anything else is done."""

from __future__ import annotations

from importlib.util import find_spec

from agentflow.errors import MissingExtraError

__all__ = ["needs_torch"]


def needs_torch() -> None:
    """Raises MissingExtraError where PyTorch, or anything else of the extra `compression`, is not installed."""
    for name in ("torch", "transformers", "safetensors", "compressed_tensors", "onnx", "onnxruntime_genai", "gguf"):
        if find_spec(name) is None:
            raise MissingExtraError("compressing a model", "compression")
