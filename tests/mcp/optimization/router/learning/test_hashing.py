"""Pieces of a text: the same ones for the same words, whatever their case, their figures and their blanks are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.optimization.router.learning.hashing import BUCKETS, MOST_CHARACTERS, buckets, excerpt
from agentflow.mcp.optimization.router.learning.shape import SHAPE, shape


def pieces(text: str) -> list[int]:
    return sorted(buckets(text).tolist())


def test_case_blanks_and_figures_make_no_difference() -> None:
    assert pieces("The  Cat\n\tsat on 12 mats") == pieces("the cat sat on 98 mats")


def test_other_words_are_other_pieces() -> None:
    shared = set(pieces("the cat")) & set(pieces("a dog"))
    assert len(shared) <= 1


def test_a_word_is_the_same_piece_wherever_it_stands() -> None:
    """Hashes are taken out of prefix sums: the place must cancel out."""
    alone = set(pieces("elephant"))
    assert alone <= set(pieces(f"{'x ' * 700}elephant"))


def test_scripts_without_blanks_are_taken_by_the_character() -> None:
    assert set(pieces("猫")) <= set(pieces("黒猫です"))
    assert len(pieces("สวัสดี")) > 1


def test_of_a_long_text_both_ends_are_read() -> None:
    text = f"first {'x' * 3 * MOST_CHARACTERS} last"
    assert len(excerpt(text)) == MOST_CHARACTERS
    assert excerpt(text).startswith("first")
    assert excerpt(text).endswith("last")


@settings(max_examples=60)
@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_has_pieces_and_a_shape(text: str) -> None:
    """Halves of surrogate pairs, marks, emoji, nothing at all: no error, no warning, nothing infinite."""
    found = buckets(text)
    assert ((found >= 0) & (found < BUCKETS)).all()
    numbers = shape(text)
    assert numbers.shape == (len(SHAPE),)
    assert abs(numbers).max() < 1e6


def test_the_shape_sees_options_figures_and_the_script() -> None:
    plain = dict(zip(SHAPE, shape("Which of these is prime?\nA. 4\nB. 7\nC. 9").tolist(), strict=True))
    assert plain["options"] == 3
    assert plain["asks"] == 1
    assert plain["says_which"] == 1
    assert plain["digit_share"] > 0
    foreign = dict(zip(SHAPE, shape("これは何ですか？").tolist(), strict=True))
    assert foreign["asks"] == 1
    assert foreign["script_3040"] > 0.8
    assert foreign["foreign"] == 1
