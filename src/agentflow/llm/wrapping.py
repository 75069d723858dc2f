"""Providers that wrap providers: what models.yml says under `cache`, `budget`, `router` and `batch`, found by name.

    entry ──▶ the model itself, guarded ──batch──router──budget──cache──▶ one provider, which the client asks

A wrapper is a function of the group `agentflow.wrappers`: it gets the provider it wraps, its section of the entry, and
its surroundings, and returns a provider. The first of `ORDER` is the outermost: a cached answer spends no budget.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Protocol, cast

from msgspec import Struct

from agentflow.clock import Clock
from agentflow.errors import ConfigurationError, describe
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.sharing import SharedStore
from agentflow.llm.providers.base import LLMProvider

__all__ = ["ORDER", "Surroundings", "Wrapper", "wrapper"]

ORDER: Final = ("cache", "budget", "router", "batch")
"""The wrappers of an entry, the outermost first."""

_GROUP: Final = "agentflow.wrappers"


class Surroundings(Struct, frozen=True):
    """What a wrapper may know of where it stands.

    `model` is the entry's name. `ask` gives any model of the registry by its name as a provider: guarded, priced,
    observed, wrapped as its own entry says. `describe` gives its configuration (price, context, capabilities) without
    building anything, `healthy` says whether its circuit breaker lets calls through, and `address` where its provider
    is asked (None for one that runs here, or a router). `folder` is where relative paths count from. `store` is what
    processes share (`defaults.shared`), None without it. All raise ConfigurationError for a model that nobody knows.
    `registry` is whose entry it is: what several entries have in common in memory hangs
    on it, and is gone with it.
    """

    model: str
    clock: Clock
    folder: Path
    ask: Callable[[str], LLMProvider]
    describe: Callable[[str], ModelConfig]
    healthy: Callable[[str], bool]
    address: Callable[[str], str | None]
    store: Callable[[], SharedStore | None]
    registry: object = None


class Wrapper(Protocol):
    """Makes the provider around `inner`. `settings` is the section of the entry, as `config/wrappers.py` draws it.

    Raises ConfigurationError and MissingExtraError; it opens nothing before it is first asked.
    """

    def __call__(self, inner: LLMProvider, settings: Any, surroundings: Surroundings, /) -> LLMProvider: ...


def wrapper(name: str, where: str) -> Wrapper:
    """Raises ConfigurationError for a name that nobody offers; `where` is the place in models.yml that asks for it."""
    from importlib.metadata import entry_points

    known = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(f"{where}: nothing installed offers the wrapper {name!r}; {hint}")
    try:
        return cast("Wrapper", known[name].load())
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{where}: the wrapper {name!r} ({known[name].value}) does not load: {describe(error)}"
        ) from error
