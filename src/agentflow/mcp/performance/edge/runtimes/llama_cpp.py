"""A .gguf run by llama.cpp, through the functions of its C interface that llama-cpp-python hands on.

    LlamaRuntime(Path("model.gguf")).open([[1, 7, 4], [1, 9]])

Each row has a context of its own, as large as it needs; one that is full is read again into a larger one. So a row's
answer is what it would be alone, to the bit. Python's lock is free while llama.cpp computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.performance.edge.runtimes.separate import Separate

__all__ = ["LlamaRuntime"]

_PIECE = 256  # tokens that are read at once
_ROOM = 256  # places that a row's context has beyond its prompt, and by which it grows
_lib: Any = import_module("llama_cpp")  # which has no types


def _silence(level: int, text: bytes, data: object) -> None:
    """llama.cpp tells much of what it does; what fails is told by our own errors."""


_SILENT: Any = _lib.llama_log_callback(_silence)  # kept, because llama.cpp calls it for as long as it lives


class LlamaRuntime:
    """`model` is the file, or a folder with one; of several parts the first. Raises ArtifactError."""

    name = "llama.cpp"

    def __init__(self, model: Path, *, threads: int | None = None) -> None:
        file = model if model.is_file() else next(iter(sorted(model.glob("*.gguf"))), None)
        if file is None:
            raise ArtifactError(model, "it has no .gguf")
        _lib.llama_log_set(_SILENT, ctypes.c_void_p(0))
        _lib.llama_backend_init()
        self._model: Any = _lib.llama_model_load_from_file(str(file).encode(), _lib.llama_model_default_params())
        if not self._model:
            raise ArtifactError(model, f"llama.cpp does not load {file.name}: it is damaged, or of an unknown kind")
        self.version = version("llama-cpp-python")
        self.context_length = int(_lib.llama_model_n_ctx_train(self._model))
        self.vocabulary = int(_lib.llama_vocab_n_tokens(_lib.llama_model_get_vocab(self._model)))
        self._threads = threads

    def open(self, prompts: Sequence[Sequence[int]]) -> Separate:
        decoding = Separate(lambda prompt: _Row(self._context, self.context_length, self.vocabulary, prompt))
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Shape (len(tokens), vocabulary)."""
        context = _Context(self._context(len(tokens)), self.vocabulary)
        try:
            return context.read(tokens, every=True)
        finally:
            context.close()

    def _context(self, size: int) -> Any:
        """A context with room for so many tokens. Raises RuntimeError where there is no memory for it."""
        if self._model is None:
            raise RuntimeError("the runtime is closed")
        params = _lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = size, _PIECE, _PIECE, 1
        params.no_perf = True
        if self._threads is not None:
            params.n_threads = params.n_threads_batch = self._threads
        made = _lib.llama_init_from_model(self._model, params)
        if not made:
            raise RuntimeError(f"llama.cpp has no memory for a context of {size:,} tokens")
        return made

    def close(self) -> None:
        if self._model is not None:
            _lib.llama_model_free(self._model)
        self._model = None


class _Context:
    """One sequence in one llama.cpp context."""

    def __init__(self, handle: Any, vocabulary: int) -> None:
        self._handle = handle
        self._vocabulary = vocabulary
        self._batch: Any = _lib.llama_batch_init(_PIECE, 0, 1)
        self.length = 0

    def read(self, tokens: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """The logits after the last token, (1, vocabulary), or after each of them."""
        found = [self._piece(tokens[start : start + _PIECE], every) for start in range(0, len(tokens), _PIECE)]
        return np.concatenate(found) if every else found[-1]

    def _piece(self, tokens: Sequence[int], every: bool) -> NDArray[np.float32]:
        batch, last = self._batch, len(tokens) - 1
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, self.length + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = every or at == last
        status = _lib.llama_decode(self._handle, batch)
        if status != 0:
            raise RuntimeError(f"llama.cpp could not go on (its status is {status})")
        self.length += len(tokens)
        return np.stack([self._logits(at) for at in (range(len(tokens)) if every else [last])])

    def _logits(self, at: int) -> NDArray[np.float32]:
        pointer = _lib.llama_get_logits_ith(self._handle, at)
        return np.array(np.ctypeslib.as_array(pointer, shape=(self._vocabulary,)), np.float32)

    def close(self) -> None:
        if self._handle is not None:
            _lib.llama_batch_free(self._batch)
            _lib.llama_free(self._handle)
        self._handle = None


class _Row:
    def __init__(self, make: Callable[[int], Any], longest: int, vocabulary: int, prompt: Sequence[int]) -> None:
        self._make = make
        self._longest = longest
        self._vocabulary = vocabulary
        self._tokens = list(prompt)
        self._size = 0
        self._context: _Context | None = None
        self._next = self._again()

    def logits(self) -> NDArray[np.float32]:
        return self._next.copy()

    def append(self, token: int) -> None:
        self._tokens.append(token)
        if self._context is None or len(self._tokens) > self._size:
            self._next = self._again()
        else:
            self._next = self._context.read([token])[0]

    def _again(self) -> NDArray[np.float32]:
        """Read all of it into a context with room for more."""
        self.close()
        self._size = max(min(len(self._tokens) + _ROOM, self._longest), len(self._tokens))
        self._context = _Context(self._make(self._size), self._vocabulary)
        found: NDArray[np.float32] = self._context.read(self._tokens)[0]
        return found

    def close(self) -> None:
        if self._context is not None:
            self._context.close()
        self._context = None
