"""The semantic tier from what models.yml says under `semantic` of a cache.

cache: {ttl: 3600, semantic: {embedding: text-embedding-3-small, delta: 0.02}}
cache: {ttl: 3600, semantic: {local_model: models/all-MiniLM-L6-v2, same: embedding}}
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET, UnsetType

from agentflow.errors import MissingExtraError
from agentflow.llm.config.wrappers import SemanticEntry
from agentflow.llm.wrapping import Surroundings
from agentflow.mcp.performance.caching.semantic_tier import SemanticTier

__all__ = ["tier_from_entry"]

T = TypeVar("T")


def tier_from_entry(entry: SemanticEntry, surroundings: Surroundings, file: Path | None) -> SemanticTier:
    """`file` is the exact tier's, where it has one. Raises ConfigurationError, MissingExtraError; opens nothing."""
    try:
        from agentflow.mcp.performance.caching.semantic.embedding import LocalEmbedder, ModelEmbedder
        from agentflow.mcp.performance.caching.semantic.sameness import SameText, SameVector
        from agentflow.mcp.performance.caching.semantic.tier import VerifiedTier
        from agentflow.mcp.performance.caching.semantic.vetoes import VETOES
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "numpy":
            raise
        raise MissingExtraError("a cache of meaning", "learn") from None

    if isinstance(entry.local_model, UnsetType):
        model = str(entry.embedding)
        surroundings.describe(model)  # a name that nobody knows is an error now, not at the first question
        embedder: LocalEmbedder | ModelEmbedder = ModelEmbedder(partial(surroundings.ask, model), model)
    else:
        embedder = LocalEmbedder(surroundings.folder / entry.local_model)
    return VerifiedTier(
        embedding=embedder,
        delta=_said(entry.delta, 0.02),
        per=_said(entry.per, "hit"),
        same=SameVector(embedder, least=_said(entry.alike, 0.9)) if entry.same == "embedding" else SameText(),
        audit=_said(entry.audit, 0.05),
        recovers=_said(entry.recovers, False),
        vetoes=VETOES if entry.vetoes is UNSET else _said(entry.vetoes, []),
        floor=_said(entry.floor, 0.4),
        entries=_said(entry.entries, 5000),
        path=file,
        clock=surroundings.clock,
    )


def _said(value: T | UnsetType, otherwise: T) -> T:
    return otherwise if isinstance(value, UnsetType) else value
