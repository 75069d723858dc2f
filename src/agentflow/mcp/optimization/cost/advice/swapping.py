"""Proposes to ask another model for all of some work: one that is cheaper, and not worse for sure.

Not worse: the lower bound of the difference between the mean scores is above -`tolerance`. Of many pairs that are tried
some would pass by luck, so the level is divided by their number (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import per_cent
from agentflow.mcp.optimization.cost.cells import FEWEST_OUTCOMES, Cells
from agentflow.mcp.optimization.cost.proposal import Proposal, QualityChange
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.rerouting import swapped
from agentflow.mcp.optimization.cost.table import Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["swap_proposals"]


def swap_proposals(table: Table, cells: Cells, terms: Terms) -> list[Proposal]:
    """For each segment and model that has one, the cheapest that will do."""
    pairs = list(_pairs(cells))
    found: dict[tuple[int, int], int] = {}
    for segment, model, other in pairs:
        if _low(cells, segment, model, other, terms, len(pairs)) < -terms.tolerance:
            continue
        best = found.get((segment, model))
        if best is None or cells.cost[segment, other] < cells.cost[segment, best]:
            found[segment, model] = other
    proposals = [_proposal(table, cells, terms, place, other, len(pairs)) for place, other in found.items()]
    return sorted((each for each in proposals if each.is_sure), key=lambda proposal: proposal.saves.value, reverse=True)


def _pairs(cells: Cells) -> Iterator[tuple[int, int, int]]:
    """Segment, model, and a cheaper one."""
    for segment, model in zip(*np.nonzero(cells.allowed), strict=True):
        for other in np.flatnonzero(cells.allowed[segment]):
            if cells.cost[segment, other] < cells.cost[segment, model]:
                yield int(segment), int(model), int(other)


def _low(cells: Cells, segment: int, model: int, other: int, terms: Terms, tried: int) -> float:
    """The lower bound of how much better the other one is."""
    from scipy.special import stdtrit

    weights = np.zeros(cells.allowed.shape)
    weights[segment, other], weights[segment, model] = 1.0, -1.0
    strictness = float(stdtrit(max(1, cells.table.groups - 1), 1.0 - (1.0 - terms.level) / max(1, tried)))
    better = float(cells.quality[segment, other] - cells.quality[segment, model])
    return better - strictness * cells.error(weights)


def _proposal(table: Table, cells: Cells, terms: Terms, place: tuple[int, int], other: int, tried: int) -> Proposal:
    segment, model = place
    where, old, new = table.segments[segment], table.models[model], table.models[other]
    low = _low(cells, segment, model, other, terms, tried)
    before, after = float(cells.quality[place]), float(cells.quality[segment, other])
    return Proposal(
        "swap",
        f"In {where}, ask {new} instead of {old}",
        saving(table, [change := swapped(table, {place: other})], level=terms.level),
        f"name {new} in that step",
        "low",
        f"mean score {before:.3f} → {after:.3f}; at {terms.level:.0%} no less than {before + low:.3f}",
        (
            "which model answered did not depend on how hard the question was, within the segment",
            f"at least {FEWEST_OUTCOMES} judged calls of both; of {tried} pairs, so the level is divided by that",
        ),
        int((table.counts & (table.segment == segment) & (table.model == model)).sum()),
        quality=QualityChange(before, after, before + low, before - terms.tolerance),
        details=(("a call there costs", f"{per_cent(cells.cost[segment, other], cells.cost[place])} of what it did"),),
        change=change,
    )
