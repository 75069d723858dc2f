"""One analysis: the table, the proposals of each sort, what they come to together, and what there is to say beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentflow.mcp.optimization.cost.advice.answer_limits import limit_proposals
from agentflow.mcp.optimization.cost.advice.caching import cache_proposals
from agentflow.mcp.optimization.cost.advice.likeness import likeness_proposals
from agentflow.mcp.optimization.cost.advice.prompts import prompt_proposals
from agentflow.mcp.optimization.cost.advice.routing import route_notes, route_proposals
from agentflow.mcp.optimization.cost.advice.swapping import swap_proposals
from agentflow.mcp.optimization.cost.advice.waiting import batch_proposals
from agentflow.mcp.optimization.cost.cells import Cells, cells_of
from agentflow.mcp.optimization.cost.findings import Findings, Front, FrontPoint
from agentflow.mcp.optimization.cost.forecast import FEWEST_RUNS, Estimate
from agentflow.mcp.optimization.cost.mixing import Mix, alone, front, present_mix
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.spend import drift, spend_by
from agentflow.mcp.optimization.cost.table import Table, table_of
from agentflow.mcp.optimization.cost.terms import Terms
from agentflow.mcp.optimization.cost.usage_log import UsageLog

__all__ = ["analysed"]

_ORDER = ("cache", "route", "swap", "prompt_cache", "batch")


def analysed(log: UsageLog, prices: PriceSnapshot, terms: Terms) -> Findings:
    """Everything that there is to find."""
    table = table_of(log, prices)
    if not table.counts.any():
        return _found(table, terms, (), None, notes=(_nothing(log, table), *log.notes))
    cells = cells_of(table)
    routes = route_proposals(table, cells, terms)
    swaps = swap_proposals(table, cells, terms)
    proposals = [
        *cache_proposals(table, terms),
        *likeness_proposals(table, terms),
        *routes,
        *swaps,
        *prompt_proposals(table, terms),
        *batch_proposals(table, terms),
        *limit_proposals(table, terms),
    ]
    notes = [*_notes(table), *([] if routes else route_notes(table, cells, terms)), *drift(table, prices), *log.notes]
    return _found(table, terms, proposals, cells, notes=notes)


def _found(
    table: Table, terms: Terms, proposals: Sequence[Proposal], cells: Cells | None, *, notes: Sequence[str]
) -> Findings:
    chosen = _combined(proposals)
    log = table.log
    return Findings(
        source=log.source,
        calls=len(log),
        runs=table.runs,
        days=log.days,
        spent=table.spent,
        unpriced=_unpriced(table),
        prices=table.prices,
        terms=terms,
        proposals=tuple(sorted(proposals, key=_standing)),
        together=_together(table, chosen, terms) if chosen else None,
        order=tuple(proposal.title for proposal in chosen),
        quality=next((proposal.quality for proposal in chosen if proposal.kind == "route"), None),
        spend=spend_by(table),
        notes=tuple(notes),
        began=log[0].at if len(log) else None,
        ended=log[-1].at if len(log) else None,
        front=_drawn(table, cells, terms),
    )


def _standing(proposal: Proposal) -> tuple[bool, bool, float]:
    """What is sure comes first, then what saves more."""
    return (not proposal.is_sure, proposal.means != "spent", -proposal.saves.value)


def _combined(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Those that may be done together, in the order in which a request meets them. A mix of models has in it what swaps
    would do."""
    routed = any(proposal.kind == "route" and proposal.is_sure for proposal in proposals)
    chosen = [
        proposal
        for proposal in proposals
        if proposal.is_sure and proposal.change is not None and not (routed and proposal.kind == "swap")
    ]
    return sorted(chosen, key=lambda proposal: _ORDER.index(proposal.kind))


def _together(table: Table, chosen: Sequence[Proposal], terms: Terms) -> Estimate:
    return saving(table, [proposal.change for proposal in chosen if proposal.change is not None], level=terms.level)


# ---- the front -----------------------------------------------------------------------------------------------


def _drawn(table: Table, cells: Cells | None, terms: Terms) -> Front | None:
    if cells is None or not cells.judged.any():
        return None
    calls_a_day = float((table.counts & cells.judged[table.segment]).sum()) / table.log.days

    def point(name: str, mix: Mix) -> FrontPoint:
        return FrontPoint.of(name, mix, calls_a_day)

    now = present_mix(cells, level=terms.level)
    return Front(
        tuple(point("", mix) for mix in front(cells, level=terms.level)),
        tuple(point(table.models[model], mix) for model, mix in alone(cells, level=terms.level)),
        None if now is None else point("today", now),
    )


# ---- what there is to say beside ---------------------------------------------------------------------------------


def _unpriced(table: Table) -> int:
    failed = np.array([call.failed for call in table.log], dtype=bool)
    return int((~table.counts & ~failed).sum())


def _nothing(log: UsageLog, table: Table) -> str:
    if not len(log):
        return "there are no calls in this log: record some (`agentflow run` does), or look further back with --since"
    if _unpriced(table):
        return f"nobody knows the price of any of these {len(log):,} calls: state `price:` in models.yml, or log costs"
    return f"all {len(log):,} calls of this log have failed, so there is nothing that could be cheaper"


def _notes(table: Table) -> list[str]:
    notes = []
    if table.runs < FEWEST_RUNS:
        notes.append(
            f"{table.runs} runs are too few to say how sure a saving is (it takes {FEWEST_RUNS}), so none is combined"
        )
    if table.log.is_short:
        notes.append("the log covers less than an hour, and counts as one: amounts a day are far from what a day costs")
    unpriced = _unpriced(table)
    if unpriced:
        calls = zip(table.log, table.counts, strict=True)
        names = sorted({call.model for call, counts in calls if not counts and not call.failed})
        some = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        notes.append(
            f"nobody knows what {unpriced:,} of the calls cost ({some}): they are in no amount; "
            "state `price:` in models.yml"
        )
    return notes
