"""Proposes to send as batches what nobody waits for, and says which work might be of that sort."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import per_cent
from agentflow.mcp.optimization.cost.batching import Batching, can_wait
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.table import Bools, Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["batch_proposals"]


def batch_proposals(table: Table, terms: Terms) -> list[Proposal]:
    """At most one; none where nothing says that anything can wait."""
    waits = can_wait(table, terms.patient)
    change = Batching(waits)
    batched = table.counts & waits & ~np.isnan(table.batch)
    if not batched.any():
        return []
    unlisted = int((table.counts & waits & np.isnan(table.batch)).sum())
    return [
        Proposal(
            "batch",
            f"Send as batches what can wait: {per_cent(batched.sum(), table.counts.sum())} of the calls",
            saving(table, [change], level=terms.level, least=0.0),
            "hand these requests to a `BatchJob`; the flow goes on when it has ended",
            "none",
            "the answers are the same, and come within a day",
            (
                "nobody waits for: " + (", ".join(terms.patient) or "calls whose slack in the log is a day or more"),
                "the discount is that of the price list's batch column, and holds for cached tokens too",
                *([f"{unlisted:,} more calls could wait, at models without a batch price"] if unlisted else []),
            ),
            int(batched.sum()),
            details=tuple(_by_flow(table, batched)),
            change=change,
        )
    ]


def _by_flow(table: Table, batched: Bools) -> list[tuple[str, str]]:
    calls = np.bincount(table.segment[batched], minlength=len(table.segments))
    most = [each for each in np.argsort(-calls)[:5] if calls[each]]
    return [(table.segments[each], f"{calls[each]:,} calls") for each in most]
