"""Holds proposals to a half of a log that they have not seen: what each would really have saved there.

Everything is done anew here, and otherwise than in the package: the cache is a dictionary that is asked call by call,
and what other models cost is not estimated but known (`cost_traffic.Truth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from statistics import fmean

from tests.support.cost_traffic import MODELS, Traffic, halves

from agentflow.llm.messages import Usage
from agentflow.mcp.optimization.cost import Call, CostOptimizer, Estimate, Proposal
from agentflow.mcp.optimization.cost.exact_cache import ExactCache
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.prompt_cache import PromptCaching
from agentflow.mcp.optimization.cost.rerouting import Rerouting
from agentflow.mcp.optimization.cost.table import Table, table_of

__all__ = ["Coverage", "Proof", "held_out", "proved"]


@dataclass(slots=True)
class Coverage:
    """Of one sort of proposal: how often the truth lay within its bounds, and how wide these were."""

    inside: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return fmean(self.inside)

    @property
    def width(self) -> float:
        return fmean(self.widths)

    @property
    def bias(self) -> float:
        """How far the truth lay from the amount on average, relative to it."""
        return fmean(self.off)

    def add(self, proposal_low: float, proposal_high: float, value: float, truth: float) -> None:
        self.inside.append(proposal_low <= truth <= proposal_high)
        self.widths.append((proposal_high - proposal_low) / abs(value))
        self.off.append(truth / value - 1.0)


@dataclass(slots=True)
class Proof:
    """Coverage by sort of proposal, and for each mix that was proposed whether it really was good enough."""

    coverage: dict[str, Coverage] = field(default_factory=dict)
    good: list[bool] = field(default_factory=list)


def proved(traffic: Traffic, seeds: Iterable[int], *, tolerance: float = 0.02) -> Proof:
    """The log is split into two halves, once for each seed: one is looked at, the other is what happens."""
    proof = Proof()
    for seed in seeds:
        seen, unseen = halves(traffic, seed)
        findings = CostOptimizer(seen.log, prices=seen.prices).propose(tolerance=tolerance)
        learned = table_of(seen.log, seen.prices)
        for name, estimate, truth in held_out(findings, learned, unseen):
            if estimate.low is None or estimate.high is None:
                continue  # nothing is claimed
            proof.coverage.setdefault(name, Coverage()).add(estimate.low, estimate.high, estimate.value, truth)
        for proposal in findings.proposals:
            if proposal.kind == "route":
                today = fmean(truth for truth in map(unseen.quality_today, unseen.log))
                proof.good.append(_quality(unseen, learned, proposal) >= today - tolerance)
    return proof


def held_out(findings: Findings, learned: Table, unseen: Traffic) -> Iterator[tuple[str, Estimate, float]]:
    """Each proposal's name, its estimate, and what it really saves a day on calls that it has not seen."""
    days = unseen.log.days
    for proposal in findings.proposals:
        if proposal.means == "bound":
            continue
        if proposal.kind == "max_tokens":
            yield "max_tokens", proposal.saves, _freed(proposal, unseen) / days
        else:
            yield proposal.kind, proposal.saves, _saved([proposal], learned, unseen) / days
    if findings.together is not None:
        chosen = [next(each for each in findings.proposals if each.title == title) for title in findings.order]
        yield "together", findings.together, _saved(chosen, learned, unseen) / days


def _saved(proposals: list[Proposal], learned: Table, unseen: Traffic) -> float:
    """One proposal after the other, each on what the one before it has left."""
    sent = {call.at: 1.0 for call in unseen.log}
    cost = {call.at: unseen.truth[call.at].cost[call.model] for call in unseen.log}
    stays = {call.at: 1.0 for call in unseen.log}
    before = sum(cost.values())
    for proposal in proposals:
        change = proposal.change
        if isinstance(change, ExactCache):
            _cached(unseen, change.ttl, sent, cost)
        elif isinstance(change, Rerouting):
            _routed(unseen, learned, change, sent, cost, stays)
        elif isinstance(change, PromptCaching):
            _kept(unseen, learned, change, sent, cost, stays)
        else:
            _batched(unseen, sent, cost)
    return before - sum(cost.values())


def _cached(unseen: Traffic, ttl: float, sent: dict[float, float], cost: dict[float, float]) -> None:
    until: dict[tuple[str, str, str], float] = {}
    chance = Random(1)
    for call in unseen.log:
        key = (call.tenant, call.model, call.fingerprint or "")
        if call.at < until.get(key, -1.0):
            sent[call.at] = cost[call.at] = 0.0
        else:
            until[key] = call.at + (call.duration or 0.0) + ttl * (1.0 - 0.1 * chance.random())


def _routed(
    unseen: Traffic,
    learned: Table,
    change: Rerouting,
    sent: Mapping[float, float],
    cost: dict[float, float],
    stays: dict[float, float],
) -> None:
    for call in unseen.log:
        shares = _shares(learned, change, call)
        truth = unseen.truth[call.at].cost
        stays[call.at] *= shares[call.model]
        if sent[call.at]:
            cost[call.at] = sum(share * truth[name] for name, share in shares.items())


def _shares(learned: Table, change: Rerouting, call: Call) -> dict[str, float]:
    row = change.shares[learned.segments.index(call.segment), learned.models.index(call.model)]
    return {name: float(row[learned.models.index(name)]) for name in MODELS}


def _kept(
    unseen: Traffic,
    learned: Table,
    change: PromptCaching,
    sent: Mapping[float, float],
    cost: dict[float, float],
    stays: Mapping[float, float],
) -> None:
    used: dict[tuple[str, str], float] = {}
    for call in unseen.log:
        place = (learned.segments.index(call.segment), learned.models.index(call.model))
        if place not in change.where or call.prefix is None or not sent[call.at]:
            continue
        key = (call.model, call.prefix)
        is_read = call.at - used.get(key, -1e12) < change.ttl
        used[key] = call.at
        tokens = call.prefix_tokens
        hour = {"cache_write_1h_tokens": tokens} if change.ttl > 300.0 else {}
        usage = Usage(tokens, cached_tokens=tokens) if is_read else Usage(tokens, cache_write_tokens=tokens, **hour)
        plain, kept = (unseen.prices.cost(call.model, each) or 0.0 for each in (Usage(tokens), usage))
        cost[call.at] -= stays[call.at] * (plain - kept)


def _batched(unseen: Traffic, sent: Mapping[float, float], cost: dict[float, float]) -> None:
    for call in unseen.log:
        if call.slack is not None and sent[call.at]:
            cost[call.at] *= 0.5


def _freed(proposal: Proposal, unseen: Traffic) -> float:
    said = {name: (unseen.prices.cost(name, Usage(0, 1_000_000)) or 0.0) / 1e6 for name in MODELS}
    limits = {name: int(str(fields["max_tokens"])) for name, fields in proposal.models.items()}
    return sum(
        max(0, (call.max_tokens or 0) - limits[call.model]) * said[call.model]
        for call in unseen.log
        if call.model in limits
    )


def _quality(unseen: Traffic, learned: Table, proposal: Proposal) -> float:
    """The mean score that the mix would really have had: known chances, no coins thrown."""
    change = proposal.change
    assert isinstance(change, Rerouting)
    return fmean(
        sum(share * unseen.truth[call.at].quality[name] for name, share in _shares(learned, change, call).items())
        for call in unseen.log
    )
