"""A folder opened by the runtime that fits it.

    open_runtime("artifacts/support")        an artifact: its model/
    open_runtime("model-onnx")               genai_config.json  →  ONNX Runtime, or onnxruntime-genai for other graphs
    open_runtime("model.gguf")               or a folder with one  →  llama.cpp
    open_runtime("hf-folder")                config.json and weights  →  transformers
    open_labeller(folder), open_embedder(folder)      encoder.json, or a Hugging Face folder

`kind` chooses another: "onnxruntime", "onnxruntime-genai", "llama.cpp", "transformers". A runtime is imported when it
is opened, so a machine needs the one that it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, cast

from agentflow.errors import ArtifactError, ConfigurationError, MissingExtraError
from agentflow.mcp.performance.edge.runtime import Embedder, Labeller, Runtime
from agentflow.mcp.performance.edge.runtimes.genai_card import GenaiCard

__all__ = ["Kind", "kind_of", "model_of", "open_embedder", "open_labeller", "open_runtime"]

Kind = Literal["onnxruntime", "onnxruntime-genai", "llama.cpp", "transformers"]

# The module and the class of each kind, and the extra that brings it.
_DECODERS: Final = {
    "onnxruntime": ("onnx", "OnnxRuntime", "edge"),
    "onnxruntime-genai": ("genai", "GenaiRuntime", "edge"),
    "llama.cpp": ("llama_cpp", "LlamaRuntime", "gguf"),
    "transformers": ("transformers", "TransformersRuntime", "compression"),
}
_LABELLERS: Final = {
    "onnxruntime": ("onnx_encoder", "OnnxLabeller", "edge"),
    "transformers": ("transformers_encoder", "TransformersLabeller", "compression"),
}
_EMBEDDERS: Final = {
    "onnxruntime": ("onnx_encoder", "OnnxEmbedder", "edge"),
    "transformers": ("transformers_encoder", "TransformersEmbedder", "compression"),
}


def open_runtime(folder: str | Path, *, kind: str | None = None, threads: int | None = None) -> Runtime:
    """A decoder. `threads` are those of one step; None is the runtime's own choice.

    Raises ArtifactError where the folder is damaged or holds no model, MissingExtraError where its runtime is not
    installed, ConfigurationError for an unknown kind.
    """
    model = model_of(folder)
    return cast(Runtime, _opened(model, kind or kind_of(model), _DECODERS, threads))


def open_labeller(folder: str | Path, *, kind: str | None = None, threads: int | None = None) -> Labeller:
    """A classifier. Raises as `open_runtime` does."""
    model = model_of(folder)
    return cast(Labeller, _opened(model, kind or kind_of(model), _LABELLERS, threads))


def open_embedder(folder: str | Path, *, kind: str | None = None, threads: int | None = None) -> Embedder:
    """A model of sentence vectors. Raises as `open_runtime` does."""
    model = model_of(folder)
    return cast(Embedder, _opened(model, kind or kind_of(model), _EMBEDDERS, threads))


def model_of(folder: str | Path) -> Path:
    """Where the files of the runtime lie: below an artifact's folder, else where it points. Raises ArtifactError."""
    path = Path(folder)
    if not path.exists():
        raise ArtifactError(path, "there is no such folder")
    if (path / "manifest.json").is_file() and (path / "model").is_dir():
        return path / "model"
    return path


def kind_of(model: Path) -> Kind:
    """The runtime that fits a model's folder, or its file. Raises ArtifactError for what is no model."""
    if model.is_file():
        if model.suffix == ".gguf":
            return "llama.cpp"
        raise ArtifactError(model, "it is a file, and no .gguf")
    if (model / "genai_config.json").is_file():
        return "onnxruntime" if GenaiCard.read(model).shares_caches else "onnxruntime-genai"
    if (model / "encoder.json").is_file():
        return "onnxruntime"
    if any(model.glob("*.gguf")):
        return "llama.cpp"
    if (model / "config.json").is_file():
        return "transformers"
    raise ArtifactError(model, "it has neither genai_config.json, nor encoder.json, nor a .gguf, nor config.json")


def _opened(model: Path, kind: str, offered: dict[str, tuple[str, str, str]], threads: int | None) -> object:
    if kind not in offered:
        raise ConfigurationError(f"there is no runtime {kind!r} for this; known are {', '.join(offered)}")
    module, name, extra = offered[kind]
    try:
        made: Callable[..., object] = getattr(import_module(f"agentflow.mcp.performance.edge.runtimes.{module}"), name)
        return made(model, threads=threads)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("agentflow"):
            raise
        raise MissingExtraError(f"the runtime {kind} ({error.name} is not installed)", extra) from error
