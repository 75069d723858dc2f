"""The graph of sentences and what is chosen from it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.extractive.choose import Candidate, choose
from agentflow.llm.extractive.rank import centrality, edges, vectors
from agentflow.llm.extractive.terms import terms

WORDS = st.lists(
    st.lists(st.sampled_from(["moon", "sea", "tide", "bread", "oven"]), max_size=6), min_size=1, max_size=12
)


@given(WORDS)
def test_vectors_are_of_unit_length_and_edges_are_their_cosines(sentences: list[list[str]]) -> None:
    found = vectors(sentences)
    for vector in found:
        assert not vector or sum(weight**2 for weight in vector.values()) == pytest.approx(1)
    for number, neighbours in enumerate(edges(found)):
        for other, weight in neighbours:
            cosine = sum(value * found[other].get(term, 0) for term, value in found[number].items())
            assert other != number
            assert weight == pytest.approx(cosine)


@given(WORDS)
def test_centrality_is_a_distribution(sentences: list[list[str]]) -> None:
    scores = centrality(edges(vectors(sentences)), [1.0] * len(sentences))
    assert sum(scores) == pytest.approx(1)
    assert min(scores) > 0


def test_the_sentence_that_shares_most_is_the_most_central() -> None:
    graph = edges(vectors([["moon", "sea"], ["moon", "sea", "tide"], ["tide", "sea"], ["bread"]]))
    scores = centrality(graph, [1.0] * 4)
    assert max(scores) == scores[1]
    assert min(scores) == scores[3]


def test_centrality_agrees_with_the_fixed_point_it_seeks() -> None:
    """score = (1 - d) / n + d * sum over neighbours of score * weight / strength, on a graph solved by hand."""
    graph = [[(1, 1.0)], [(0, 0.5), (2, 0.5)], [(1, 1.0)]]
    scores = centrality(graph, [1.0, 1.0, 1.0], damping=0.5, rounds=200, tolerance=0)
    assert scores == pytest.approx([5 / 18, 8 / 18, 5 / 18])


def test_the_prior_decides_where_there_are_no_edges() -> None:
    assert centrality([[], []], [3.0, 1.0]) == pytest.approx([0.75, 0.25])
    assert centrality([[], []], [0.0, 0.0]) == pytest.approx([0.5, 0.5])


def candidate(
    score: float, *said: str, words: int = 3, dangling: bool = False, follows: int | None = None
) -> Candidate:
    weight = 1 / math.sqrt(len(said))
    return Candidate(score, dict.fromkeys(said, weight), words, 10, dangling, follows)


def test_a_near_duplicate_is_never_taken() -> None:
    items = [candidate(1.0, "moon", "sea"), candidate(0.9, "moon", "sea"), candidate(0.1, "bread")]
    assert choose(items, count=3).numbers == (0, 2)


def test_what_was_said_makes_way_for_what_was_not() -> None:
    items = [candidate(1.0, "moon", "sea"), candidate(0.8, "moon", "tide"), candidate(0.6, "bread")]
    assert choose(items, count=2).numbers == (0, 2)


def test_a_dangling_sentence_waits_for_the_one_it_leans_on() -> None:
    plain = candidate(0.5, "bread")
    leaning = candidate(0.9, "tide", dangling=True, follows=0)
    assert choose([candidate(0.1, "moon"), leaning, plain], count=1).numbers == (2,)
    assert choose([candidate(1.0, "moon"), leaning, plain], count=2).numbers == (0, 1)


def test_limits_hold_and_smaller_sentences_fill_what_is_left() -> None:
    items = [candidate(1.0, "moon", words=5), candidate(0.9, "sea", words=5), candidate(0.2, "tide", words=2)]
    assert choose(items, words=7).numbers == (0, 2)
    squeezed = choose(items, octets=15)
    assert squeezed.numbers == (0,)
    assert squeezed.cut


def test_terms_are_folded_in_any_script() -> None:
    assert terms("The Caches of policies, and a cache's policy") == ["cache", "policy", "cache", "policy"]
    assert terms("形態素解析") == ["形態", "態素", "素解", "解析"]
    assert terms("Луна и МОРЕ") == ["луна", "и", "море"]
