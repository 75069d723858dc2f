"""What models.yml says of the providers that wrap a model: sections of its entry, obeyed by `agentflow.mcp`.

auto: {router: {candidates: [small, large], quality_floor: 0.9}, cache: {ttl: 3600}, budget: {per_day: 20.0}}
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from agentflow.llm.config.entry import Count, Entry, Names, Seconds

__all__ = ["BatchEntry", "BudgetEntry", "CacheEntry", "RouterEntry"]


class CacheEntry(Entry, frozen=True):
    """`cache:`, as in `ResponseCache`. `ttl` is in seconds."""

    ttl: Annotated[float, Meta(gt=0)]


class BudgetEntry(Entry, frozen=True):
    """`budget:`, as in `Budget`; in US dollars."""

    per_day: Annotated[float, Meta(gt=0)]


class RouterEntry(Entry, frozen=True):
    """`router:`, as in `ModelRouter`."""

    candidates: Names
    quality_floor: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class BatchEntry(Entry, frozen=True):
    """`batch:`, as in `RequestBatcher`."""

    max_size: Count | UnsetType = UNSET
    max_wait: Seconds | UnsetType = UNSET
