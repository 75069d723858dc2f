"""One model call, guarded and observed: what the caller said, over what models.yml says, to a provider and back.

    Call + ModelConfig ──▶ Request ──▶ attempt ──▶ Response, or chunks
                                        ▲   │ a retryable error
                                        └───┴ wait: the policy's back-off, at least the server's Retry-After

The total time-out spans all attempts and waits. A wait that would outlast it is not begun. A stream is tried again only
as long as nothing of it was delivered. Events go to whoever watches the flow: model_start, chunk, retry, model_success,
model_error. A caller's own cancellation passes through and is reported as nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any

from msgspec import Struct

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.events import emit, observed
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.run import current_run
from agentflow.errors import ConfigurationError, ModelError, describe
from agentflow.llm.config.registry import ModelConfig, ModelRegistry
from agentflow.llm.deadline import Deadline
from agentflow.llm.messages import Message, Request, Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.streaming.stream import StreamingResponse, close, join

__all__ = ["Call", "LLMClient"]

_SYSTEM_CLOCK = SystemClock()


class Call(Struct, frozen=True):
    """What the caller said; None where nothing was said, so that models.yml decides.

    A Struct, because a builder copies it with every word and `msgspec.structs.replace` is 20 × as fast as
    `dataclasses.replace`.
    """

    model: str | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    params: Mapping[str, Any] = {}
    timeout: float | None = None
    retry: RetryPolicy | None = None
    streaming: bool = False
    tenant: str | None = None

    def request(self, config: ModelConfig) -> Request:
        """The request for this model. Raises ConfigurationError where there is nothing to ask."""
        return Request(
            config.model_id,
            self._turns(),
            config.temperature if self.temperature is None else self.temperature,
            config.top_p if self.top_p is None else self.top_p,
            config.max_tokens if self.max_tokens is None else self.max_tokens,
            config.stop if self.stop is None else self.stop,
            config.seed if self.seed is None else self.seed,
            {**config.params, **self.params},
            config.timeout if self.timeout is None else self.timeout,
        )

    def _turns(self) -> tuple[Message, ...]:
        asked = self.prompt is not None and bool(self.prompt.strip())
        if not asked and not self.messages:
            raise ConfigurationError("there is nothing to ask: give .prompt(text) a text, or .messages([…]) a turn")
        return (
            *(() if self.system is None else (Message("system", self.system),)),
            *self.messages,
            *((Message("user", self.prompt),) if asked and self.prompt is not None else ()),
        )


class LLMClient:
    """Carries out one `Call`, as often as it is asked to.

    client = AgentFlow.model("gpt-4o").prompt("Hello").build()
    reply = await client.execute()
    """

    __slots__ = ("_call", "_clock", "_registry")

    def __init__(self, registry: ModelRegistry, call: Call, *, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._registry = registry
        self._call = call
        self._clock = clock

    async def execute(self) -> Response:
        """The whole answer. With `streaming` it is streamed and added up, so that watchers see it grow.

        Raises a ModelError, UnknownModelError, MissingKeyError, or ConfigurationError.
        """
        if self._call.streaming:
            async with self.execute_streaming() as stream:
                return await stream.collect()
        attempts = self._attempts()
        async with _Report(attempts) as report:
            response = await attempts.whole()
            await report.success(response)
        return response

    def execute_streaming(self) -> StreamingResponse:
        """The answer in chunks. Nothing is sent before the first is asked for; a wrong name or key is an error here."""
        attempts = self._attempts()
        return StreamingResponse(attempts.chunks(), provider=attempts.config.provider, model=attempts.request.model)

    def _attempts(self) -> _Attempts:
        call = self._call
        name = self._registry.default_model().name if call.model is None else call.model
        config, provider = self._registry.resolve(name)
        return _Attempts(config, provider, call.request(config), call.retry or config.retry, self._clock, _tenant(call))


def _tenant(call: Call) -> str | None:
    """The caller's own word, else the tenant of the run that this call is part of."""
    run = current_run.get()
    return call.tenant or (run.tenant if run else None)


