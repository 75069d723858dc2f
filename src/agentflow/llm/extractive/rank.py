"""Sentences as a graph: alike ones vote for each other, and the votes settle into a score.

    terms ─ tf-idf ─▶ vectors ─ cosine ─▶ edges ─ power iteration ─▶ scores

LexRank (Erkan & Radev, JAIR 2004) on continuous tf-idf cosine, as TextRank (Mihalcea & Tarau, EMNLP 2004), where the
random reader jumps not to any sentence but by a prior, which is how a question or a position weighs in (biased LexRank:
Otterbacher, Erkan & Radev, EMNLP 2005). Similarities come from an inverted index, terms of more than `COMMON` sentences
and all but the `NEIGHBOURS` strongest edges are left out, so the cost is linear in the text.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["COMMON", "NEIGHBOURS", "Index", "Vector", "centrality", "edges", "vectors"]

COMMON = 64
"""A term of more sentences than this joins none of them (it would join too many, weakly)."""
NEIGHBOURS = 10
"""Edges kept for a sentence, the strongest first."""

Vector = Mapping[str, float]
"""Term → weight, of length 1 (or empty)."""


def vectors(sentences: Sequence[Sequence[str]]) -> list[Vector]:
    """tf-idf vectors of unit length; what few sentences say weighs more than what most say."""
    spread = Counter(term for sentence in sentences for term in set(sentence))
    rarity = {term: math.log(1 + len(sentences) / count) for term, count in spread.items()}
    return [_unit({term: count * rarity[term] for term, count in Counter(sentence).items()}) for sentence in sentences]


def _unit(weights: dict[str, float]) -> Vector:
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {term: weight / length for term, weight in weights.items()} if length else {}


class Index:
    """An inverted index: which of the sentences added so far are like this one, and how much (0 to 1)?"""

    __slots__ = ("_postings",)

    def __init__(self) -> None:
        self._postings: dict[str, list[tuple[int, float]]] = {}

    def add(self, number: int, vector: Vector) -> None:
        for term, weight in vector.items():
            self._postings.setdefault(term, []).append((number, weight))

    def similar(self, vector: Vector) -> dict[int, float]:
        found: dict[int, float] = {}
        for term, weight in vector.items():
            postings = self._postings.get(term, ())
            if len(postings) <= COMMON:
                for number, other in postings:
                    found[number] = found.get(number, 0.0) + weight * other
        return found


def edges(all_vectors: Sequence[Vector]) -> list[list[tuple[int, float]]]:
    """For each sentence its strongest neighbours and the cosine with each."""
    index = Index()
    for number, vector in enumerate(all_vectors):
        index.add(number, vector)
    kept: list[list[tuple[int, float]]] = []
    for number, vector in enumerate(all_vectors):
        found = index.similar(vector)
        found.pop(number, None)
        kept.append(heapq.nlargest(NEIGHBOURS, found.items(), key=lambda pair: (pair[1], -pair[0])))
    return kept


def centrality(
    graph: Sequence[Sequence[tuple[int, float]]],
    prior: Sequence[float],
    *,
    damping: float = 0.85,
    rounds: int = 40,
    tolerance: float = 1e-3,
) -> list[float]:
    """Where a reader who follows edges with probability `damping`, and else jumps by `prior`, spends the time.

    The scores sum to 1 (an empty graph has none). `prior` needs no scale; all zeros count as all equal.
    """
    total = sum(prior)
    jump = [value / total for value in prior] if total > 0 else [1 / len(prior)] * len(prior)
    strength = [sum(weight for _, weight in neighbours) for neighbours in graph]
    scores = jump
    for _ in range(rounds):
        following = _round(graph, strength, jump, scores, damping)
        moved = sum(abs(new - old) for new, old in zip(following, scores, strict=True))
        scores = following
        if moved < tolerance:
            break
    return scores


def _round(
    graph: Sequence[Sequence[tuple[int, float]]],
    strength: Sequence[float],
    jump: Sequence[float],
    scores: Sequence[float],
    damping: float,
) -> list[float]:
    """One step of every reader; who stands on a sentence without edges jumps."""
    stranded = sum(score for score, out in zip(scores, strength, strict=True) if not out)
    leap = 1 - damping + damping * stranded
    following = [leap * share for share in jump]
    for neighbours, out, score in zip(graph, strength, scores, strict=True):
        if out:
            flow = damping * score / out
            for other, weight in neighbours:
                following[other] += flow * weight
    return following
