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
from functools import partial
from types import TracebackType
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentflow.clock import Clock
from agentflow.core.limits import Ledger
from agentflow.core.observability.events import emit, observed
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ModelError, ModelTimeoutError, NotFoundError, ProtocolError, describe
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.estimate import estimated_tokens, text_tokens
from agentflow.llm.media import loaded, needs_loading
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.streaming.stream import close

__all__ = ["Attempts", "Embedding", "Guards", "Suggest", "ready"]

R = TypeVar("R")

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

    def deadline(self, seconds: float | None, model: str) -> Deadline:
        return Deadline(seconds, failure=partial(ModelTimeoutError, provider=self.config.provider, model=model))

    def cost(self, usage: Usage, model: str, tier: str | None) -> float | None:
        return self.config.cost(usage, model=model, service_tier=tier)

    def spend(self, usage: Usage, cost: float | None) -> None:
        """A request was answered. It is noted at once, so that no cancellation can come between."""
        for ledger in self.ledgers:
            ledger.spend(usage.total_tokens, cost)

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
            own = f"{self.config.provider}/"  # the same id elsewhere is no help: this provider was asked
            error.suggest([name for name in self.suggest(self.config.name) if "/" not in name or name.startswith(own)])
        return error


class Attempts:
    """One request and its repetitions. `deadline` bounds it together with others; without one it has its own, and
    `number` counts the requests that one question takes."""

    __slots__ = ("_deadline", "_number", "guards", "request")

    def __init__(self, guards: Guards, request: Request, deadline: Deadline | None = None, number: int = 0) -> None:
        self.guards = guards
        self.request = request
        self._deadline = deadline
        self._number = number

    async def whole(self) -> Response:
        """The answer, with its cost. Raises ModelError, LimitExceededError, DocumentError."""
        request = await ready(self.request)
        provider = self.guards.provider
        async with self._asked(request) as asked:
            answer = await self.guards.repeated(lambda: provider.execute(request), asked.deadline)
            usage = answer.usage or (_estimate(request, answer.text) if self.guards.ledgers else None)
            cost = answer.cost
            if cost is None and usage is not None:
                cost = self.guards.cost(usage, answer.model, answer.service_tier)
            if usage is not None:
                self.guards.spend(usage, cost)
            if answer.usage is not None and cost is not answer.cost:
                answer = replace(answer, cost=cost)
            await asked.success(answer)
            return answer

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes; chunks with usage say what it has cost so far."""
        request = await ready(self.request)
        provider = self.guards.provider
        async with self._asked(request) as asked:
            source, chunk = await self.guards.repeated(lambda: _opened(provider, request), asked.deadline)
            bill = _Bill(self.guards, request)
            try:
                while chunk is not None:
                    chunk = bill.note(chunk)
                    if asked.watched:
                        await asked.chunk(chunk)
                    yield chunk
                    try:
                        with asked.deadline:
                            chunk = await anext(source, None)
                    except ModelTimeoutError:
                        if not bill.whole:
                            raise
                        chunk = None  # nothing but the end of the connection is late
            finally:
                bill.settle()
                await close(source)
            await asked.end_of_stream()

    def _asked(self, request: Request) -> _Asked:
        return _Asked(self.guards, request.model, request.timeout, self._deadline, self._number)


class Embedding:
    """One call for vectors and its repetitions, bounded as `Attempts`."""

    __slots__ = ("_deadline", "_guards", "_provider", "request")

    def __init__(
        self, guards: Guards, provider: EmbeddingProvider, request: EmbeddingRequest, deadline: Deadline
    ) -> None:
        self._guards = guards
        self._provider = provider
        self.request = request
        self._deadline = deadline

    async def whole(self) -> Embeddings:
        """One vector for each text, with their cost. Raises as `Attempts.whole`."""
        guards, request = self._guards, self.request
        async with _Asked(guards, request.model, request.timeout, self._deadline, 0) as asked:
            found = await guards.repeated(lambda: self._provider.embed(request), asked.deadline)
            usage = found.usage or Usage(sum(map(text_tokens, request.inputs)))
            cost = guards.cost(usage, found.model, None) if found.cost is None else found.cost
            guards.spend(usage, cost)
            if found.usage is not None:
                found = replace(found, cost=cost)
            if len(found.vectors) != len(request.inputs):
                raise ProtocolError(
                    f"{len(found.vectors)} vectors came for {len(request.inputs)} texts",
                    provider=found.provider,
                    model=found.model,
                )
            await asked.success(found)
            return found


async def ready(request: Request) -> Request:
    """The request with its files read."""
    if not any(map(needs_loading, request.messages)):
        return request
    return replace(request, messages=await loaded(request.messages))


def _estimate(request: Request, said: str) -> Usage:
    """What an answer has used, where the provider does not say."""
    return Usage(sum(map(estimated_tokens, request.messages)), text_tokens(said))


async def _opened(provider: LLMProvider, request: Request) -> tuple[AsyncIterator[StreamChunk], StreamChunk | None]:
    """A stream and its first chunk."""
    source = provider.execute_streaming(request)
    try:
        return source, await anext(source, None)
    except BaseException:
        await close(source)
        raise


class _Bill:
    """What a stream has cost by now: usage is cumulative, so the last word counts.

    A stream that is left before it says so has been paid for all the same: then what was asked and what had come is
    estimated, where somebody keeps a ledger.
    """

    __slots__ = ("_cost", "_ended", "_guards", "_said", "_tier", "_usage", "request")

    def __init__(self, guards: Guards, request: Request) -> None:
        self._guards = guards
        self.request = request
        self._usage: Usage | None = None
        self._cost: float | None = None
        self._tier: str | None = None
        self._said = 0
        self._ended: set[int] = set()

    @property
    def whole(self) -> bool:
        """Whether all that was asked for has come: every answer's end, and what it used."""
        return self._usage is not None and len(self._ended) >= (self.request.n or 1)

    def note(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk, with the cost so far where its usage is known."""
        self._said += len(chunk.content) + len(chunk.reasoning)
        self._tier = chunk.service_tier or self._tier
        if chunk.finish_reason is not None:
            self._ended.add(chunk.index)
        if chunk.usage is None:
            return chunk
        self._usage, self._cost = chunk.usage, chunk.cost
        if self._cost is None:
            self._cost = self._guards.cost(chunk.usage, chunk.model or self.request.model, self._tier)
        return chunk if self._cost is None else replace(chunk, cost=self._cost)

    def settle(self) -> None:
        usage, cost = self._usage, self._cost
        if not self._guards.ledgers:
            return
        if usage is None:
            usage = _estimate(self.request, "x" * self._said)
            cost = self._guards.cost(usage, self.request.model, self._tier)
        self._guards.spend(usage, cost)


class _Asked:
    """One request under way: begun in the ledgers, bounded in time, and told to whoever watches."""

    __slots__ = ("_facts", "_guards", "_joiner", "_model", "_number", "_own", "_started", "deadline", "watched")

    def __init__(
        self, guards: Guards, model: str, seconds: float | None, deadline: Deadline | None, number: int
    ) -> None:
        self.watched = observed()
        self._own = deadline is None
        self.deadline = guards.deadline(seconds, model) if deadline is None else deadline
        self._guards = guards
        self._model = model
        self._number = number
        self._facts: dict[str, object] = {}
        self._joiner: Joiner | None = None
        self._started = 0.0

    async def __aenter__(self) -> _Asked:
        try:
            for ledger in self._guards.ledgers:
                ledger.request()
            if self.watched:
                await self._start()
        except BaseException:
            self._end()
            raise
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
        self._end()
        # A cancelled call, or a stream that its reader has left, has neither succeeded nor failed.
        if self.watched and isinstance(error, Exception):
            end = {"error": type(error).__name__, "message": describe(error), "duration": self._duration()}
            await emit("model_error", {**self._facts, **end})

    async def _start(self) -> None:
        guards = self._guards
        self._started = guards.clock.monotonic()
        self._facts = {"model": guards.config.name, "provider": guards.config.provider}
        if guards.tenant is not None:
            self._facts["tenant"] = guards.tenant
        if self._number:
            self._facts["round"] = self._number
        await emit("model_start", self._facts)

    def _end(self) -> None:
        if self._own:
            self.deadline.close()

    def _duration(self) -> float:
        return self._guards.clock.monotonic() - self._started
