"""A cache from what models.yml says: the entry point `cache` of the group `agentflow.wrappers`.

fast: {provider: openai, model_id: gpt-4o-mini, temperature: 0, cache: {ttl: 3600, file: .agentflow/cache.db}}
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import UnsetType

from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ModelConfig, routed_to
from agentflow.llm.config.wrappers import CacheEntry
from agentflow.llm.content import plain
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.wrapping import Surroundings
from agentflow.mcp.performance.caching.keys import secret_from_file, secret_from_text
from agentflow.mcp.performance.caching.response_cache import ResponseCache
from agentflow.mcp.performance.caching.semantic.from_entry import tier_from_entry
from agentflow.mcp.performance.caching.semantic_tier import SemanticTier
from agentflow.mcp.performance.caching.sqlite_store import SqliteStore
from agentflow.mcp.performance.caching.store import CacheStore, OffersCache

__all__ = ["from_settings"]

T = TypeVar("T")


def from_settings(inner: LLMProvider, settings: CacheEntry, surroundings: Surroundings, /) -> LLMProvider:
    """Raises ConfigurationError. Nothing is opened before the first question."""
    config = surroundings.describe(surroundings.model)
    where = f"models.{surroundings.model}.cache"
    return ResponseCache(
        inner,
        ttl=settings.ttl,
        jitter=_said(settings.jitter, 0.1),
        stale=_said(settings.stale, 0.0),
        memory_bytes=_said(settings.memory_bytes, 64 * 1024 * 1024),
        store=_store(settings, surroundings, where),
        secret=_secret(settings, surroundings.folder, where),
        share_tenants=_said(settings.share_tenants, False),
        temperature=_said(settings.temperature, "zero"),
        default_temperature=config.temperature,
        tools=_said(settings.tools, "never"),
        addresses=_said(settings.addresses, False),
        replay=_said(settings.replay, "instant"),
        lease=_said(settings.lease, 5.0),
        variant=_variant(config, surroundings, _said(settings.version, "")),
        semantic=_semantic(settings, surroundings),
        clock=surroundings.clock,
    )


def _semantic(settings: CacheEntry, surroundings: Surroundings) -> SemanticTier | None:
    if isinstance(settings.semantic, UnsetType):
        return None
    file = None if isinstance(settings.file, UnsetType) else surroundings.folder / settings.file
    return tier_from_entry(settings.semantic, surroundings, file)


def _said(value: T | UnsetType, otherwise: T) -> T:
    return otherwise if isinstance(value, UnsetType) else value


def _store(settings: CacheEntry, surroundings: Surroundings, where: str) -> CacheStore | None:
    if not isinstance(settings.file, UnsetType):
        most = _said(settings.file_bytes, 1 << 30)
        return SqliteStore(surroundings.folder / settings.file, bytes=most, clock=surroundings.clock)
    if settings.shared is not True:
        return None
    shared = surroundings.store()
    if shared is None:
        raise ConfigurationError(f"{where}: nothing is shared by processes: say what, under defaults.shared")
    if not isinstance(shared, OffersCache):
        raise ConfigurationError(f"{where}: what is shared by processes keeps no answers: use valkey, or a file")
    return shared.cache("answers")


def _secret(settings: CacheEntry, folder: Path, where: str) -> bytes | Callable[[], bytes] | None:
    if not isinstance(settings.secret_env, UnsetType):
        text = os.environ.get(settings.secret_env)
        if not text:
            raise ConfigurationError(f"{where}: the environment variable {settings.secret_env} is not set")
        return secret_from_text(text, f"{where}: {settings.secret_env}")
    if not isinstance(settings.secret_file, UnsetType):
        return partial(secret_from_file, folder / settings.secret_file)
    return None


def _variant(config: ModelConfig, surroundings: Surroundings, version: str) -> str:
    """What else decides the answers of an entry: what it says where a request says nothing, and who is asked where."""
    facts = (
        *_said_of(config),
        {name: section for name, section in config.wrappers.items() if name == "router"},
        [surroundings.address(name) for name in (config.name, *routed_to(config))],
        [_said_of(surroundings.describe(name)) for name in routed_to(config)],
    )
    text = msgspec.json.encode(facts, enc_hook=plain, order="sorted")
    return f"{version}/{hashlib.sha256(text).hexdigest()[:16]}"


def _said_of(config: ModelConfig) -> tuple[object, ...]:
    """What an entry says where a request says nothing."""
    return (
        *(config.model_id, config.api, config.temperature, config.top_p, config.max_tokens, config.stop, config.seed),
        *(config.top_k, config.params, config.thinking),
    )
