"""Models that read and do not write: a label for a text, or a vector.

    labels = Labels(model, open_labeller);   await labels.answer(request)    →  Response("spam", logprobs=…)
    vectors = Vectors(model, open_embedder); await vectors.embed(request)    →  Embeddings

A classifier's answer is the likeliest label as text; the probability of every label stands in its `logprobs` as the
alternatives of that one "token". Where several labels may hold at once, the answer is all above one half, one a line.
What is longer than the model reads is cut at its end, as the libraries that train such models do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import BadRequestError, UnsupportedError
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, TokenLogprob, Usage
from agentflow.mcp.performance.edge.passes import Passes
from agentflow.mcp.performance.edge.runtime import Embedder, Labeller
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

__all__ = ["Labels", "Vectors"]


Found = NDArray[np.float32]


class _Closes(Protocol):
    @property
    def context_length(self) -> int: ...

    def close(self) -> None: ...


E = TypeVar("E", bound=_Closes)


class _Reader(Generic[E]):
    """A tokenizer and an encoder, opened when they are first needed, by whichever thread needs them."""

    def __init__(self, folder: Path, load: Callable[[], E], run: Callable[[E, Sequence[Sequence[int]]], Found]) -> None:
        self._folder = folder
        self._load = load
        self._lock = threading.Lock()
        self._open: tuple[EdgeTokenizer, E] | None = None
        self._run = run
        self.passes = Passes(lambda rows: run(self.opened()[1], rows))

    def opened(self) -> tuple[EdgeTokenizer, E]:
        with self._lock:
            if self._open is None:
                self._open = EdgeTokenizer(self._folder), self._load()
            return self._open

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        tokenizer, encoder = self.opened()
        return [tokenizer.encode_within(text, encoder.context_length) for text in texts]

    def close(self) -> None:
        self.passes.close()
        with self._lock:
            if self._open is not None:
                self._open[1].close()
            self._open = None


class Labels:
    """`load` opens the classifier."""

    def __init__(self, folder: Path, load: Callable[[], Labeller]) -> None:
        self._reader: _Reader[Labeller] = _Reader(folder, load, lambda labeller, rows: labeller.scores(rows))

    async def answer(self, request: Request, *, provider: str) -> Response:
        """The label of the last user turn. Raises BadRequestError for an empty one, UnsupportedError for what a
        classifier cannot do."""
        if request.tools or request.output is not None:
            raise UnsupportedError("a classifier answers with one of its labels: it knows no tools and no schemas")
        if not request.prompt.strip():
            raise BadRequestError("the last user turn is empty: there is nothing to classify")
        [row] = await asyncio.to_thread(self._reader.rows, [request.prompt])
        [scores] = await self._reader.passes.ask([row])
        _, labeller = self._reader.opened()
        told = _told(scores, labeller, request.logprobs)
        return Response(
            _text(scores, labeller),
            request.model,
            provider,
            usage=Usage(len(row), 1),
            finish_reason="stop",
            raw_finish_reason="label",
            cost=0.0,
            logprobs=(told,),
        )

    def count(self, request: Request) -> int:
        return len(self._reader.rows([request.prompt])[0])

    def close(self) -> None:
        self._reader.close()


class Vectors:
    """`load` opens the embedding model."""

    def __init__(self, folder: Path, load: Callable[[], Embedder]) -> None:
        self._reader: _Reader[Embedder] = _Reader(folder, load, lambda embedder, rows: embedder.vectors(rows))

    async def embed(self, request: EmbeddingRequest, *, provider: str) -> Embeddings:
        """Raises UnsupportedError for other `dimensions` than the model's own."""
        rows = await asyncio.to_thread(self._reader.rows, request.inputs)
        _, embedder = self._reader.opened()
        if request.dimensions not in (None, embedder.dimensions):
            raise UnsupportedError(f"{request.model} makes vectors of {embedder.dimensions} dimensions alone")
        found = await self._reader.passes.ask(rows) if rows else np.zeros((0, embedder.dimensions), np.float32)
        vectors = tuple([tuple(map(float, line)) for line in found])
        return Embeddings(vectors, request.model, provider, usage=Usage(sum(map(len, rows))), cost=0.0)

    def count(self, request: Request) -> int:
        return len(self._reader.rows([request.prompt])[0])

    def close(self) -> None:
        self._reader.close()


def _text(scores: Found, labeller: Labeller) -> str:
    if labeller.multi_label:  # the sigmoid of 0 is one half
        return "\n".join(label for label, score in zip(labeller.labels, scores, strict=True) if score > 0)
    return labeller.labels[int(np.argmax(scores))]


def _told(scores: Found, labeller: Labeller, count: int | None) -> TokenLogprob:
    """The likeliest labels, all of them where the request does not say how many."""
    wide = scores.astype(np.float64)
    chances = -np.logaddexp(0.0, -wide) if labeller.multi_label else wide - np.logaddexp.reduce(wide)
    order = np.argsort(-chances, kind="stable")
    shown = order if count is None else order[:count]
    best = int(order[0])
    named = [(labeller.labels[index], float(chances[index])) for index in map(int, shown)]
    return TokenLogprob(labeller.labels[best], float(chances[best]), tuple(named))
