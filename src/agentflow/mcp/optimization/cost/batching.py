"""What the calls that nobody waits for would cost by the provider's batch API.

A call can wait where the log says so (`slack` of a day for each call of its run, for the next may need its answer), or
where somebody says so of its flow or its tenant: nothing is guessed. The discount is that of the price snapshot's batch
column; a model without one stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from agentflow.mcp.optimization.cost.replay import State
from agentflow.mcp.optimization.cost.table import Bools, Table

__all__ = ["WINDOW", "Batching", "can_wait"]

WINDOW: Final = 86_400.0
"""Seconds within which the providers promise a batch."""


@dataclass(frozen=True, slots=True)
class Batching:
    """A change: calls for which nobody waits are sent as batches."""

    waits: Bools

    def replay(self, table: Table, state: State) -> None:
        batched = state.sent & self.waits & ~np.isnan(state.batch)
        state.cost[batched] *= state.batch[batched]


def can_wait(table: Table, patient: Sequence[str]) -> Bools:
    """Calls for which nobody waits. `patient` are names of flows or tenants; `*` and `?` stand for any."""
    depth = Counter(call.run for call in table.log if call.run)
    return np.array(
        [
            (call.slack is not None and call.slack >= WINDOW * max(1, depth[call.run]))
            or any(fnmatchcase(name, pattern) for pattern in patient for name in (call.flow, call.tenant) if name)
            for call in table.log
        ],
        dtype=bool,
    )
