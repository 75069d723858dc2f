"""Says what a semantic cache could save at most and at least, where the log has vectors of the questions.

exact hits  ≤  what it saves  ≤  hits of a cache that takes every likeness from `likeness` on for the same

The truth lies between: which of the like questions mean the same, only their answers can tell. So it is a bound, and in
no sum.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from agentflow.mcp.optimization.cost.exact_cache import ExactCache, hits
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.table import Table
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["likeness_proposals"]


def likeness_proposals(table: Table, terms: Terms) -> list[Proposal]:
    """At most one; none where no question has a vector."""
    places = [place for place, call in enumerate(table.log) if call.embedding and table.counts[place]]
    if not places:
        return []
    cache = ExactCache(terms.cache_ttl, terms.cache_capacity, all_requests=True)
    exact = hits(table, table.counts & cache.covers(table), ttl=cache.ttl)
    like = _alike(table, places, terms)
    both = exact.copy()
    both[like] = True
    more = float(table.cost[both & ~exact].sum()) / table.log.days
    if not more:
        return []
    return [
        Proposal(
            "semantic",
            "A cache of meaning may save more than the exact one",
            Estimate(more, 0.0, more, 1.0),
            "`cache: {semantic: …}` with an error bound; its audits say how many of these hits are right",
            "high",
            "a like question may want another answer: numbers, names and negations are vetoed, other differences not",
            (
                f"upper bound: every earlier question with a cosine of {terms.likeness:g} or more means the same",
                "lower bound: none of them does, and it saves what the exact cache saves; the amount is what comes on "
                "top of that",
                f"{len(places):,} of the calls have a vector",
            ),
            int((both & ~exact).sum()),
            means="bound",
        )
    ]


def _alike(table: Table, places: list[int], terms: Terms) -> list[int]:
    """Calls that are like an earlier one of the same tenant, model and context that is not too old."""
    rooms: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place in places:
        call = table.log[place]
        rooms[(call.tenant, call.model, call.context, len(call.embedding or ()))].append(place)
    return [place for room in rooms.values() for place in _alike_in(table, room, terms)]


def _alike_in(table: Table, room: list[int], terms: Terms) -> list[int]:
    vectors = np.array([table.log[place].embedding for place in room], dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)
    found: list[int] = []
    kept: list[int] = []  # numbers within the room
    for number, place in enumerate(room):
        now = table.at[place]
        fresh = [old for old in kept if now < table.at[room[old]] + table.seconds[room[old]] + terms.cache_ttl]
        if fresh and float((vectors[fresh] @ vectors[number]).max()) >= terms.likeness:
            found.append(place)
        else:
            fresh.append(number)
        kept = fresh
    return found
