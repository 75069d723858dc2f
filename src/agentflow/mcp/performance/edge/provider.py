"""A model in this process, called like any other.

    provider = EdgeProvider("artifacts/support")
    response = await provider.execute(Request("support", (Message("user", "Hello"),)))

      execute, execute_streaming     a model that writes; a classifier answers with its label
      embed                          a model of sentence vectors
      count_tokens                   all of them

The model is opened by the first call and runs in a thread of its own; requests that come together are decoded
together. A caller who leaves, or whose time is over, stops the model within a token. One provider serves several event
loops. What the model cannot do is an UnsupportedError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.errors import MissingExtraError, ModelError, UnsupportedError
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Message, Request, Response, StreamChunk
from agentflow.llm.streaming.join import chunks_of, join
from agentflow.mcp.performance.edge.facts import Facts
from agentflow.mcp.performance.edge.opening import open_embedder, open_labeller, open_runtime

try:  # what reads text comes with the extra, and so does all that stands on it
    from agentflow.mcp.performance.edge.reading import Labels, Vectors
    from agentflow.mcp.performance.edge.writing import Writer
except ModuleNotFoundError as error:
    raise MissingExtraError(f"a model on this machine ({error.name} is not installed)", "edge") from error

__all__ = ["EdgeProvider"]

T = TypeVar("T")

_CLOCK: Final = SystemClock()


class EdgeProvider:
    """`folder` is an artifact, or a model's folder or file, whose kind of runtime `runtime` may name.

    `threads` are those of one step of the model, `rows` the answers written at once, `price_per_hour` USD of an hour of
    the machine, which is shared among the answers written at once. `check` is called before the model is opened.

    Raises ArtifactError where the folder is none.
    """

    schemas = True

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = "edge",
        runtime: str | None = None,
        threads: int | None = None,
        rows: int = 16,
        price_per_hour: float | None = None,
        check: Callable[[], None] | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        self.facts = facts = Facts.of(folder)
        self._name = name
        self._check = check
        self._runtime = runtime
        self._threads = threads
        self._writer: Writer | None = None
        self._labels: Labels | None = None
        self._vectors: Vectors | None = None
        if facts.task == "generate":
            self._writer = Writer(facts.model, self._load(open_runtime), rows=rows, clock=clock, price=price_per_hour)
        elif facts.task == "classify":
            self._labels = Labels(facts.model, self._load(open_labeller))
        else:
            self._vectors = Vectors(facts.model, self._load(open_embedder))

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, request: Request) -> Response:
        if self._labels is not None:
            return await self._labels.answer(request, provider=self._name)
        chunks: list[StreamChunk] = []
        async with aclosing(self._written(request, streams=False)) as source:
            async for chunk in source:
                chunks.append(chunk)  # noqa: PERF401
        return join(chunks, provider=self._name, model=request.model)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        if self._labels is not None:
            for chunk in chunks_of(await self._labels.answer(request, provider=self._name)):
                yield chunk
            return
        async with aclosing(self._written(request, streams=True)) as source:
            async for chunk in source:
                yield chunk

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if self._vectors is None:
            raise UnsupportedError(f"{request.model} makes no embeddings: it is there to {self.facts.task}")
        return await self._vectors.embed(request, provider=self._name)

    async def count_tokens(self, request: Request) -> int:
        """As the model itself counts them."""
        return await asyncio.to_thread(self._model.count, request)

    async def warm(self) -> None:
        """Open the model, and let it work once, so that the first caller need not wait."""
        if self._vectors is not None:
            await self._vectors.embed(EmbeddingRequest(self._name, (".",)), provider=self._name)
        else:
            await self.execute(Request(self._name, (Message("user", "."),), max_tokens=None if self._labels else 1))

    @property
    def decoded(self) -> int:
        """Tokens that the model has written since the beginning; what was read is not counted."""
        return 0 if self._writer is None else self._writer.decoder.tokens

    def close(self) -> None:
        """End what is under way with a ModelError, and free the model's memory. Waits for the step under way."""
        self._model.close()

    async def aclose(self) -> None:
        """As `close`, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    @property
    def _model(self) -> Writer | Labels | Vectors:
        found = self._writer or self._labels or self._vectors
        assert found is not None
        return found

    async def _written(self, request: Request, *, streams: bool) -> AsyncGenerator[StreamChunk, None]:
        if self._writer is None:
            raise UnsupportedError(f"{request.model} writes nothing: it makes embeddings")
        try:
            async with aclosing(self._writer.chunks(request, streams=streams)) as source:
                async for chunk in source:
                    yield chunk
        except ModelError as error:
            error.provider = error.provider or self._name
            error.model = error.model or request.model
            raise

    def _load(self, opened: Callable[..., T]) -> Callable[[], T]:
        """What opens the model: in its own thread, once it was checked."""

        def load() -> T:
            if self._check is not None:
                self._check()
            return opened(self.facts.model, kind=self._runtime, threads=self._threads)

        return load
