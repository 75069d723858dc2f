"""A registry on a clock that jumps, with providers that do as they are told, and the events of what runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.told import Told

from agentflow.clock import VirtualClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import LLMProvider, ProviderSettings

__all__ = ["Bench", "Slow"]

T = TypeVar("T")


class Bench:
    """`yml` is models.yml; each of `providers` is known by its name. The default clock draws no jitter above 0."""

    def __init__(
        self,
        tmp_path: Path,
        providers: Mapping[str, LLMProvider],
        yml: str = "",
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.events: list[ExecutionEvent] = []
        self.settings: dict[str, ProviderSettings] = {}
        if yml:
            (tmp_path / "models.yml").write_text(yml)
        self.registry = ModelRegistry.load(environ=environ or {}, cwd=tmp_path, home=tmp_path, clock=self.clock)
        for name, provider in providers.items():
            self.add(name, provider)

    def add(self, name: str, provider: LLMProvider) -> None:
        def factory(settings: ProviderSettings) -> LLMProvider:
            self.settings[settings.name] = settings
            return provider

        self.registry.register_provider(name, factory)

    def ask(self, model: str = "toy/m", prompt: str = "Hi") -> LLMClientBuilder[str]:
        return LLMClientBuilder(lambda: self.registry, Call(model=model)).prompt(prompt)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.clock.run(main)

    def run_watched(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run inside a scope, as a node of a watched flow would, and keep the events."""

        async def sink(event: ExecutionEvent) -> None:
            self.events.append(event)

        async def main() -> T:
            token = current_scope.set(Scope(Channel("run", self.clock, Told(sink)), "flow/ask#1", "ask", 1))
            try:
                return await make()
            finally:
                current_scope.reset(token)

        return self.clock.run(main())

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, kind: str) -> Sequence[Mapping[str, object]]:
        return [event.data for event in self.events if event.kind == kind]

    # ---- the guards of a model

    def pipeline(self, model: str = "toy/m", endpoint: str = "chat") -> Pipeline:
        return self.registry.pipeline(self.registry.describe(model), endpoint)

    def breaker(self, model: str = "toy/m", endpoint: str = "chat") -> CircuitBreaker:
        breaker = self.pipeline(model, endpoint)._breaker
        assert isinstance(breaker, CircuitBreaker)
        return breaker

    def limiter(self, model: str = "toy/m") -> RateLimiter:
        limiter = self.pipeline(model)._limiter
        assert isinstance(limiter, RateLimiter)
        return limiter

    def shedder(self, model: str = "toy/m") -> LoadShedder:
        shedder = self.pipeline(model)._shedder
        assert shedder is not None
        return shedder

    def assert_free(self, model: str = "toy/m") -> None:
        """No place, slot, or permit of a model's guards is held."""
        shedder, limiter = self.shedder(model), self.limiter(model)
        assert (shedder.in_flight, shedder.queued) == (0, 0)
        assert (limiter.in_use, limiter.waiting) == (0, 0)
        assert self.breaker(model).counts().probes == 0


class Slow:
    """Answers "done" after so many seconds a call, in turn; for ever the last. Streams come in pieces, the first of
    them as late, the others `gap` seconds apart. Counts what is open and what was cancelled."""

    name = "toy"

    def __init__(self, *seconds: float, gap: float = 0.0, pieces: int = 3, usage: Usage | None = None) -> None:
        self.seconds = list(seconds)
        self.gap = gap
        self.pieces = pieces
        self.usage = usage
        self.calls = self.open = self.cancelled = self.at_once = 0

    async def _wait(self) -> None:
        self.calls += 1
        seconds = self.seconds[min(self.calls, len(self.seconds)) - 1]
        self.open += 1
        self.at_once = max(self.at_once, self.open)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            self.open -= 1
            raise

    async def execute(self, request: Request) -> Response:
        await self._wait()
        self.open -= 1
        return Response("done", request.model, self.name, usage=self.usage, finish_reason="stop")

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        await self._wait()
        try:
            for number in range(self.pieces):
                if number:
                    await asyncio.sleep(self.gap)
                yield StreamChunk(f"{number} ")
            yield StreamChunk(finish_reason="stop", usage=self.usage)
        finally:
            self.open -= 1

    async def aclose(self) -> None: ...
