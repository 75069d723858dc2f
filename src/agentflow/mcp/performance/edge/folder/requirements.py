"""What a deployed model needs to run: packages of exact versions, those that were seen to load it where that is known.

needed(manifest)    →    ("numpy==2.4.1", "onnxruntime-genai==0.18.0", "onnxruntime==1.32.0")
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from agentflow.mcp.compression.artifact.manifest import Manifest

__all__ = ["SERVING", "extra_of", "needed"]

SERVING: Final = "agentflow-engine"

_DECODER: Final = ("onnxruntime-genai", "onnxruntime", "numpy")
_ENCODER: Final = ("onnxruntime", "tokenizers", "numpy")
_GGUF: Final = ("llama-cpp-python", "numpy")
_RUNTIMES: Final = {"llama-cpp-python": "llama.cpp"}  # a package's runtime, where the two have different names


def needed(manifest: Manifest) -> tuple[str, ...]:
    """Exact versions; where none is known, as nothing has loaded the model and nothing is installed here, those that
    AgentFlow itself takes."""
    return tuple(sorted(_pinned(package, manifest) for package in _packages(manifest)))


def extra_of(manifest: Manifest) -> str:
    """The extra of AgentFlow with which it runs the model itself."""
    return "edge,gguf" if manifest.format == "gguf" else "edge"


def _packages(manifest: Manifest) -> tuple[str, ...]:
    if manifest.format == "gguf":
        return _GGUF
    return _DECODER if manifest.task == "generate" else _ENCODER


def _pinned(package: str, manifest: Manifest) -> str:
    version = _version(package, manifest)
    return _bound(package) if version is None else f"{package}=={version}"


def _version(package: str, manifest: Manifest) -> str | None:
    """Of what loaded it, else of what is here, else of what was there when it was made."""
    loaded = manifest.loaded_by.get(_RUNTIMES.get(package, package))
    if loaded is not None:
        return loaded
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return manifest.versions.get(package)


def _bound(package: str) -> str:
    """What the extras of AgentFlow say of a package: `llama-cpp-python>=0.3.16`."""
    lines = [line.partition(";")[0].strip() for line in metadata.requires(SERVING) or ()]
    return next((line for line in lines if re.match(rf"{re.escape(package)}\b(?!-)", line)), package)
