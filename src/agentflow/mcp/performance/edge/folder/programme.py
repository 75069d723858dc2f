"""run.py of a deployed folder: put together for the model's task and runtime from the texts under `programs/`."""

from __future__ import annotations

from importlib import resources
from typing import Final

from agentflow.mcp.compression.artifact.manifest import Manifest
from agentflow.mcp.performance.edge.folder.requirements import SERVING, extra_of

__all__ = ["programme"]

_PARTS: Final = {
    ("onnx", "generate"): ("onnx_decoder", "serving", "generating"),
    ("gguf", "generate"): ("gguf_decoder", "serving", "generating"),
    ("onnx", "classify"): ("onnx_encoder",),
    ("onnx", "embed"): ("onnx_encoder",),
}
_WHAT: Final = {"classify": "the likelihood of each label", "embed": "vectors", "generate": "answers"}


def programme(manifest: Manifest, name: str) -> str | None:
    """Its text; None for a model that no program here runs. `name` is what the model is called."""
    parts = _PARTS.get((manifest.format, manifest.task))
    if parts is None:
        return None
    text = "\n\n".join(_text(part).strip("\n") + "\n" for part in parts)
    serving = f"{SERVING}[{extra_of(manifest)}]"
    return text.replace("@NAME@", repr(name)).replace("@SERVING@", serving).replace("@WHAT@", _WHAT[manifest.task])


def _text(part: str) -> str:
    folder = resources.files("agentflow.mcp.performance.edge.folder") / "programs"
    return (folder / f"{part}.py.txt").read_text(encoding="utf-8")
