"""Proposes limits on answers that fit what is answered, and says what answers that were cut have cost.

    max_tokens   ████████████████████████  4,096      reserved by rate limits and budgets for every call
    said         ██▌                       p99.9 420  what is above it is held back and never used

Nobody bills a limit, so this saves no money: it frees what limiters and budgets hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import per_cent
from agentflow.mcp.optimization.cost.forecast import Estimate, forecast
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.table import Bools, Floats, Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["limit_proposals"]

_FEWEST: Final = 200
_ROOM: Final = 1.5  # times the longest answers
_MILLION: Final = 1e6


def limit_proposals(table: Table, terms: Terms) -> list[Proposal]:
    """One for limits that are too wide, and one for answers that were cut."""
    stated = np.array([np.nan if call.max_tokens is None else call.max_tokens for call in table.log], dtype=np.float64)
    return [*_too_wide(table, stated, terms), *_cut(table, terms)]


@dataclass(frozen=True, slots=True)
class _Limit:
    model: int
    tokens: int
    unused: Floats
    longest: float


def _too_wide(table: Table, stated: Floats, terms: Terms) -> Iterator[Proposal]:
    limits = [limit for number in range(len(table.models)) if (limit := _limit(table, stated, number)) is not None]
    if not limits:
        return
    freed = np.sum([limit.unused for limit in limits], axis=0)
    yield Proposal(
        "max_tokens",
        "Limit answers to what they need",
        _a_day(table, freed, terms),
        "`max_tokens` in the entries of these models, where callers state none of their own",
        "low",
        f"an answer that is longer than {_ROOM:g} times the longest of a thousand is cut",
        (
            "a call reserves its limit times the price of a token that is said, until it has ended",
            "this is no money: budgets and rate limits hold it back, and let more calls through without it",
        ),
        int((freed > 0.0).sum()),
        means="reserved",
        details=tuple(
            (table.models[limit.model], f"longest of a thousand {limit.longest:,.0f} tokens, limit {limit.tokens:,}")
            for limit in limits
        ),
        models={table.models[limit.model]: {"max_tokens": limit.tokens} for limit in limits},
    )


def _limit(table: Table, stated: Floats, model: int) -> _Limit | None:
    """A limit that would have held for all that the model said whole; None where today's is no wider."""
    mine = table.counts & (table.model == model)
    rates = table.prices.rates(table.models[model])
    if mine.sum() < _FEWEST or rates is None or rates.output is None:
        return None
    longest = float(np.quantile(table.output[mine], 0.999, method="higher"))
    tokens = max(16, ceil(_ROOM * longest / 16) * 16)
    unused = np.where(mine & (stated > tokens), (np.nan_to_num(stated) - tokens) * rates.output / _MILLION, 0.0)
    return _Limit(model, tokens, unused, longest) if unused.any() else None


def _cut(table: Table, terms: Terms) -> Iterator[Proposal]:
    cut = table.counts & np.array([call.finish_reason == "length" for call in table.log], dtype=bool)
    if not cut.any():
        return
    most = _a_day(table, np.where(cut, table.cost, 0.0), terms)
    calls = np.bincount(table.segment[cut], minlength=len(table.segments))
    yield Proposal(
        "max_tokens",
        f"Raise the limit where answers are cut: {per_cent(cut.sum(), table.counts.sum())} of them are",
        Estimate(most.value, 0.0, most.high, most.level),
        "`max_tokens` higher for these steps, or a prompt that asks for less",
        "none",
        "whole answers cost more than cut ones",
        (
            "upper bound: all that was paid for cut answers was paid in vain",
            "lower bound: nothing of it was; the log does not say who could use them",
        ),
        int(cut.sum()),
        means="bound",
        details=tuple((table.segments[each], f"{calls[each]:,} cut") for each in np.argsort(-calls)[:5] if calls[each]),
    )


def _a_day(table: Table, amounts: Floats, terms: Terms) -> Estimate:
    """A sum over calls: leaving a group out takes its own part and no other."""
    counted: Bools = table.counts
    drops = np.bincount(table.group[counted], weights=amounts[counted], minlength=table.groups)
    return forecast(
        float(amounts[counted].sum()),
        drops.tolist(),
        runs=table.runs,
        days=table.log.days,
        level=terms.level,
        least=0.0,
    )