class _Attempts:
    """One request and its repetitions."""

    __slots__ = ("clock", "config", "policy", "provider", "request", "tenant")

    def __init__(
        self,
        config: ModelConfig,
        provider: LLMProvider,
        request: Request,
        policy: RetryPolicy,
        clock: Clock,
        tenant: str | None,
    ) -> None:
        self.config = config
        self.provider = provider
        self.request = request
        self.policy = policy
        self.clock = clock
        self.tenant = tenant

    async def whole(self) -> Response:
        deadline = self._deadline()
        attempt = 1
        try:
            while True:
                try:
                    with deadline:
                        return await self.provider.execute(self.request)
                except ModelError as error:
                    await self._wait(attempt, error, deadline)
                attempt += 1
        finally:
            deadline.close()

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        deadline = self._deadline()
        try:
            async with _Report(self) as report:
                source, chunk = await self._open(deadline)
                try:
                    while chunk is not None:
                        if report.watched:
                            await report.chunk(chunk)
                        yield chunk
                        with deadline:
                            chunk = await anext(source, None)
                finally:
                    await close(source)
                await report.end_of_stream()
        finally:
            deadline.close()

    async def _open(self, deadline: Deadline) -> tuple[AsyncIterator[StreamChunk], StreamChunk | None]:
        """A stream and its first chunk, after as many attempts as that takes."""
        attempt = 1
        while True:
            source = self.provider.execute_streaming(self.request)
            try:
                with deadline:
                    return source, await anext(source, None)
            except BaseException as error:
                await close(source)
                if not isinstance(error, ModelError):
                    raise
                await self._wait(attempt, error, deadline)
            attempt += 1

    def _deadline(self) -> Deadline:
        return Deadline(self.request.timeout, provider=self.config.provider, model=self.request.model)

    async def _wait(self, attempt: int, error: ModelError, deadline: Deadline) -> None:
        """Until the next attempt; raises the error where there is none."""
        delay = max(self.policy.delay(attempt, self.clock.random()), error.retry_after or 0.0)
        if not error.retryable or not self.policy.allows(attempt, error) or not deadline.allows(delay):
            raise error
        if observed():
            facts = {"attempt": attempt, "delay": delay, "error": type(error).__name__, "message": str(error)}
            await emit("retry", {"model": self.config.name, "provider": self.config.provider, **facts})
        await self.clock.sleep(delay)


class _Report:
    """Tells whoever watches how a call begins and ends; where nobody does, it does nothing."""

    __slots__ = ("_attempts", "_facts", "_seen", "_started", "watched")

    def __init__(self, attempts: _Attempts) -> None:
        self.watched = observed()
        self._attempts = attempts
        self._facts: dict[str, object] = {}
        self._seen: list[StreamChunk] = []
        self._started = 0.0

    async def __aenter__(self) -> _Report:
        if self.watched:
            attempts = self._attempts
            self._started = attempts.clock.monotonic()
            self._facts = {"model": attempts.config.name, "provider": attempts.config.provider}
            if attempts.tenant is not None:
                self._facts["tenant"] = attempts.tenant
            await emit("model_start", self._facts)
        return self

    async def chunk(self, chunk: StreamChunk) -> None:
        self._seen.append(chunk)
        if chunk.content:
            await emit("chunk", {"content": chunk.content})

    async def end_of_stream(self) -> None:
        attempts = self._attempts
        await self.success(join(self._seen, provider=attempts.config.provider, model=attempts.request.model))

    async def success(self, response: Response) -> None:
        if not self.watched:
            return
        usage = response.usage
        end = {
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "finish_reason": response.finish_reason,
            "request_id": response.request_id,
            "cost": response.cost,
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
        return self._attempts.clock.monotonic() - self._started
