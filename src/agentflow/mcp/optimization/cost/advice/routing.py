"""Proposes which share of each sort of work each model should get: the cheapest mix that is good enough for sure."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.cost.advice.money import per_cent, usd
from agentflow.mcp.optimization.cost.cells import FEWEST_OUTCOMES, Cells
from agentflow.mcp.optimization.cost.mixing import Goal, Mix, best_reachable, cheapest, present_mix
from agentflow.mcp.optimization.cost.proposal import Fields, Proposal, QualityChange
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.rerouting import mixed
from agentflow.mcp.optimization.cost.table import Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["goal_of", "route_notes", "route_proposals"]

_WHOLE = 0.995
_SAMPLING_NOTE = "which model answered did not depend on how hard the question was, within a segment"


def route_proposals(table: Table, cells: Cells, terms: Terms) -> list[Proposal]:
    """At most one: none where no mix is good enough for sure, or where the best one saves nothing."""
    goal, now = goal_of(cells, terms), present_mix(cells, level=terms.level)
    mix = None if goal is None else cheapest(cells, goal)
    if mix is None or now is None or goal is None:
        return []
    floor = goal.floor
    change = mixed(table, mix.shares)
    saves = saving(table, [change], level=terms.level)
    if saves.value <= 0.0:
        return []
    judged = int((table.counts & cells.judged[table.segment]).sum())
    point = mix.price * 0.01 * judged / table.log.days
    return [
        Proposal(
            "route",
            f"Route by sort of work, and keep a quality of {floor:.3f} or more",
            saves,
            "a `router:` with these candidates and this floor; the shares are what it should come to",
            "some",
            f"the mean score goes from {now.quality:.3f} to {mix.quality:.3f}, at worst to {mix.low:.3f}",
            (
                "chance chose the model (propensities)" if _by_chance(table) else _SAMPLING_NOTE,
                "the score of a run is that of each of its calls, where only the run was judged",
                f"models with at least {FEWEST_OUTCOMES} judged calls in a segment, and a known price",
                "an answer is as long as the other model's answers there; a prompt has as many tokens",
            ),
            judged,
            quality=QualityChange(now.quality, mix.quality, mix.low, floor),
            details=(*_shares(table, mix), ("one point of quality more costs", f"{usd(point)} a day")),
            models={"routed": {"router": _router(table, cells, mix, floor)}},
            change=change,
        )
    ]


def goal_of(cells: Cells, terms: Terms) -> Goal | None:
    """The quality that must be reached: the terms', else today's less the tolerance; None where nothing was judged."""
    if terms.quality_floor is not None:
        return Goal(terms.quality_floor, terms.level)
    now = present_mix(cells, level=terms.level)
    return None if now is None else Goal(now.quality - terms.tolerance, terms.level, now.shares)


def route_notes(table: Table, cells: Cells, terms: Terms) -> list[str]:
    """Why there is no mix to propose, where there is none."""
    if np.isnan(table.score[table.counts]).all():
        return ["nobody judged any answer, so no other model can be proposed: `feedback(run_id, score=…)`, or checkers"]
    if not cells.judged.any():
        return [
            f"no segment has a model with {FEWEST_OUTCOMES} judged calls and a known price, "
            "so no other model can be proposed"
        ]
    goal = goal_of(cells, terms)
    top = None if goal is None else best_reachable(cells, goal)
    if goal is not None and top is not None and cheapest(cells, goal) is None:
        return [
            f"no mix of models is sure to reach a quality of {goal.floor:.3f}: the best has {top.quality:.3f}, and at "
            f"{terms.level:.0%} no less than {top.low:.3f}; more judged calls would narrow that, or `--quality-floor` "
            "lower it"
        ]
    if (cells.allowed.sum(axis=1) < 2).all():
        return ["no segment has seen a second model that was judged, so there is nothing to route between"]
    return []


def _by_chance(table: Table) -> bool:
    """A router that does not explore is always sure of its choice: that is no chance."""
    likely = [call.propensity for call in table.log if call.score is not None]
    return all(likely) and any(each is not None and each < 1.0 for each in likely)


def _shares(table: Table, mix: Mix) -> list[tuple[str, str]]:
    lines = []
    for segment, shares in zip(table.segments, mix.shares, strict=True):
        parts = [(share, name) for share, name in zip(shares, table.models, strict=True) if share > 0.0005]
        if parts:
            lines.append((segment, ", ".join(f"{per_cent(share, 1.0)} {name}" for share, name in sorted(parts)[::-1])))
    return lines


def _router(table: Table, cells: Cells, mix: Mix, floor: float) -> Fields:
    """The section of models.yml: what is known of each candidate's quality, and flows that go to one model as rules."""
    names = _candidates(table, mix)
    rules = [{"flow": flow, "use": name} for flow, name in _pure(table, mix).items()]
    quality = {name: round(_overall(cells, table.models.index(name)), 4) for name in names}
    return {
        "candidates": names,
        "quality_floor": round(floor, 4),
        "quality": quality,
        **({"rules": rules} if rules else {}),
    }


def _overall(cells: Cells, model: int) -> float:
    """A model's mean score over the segments where it was judged, by their share of the calls."""
    weights = np.where(cells.allowed[:, model], cells.share, 0.0)
    return float((weights * np.nan_to_num(cells.quality[:, model])).sum() / weights.sum())


def _pure(table: Table, mix: Mix) -> dict[str, str]:
    """Flows all of whose calls go to one model."""
    told: dict[str, set[str]] = {}
    for call in table.log:
        shares = mix.shares[table.segments.index(call.segment)]
        whole = float(shares.max()) > _WHOLE
        told.setdefault(call.flow, set()).add(table.models[int(shares.argmax())] if whole else "")
    return {flow: name for flow, names in told.items() if flow and len(names) == 1 and (name := min(names))}


def _candidates(table: Table, mix: Mix) -> list[str]:
    used = mix.shares.sum(axis=0) > 0.0
    return [name for name, is_used in zip(table.models, used, strict=True) if is_used]
