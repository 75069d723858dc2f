"""Requests that come at about the same time, sent as one: for embeddings, and for servers that answer many at once.

    model = RequestBatcher(OpenAIProvider(…), max_size=64, latency_budget=0.05)
    vectors = await model.embed(EmbeddingRequest("text-embedding-3-small", ("a",)))      from many tasks at once

        asked      ▪     ▪ ▪▪▪ ▪▪   ▪▪▪▪▪▪
        sent       ▪ idle      ▪▪▪▪▪▪ when it is back, full, or due      ▪▪▪▪▪▪

While nothing is under way nothing waits. What comes meanwhile gathers until a batch comes back, as many are there as go
into one, or the first must go so that it is answered within `latency_budget` seconds, by what batches of that size have
taken so far. Tenants share the batches evenly; a batch that is refused is halved until the bad request stands alone; a
caller that is cancelled is taken out. Whoever watches hears `batch` (size, tokens, reason, how long the first waited).

Embedding requests of one model, dimensions and parameters are merged, and one with more inputs than a batch takes is
divided. Chat requests are batched where the provider inside is a `BatchingProvider`, and else handed on one by one, as
streams are. In a durable step embeddings are not merged with others': each is kept in the journal of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from agentflow.clock import Clock, SystemClock
from agentflow.core.durability.step import current_step
from agentflow.errors import ModelTimeoutError, UnsupportedError
from agentflow.llm.estimate import estimated_tokens
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider
from agentflow.mcp.performance.batching.bisecting import Bisects, lies_in_one
from agentflow.mcp.performance.batching.lane import Lane, SendMany
from agentflow.mcp.performance.batching.merging import divided, joined, merged, parted, tokens_of
from agentflow.mcp.performance.batching.rules import BatchRules
from agentflow.mcp.performance.batching.service_time import ServiceTime

__all__ = ["BatchingProvider", "RequestBatcher"]

P = TypeVar("P")
A = TypeVar("A")
T = TypeVar("T")

_CLOCK: Final = SystemClock()
_MOST_LANES: Final = 64  # kept although nothing is in them


@runtime_checkable
class BatchingProvider(Protocol):
    """Answers many requests of one model at once."""

    async def execute_many(self, requests: Sequence[Request], /) -> Sequence[Response | Exception]:
        """An answer to each, in their order, or what went wrong with that one. Raises where all of it failed."""
        ...


class RequestBatcher:
    """A provider around a provider; see the module. `max_size` inputs go into one batch, of `max_tokens` together
    (estimated; None is no limit), and `in_flight` batches are under way at most. `padded` says that the server fills
    all inputs up to the longest: then those of a length are sent together. `bisects` says which errors may lie in a
    single request. Safe to use from several event loops: each batches its own."""

    def __init__(
        self,
        inner: LLMProvider,
        *,
        max_size: int = 32,
        max_tokens: int | None = None,
        latency_budget: float = 0.05,
        in_flight: int = 4,
        padded: bool = False,
        bisects: Bisects = lies_in_one,
        clock: Clock = _CLOCK,
        model: str | None = None,
    ) -> None:
        self.inner = inner
        self._rules = BatchRules(max_size, max_tokens, latency_budget, in_flight, padded)
        self._bisects = bisects
        self._clock = clock
        self._model = model
        self._times: dict[str, ServiceTime] = {}
        self._lanes: dict[asyncio.AbstractEventLoop, _Lanes] = {}

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def schemas(self) -> bool:
        """Whether the API inside has words for the schema of an answer."""
        return bool(getattr(self.inner, "schemas", True))

    async def execute(self, request: Request) -> Response:
        """Raises what the provider inside does for this request, and ModelTimeoutError."""
        inner = self.inner
        if not isinstance(inner, BatchingProvider):
            return await inner.execute(request)
        lanes = self._here().chat
        lane = lanes.get(request.model)
        if lane is None:
            lane = lanes[request.model] = self._lane(request.model, inner.execute_many)
        tokens = sum(map(estimated_tokens, request.messages))
        asked = lane.ask(request, size=1, tokens=tokens, longest=tokens, timeout=request.timeout)
        return await self._in_time(asked, request)

    def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        return self.inner.execute_streaming(request)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Raises what the provider inside does for this request, UnsupportedError, and ModelTimeoutError."""
        inner = self.inner
        if not isinstance(inner, EmbeddingProvider):
            raise UnsupportedError(f"provider {self.name!r} has no embeddings")
        if current_step.get() is not None or not request.inputs:
            return await inner.embed(request)
        lanes, key = self._here().embeddings, _key(request)
        lane = lanes.get(key)
        if lane is None:
            lane = lanes[key] = self._lane(request.model, _merging(inner))
        return await self._in_time(_embedded(lane, divided(request, self._rules)), request)

    async def count_tokens(self, request: Request) -> int:
        """By the provider inside. Raises UnsupportedError where that does not count."""
        count = getattr(self.inner, "count_tokens", None)
        if count is None:
            raise UnsupportedError(f"provider {self.name!r} does not count tokens")
        counted: int = await count(request)
        return counted

    async def drain(self) -> None:
        """Send what waits on this event loop, and wait until it is answered."""
        await self._here().drain()

    async def aclose(self) -> None:
        """Drain, and close the provider inside."""
        try:
            await self.drain()
        finally:
            await self.inner.aclose()

    # ---- lanes

    def _here(self) -> _Lanes:
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            for other in [each for each in list(self._lanes) if each.is_closed()]:
                self._lanes.pop(other, None)
            lanes = self._lanes[loop] = _Lanes()
        lanes.forget_some()
        return lanes

    def _lane(self, model: str, send: SendMany[P, A]) -> Lane[P, A]:
        times = self._times.setdefault(model, ServiceTime())
        return Lane(self._model or model, self._rules, send, times, self._bisects, self._clock)

    async def _in_time(self, asked: Coroutine[Any, Any, T], request: Request | EmbeddingRequest) -> T:
        """Others in its batch may have longer, so each has an eye on its own time."""
        if request.timeout is None:
            return await asked
        limit = asyncio.timeout(request.timeout)
        try:
            async with limit:
                return await asked
        except TimeoutError:
            if not limit.expired():
                raise
            raise ModelTimeoutError("total", request.timeout, provider=self.name, model=request.model) from None


