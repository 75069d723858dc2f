"""What a log has cost, added up by tenant, workflow, model, step and day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agentflow.mcp.optimization.cost.call import Call
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.table import Table, usage_of

__all__ = ["SpendRow", "drift", "spend_by"]


@dataclass(frozen=True, slots=True)
class SpendRow:
    """The calls of one tenant, workflow, model, step or day. `unpriced` are those whose cost nobody knows; `cost` is US
    dollars of the others."""

    key: str
    calls: int
    failed: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost: float


_KEYS: Final[Mapping[str, Callable[[Call], str]]] = {
    "tenant": lambda call: call.tenant or "(none)",
    "workflow": lambda call: call.flow or "(no flow)",
    "model": lambda call: call.model,
    "step": lambda call: call.segment,
    "day": lambda call: f"{datetime.fromtimestamp(call.at, UTC):%Y-%m-%d}",
}


def spend_by(table: Table) -> dict[str, tuple[SpendRow, ...]]:
    """By each of tenant, workflow, model and step the dearest first; days in order."""
    return {name: _rows(table, name, key) for name, key in _KEYS.items()}


def _rows(table: Table, name: str, key: Callable[[Call], str]) -> tuple[SpendRow, ...]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, call in enumerate(table.log):
        places[key(call)].append(place)
    rows = [_row(table, each, those) for each, those in places.items()]
    return tuple(sorted(rows, key=(lambda row: row.key) if name == "day" else (lambda row: (-row.cost, row.key))))


def _row(table: Table, key: str, places: list[int]) -> SpendRow:
    calls = [table.log[place] for place in places]
    failed = sum(call.failed for call in calls)
    return SpendRow(
        key=key,
        calls=len(calls),
        failed=failed,
        unpriced=len(calls) - failed - int(table.counts[places].sum()),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        cost=float(table.cost[places].sum()),
    )


def drift(table: Table, prices: PriceSnapshot) -> list[str]:
    """Models whose recorded costs are not what the snapshot makes of their tokens: a discount, or another price."""
    notes = []
    for number, name in enumerate(table.models):
        told = listed = 0.0
        for place, call in enumerate(table.log):
            if table.model[place] == number and call.cost is not None and not call.failed:
                cost = prices.cost(name, usage_of(call))
                if cost is not None:
                    told, listed = told + call.cost, listed + cost
        if listed and abs(told - listed) > 0.02 * listed:
            notes.append(
                f"{name} has cost {told / listed:.0%} of what the price list makes of its tokens: savings are of what "
                "it has cost, other models are taken at list price"
            )
    return notes
