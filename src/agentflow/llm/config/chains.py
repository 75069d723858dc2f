"""The providers that a registry's entries are wrapped in: made when first needed, closed with the registry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any

from agentflow.errors import ConfigurationError
from agentflow.llm.providers.base import LLMProvider

__all__ = ["Chains"]


class Chains:
    """The outermost provider of each wrapped entry. One that is forgotten is closed in the end, not now: somebody may
    be using it. `lock` is that of whose entries they are: what is made looks entries up, and whoever changes one has
    its chain forgotten, so that two locks would be taken in either order."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._made: dict[str, LLMProvider] = {}
        self._left: list[LLMProvider] = []
        self._making: list[str] = []
        self._lock = lock

    def get(self, name: str, make: Callable[[], LLMProvider]) -> LLMProvider:
        """The provider of that entry. Raises ConfigurationError for one that leads back to itself, and what `make`
        raises."""
        found = self._made.get(name)
        return self._make(name, make) if found is None else found

    def forget(self) -> None:
        """What the entries say has changed."""
        with self._lock:
            self._left.extend(self._made.values())
            self._made.clear()

    async def aclose(self) -> None:
        """Close them all. One that fails keeps none of the others open; its error is raised when all are closed."""
        self.forget()
        with self._lock:
            left, self._left = self._left, []
        async with AsyncExitStack() as closing:
            for provider in left:
                closing.push_async_callback(provider.aclose)

    def _make(self, name: str, make: Callable[[], LLMProvider]) -> LLMProvider:
        with self._lock:
            found = self._made.get(name)
            if found is not None:
                return found
            if name in self._making:
                raise ConfigurationError(
                    f"model {name!r} leads back to itself: {' → '.join([*self._making, name])}; "
                    "take one of them out of the candidates of the other"
                )
            self._making.append(name)
            try:
                found = self._made[name] = make()
            finally:
                self._making.pop()
            return found
