"""A model of the registry as a provider: guarded, priced and observed, whoever wraps it.

    cache, budget, router ──Request──▶ GuardedModel ──▶ Attempts (limiter, breaker, retries, price, events) ──▶ provider
                                         └─ asks for whoever is the current caller

What the request leaves open is what models.yml says of this model, and it is asked by the id that its provider knows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from agentflow.errors import UnsupportedError
from agentflow.llm.attempts import Attempts, ready
from agentflow.llm.caller import current_caller
from agentflow.llm.config.capabilities import check
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.embedding import embedded
from agentflow.llm.guards import Guards, check_price
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk
from agentflow.llm.providers.base import EmbeddingProvider

__all__ = ["GuardedModel"]


class GuardedModel:
    """The model of that name. What wraps its entry is left out: this is what they wrap."""

    __slots__ = ("_model", "_registry")

    def __init__(self, registry: ModelRegistry, model: str) -> None:
        self._registry = registry
        self._model = model

    @property
    def name(self) -> str:
        return self._registry.describe(self._model).provider

    @property
    def schemas(self) -> bool:
        """Whether its API has words for the schema of an answer; see `OutputFormat`."""
        config, provider = self._registry.resolve(self._model)
        known = config.capabilities
        return bool(getattr(provider, "schemas", True)) and (known is None or "schema" in known)

    async def execute(self, request: Request) -> Response:
        """Raises a ModelError, RejectedError, LimitExceededError, UnsupportedError, and what a configuration may."""
        guards = self._guards()
        attempts = Attempts(guards, self._for(guards.config, request))
        try:
            return await attempts.whole()
        finally:
            self._account(attempts)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        """The same in pieces. The first says who answers."""
        guards = self._guards()
        attempts = Attempts(guards, self._for(guards.config, request))
        first, spent = True, current_caller().spent
        try:
            async with aclosing(attempts.chunks()) as source:
                async for chunk in source:
                    if first:
                        provider, model = attempts.answered
                        chunk = replace(chunk, provider=provider, model=chunk.model or model)
                        first = False
                    yield chunk
        finally:
            if spent is not None and attempts.timing is not None:
                spent(attempts.timing)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text. Raises UnsupportedError where the provider has no embeddings."""
        guards = self._guards("embeddings")
        provider, config = guards.provider, guards.config
        if not isinstance(provider, EmbeddingProvider):
            raise UnsupportedError(f"provider {config.provider!r} has no embeddings")
        timeout = config.timeout if request.timeout is None else request.timeout
        request = replace(request, model=config.model_id, params={**config.params, **request.params}, timeout=timeout)
        check(request, config, self._registry.models_with)
        return await embedded(guards, provider, request)

    async def count_tokens(self, request: Request) -> int:
        """How many input tokens the request has, by the provider's own count, which no guard bounds. Raises
        UnsupportedError where it has none."""
        config, provider = self._registry.resolve(self._model)
        count = getattr(provider, "count_tokens", None)
        if count is None:
            raise UnsupportedError(f"provider {config.provider!r} does not count tokens")
        counted: int = await count(await ready(self._for(config, request)))
        return counted

    async def aclose(self) -> None:
        """The registry closes its providers."""

    def _for(self, config: ModelConfig, request: Request) -> Request:
        """The request with what this model's entry says where it says nothing."""
        made = replace(
            request,
            model=config.model_id,
            temperature=config.temperature if request.temperature is None else request.temperature,
            top_p=config.top_p if request.top_p is None else request.top_p,
            top_k=config.top_k if request.top_k is None else request.top_k,
            max_tokens=config.max_tokens if request.max_tokens is None else request.max_tokens,
            stop=request.stop or config.stop,
            seed=config.seed if request.seed is None else request.seed,
            params={**config.params, **request.params} if config.params else request.params,
            thinking=config.thinking if request.thinking is None else request.thinking,
            timeout=_timeout(config, request),
        )
        check(made, config, self._registry.models_with)
        return made

    def _guards(self, endpoint: str = "chat") -> Guards:
        caller, registry = current_caller(), self._registry
        config, provider = registry.resolve(self._model)
        if caller.ledgers:
            check_price(config, caller.ledgers)
        return Guards(
            config,
            provider,
            registry.pipeline(config, endpoint),
            registry.pipelines.output,
            caller.policy,
            registry.clock,
            caller.tenant,
            caller.priority,
            caller.patient,
            caller.ledgers,
            registry.suggestions,
            caller.scope,
            caller.run_id,
            caller.flow,
            registry.key_used,
        )

    def _account(self, attempts: Attempts) -> None:
        spent = current_caller().spent
        if spent is not None and attempts.timing is not None:
            spent(attempts.timing)


def _timeout(config: ModelConfig, request: Request) -> float | None:
    """What a call says itself holds; what is only the limit of an entry around leaves a shorter one of this model as it
    is, so that a router has time for another."""
    said, own = request.timeout, config.timeout
    if said is None or own is None:
        return own if said is None else said
    return min(said, own) if current_caller().patient else said
