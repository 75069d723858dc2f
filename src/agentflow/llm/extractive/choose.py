"""From scores to a summary: the best sentence, then the best one that says something else, until the budget is spent.

Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998) with a product for the difference: a sentence's worth is
its score times how little the chosen ones already say of it. Worth only falls as more is chosen, so a heap of old
values finds the best without looking at all of them (Minoux's accelerated greedy, 1978). A sentence that leans on the
one before it ("However, …") is worth its full score only once that one is chosen.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.llm.extractive.rank import Index, Vector

__all__ = ["DANGLING", "TWIN", "Candidate", "Choice", "choose"]

TWIN = 0.6
"""A cosine above this makes two sentences near-duplicates: the second is never taken."""
DANGLING = 0.4
"""What is left of the score of a sentence that leans on one that was not chosen."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`dangling` says that it leans on the sentence before; `follows` is that one's number, if it is a candidate."""

    score: float
    vector: Vector
    words: int
    octets: int
    dangling: bool = False
    follows: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Numbers of the chosen candidates in reading order; `cut` if one that was due had more octets than were left."""

    numbers: tuple[int, ...]
    cut: bool


def choose(
    candidates: Sequence[Candidate], *, count: float = math.inf, words: float = math.inf, octets: float = math.inf
) -> Choice:
    """The best candidates within all three limits. One that does not fit is passed over for the next best."""
    leaning = {item.follows: number for number, item in enumerate(candidates) if item.dangling}
    heap = [(-_worth(item, free=False), number, 0) for number, item in enumerate(candidates)]
    heapq.heapify(heap)
    taken: set[int] = set()
    said = Index()
    cut = False
    while heap and len(taken) < count:
        _, number, weighed_at = heapq.heappop(heap)
        item = candidates[number]
        if number in taken or item.words > words:
            continue
        if weighed_at != len(taken):
            overlap = max(said.similar(item.vector).values(), default=0.0)
            if overlap < TWIN:
                worth = _worth(item, free=item.follows in taken) * (1 - overlap)
                heapq.heappush(heap, (-worth, number, len(taken)))
        elif item.octets > octets:
            cut = True
        else:
            taken.add(number)
            said.add(number, item.vector)
            words -= item.words
            octets -= item.octets
            if number in leaning:
                heapq.heappush(heap, (-math.inf, leaning[number], -1))  # its worth has risen: weigh it now
    return Choice(tuple(sorted(taken)), cut)


def _worth(item: Candidate, *, free: bool) -> float:
    return item.score if free or not item.dangling else item.score * DANGLING
