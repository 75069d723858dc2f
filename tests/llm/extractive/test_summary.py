"""The summary as a whole: quoted, ordered, within its budget, and worth reading."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.llm.extractive import Budget, read, summarise
from agentflow.llm.extractive.measure import count_tokens, count_words, cut_to_tokens, cut_to_words
from agentflow.llm.extractive.summary import quotable

TIDES = """# Tides

Tides are the rise and fall of the sea, caused by the pull of the moon and the sun.
However, this pull is weak. The moon pulls more strongly than the sun, because it is near.

## Kinds

- Spring tides
- Neap tides

```sh
tide --now
```

The sea rises twice a day in most places. Fishermen in the harbour know the tides of the sea by heart.
The cat of the harbour master is grey. Spring tides come when the moon and the sun pull in one line.
"""

MARKS = ["Moon", "moon", "Sea", "tide.", "tides,", "pulls?", "the", "3.14", "e.g.", "#", "-", "月は海。", "\n", "\n\n"]
PROSE = st.lists(st.sampled_from(MARKS), max_size=150).map(" ".join)
ANY_TEXT = st.one_of(st.text(max_size=600), PROSE)


def bare(text: str) -> str:
    return "".join(text.split())


def is_subsequence(part: str, whole: str) -> bool:
    signs = iter(whole)
    return all(sign in signs for sign in part)


def test_the_summary_keeps_the_order_of_the_text_and_leaves_debris_out() -> None:
    summary = summarise(TIDES, budget=Budget(sentences=3))
    places = [TIDES.replace("\n", " ").index(piece.strip()) for piece in summary.pieces]
    assert len(places) == 3
    assert places == sorted(places)
    assert summary.text.startswith("Tides are the rise and fall of the sea")
    for debris in ("#", "```", "tide --now", "cat"):
        assert debris not in summary.text


def test_a_sentence_that_leans_on_another_does_not_stand_alone() -> None:
    summary = summarise(TIDES, budget=Budget(sentences=2))
    assert "However" not in summary.text or "caused by the pull" in summary.text
    alone = "The oven is hot. However, the moon pulls the sea. The moon and the sea are near, and the sea rises."
    assert not summarise(alone, budget=Budget(sentences=1)).text.startswith("However")


def test_near_duplicates_are_said_once() -> None:
    text = "The moon pulls the sea. The oven bakes the bread. The moon pulls the sea! The moon pulls the sea again."
    assert summarise(text, budget=Budget(sentences=4)).text.count("moon") == 1


def test_two_documents_stand_in_two_paragraphs() -> None:
    text = "## a.md\n\nThe moon pulls the sea twice a day.\n\n## b.md\n\nThe oven bakes bread for the whole town.\n"
    assert summarise(text, budget=Budget(words=30)).text == (
        "The moon pulls the sea twice a day.\n\nThe oven bakes bread for the whole town."
    )


def test_a_question_moves_the_choice() -> None:
    plain, asked = (
        summarise(TIDES, budget=Budget(sentences=1)),
        summarise(TIDES, budget=Budget(sentences=1), query="cat"),
    )
    assert "cat" not in plain.text
    assert asked.text == "The cat of the harbour master is grey."


def test_text_of_one_kind_alone_is_still_quoted() -> None:
    assert summarise("# Only\n\n## Headings").text
    assert summarise("```\nprint(1)\n```").text == "print(1)"
    assert summarise("- red\n- green\n").text
    assert summarise("Hello").text == "Hello."


def test_list_items_end_like_sentences() -> None:
    text = "- fast answers for every reader\n- safe storage of all the books"
    assert summarise(text).text == "fast answers for every reader. safe storage of all the books."


def test_chinese_and_japanese_sentences_are_joined_without_a_space() -> None:
    text = "月は海を引く。潮は月の引力で起こる。パンは窯で焼く。"
    assert summarise(text, budget=Budget(sentences=3)).text == text


def test_where_no_sentence_fits_the_best_one_is_cut() -> None:
    text = "The moon pulls the sea towards itself twice a day in most places of the world."
    assert summarise(text, budget=Budget(words=4)).text == "The moon pulls the"
    short = summarise(text, budget=Budget(tokens=4))
    assert short.text == "The moon pulls"
    assert short.cut


def test_a_word_limit_alone_is_filled() -> None:
    full = summarise(TIDES, budget=Budget(words=60))
    assert len(full.pieces) > 3
    assert 40 < count_words(full.text) <= 60


@given(ANY_TEXT, st.integers(1, 6))
def test_every_sentence_is_one_of_the_text_and_the_number_is_obeyed(text: str, count: int) -> None:
    summary = summarise(text, budget=Budget(sentences=count))
    known = {sentence.text for sentence in quotable(read(text))}
    assert len(summary.pieces) <= count
    assert {piece.strip() for piece in summary.pieces} <= known
    for piece in summary.pieces:
        assert is_subsequence(bare(piece).rstrip(".。"), bare(text))


@given(st.integers(1, 8), st.integers(1, 8))
def test_distinct_sentences_are_given_in_the_number_asked_for(size: int, count: int) -> None:
    text = " ".join(f"Item{number} with word{number} says thing{number}." for number in range(size))
    assert len(summarise(text, budget=Budget(sentences=count)).pieces) == min(count, size)


@settings(max_examples=60)
@given(ANY_TEXT, st.integers(1, 40), st.integers(1, 40))
def test_words_and_tokens_are_ceilings(text: str, words: int, tokens: int) -> None:
    assert count_words(summarise(text, budget=Budget(words=words)).text) <= words
    assert count_tokens(summarise(text, budget=Budget(tokens=tokens)).text) <= tokens


@given(ANY_TEXT)
def test_the_same_text_has_the_same_summary(text: str) -> None:
    assert summarise(text) == summarise(text)


@given(st.text(max_size=80), st.integers(0, 30))
def test_cutting_gives_a_beginning_that_fits(text: str, limit: int) -> None:
    assert text.startswith(cut_to_tokens(text, limit))
    assert text.startswith(cut_to_words(text, limit))
    assert count_tokens(cut_to_tokens(text, limit)) <= limit
    assert count_words(cut_to_words(text, limit)) <= limit


def test_tokens_are_four_bytes_and_words_are_runs_or_signs() -> None:
    assert [count_tokens(text) for text in ("", "a", "four", "fives", "潮汐")] == [0, 1, 1, 2, 2]
    assert [count_words(text) for text in ("", "one two", "潮汐", "no-one, ever")] == [0, 2, 2, 2]


def test_a_long_text_of_many_shapes_is_read_in_pieces_of_bounded_size() -> None:
    text = "\n\n".join(
        f"Fact {a}{b} about topic {b} is number {a * b}." for a, b in itertools.product(range(40), range(40))
    )
    summary = summarise(text, budget=Budget(sentences=5))
    assert len(summary.pieces) == 5
