"""An ONNX decoder run by ONNX Runtime, many rows at once, each of its own length.

    folder/  genai_config.json  model.onnx  model.onnx.data          as onnxruntime-genai's model builder writes it
    OnnxRuntime(folder).open([[1, 7, 4], [1, 9]])

    caches of a layer   row 0  k k k · · ·       (rows, heads, capacity, width): ours, written by the graph in place
                        row 1  k k · · · ·       the mask says how many of a row's places count

Rows join and leave between two steps, because the buffers are copied then and only then. A prompt is read alone and in
pieces, so that logits of a long one fit into memory. onnxruntime-genai itself (`runtimes.genai`) runs the same folder;
it holds Python's lock while it computes, so that an event loop beside it stands still, and its rows cannot come and go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.performance.edge.runtimes.genai_card import GenaiCard
from agentflow.mcp.performance.edge.runtimes.session import session_of

__all__ = ["OnnxRuntime"]

_PIECE = 256  # tokens of a prompt that are read at once
_ROOM = 128  # places by which a cache grows at the least
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxRuntime:
    """A decoder whose graph takes tokens, a mask and caches. `threads` None leaves the number to ONNX Runtime.

    Raises ArtifactError where the folder is damaged, or its graph is of another kind.
    """

    name = "onnxruntime"

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self.card = card = GenaiCard.read(folder)
        self.version: str = ort.__version__
        self.context_length = card.context_length
        self.vocabulary = card.vocabulary
        self._session: ort.InferenceSession | None = session_of(folder, card.file, threads=threads)
        self.graph = Graph(folder, card, self._session)

    def open(self, prompts: Sequence[Sequence[int]]) -> OnnxDecoding:
        decoding = OnnxDecoding(self.session, self.graph, self.context_length)
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Shape (len(tokens), vocabulary)."""
        rows = Caches(self.graph, self.context_length)
        rows.grow_to(1, len(tokens))
        return np.concatenate(list(read(self.session, self.graph, rows, tokens)))

    @property
    def session(self) -> ort.InferenceSession:
        if self._session is None:
            raise RuntimeError("the runtime is closed")
        return self._session

    def close(self) -> None:
        self._session = None


class Graph:
    """The names of a decoder's inputs and outputs, and the shape of its caches."""

    def __init__(self, folder: Path, card: GenaiCard, session: ort.InferenceSession) -> None:
        inputs, outputs = card.model.decoder.inputs, card.model.decoder.outputs
        self.tokens, self.mask, self.logits = inputs.input_ids, inputs.attention_mask, outputs.logits
        past = [
            (name % layer, present % layer)
            for layer in card.layers
            for name, present in (
                (inputs.past_key_names, outputs.present_key_names),
                (inputs.past_value_names, outputs.present_value_names),
            )
        ]
        found = {each.name: each for each in session.get_inputs()}
        self.position = inputs.position_ids if inputs.position_ids in found else None
        self.caches = [(name, present) for name, present in past if name in found]
        known = {self.tokens, self.mask, self.position, *(name for name, _ in self.caches)}
        strange = sorted(set(found) - known)
        if strange or not self.caches or not card.shares_caches:
            raise ArtifactError(folder, f"its graph is no plain decoder (inputs: {', '.join(strange or found)})")
        self.types = [_TYPES[found[name].type] for name, _ in self.caches]
        self.heads, self.width = card.model.decoder.num_key_value_heads, card.model.decoder.head_size
        self.integer = np.int32 if found[self.tokens].type == "tensor(int32)" else np.int64


