"""What is told of errors that came before: their type and words on one line, each once; and decisions as told."""

from __future__ import annotations

import pytest

from agentflow.core.robustness.decision import Decision, tell
from agentflow.core.robustness.notes import add_notes, brief


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Closed(Exception):
    """One that refuses notes."""

    def add_note(self, note: str) -> None:
        raise TypeError("no notes")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError("a\n  b\tc "), "ValueError: a b c"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (Speechless(), "Speechless"),
        (ValueError("x" * 300), f"ValueError: {'x' * 300}"),
        (ValueError("x" * 301), f"ValueError: {'x' * 299}…"),
    ],
)
def test_an_error_in_brief_is_one_line_of_300_characters_at_most(error: Exception, words: str) -> None:
    assert brief(error) == words


def test_each_note_stands_there_once() -> None:
    """The same object may be raised again and again."""
    error = ValueError("kept")
    for _ in range(2):
        add_notes(error, ["one", "two"])
    add_notes(error, ["three", "one"])
    assert error.__notes__ == ["one", "two", "three"]


def test_an_error_that_refuses_notes_is_left_as_it_is() -> None:
    add_notes(Closed(), ["one"])


def test_a_decision_has_data_of_its_own_even_where_there_is_none() -> None:
    first, second = Decision("kind", "guard"), Decision("kind", "guard")
    assert first == second
    assert (first.data, first.data is second.data) == ({}, False)


def test_a_listener_is_told_and_may_fail_and_there_need_be_none() -> None:
    heard: list[Decision] = []

    def listen(decision: Decision) -> None:
        heard.append(decision)
        raise RuntimeError("listener")

    tell(listen, "kind", "guard", seconds=1)
    tell(None, "kind", "guard", seconds=2)
    assert heard == [Decision("kind", "guard", {"seconds": 1})]
