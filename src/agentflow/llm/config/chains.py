"""The providers that a registry's entries are wrapped in: made when first needed, closed with the registry.

get("auto", make)  ──▶  the chain, and beside it the configuration of every model that it has looked up
doubt()            ──▶  entries have changed: a chain whose models are the same goes on, the others are made anew
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any, Final

from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.providers.base import LLMProvider

__all__ = ["Chains"]

_MOST: Final = 512  # chains: whoever makes up `provider/any` shall not fill memory

Describe = Callable[[str], ModelConfig]


class _Chain:
    """A provider, and the models that it was made of as they were then."""

    __slots__ = ("models", "provider")

    def __init__(self, provider: LLMProvider, models: dict[str, ModelConfig]) -> None:
        self.provider = provider
        self.models = models


class Chains:
    """The outermost provider of each wrapped entry. One that is replaced is closed in the end, not now: somebody may
    be using it. `lock` is that of whose entries they are: what is made looks entries up, and whoever changes one has
    the chains doubted, so that two locks would be taken in either order. `describe` says what a model is now."""

    def __init__(self, lock: AbstractContextManager[Any], describe: Describe) -> None:
        self._made: dict[str, _Chain] = {}
        self._doubted: set[str] = set()
        self._left: list[LLMProvider] = []
        self._making: dict[str, dict[str, ModelConfig]] = {}
        self._lock = lock
        self._describe = describe

    def get(self, name: str, make: Callable[[Describe], LLMProvider]) -> LLMProvider:
        """The provider of that entry; `make` looks models up by the function that it is given. Raises
        ConfigurationError for one that leads back to itself, and what `make` raises."""
        found = self._made.get(name)
        return self._make(name, make) if found is None or name in self._doubted else found.provider

    def doubt(self) -> None:
        """What the entries say has changed."""
        with self._lock:
            self._doubted = set(self._made)

    async def aclose(self) -> None:
        """Close them all. One that fails keeps none of the others open; its error is raised when all are closed."""
        with self._lock:
            left = [*self._left, *(chain.provider for chain in self._made.values())]
            self._left = []
            self._made.clear()
        async with AsyncExitStack() as closing:
            for provider in left:
                closing.push_async_callback(provider.aclose)

    def _make(self, name: str, make: Callable[[Describe], LLMProvider]) -> LLMProvider:
        with self._lock:
            found = self._made.get(name)
            if found is not None and self._holds(name, found):
                self._doubted.discard(name)
                return found.provider
            if name in self._making:
                raise ConfigurationError(
                    f"model {name!r} leads back to itself: {' → '.join([*self._making, name])}; "
                    "take one of them out of the candidates of the other"
                )
            models = self._making[name] = {}

            def looked_up(other: str) -> ModelConfig:
                config = models[other] = self._describe(other)
                return config

            try:
                provider = make(looked_up)
            finally:
                del self._making[name]
            if found is not None:
                self._left.append(found.provider)
            elif len(self._made) >= _MOST:
                self._left.append(self._made.pop(next(iter(self._made))).provider)
            self._made[name] = _Chain(provider, models)
            self._doubted.discard(name)
            return provider

    def _holds(self, name: str, chain: _Chain) -> bool:
        """Whether it would be made the same way again, and so would those inside of it."""
        if name not in self._doubted:
            return True
        try:
            if any(self._describe(other) != config for other, config in chain.models.items()):
                return False
        except ConfigurationError:
            return False
        inner = [(other, self._made.get(other)) for other in chain.models if other != name]
        return all(self._holds(other, found) for other, found in inner if found is not None)