class Caches:
    """The keys and values of some rows: one array a layer and side, (rows, heads, capacity, width)."""

    def __init__(self, graph: Graph, longest: int) -> None:
        self._graph = graph
        self._longest = longest
        self.lengths = np.zeros(0, np.int64)
        self.capacity = 0
        self._arrays = [self._empty(n, 0, 0) for n in range(len(graph.caches))]
        self.values: list[ort.OrtValue] = []

    def _empty(self, which: int, rows: int, capacity: int) -> NDArray[np.generic]:
        graph = self._graph
        return np.zeros((rows, graph.heads, capacity, graph.width), graph.types[which])

    def grow_to(self, rows: int, capacity: int) -> None:
        """Room for so many rows and places; what is there stays."""
        if capacity > self.capacity:
            wanted = max(capacity, min(2 * self.capacity, self.capacity + 1024), _ROOM)
            self.capacity = min(-(-wanted // _ROOM) * _ROOM, max(self._longest, capacity))
        elif rows == len(self.lengths):
            return
        for which, old in enumerate(self._arrays):
            new = self._empty(which, rows, self.capacity)
            new[: old.shape[0], :, : old.shape[2]] = old[:rows]
            self._arrays[which] = new
        self.lengths = np.concatenate([self.lengths, np.zeros(rows, np.int64)])[:rows]
        self._wrap()

    def take(self, other: Caches) -> None:
        """The rows of another, behind the own."""
        rows, more = len(self.lengths), len(other.lengths)
        longest = int(other.lengths.max(initial=0))
        self.grow_to(rows + more, max(longest, self.capacity))
        for own, theirs in zip(self._arrays, other._arrays, strict=True):
            own[rows:, :, :longest] = theirs[:, :, :longest]
        self.lengths[rows:] = other.lengths

    def keep(self, rows: Sequence[int]) -> None:
        self.lengths = self.lengths[list(rows)]
        self._arrays = [np.ascontiguousarray(array[list(rows)]) for array in self._arrays]
        self._wrap()

    def _wrap(self) -> None:
        """The arrays as the session knows them: the memory is the same."""
        self.values = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._arrays]


class OnnxDecoding:
    """Rows in one set of caches."""

    def __init__(self, session: ort.InferenceSession, graph: Graph, longest: int) -> None:
        self._session: ort.InferenceSession | None = session
        self._graph = graph
        self._longest = longest
        self._caches = Caches(graph, longest)
        self._next: NDArray[np.float32] | None = None

    def logits(self) -> NDArray[np.float32]:
        return np.zeros((0, 0), np.float32) if self._next is None else self._next

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            alone = Caches(self._graph, self._longest)
            alone.grow_to(1, len(prompt))
            *_, last = read(self._open, self._graph, alone, prompt)
            self._caches.take(alone)
            self._next = last[-1:].copy() if self._next is None else np.concatenate([self._next, last[-1:]])

    def append(self, tokens: Sequence[int]) -> None:
        if not tokens:
            return
        lengths = self._caches.lengths
        self._caches.grow_to(len(lengths), int(lengths.max()) + 1)
        self._next = run(self._open, self._graph, self._caches, np.asarray(tokens, self._graph.integer)[:, None])[:, 0]

    def keep(self, rows: Sequence[int]) -> None:
        self._caches.keep(rows)
        if self._next is not None:
            self._next = self._next[list(rows)] if rows else None

    @property
    def _open(self) -> ort.InferenceSession:
        if self._session is None:
            raise RuntimeError("the decoding is closed")
        return self._session

    def close(self) -> None:
        self._session = None
        self._caches = Caches(self._graph, self._longest)
        self._next = None


def read(
    session: ort.InferenceSession, graph: Graph, row: Caches, tokens: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """The logits after each token of one row's text, piece by piece: shape (length of the piece, vocabulary)."""
    for start in range(0, len(tokens), _PIECE):
        piece = np.asarray([tokens[start : start + _PIECE]], graph.integer)
        yield run(session, graph, row, piece)[0]


def run(session: ort.InferenceSession, graph: Graph, rows: Caches, tokens: NDArray[np.generic]) -> NDArray[np.float32]:
    """One pass over (rows, length) further tokens: logits of shape (rows, length, vocabulary)."""
    length = tokens.shape[1]
    before = rows.lengths
    rows.lengths = before + length
    total = int(rows.lengths.max())
    binding = session.io_binding()
    binding.bind_cpu_input(graph.tokens, tokens)
    binding.bind_cpu_input(graph.mask, (np.arange(total)[None] < rows.lengths[:, None]).astype(graph.integer))
    if graph.position is not None:
        binding.bind_cpu_input(graph.position, (before[:, None] + np.arange(length)[None]).astype(graph.integer))
    binding.bind_output(graph.logits, "cpu")
    for (past, present), value in zip(graph.caches, rows.values, strict=True):
        binding.bind_ortvalue_input(past, value)
        binding.bind_ortvalue_output(present, value)
    session.run_with_iobinding(binding)
    found: NDArray[np.float32] = binding.get_outputs()[0].numpy().astype(np.float32, copy=False)
    return found
