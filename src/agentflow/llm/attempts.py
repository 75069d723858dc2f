"""One request to one model, guarded and observed: attempts, waits, limits, price, events.

    Request ──▶ ledger ──▶ attempt ──▶ Response, or chunks ──▶ price, ledger
                            ▲   │ a retryable error
                            └───┴ wait: the policy's back-off, at least the server's Retry-After

The total time-out spans all attempts and waits. A wait that would outlast it is not begun. A stream is tried again only
as long as nothing of it was delivered. Events go to whoever watches the flow: model_start, chunk, retry, model_success,
model_error. A caller's own cancellation passes through and is reported as nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentflow.clock import Clock
from agentflow.core.limits import Ledger
from agentflow.core.observability.events import emit, observed
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ModelError, NotFoundError, describe
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.deadline import Deadline
from agentflow.llm.media import loaded, needs_loading
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.streaming.stream import close

__all__ = ["Attempts", "Embedding", "Guards", "Suggest"]

R = TypeVar("R")
A = TypeVar("A", Response, Embeddings)

Suggest = Callable[[str], list[str]]
"""Names of models that are like one that was not found."""


class Guards(Struct, frozen=True):
    """What every request of one question has in common."""

    config: ModelConfig
    provider: LLMProvider
    policy: RetryPolicy
    clock: Clock
    tenant: str | None
    ledgers: tuple[Ledger, ...]
    suggest: Suggest

    def begin(self) -> None:
        """One more request is to be made. Raises LimitExceededError."""
        for ledger in self.ledgers:
            ledger.request()

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """A request was answered. Whatever it cost is noted at once, so that no cancellation can come between."""
        if usage is not None:
            for ledger in self.ledgers:
                ledger.spend(usage.total_tokens, cost or 0.0)

    def settled(self, answer: A) -> A:
        """The answer with its cost, which is noted; None where nobody knows it."""
        cost = answer.cost
        if cost is None and answer.usage is not None:
            tier = answer.service_tier if isinstance(answer, Response) else None
            cost = self.config.cost(answer.usage, model=answer.model, service_tier=tier)
        self.settle(answer.usage, cost)
        return answer if cost is answer.cost else replace(answer, cost=cost)

    def deadline(self, seconds: float | None, model: str) -> Deadline:
        return Deadline(seconds, provider=self.config.provider, model=model)

    async def repeated(self, ask: Callable[[], Awaitable[R]], deadline: Deadline) -> R:
        """What `ask` returns, after as many attempts as that takes."""
        attempt = 1
        while True:
            try:
                with deadline:
                    return await ask()
            except ModelError as error:
                await self._wait(attempt, error, deadline)
            attempt += 1

    async def _wait(self, attempt: int, error: ModelError, deadline: Deadline) -> None:
        """Until the next attempt; raises the error where there is none."""
        delay = max(self.policy.delay(attempt, self.clock.random()), error.retry_after or 0.0)
        if not error.retryable or not self.policy.allows(attempt, error) or not deadline.allows(delay):
            raise self._helpful(error)
        if observed():
            facts = {"attempt": attempt, "delay": delay, "error": type(error).__name__, "message": str(error)}
            await emit("retry", {"model": self.config.name, "provider": self.config.provider, **facts})
        await self.clock.sleep(delay)

    def _helpful(self, error: ModelError) -> ModelError:
        """A model that is not found may have been misspelled: say which ones are like it."""
        if isinstance(error, NotFoundError) and not error.suggestions:
            error.suggest(self.suggest(self.config.name))
        return error


class Attempts:
    """One request and its repetitions."""

    __slots__ = ("_request", "_round", "guards")

    def __init__(self, guards: Guards, request: Request, number: int = 0) -> None:
        """`number` counts the requests that one question takes."""
        self.guards = guards
        self._request = request
        self._round = number

    async def whole(self) -> Response:
        """The answer, with its cost. Raises ModelError, LimitExceededError, ConfigurationError."""
        request = await _ready(self._request)
        guards = self.guards
        guards.begin()
        deadline = guards.deadline(request.timeout, request.model)
        try:
            if not observed():
                return guards.settled(await guards.repeated(lambda: guards.provider.execute(request), deadline))
            async with _Report(guards, request.model, self._round) as report:
                response = guards.settled(await guards.repeated(lambda: guards.provider.execute(request), deadline))
                await report.success(response)
                return response
        finally:
            deadline.close()

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes; chunks with usage say what it has cost so far."""
        request = await _ready(self._request)
        guards = self.guards
        guards.begin()
        deadline = guards.deadline(request.timeout, request.model)
        bill = _Bill(guards, request.model)
        try:
            async with _Report(guards, request.model, self._round) as report:
                source, chunk = await guards.repeated(lambda: _opened(guards.provider, request), deadline)
                try:
                    while chunk is not None:
                        if chunk.usage is not None or chunk.service_tier is not None:
                            chunk = bill.note(chunk)
                        if report.watched:
                            await report.chunk(chunk)
                        yield chunk
                        with deadline:
                            chunk = await anext(source, None)
                finally:
                    bill.settle()
                    await close(source)
                await report.end_of_stream()
        finally:
            deadline.close()


