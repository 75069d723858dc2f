"""Micro-batching for an entry of models.yml: the wrapper `batch` of the group `agentflow.wrappers`.

vectors: {provider: openai, model_id: text-embedding-3-small, batch: {max_size: 64, latency_budget: 0.05}}
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from agentflow.llm.config.wrappers import BatchEntry
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.wrapping import Surroundings
from agentflow.mcp.performance.batching.batcher import RequestBatcher

__all__ = ["from_settings"]

_NAMES: Final = ("max_size", "max_tokens", "latency_budget", "in_flight", "padded")


def from_settings(inner: LLMProvider, settings: BatchEntry, surroundings: Surroundings) -> LLMProvider:
    """Raises ConfigurationError."""
    said: dict[str, Any] = {name: value for name in _NAMES if (value := getattr(settings, name)) is not UNSET}
    return RequestBatcher(inner, **said, clock=surroundings.clock, model=surroundings.model)
