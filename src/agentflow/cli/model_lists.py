"""Asks the providers which models they have now, and holds their lists against the configuration.

    registry ──compare──▶ openai: GET /models ┐
                          google: GET /models ┴▶ Comparison(provider, models, gone, new) for each, or why there is none

All are asked at once, each for a few seconds. A list may name only the snapshots of a model (gpt-4o-2024-08-06) whose
alias (gpt-4o) is configured: the alias is not gone, and its snapshots are not new.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from agentflow.errors import AgentFlowError
from agentflow.llm.config.model_ids import bare, spellings
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import ModelLister

__all__ = ["Comparison", "compare"]

PATIENCE: Final = 15.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One provider's list. `models` is None where there is none; `error` says why, if something went wrong.

    `gone` holds configured names whose model is not on the list, `new` ids on the list that no entry names.
    """

    provider: str
    models: tuple[str, ...] | None = None
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    error: str | None = None


async def compare(registry: ModelRegistry, *, patience: float = PATIENCE) -> list[Comparison]:
    """Every provider that can be asked: its key is set, or it is a server without keys that has a configured model."""
    try:
        return list(await asyncio.gather(*(_ask(registry, provider, patience) for provider in _askable(registry))))
    finally:
        await registry.aclose()


def _askable(registry: ModelRegistry) -> list[str]:
    used = {registry.describe(name).provider for name in registry.models()}
    return [name for name in registry.providers() if _can_be_asked(registry, name, name in used)]


def _can_be_asked(registry: ModelRegistry, provider: str, used: bool) -> bool:
    found = registry.key_found(provider)
    return found if found is not None else used and registry.base_url(provider) is not None


async def _ask(registry: ModelRegistry, provider: str, patience: float) -> Comparison:
    try:
        lister = registry.provider(provider)
        if not isinstance(lister, ModelLister):
            return Comparison(provider)
        async with asyncio.timeout(patience):
            listed = await lister.list_models()
    except AgentFlowError as error:
        return Comparison(provider, error=str(error))
    except TimeoutError:
        return Comparison(provider, error=f"no answer within {patience:g} s")
    return _compared(registry, provider, [model.id for model in listed])


def _compared(registry: ModelRegistry, provider: str, listed: list[str]) -> Comparison:
    configs = [config for name in registry.models() if (config := registry.describe(name)).provider == provider]
    configured = {bare(config.model_id) for config in configs}
    known = {name for model in listed for name in spellings(model)}
    return Comparison(
        provider,
        models=tuple(listed),
        gone=tuple(config.name for config in configs if bare(config.model_id) not in known),
        new=tuple(sorted(model for model in listed if configured.isdisjoint(spellings(model)))),
    )
