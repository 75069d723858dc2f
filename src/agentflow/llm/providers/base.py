"""What a provider is: two methods. Everything else (retry, cache, router, span) wraps this.

Some can do more: `EmbeddingProvider`, `TokenCounter`, `ModelLister` and `BatchProvider` are protocols of one method
each, which is looked for where it is needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from agentflow.core.observability.redaction.known_secrets import know_secret
from agentflow.llm.content import Json
from agentflow.llm.messages import EmbeddingRequest, Embeddings, ModelInfo, Request, Response, StreamChunk
from agentflow.llm.providers.batches.endpoint import BatchEndpoint

__all__ = [
    "BatchProvider",
    "EmbeddingProvider",
    "LLMProvider",
    "ModelLister",
    "ProviderFactory",
    "ProviderSettings",
    "Secret",
    "SecretHeaders",
    "Timeouts",
    "TokenCounter",
    "TokenSource",
]


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


@runtime_checkable
class EmbeddingProvider(Protocol):
    """Turns texts into vectors."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings: ...


@runtime_checkable
class TokenCounter(Protocol):
    """Says how many input tokens a request has, without making it."""

    async def count_tokens(self, request: Request) -> int: ...


@runtime_checkable
class ModelLister(Protocol):
    """Asks the provider which models it has now."""

    async def list_models(self) -> tuple[ModelInfo, ...]: ...


@runtime_checkable
class BatchProvider(Protocol):
    """Answers many requests together, hours later and for less."""

    def batches(self) -> BatchEndpoint:
        """Raises UnsupportedError where the server, as it is configured, has no batches."""
        ...


class Secret:
    """A key that cannot be printed, pickled or compared by accident: only `reveal()` gives it away.

    Whatever records what happens takes it out of texts from here on.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        know_secret(value)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


class SecretHeaders(dict[str, str]):
    """Headers of which some may hold a key: a dict, but its repr tells their names alone, and it is not pickled."""

    def __repr__(self) -> str:
        return f"SecretHeaders({', '.join(self)})"

    def __reduce__(self) -> str:
        raise TypeError("SecretHeaders are not pickled")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a phase of a call may take; None is no limit of its own.

    `connect` covers DNS, TCP, TLS and a proxy's tunnel; `first_byte` runs from the sent request to the first byte of
    the answer; `idle` is the longest silence between two pieces; `total` is the whole call; `pool` is the wait for a
    free connection.
    """

    connect: float | None = 10.0
    first_byte: float | None = None
    idle: float | None = 60.0
    total: float | None = 600.0
    pool: float | None = None


TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""Called before each request; what it returns may be kept and refreshed by the caller's own code."""


Observer: TypeAlias = Callable[[str, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One entry under `providers:` in models.yml, resolved: what a provider is built from.

    `auth_header` is the header that carries the key, bare, where it is not the API's usual one (Azure's `api-key`).
    `query` is added to every address. `proxy` is an address of an HTTP proxy, `ca_bundle` a PEM file of authorities
    that are trusted instead of the system's, `client_cert` a PEM file with a certificate and its key, or a pair of
    files. `token` gives a fresh bearer token for each call, instead of a key; it can only be set in code.
    `idempotency_header` carries a key that all attempts of one call share. `observe` hears of the limits that an
    answer's headers tell: the model's id, and the numbers as `server_limits` reads them. `folder` is where relative
    paths among the options count from: where the models.yml lies that says them, else the working folder.
    """

    name: str
    kind: str
    base_url: str | None = None
    api_key: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = Timeouts()
    allow_http: bool = False
    options: Mapping[str, Json] = field(default_factory=dict)
    auth_header: str | None = None
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    client_cert: str | tuple[str, str] | None = None
    token: TokenSource | None = None
    idempotency_header: str | None = None
    observe: Observer | None = field(default=None, repr=False)
    folder: Path | None = None


ProviderFactory: TypeAlias = Callable[[ProviderSettings], LLMProvider]
