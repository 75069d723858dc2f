"""What `kind:` may say: the providers of this package, and those that installed packages offer.

    "anthropic"  ──BUILT_IN, plugin──▶  the function that builds one from its ProviderSettings; None for an unknown kind

A provider's module is imported when the first of its kind is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from agentflow.errors import ConfigurationError, describe
from agentflow.llm.providers.base import LLMProvider, ProviderFactory, ProviderSettings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["BUILT_IN", "ONE_API", "plugin", "plugin_names"]

PLUGINS: Final = "agentflow.providers"


def _openai(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.openai import OpenAIProvider

    return OpenAIProvider(settings)


def _anthropic(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.anthropic import AnthropicProvider

    return AnthropicProvider(settings)


def _google(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.google import GoogleProvider

    return GoogleProvider(settings)


def _moonshot(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.moonshot import MoonshotProvider

    return MoonshotProvider(settings)


def _local(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.local import LocalProvider

    return LocalProvider(settings)


def _scripted(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.scripted import ScriptedProvider

    return ScriptedProvider.from_settings(settings)


BUILT_IN: Final[Mapping[str, ProviderFactory]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
    "moonshot": _moonshot,
    "local": _local,
    "scripted": _scripted,
}
ONE_API: Final = frozenset({"anthropic", "google", "moonshot", "local"})
"""Kinds that know no API but the usual one, so that `api: responses` on a model of theirs can only be a mistake."""


def plugin(kind: str) -> ProviderFactory | None:
    """The factory that an installed package offers under this name. Raises ConfigurationError if it does not load."""
    for entry in _plugins():
        if entry.name == kind:
            try:
                factory = entry.load()
            except Exception as error:
                raise ConfigurationError(
                    f"the plug-in {entry.value} of kind {kind!r} does not load: {describe(error)}"
                ) from error
            return cast(ProviderFactory, factory)
    return None


def plugin_names() -> list[str]:
    return [entry.name for entry in _plugins()]


def _plugins() -> EntryPoints:
    from importlib.metadata import entry_points  # a third of the registry's import; only plug-ins need it

    return entry_points(group=PLUGINS)
