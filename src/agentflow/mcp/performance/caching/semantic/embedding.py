"""Vectors of questions: from a function, from a model of the registry, or from a model in a folder of this machine.

as_embedder(function)                          text ──▶ numbers, sync or async
as_embedder(ModelEmbedder(ask, "…"))    an embedding model, asked through its provider
as_embedder(Path("all-MiniLM-L6-v2"))          weights in a folder, NumPy alone
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.llm.messages import EmbeddingRequest
from agentflow.llm.providers.base import EmbeddingProvider
from agentflow.mcp.performance.caching.semantic.encoder import Encoder

__all__ = ["Embedder", "Embedding", "FunctionEmbedder", "LocalEmbedder", "ModelEmbedder", "as_embedder"]

Vector: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = Sequence[float] | NDArray[np.floating]
Embedding: TypeAlias = Callable[[str], Numbers | Awaitable[Numbers]]


@runtime_checkable
class Embedder(Protocol):
    """The vector of a text, shape (dimensions,); always as long. `name` tells vectors of different origin apart."""

    @property
    def name(self) -> str: ...

    async def embed(self, text: str) -> Vector: ...


class FunctionEmbedder:
    """Your function. A sync one runs in the event loop: it should take microseconds, or be async."""

    def __init__(self, function: Embedding) -> None:
        self._function = function
        self.name = f"function:{getattr(function, '__qualname__', type(function).__name__)}"

    async def embed(self, text: str) -> Vector:
        made = self._function(text)
        return np.asarray(await made if inspect.isawaitable(made) else made, np.float32)


class ModelEmbedder:
    """An embedding model: each text is one request of its own, which is paid for, and noted with the question's.

    `ask` gives the provider when it is first needed. `embed` raises ConfigurationError where that makes no embeddings.
    """

    def __init__(self, ask: Callable[[], object], model: str) -> None:
        self._ask = ask
        self._model = model
        self.name = f"model:{model}"

    async def embed(self, text: str) -> Vector:
        provider = self._ask()
        if not isinstance(provider, EmbeddingProvider):
            raise ConfigurationError(f"{self._model!r} makes no embeddings: name a model that does")
        made = await provider.embed(EmbeddingRequest(self._model, (text,)))
        return np.asarray(made.vectors[0], np.float32)


class LocalEmbedder:
    """A sentence embedding model in a folder (`Encoder`), loaded at the first question, computed in threads. Raises
    ConfigurationError where there is no such folder."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "model.safetensors").is_file():
            raise ConfigurationError(f"{folder} holds no model.safetensors: name the folder of a sentence model")
        self._folder = folder
        self._encoder: Encoder | None = None
        self._lock = Lock()
        self.name = f"local:{folder.resolve()}"

    async def embed(self, text: str) -> Vector:
        return await asyncio.to_thread(self._embed, text)

    def _embed(self, text: str) -> Vector:
        with self._lock:
            encoder = self._encoder = self._encoder or Encoder.load(self._folder)
        return encoder.encode(text)


def as_embedder(made_of: Embedder | Embedding | Path) -> Embedder:
    """Raises ConfigurationError for what cannot embed."""
    if isinstance(made_of, Path):
        return LocalEmbedder(made_of)
    if isinstance(made_of, Embedder):
        return made_of
    if callable(made_of):
        return FunctionEmbedder(made_of)
    raise ConfigurationError(f"an embedding is a function, an Embedder or a folder, not {type(made_of).__name__}")
