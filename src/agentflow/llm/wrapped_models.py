"""The models of a registry as providers, with what models.yml puts around them.

    provider_of(registry, "auto")  ──▶  cache(budget(router({small: …, large: …})))     made once, and kept

Whoever wraps asks for others by the same way, so that a router's candidate may have a cache of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from agentflow.core.robustness.breaker_state import BreakerState
from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.guarded_model import GuardedModel
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.wrapping import ORDER, Surroundings, wrapper

__all__ = ["provider_of", "surroundings_of"]


Describe: TypeAlias = Callable[[str], ModelConfig]


def provider_of(registry: ModelRegistry, name: str) -> LLMProvider:
    """Raises UnknownModelError, ConfigurationError, MissingExtraError."""
    config = registry.describe(name)
    if not config.wrappers:
        return GuardedModel(registry, name)
    return registry.chains.get(config.name, partial(_wrapped, registry, config.name))


def surroundings_of(registry: ModelRegistry, config: ModelConfig, describe: Describe | None = None) -> Surroundings:
    """Where the wrappers of an entry stand. `describe` is told of every model that they look up."""
    look_up = registry.describe if describe is None else describe

    def ask(name: str) -> LLMProvider:
        look_up(name)
        return provider_of(registry, name)

    return Surroundings(
        config.name,
        registry.clock,
        registry.folder,
        ask,
        look_up,
        partial(_healthy, registry),
        partial(_address, registry),
        registry.pipelines.shared_store,
        registry,
    )


def _wrapped(registry: ModelRegistry, name: str, describe: Describe) -> LLMProvider:
    config = describe(name)  # anew: whoever waited for his turn may have waited for a change of it
    surroundings = surroundings_of(registry, config, describe)
    provider: LLMProvider = GuardedModel(registry, config.name)
    for section in reversed(ORDER):
        settings = config.wrappers.get(section)
        if settings is not None:
            make = wrapper(section, f"models.{config.name}.{section}")
            provider = make(provider, settings, surroundings)
    return provider


def _address(registry: ModelRegistry, name: str) -> str | None:
    return registry.base_url(registry.describe(name).provider)


def _healthy(registry: ModelRegistry, name: str) -> bool:
    """Whether the breaker of a model lets calls through, or would let one through to see."""
    config = registry.describe(name)
    if config.routed:
        return True  # a router's own candidates are asked
    try:
        breaker = registry.pipeline(config).breaker
    except ConfigurationError:
        return False
    return breaker is None or breaker.state is not BreakerState.OPEN