class Embedding:
    """One call for vectors and its repetitions."""

    __slots__ = ("_guards", "_provider", "_request")

    def __init__(self, guards: Guards, provider: EmbeddingProvider, request: EmbeddingRequest) -> None:
        self._guards = guards
        self._provider = provider
        self._request = request

    async def whole(self) -> Embeddings:
        """The vectors, with their cost. Raises as `Attempts.whole`."""
        guards, request = self._guards, self._request
        guards.begin()
        deadline = guards.deadline(request.timeout, request.model)
        try:
            async with _Report(guards, request.model) as report:
                answer = await guards.repeated(lambda: self._provider.embed(request), deadline)
                found = guards.settled(answer)
                await report.success(found)
        finally:
            deadline.close()
        return found


async def _ready(request: Request) -> Request:
    """The request with its files read."""
    if not any(map(needs_loading, request.messages)):
        return request
    return replace(request, messages=await loaded(request.messages))


async def _opened(provider: LLMProvider, request: Request) -> tuple[AsyncIterator[StreamChunk], StreamChunk | None]:
    """A stream and its first chunk."""
    source = provider.execute_streaming(request)
    try:
        return source, await anext(source, None)
    except BaseException:
        await close(source)
        raise


class _Bill:
    """What a stream has cost by now: usage is cumulative, so the last word counts."""

    __slots__ = ("_cost", "_guards", "_model", "_tier", "_usage")

    def __init__(self, guards: Guards, model: str) -> None:
        self._guards = guards
        self._model = model
        self._usage: Usage | None = None
        self._cost: float | None = None
        self._tier: str | None = None

    def note(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk, with the cost so far where its usage is known."""
        self._tier = chunk.service_tier or self._tier
        self._usage = chunk.usage or self._usage
        if self._usage is None:
            return chunk
        self._cost = chunk.cost
        if self._cost is None:
            model = chunk.model or self._model
            self._cost = self._guards.config.cost(self._usage, model=model, service_tier=self._tier)
        return chunk if self._cost is None else replace(chunk, cost=self._cost)

    def settle(self) -> None:
        self._guards.settle(self._usage, self._cost)


class _Report:
    """Tells whoever watches how a call begins and ends; where nobody does, it does nothing."""

    __slots__ = ("_facts", "_guards", "_joiner", "_model", "_round", "_started", "watched")

    def __init__(self, guards: Guards, model: str, number: int = 0) -> None:
        self.watched = observed()
        self._guards = guards
        self._model = model
        self._round = number
        self._facts: dict[str, object] = {}
        self._joiner: Joiner | None = None
        self._started = 0.0

    async def __aenter__(self) -> _Report:
        if self.watched:
            guards = self._guards
            self._started = guards.clock.monotonic()
            self._facts = {"model": guards.config.name, "provider": guards.config.provider}
            if guards.tenant is not None:
                self._facts["tenant"] = guards.tenant
            if self._round:
                self._facts["round"] = self._round
            await emit("model_start", self._facts)
        return self

    async def chunk(self, chunk: StreamChunk) -> None:
        self._joiner = self._joiner or Joiner()
        self._joiner.add(chunk)
        if chunk.content:
            await emit("chunk", {"content": chunk.content})

    async def end_of_stream(self) -> None:
        if self.watched:
            joiner = self._joiner or Joiner()
            await self.success(joiner.response(provider=self._guards.config.provider, model=self._model))

    async def success(self, answer: Response | Embeddings) -> None:
        if not self.watched:
            return
        usage = answer.usage
        end = {
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "finish_reason": answer.finish_reason if isinstance(answer, Response) else None,
            "request_id": answer.request_id,
            "cost": answer.cost,
        }
        await emit("model_success", {**self._facts, **end, "duration": self._duration()})

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A cancelled call, or a stream that its reader has left, has neither succeeded nor failed.
        if self.watched and isinstance(error, Exception):
            end = {"error": type(error).__name__, "message": describe(error), "duration": self._duration()}
            await emit("model_error", {**self._facts, **end})

    def _duration(self) -> float:
        return self._guards.clock.monotonic() - self._started
