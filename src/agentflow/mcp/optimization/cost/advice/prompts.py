"""Proposes to keep the common beginnings of prompts at the provider: where it must be told to, and where it does so by
itself but found less than there was."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import lifetime, usd
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.prompt_cache import (
    HOUR,
    MINUTES,
    PromptCaching,
    break_even,
    caches_by_itself,
    gains,
    worth_keeping,
)
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.table import Bools, Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["prompt_proposals"]

_SPELLED = {MINUTES: "5m", HOUR: "1h"}


def prompt_proposals(table: Table, terms: Terms) -> list[Proposal]:
    """At most one of each sort."""
    return [*_told_to(table, terms), *_unasked(table)]


def _unasked(table: Table) -> list[Proposal]:
    """Providers that cache by themselves read what they have seen minutes ago; what they did not read they may have
    missed, or nobody has counted it."""
    unasked = np.array([_does_so_itself(table, name) for name in table.models], dtype=bool)
    these = worth_keeping(table) & unasked[table.model]
    most = float(gains(table, these, MINUTES).sum()) / table.log.days
    if most <= 0.0:
        return []
    names = ", ".join(name for name, by_itself in zip(table.models, unasked, strict=True) if by_itself)
    return [
        Proposal(
            "prompt_cache",
            "Let the provider's own cache find what prompts have in common",
            Estimate(most, 0.0, most, 1.0),
            f'put what does not change first, to the letter, and group the questions: `.cache(key="…")` ({names})',
            "none",
            "the answers are the same",
            (
                "upper bound: each beginning that was asked within five minutes could have been read at its price",
                "lower bound: none; these providers promise nothing, and may have cached what the log does not count",
            ),
            int(these.sum()),
            means="bound",
        )
    ]


def _told_to(table: Table, terms: Terms) -> list[Proposal]:
    """The places where it pays, with the lifetime that pays better over all of them."""
    asking = np.array([_must_be_asked(table, name) for name in table.models], dtype=bool)
    these = worth_keeping(table) & asking[table.model]
    if not these.any():
        return []
    ttl, where = max(
        ((ttl, _paying(table, these, ttl)) for ttl in (MINUTES, HOUR)), key=lambda each: _gain(table, these, *each)
    )
    if not where:
        return []
    change = PromptCaching(where, ttl)
    places = ", ".join(sorted({f"{table.segments[segment]} ({table.models[model]})" for segment, model in where}))
    return [
        Proposal(
            "prompt_cache",
            f"Keep the beginnings of prompts at the provider for {lifetime(ttl)}",
            saving(table, [change], level=terms.level),
            f'`.cache("{_SPELLED[ttl]}")` on the questions of: {places}',
            "none",
            "the answers are the same; too few reads of what is written would cost more than they save",
            (
                "prompts begin as they did in the log, to the letter, and as far apart in time",
                "each use keeps a beginning for its whole lifetime again; the provider drops none early",
            ),
            int((these & change.covers(table)).sum()),
            details=tuple(_reads(table, these & change.covers(table), ttl)),
            change=change,
        )
    ]


def _must_be_asked(table: Table, model: str) -> bool:
    rates = table.prices.rates(model)
    return rates is not None and rates.cached is not None and not caches_by_itself(rates)


def _does_so_itself(table: Table, model: str) -> bool:
    rates = table.prices.rates(model)
    return rates is not None and rates.cached is not None and caches_by_itself(rates) and rates.cached < rates.input


def _paying(table: Table, these: Bools, ttl: float) -> frozenset[tuple[int, int]]:
    """Segments and models where the reads pay for the writes."""
    many = len(table.models)
    gain = np.bincount((table.segment * many + table.model)[these], weights=gains(table, these, ttl)[these])
    return frozenset((int(place) // many, int(place) % many) for place in np.flatnonzero(gain > 0.0))


def _gain(table: Table, these: Bools, ttl: float, where: frozenset[tuple[int, int]]) -> float:
    return float(gains(table, these & PromptCaching(where, ttl).covers(table), ttl).sum())


def _reads(table: Table, these: Bools, ttl: float) -> list[tuple[str, str]]:
    """How often a written beginning is read, next to how often it must be."""
    gain = gains(table, these, ttl)
    lines = []
    for number, name in enumerate(table.models):
        mine = these & (table.model == number)
        rates = table.prices.rates(name)
        if not mine.any() or rates is None:
            continue
        writes, reads = int((gain[mine] < 0.0).sum()), int((gain[mine] > 0.0).sum())
        needed = break_even(rates, ttl) or 0.0
        lines.append(
            (
                name,
                f"{reads / max(1, writes):.1f} reads a write, {needed:.2f} pay for it; "
                f"{usd(gain[mine].sum() / table.log.days)} a day",
            )
        )
    return lines
