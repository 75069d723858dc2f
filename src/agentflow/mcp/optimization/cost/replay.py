"""Goes over a log once more with something changed, and says what it would have cost.

    calls ── cache ── route ── prompt cache ── batch ──▶ what is still sent, and what each of it costs

Each `Change` takes what the one before it left (`State`), so that no dollar is saved twice. `saving` replays as often
as there are groups of runs, which gives the interval (`forecast.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agentflow.mcp.optimization.cost.forecast import LEVEL, Estimate, forecast
from agentflow.mcp.optimization.cost.table import Bools, Floats, Table

__all__ = ["Change", "State", "saving"]


@dataclass(slots=True)
class State:
    """What has become of each call. `sent`: whether a model is asked at all; `cost`: US dollars, 0 for what is not
    sent; `stays`: the share of it that still goes to the model of the log; `batch`: what a batch would cost of that,
    NaN where it cannot be one. `seen` are the calls of this replay, sent or not."""

    sent: Bools
    cost: Floats
    stays: Floats
    batch: Floats
    seen: Bools

    @classmethod
    def before(cls, table: Table, these: Bools) -> State:
        return cls(these.copy(), np.where(these, table.cost, 0.0), np.ones(len(table)), table.batch.copy(), these)


class Change(Protocol):
    """Something that could be done otherwise."""

    def replay(self, table: Table, state: State) -> None:
        """Alter the state in place. Only calls that are sent may be looked at: the others are not in this replay."""
        ...


def saving(table: Table, changes: Sequence[Change], *, level: float = LEVEL, least: float = -np.inf) -> Estimate:
    """US dollars a day that the changes save together, one after the other."""
    total = _saved(table, changes, table.counts)
    drops = [total - _saved(table, changes, table.without(group)) for group in range(table.groups)]
    return forecast(total, drops, runs=table.runs, days=table.log.days, level=level, least=least)


def _saved(table: Table, changes: Sequence[Change], these: Bools) -> float:
    state = State.before(table, these)
    before = state.cost.sum()
    for change in changes:
        change.replay(table, state)
    return float(before - state.cost.sum())
