"""Proposes to cache answers: the exact cache by replay, and what can be said where requests are not identified."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import lifetime, per_cent, usd
from agentflow.mcp.optimization.cost.exact_cache import ExactCache, hits
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.table import Bools, Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["cache_proposals"]

_LIFETIMES: Final = (300.0, 3_600.0, 86_400.0, 604_800.0)
_WORTH: Final = 0.002  # of a model's calls, from which on its entry gets a cache


def cache_proposals(table: Table, terms: Terms) -> list[Proposal]:
    """At most one."""
    if not (table.key >= 0).any():
        return _bounded(table)
    cache = ExactCache(terms.cache_ttl, terms.cache_capacity, terms.cache_all)
    found = hits(table, table.counts & cache.covers(table), ttl=cache.lifetime, capacity=cache.capacity)
    if not found.any():
        return []
    saves = saving(table, [cache], level=terms.level, least=0.0)
    share = per_cent(found.sum(), table.counts.sum())
    return [
        Proposal(
            "cache",
            f"Cache answers for {lifetime(cache.ttl)}: {share} of the calls were asked before",
            saves,
            f"`cache: {{ttl: {cache.ttl:g}}}` in the entries of these models",
            "some" if terms.cache_all else "low",
            _danger(terms),
            (
                "requests come again as they did in the log, at the same density",
                "a model's answers are given for that model alone",
                "one process, or processes that share the cache; it is empty at first",
                *_unidentified(table),
            ),
            int(found.sum()),
            details=(*_by_lifetime(table, cache), *_by_tenant(table, found)),
            models={name: {"cache": _entry(terms)} for name in _models_with(table, found)},
            change=cache,
        )
    ]


def _entry(terms: Terms) -> dict[str, object]:
    return {"ttl": terms.cache_ttl, **({"temperature": "any"} if terms.cache_all else {})}


def _danger(terms: Terms) -> str:
    old = f"an answer may be up to {lifetime(terms.cache_ttl)} old"
    return f"{old}, and where answers vary everybody gets the first one" if terms.cache_all else old


def _by_lifetime(table: Table, cache: ExactCache) -> list[tuple[str, str]]:
    """What other lifetimes would save, on the log."""
    covered = table.counts & cache.covers(table)
    lifetimes = [ttl for ttl in sorted({*_LIFETIMES, cache.ttl}) if ttl <= max(table.log.seconds, cache.ttl)]
    kept = [replace(cache, ttl=ttl).lifetime for ttl in lifetimes]
    found = [hits(table, covered, ttl=ttl, capacity=cache.capacity) for ttl in kept]
    return [(f"kept for {lifetime(ttl)}", _worth(table, those)) for ttl, those in zip(lifetimes, found, strict=True)]


def _worth(table: Table, those: Bools) -> str:
    return f"{usd(table.cost[those].sum() / table.log.days)} a day, {int(those.sum()):,} hits"


def _by_tenant(table: Table, found: Bools) -> list[tuple[str, str]]:
    if len(table.tenants) < 2:
        return []
    saved = np.bincount(table.tenant[found], weights=table.cost[found], minlength=len(table.tenants)) / table.log.days
    most = np.argsort(-saved)[:3]
    return [(f"tenant {table.tenants[each] or '(none)'}", f"{usd(float(saved[each]))} a day") for each in most]


def _models_with(table: Table, found: Bools) -> list[str]:
    hit = np.bincount(table.model[found], minlength=len(table.models))
    asked = np.bincount(table.model[table.counts], minlength=len(table.models))
    return [name for name, some, all_ in zip(table.models, hit, asked, strict=True) if some > _WORTH * all_]


def _unidentified(table: Table) -> list[str]:
    unknown = int((table.counts & (table.key < 0)).sum())
    return [f"{unknown:,} calls whose requests are not identified are never answered by it"] if unknown else []


def _bounded(table: Table) -> list[Proposal]:
    """Requests that are equal have equal numbers of tokens, so those that have none like them were asked once."""
    seen: Counter[tuple[object, ...]] = Counter()
    most, calls = 0.0, 0
    for place, call in enumerate(table.log):
        if not table.counts[place] or call.finish_reason not in (None, "stop"):
            continue
        like = (call.tenant, call.model, call.segment, call.input_tokens, call.temperature, call.max_tokens)
        seen[like] += 1
        if seen[like] > 1:
            most += float(table.cost[place])
            calls += 1
    if not calls:
        return []
    bound = Estimate(most / table.log.days, 0.0, most / table.log.days, 1.0)
    return [
        Proposal(
            "cache",
            "Caching may save something: record what identifies requests to find out",
            bound,
            "record contents for a while (`observability: {runs: {capture: content}}`), or give the log fingerprints",
            "none",
            "nothing is changed yet",
            (
                "nothing in the log says which requests were equal",
                "equal requests have equal numbers of tokens: the upper bound counts all that do, by tenant, model, "
                "step, temperature and limit; the lower bound is nothing",
            ),
            calls,
            means="bound",
        )
    ]