class _Lanes:
    """The lanes of one event loop: chat by model, embeddings by all that must be alike."""

    def __init__(self) -> None:
        self.chat: dict[str, Lane[Request, Response]] = {}
        self.embeddings: dict[str, Lane[EmbeddingRequest, Embeddings]] = {}

    async def drain(self) -> None:
        lanes: list[Lane[Any, Any]] = [*self.chat.values(), *self.embeddings.values()]
        await asyncio.gather(*[lane.drain() for lane in lanes])

    def forget_some(self) -> None:
        """Parameters may be anything; nobody shall fill memory with lanes."""
        lanes: dict[str, Lane[Any, Any]]
        for lanes in (self.chat, self.embeddings):
            if len(lanes) > _MOST_LANES:
                for key in [key for key, lane in lanes.items() if lane.is_idle]:
                    del lanes[key]


def _merging(inner: EmbeddingProvider) -> SendMany[EmbeddingRequest, Embeddings]:
    async def send(asked: Sequence[EmbeddingRequest]) -> Sequence[Embeddings | Exception]:
        return parted(await inner.embed(merged(asked)), asked)

    return send


async def _embedded(lane: Lane[EmbeddingRequest, Embeddings], pieces: Sequence[EmbeddingRequest]) -> Embeddings:
    """The pieces of a request, each in the batch that it comes into. The first that fails fails all."""
    if len(pieces) == 1:
        return await _ask(lane, pieces[0])
    asked = [asyncio.ensure_future(_ask(lane, piece)) for piece in pieces]
    try:
        return joined(await asyncio.gather(*asked))
    finally:
        for each in asked:
            each.cancel()


async def _ask(lane: Lane[EmbeddingRequest, Embeddings], piece: EmbeddingRequest) -> Embeddings:
    tokens = tokens_of(piece)
    return await lane.ask(piece, size=len(piece.inputs), tokens=sum(tokens), longest=max(tokens), timeout=piece.timeout)


def _key(request: EmbeddingRequest) -> str:
    """What requests have in common that go into one call."""
    return json.dumps([request.model, request.dimensions, request.params], sort_keys=True, default=repr)
