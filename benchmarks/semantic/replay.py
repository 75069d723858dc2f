"""Streams of questions, replayed through the verified tier and static thresholds: how many answers, how many wrong.

verified(similar, promise, seed)       decisions alone, on similarities without words
answered(questions, vectors, …)        the whole tier, on texts
static(…), thresholded(…)              the same for a cache with one threshold for all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentflow.clock import VirtualClock
from agentflow.llm.messages import Message, Request, Response
from agentflow.mcp.performance.caching.semantic.entries import Entry
from agentflow.mcp.performance.caching.semantic.index import Index
from agentflow.mcp.performance.caching.semantic.marks import marks_of
from agentflow.mcp.performance.caching.semantic.realm import Promise, Realm
from agentflow.mcp.performance.caching.semantic.tier import VerifiedTier
from agentflow.mcp.performance.caching.semantic.vetoes import veto
from agentflow.mcp.performance.caching.semantic_tier import Asked

from .workload import Question, Similar

Vectors = Mapping[str, NDArray[np.float32]]
THRESHOLDS = (*np.arange(0.5, 0.9, 0.05), *np.arange(0.9, 1.0, 0.01), 0.999)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one stream: questions, answers given, and those of them that were wrong."""

    asked: int
    hits: int
    wrong: int
    off: bool = False

    @property
    def rate(self) -> float:
        return self.hits / self.asked

    @property
    def error(self) -> float:
        """Of the answers given."""
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def error_of_all(self) -> float:
        return self.wrong / self.asked


# ---- without words -------------------------------------------------------------------------------------------


def verified(similar: Sequence[Similar], promise: Promise, seed: int) -> Outcome:
    """The decisions of a realm over a stream of similarities; the first question of each entry is its own."""
    realm, clock = Realm("synthetic", promise), VirtualClock(seed=seed)
    entries: dict[int, Entry] = {}
    hits = wrong = 0
    for each in similar:
        entry = entries.get(each.entry)
        if entry is None:
            entries[each.entry] = Entry(each.entry, realm.name, b"", "", b"", False)
            continue
        decision = realm.decide(entry, each.similarity, chance=clock.random(), lot=clock.random())
        if decision == "similar":
            hits += 1
            wrong += not each.right
            realm.judged(decision, True)
            continue
        if realm.learn(entry, each.similarity, each.right):
            realm.fit(entry, entries.values())
        if realm.judged(decision, each.right) and realm.watch.state == "off":
            realm.forget(list(entries.values()))
    return Outcome(len(similar), hits, wrong, realm.watch.state == "off")


def static(similar: Sequence[Similar], threshold: float) -> Outcome:
    seen: set[int] = set()
    given = [each for each in similar if each.entry in seen or seen.add(each.entry)]  # type: ignore[func-returns-value]
    hits = [each for each in given if each.similarity >= threshold]
    return Outcome(len(similar), len(hits), sum(not each.right for each in hits))


# ---- with words ----------------------------------------------------------------------------------------------


async def answered(questions: Sequence[Question], vectors: Vectors, *, seed: int, **said: Any) -> Outcome:
    """The whole tier over a stream, next to a model that knows each fact's answer."""
    tier = VerifiedTier(embedding=vectors.__getitem__, clock=VirtualClock(seed=seed), **said)
    facts: dict[str, int] = {}
    hits = wrong = 0
    for place, question in enumerate(questions):
        asked = Asked(Request("m", (Message("user", question.text),), temperature=0.0), "lab")
        verdict = await tier.find(asked)
        if verdict.key is not None:
            hits += 1
            wrong += facts[verdict.key] != question.fact
            continue
        facts[str(place)] = question.fact
        await tier.keep(asked, str(place), Response(f"fact {question.fact}", "m", "lab"))
    return Outcome(len(questions), hits, wrong, tier.statistics().state == "off")


def thresholded(questions: Sequence[Question], vectors: Vectors, *, vetoed: bool) -> dict[float, Outcome]:
    """GPTCache's way, for each threshold: the nearest question that was not answered from the cache answers."""
    return {float(each): _thresholded(questions, vectors, float(each), vetoed) for each in THRESHOLDS}


def _thresholded(questions: Sequence[Question], vectors: Vectors, threshold: float, vetoed: bool) -> Outcome:
    index: Index[int] = Index()
    hits = wrong = 0
    for place, question in enumerate(questions):
        vector = vectors[question.text]
        for found, cosine in index.nearest(vector, 8 if vetoed else 1):
            if cosine < threshold:
                continue
            if vetoed and veto(marks(question.text), marks(questions[found].text)) is not None:
                continue
            hits += 1
            wrong += questions[found].fact != question.fact
            break
        else:
            index.add(place, vector)
    return Outcome(len(questions), hits, wrong)


marks = cache(marks_of)
