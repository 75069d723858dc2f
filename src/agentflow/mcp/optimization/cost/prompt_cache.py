"""What keeping the common beginnings of prompts at the provider would have saved, or cost.

    a prefix of 4,000 tokens    write ── read ── read ──────────── write …      priced 1.25 × input, read 0.1 ×
                                         < 5 min   < 5 min  > 5 min

A written prefix pays once it is read `break_even` times: (write - input) / (input - read), 0.28 for Anthropic's five
minutes and 1.11 for its hour. Each use keeps it for another `ttl`. Providers that cache by themselves and ask nothing
for it have nothing to be turned on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.llm.config.prices import Rates
from agentflow.mcp.optimization.cost.replay import State
from agentflow.mcp.optimization.cost.table import Bools, Floats, Table

__all__ = ["HOUR", "MINUTES", "PromptCaching", "break_even", "caches_by_itself"]

MINUTES: Final = 300.0
HOUR: Final = 3_600.0
SHORTEST: Final = 1_024
"""Tokens: shorter beginnings are kept by no provider."""
_MILLION: Final = 1e6


def break_even(rates: Rates, ttl: float) -> float | None:
    """How often a prefix must be read for each time that it is written; None where no number is enough, or unknown."""
    write, read = _write(rates, ttl), rates.cached
    if write is None or read is None or read >= rates.input:
        return None
    return max(0.0, write - rates.input) / (rates.input - read)


def caches_by_itself(rates: Rates) -> bool:
    """Whether writing costs nothing above the tokens themselves: then the provider does it unasked."""
    return rates.cache_write is None or rates.cache_write <= rates.input


def _write(rates: Rates, ttl: float) -> float | None:
    return rates.cache_write_1h if ttl > MINUTES else rates.cache_write


@dataclass(frozen=True, slots=True)
class PromptCaching:
    """A change: the prompts of these segments at these models (pairs of numbers) keep their beginnings for `ttl`."""

    where: frozenset[tuple[int, int]]
    ttl: float = MINUTES

    def replay(self, table: Table, state: State) -> None:
        these = state.sent & self.covers(table)
        gain = gains(table, these, self.ttl)
        state.cost -= gain * np.where(these, state.stays, 0.0)

    def covers(self, table: Table) -> Bools:
        places = table.segment * len(table.models) + table.model
        wanted = [segment * len(table.models) + model for segment, model in self.where]
        return worth_keeping(table) & np.isin(places, wanted)


def worth_keeping(table: Table) -> Bools:
    """Calls with a beginning that is known, long enough, and not kept yet."""
    return table.counts & (table.prefix >= 0) & (table.prefix_tokens >= SHORTEST) & ~table.kept


def gains(table: Table, these: Bools, ttl: float) -> Floats:
    """US dollars that each of these calls saves: below 0 for those that write."""
    places = np.flatnonzero(these)
    order = places[np.lexsort((places, table.prefix[places]))]
    again = np.diff(table.prefix[order], prepend=-1) == 0
    soon = np.diff(table.at[order], prepend=-np.inf) < ttl  # each use keeps it, so the last one is all that counts
    per_read, per_write = _per_token(table, ttl)
    model = table.model[order]
    gain = np.zeros(len(table))
    gain[order] = table.prefix_tokens[order] * np.where(again & soon, per_read[model], per_write[model])
    return gain


def _per_token(table: Table, ttl: float) -> tuple[Floats, Floats]:
    """Dollars saved by a token that is read, and by one that is written; by model."""
    reads, writes = [], []
    for name in table.models:
        rates = table.prices.rates(name)
        write = None if rates is None else _write(rates, ttl)
        if rates is None or rates.cached is None or write is None:
            reads.append(0.0)
            writes.append(0.0)
        else:
            reads.append((rates.input - rates.cached) / _MILLION)
            writes.append((rates.input - write) / _MILLION)
    return np.array(reads, dtype=np.float64), np.array(writes, dtype=np.float64)
