"""What a deployed model needs to run: packages of exact versions, those that were seen to load it where that is known.

needed(manifest)    →    ("numpy==2.4.1", "onnxruntime-genai==0.18.0")
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from agentflow.errors import MissingExtraError
from agentflow.mcp.compression.artifact.manifest import Manifest

__all__ = ["SERVING", "extra_of", "needed"]

SERVING: Final = "agentflow-engine"

_DECODER: Final = ("onnxruntime-genai", "onnxruntime", "numpy")
_ENCODER: Final = ("onnxruntime", "tokenizers", "numpy")
_GGUF: Final = ("llama-cpp-python", "numpy")
_RUNTIMES: Final = {"llama-cpp-python": "llama.cpp"}  # a package's runtime, where the two have different names


def needed(manifest: Manifest) -> tuple[str, ...]:
    """Raises MissingExtraError where nobody knows a version, as nothing has loaded the model and nothing is installed
    here."""
    return tuple(sorted(f"{package}=={_version(package, manifest)}" for package in _packages(manifest)))


def extra_of(manifest: Manifest) -> str:
    """The extra of AgentFlow with which it runs the model itself."""
    return "edge,gguf" if manifest.format == "gguf" else "edge"


def _packages(manifest: Manifest) -> tuple[str, ...]:
    if manifest.format == "gguf":
        return _GGUF
    return _DECODER if manifest.task == "generate" else _ENCODER


def _version(package: str, manifest: Manifest) -> str:
    """Of what loaded it, else of what is here, else of what was there when it was made."""
    loaded = manifest.loaded_by.get(_RUNTIMES.get(package, package))
    if loaded is not None:
        return loaded
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
    known = manifest.versions.get(package)
    if known is None:
        raise MissingExtraError(f"the version of {package} that runs this model", extra_of(manifest))
    return known
