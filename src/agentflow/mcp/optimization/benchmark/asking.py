"""One question asked and timed: from a case to what came back, piece by piece.

    Asked models are opened once:  opened(target, registry)  ──▶  ask(case)  ──▶  StreamingResponse
    and each answer is read:       timed(ask(case), now)     ──▶  Answer(first, last, ended, gaps, response)

A model's name is asked through the client, priced, and with what models.yml says. What the client does of its own
accord against bad servers is left out, though: a retry would turn an error into a slow answer, and a breaker or a
shedder that refuses would take away the load under which the server is measured. `guards=True` leaves them in, and so
measures what a program would meet; what models.yml asks for itself stays in any case.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.keys import KeyRing
from agentflow.llm.config.loader import load_configuration
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.schema import Defaults, set_fields
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.streaming.stream import StreamingResponse
from agentflow.mcp.optimization.benchmark.dataset import Case

__all__ = ["Answer", "Ask", "Target", "asking_model", "asking_provider", "loaded", "timed"]

Ask: TypeAlias = Callable[[Case], StreamingResponse]


@dataclass(frozen=True, slots=True)
class Target:
    """A model to ask, as it is told to another process: that loads the same models.yml from the same folder.

    `timeout` is the limit of one call in seconds."""

    model: str
    config: str | None = None
    timeout: float | None = None
    guards: bool = False


@dataclass(slots=True)
class Answer:
    """When the pieces of one answer came, in the caller's time, and what they add up to."""

    first: float | None = None
    last: float | None = None
    ended: float = 0.0
    gaps: array[float] = field(default_factory=lambda: array("d"))
    response: Response | None = None

    def see(self, at: float) -> None:
        """A piece of the answer came."""
        if self.last is None:
            self.first = at
        else:
            self.gaps.append(at - self.last)
        self.last = at

    def begin_anew(self) -> None:
        """What came so far counts for nothing (`StreamChunk.restart`)."""
        self.first = self.last = None
        self.gaps = array("d")


def loaded(config: str | None, *, guards: bool) -> ModelRegistry:
    """A registry for load: of the usual files, and `config` over them."""
    found = load_configuration(config, environ=os.environ, cwd=Path.cwd(), home=Path("~").expanduser())
    if not guards:
        found = replace(found, defaults=Defaults(**{"breaker": False, "shedder": False, **set_fields(found.defaults)}))
    return ModelRegistry(found, KeyRing(os.environ, Path.cwd() / ".env"))


def asking_model(target: Target, registry: ModelRegistry) -> Ask:
    """Raises UnknownModelError and MissingKeyError before anything is sent."""
    registry.resolve(target.model)
    builder = AgentFlow.model(target.model, registry=registry)
    if target.timeout is not None:
        builder = builder.timeout(target.timeout)
    if not target.guards:
        builder = builder.retry(RetryPolicy(max_attempts=1))

    def ask(case: Case) -> StreamingResponse:
        words = builder.messages(case.messages)
        if case.max_tokens is not None:
            words = words.max_tokens(case.max_tokens)
        if case.temperature is not None:
            words = words.temperature(case.temperature)
        return words.execute_streaming()

    return ask


def asking_provider(provider: LLMProvider, model: str, timeout: float | None = None) -> Ask:
    """A provider as it is, with no client around it: nothing is guarded, and its own cost is the only one."""

    def ask(case: Case) -> StreamingResponse:
        request = Request(
            model, case.messages, temperature=case.temperature, max_tokens=case.max_tokens, timeout=timeout
        )
        return StreamingResponse(provider.execute_streaming(request), provider=provider.name, model=model)

    return ask


async def timed(stream: StreamingResponse, answer: Answer, now: Callable[[], float]) -> None:
    """Read the answer to its end into `answer`, which holds what came before a failure. Raises what the stream does."""
    async with stream:
        async for chunk in stream:
            if chunk.restart:
                answer.begin_anew()
            if _says_something(chunk):
                answer.see(now())
        answer.ended = now()
        answer.response = await stream.collect()


def _says_something(chunk: StreamChunk) -> bool:
    """Whether a user, or a program that waits for a tool call, would have seen it."""
    return bool(chunk.content or chunk.reasoning or chunk.tool_calls or chunk.part is not None)
