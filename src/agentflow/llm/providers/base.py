"""What a provider is: two methods. Everything else (retry, cache, router, span) wraps this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from agentflow.llm.messages import Json, Request, Response, StreamChunk

__all__ = ["LLMProvider", "ProviderFactory", "ProviderSettings", "Secret", "Timeouts"]


@runtime_checkable
class LLMProvider(Protocol):
    """Answers requests, whole or in chunks.

    `name` is the provider's name in models.yml. Both methods raise a `ModelError` (see `agentflow.errors`) and nothing
    else on failure. Closing the iterator of `execute_streaming` early frees its connection.
    """

    @property
    def name(self) -> str: ...

    async def execute(self, request: Request) -> Response: ...

    def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]: ...

    async def aclose(self) -> None:
        """Give back connections. Safe to call twice."""
        ...


class Secret:
    """A key that cannot be printed, pickled or compared by accident: only `reveal()` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a phase of a call may take; None is no limit of its own.

    `connect` covers waiting for the pool, DNS, TCP and TLS; `first_byte` runs from the sent request to the first byte
    of the answer; `idle` is the longest silence between two pieces; `total` is the whole call.
    """

    connect: float | None = 10.0
    first_byte: float | None = None
    idle: float | None = 60.0
    total: float | None = 600.0


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One entry under `providers:` in models.yml, resolved: what a provider is built from."""

    name: str
    kind: str
    base_url: str | None = None
    api_key: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    allow_http: bool = False
    options: Mapping[str, Json] = field(default_factory=dict)


ProviderFactory: TypeAlias = Callable[[ProviderSettings], LLMProvider]
