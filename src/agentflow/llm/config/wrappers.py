"""What models.yml says of the providers that wrap a model: sections of its entry, obeyed by `agentflow.mcp`.

auto: {router: {candidates: [small, large], quality_floor: 0.9}, cache: {ttl: 3600}, budget: {per_day: 20.0}}
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from agentflow.llm.config.entry import Count, Entry, Name, Names, Seconds, Share

__all__ = ["AllowanceEntry", "BatchEntry", "BudgetEntry", "CacheEntry", "RouterEntry"]


class CacheEntry(Entry, frozen=True):
    """`cache:`, as in `ResponseCache`. `ttl` is in seconds."""

    ttl: Annotated[float, Meta(gt=0)]


_Dollars = Annotated[float, Meta(gt=0, le=1_000_000)]


class AllowanceEntry(Entry, frozen=True):
    """`per_tenant:` and `per_flow:` of a budget, as in `Allowance`: US dollars for each of them."""

    per_hour: _Dollars | UnsetType = UNSET
    per_day: _Dollars | UnsetType = UNSET
    per_month: _Dollars | UnsetType = UNSET


class BudgetEntry(Entry, frozen=True):
    """`budget:`, as in `Budget`; in US dollars. Entries with the same `account` and store spend the same money. `store`
    is a SQLite file; without it the accounts are kept in what processes share (`defaults.shared`), else in memory.
    `ceiling` is what a call is taken to cost at most where that cannot be told, `media_tokens` what a picture or a
    document may have."""

    per_hour: _Dollars | UnsetType = UNSET
    per_day: _Dollars | UnsetType = UNSET
    per_month: _Dollars | UnsetType = UNSET
    per_run: _Dollars | UnsetType = UNSET
    per_tenant: AllowanceEntry | UnsetType = UNSET
    per_flow: AllowanceEntry | UnsetType = UNSET
    mode: Literal["hard", "soft"] | UnsetType = UNSET
    soft: Share | list[Share] | UnsetType = UNSET
    window: Literal["calendar", "rolling"] | UnsetType = UNSET
    time_zone: Name | UnsetType = UNSET
    account: Name | UnsetType = UNSET
    store: Name | UnsetType = UNSET
    lease: Seconds | UnsetType = UNSET
    ceiling: _Dollars | UnsetType = UNSET
    media_tokens: Count | UnsetType = UNSET

    def __post_init__(self) -> None:
        limits = (self.per_hour, self.per_day, self.per_month, self.per_run, self.per_tenant, self.per_flow)
        if all(limit is UNSET for limit in limits):
            raise ValueError("it needs a limit: per_hour, per_day, per_month, per_run, per_tenant or per_flow")


class RouterEntry(Entry, frozen=True):
    """`router:`, as in `ModelRouter`."""

    candidates: Names
    quality_floor: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class BatchEntry(Entry, frozen=True):
    """`batch:`, as in `RequestBatcher`."""

    max_size: Count | UnsetType = UNSET
    max_wait: Seconds | UnsetType = UNSET
