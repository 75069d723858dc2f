"""Payloads as people read them, and names of questions that a shell does not misread."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cli.durable.questions import answer_command, named, short_names
from agentflow.cli.durable.readable import in_one_line, readable
from agentflow.core.durability.records import Interrupt

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def asked(path: str, number: int = 1) -> Interrupt:
    return Interrupt(f"{path}!wait:{number}", path, "Well?")


@given(PLAIN, st.integers(min_value=40, max_value=160))
def test_no_line_is_wider_than_the_screen_or_does_anything_to_it(value: object, width: int) -> None:
    for line in readable(value, width):
        assert len(line) <= width
        assert line.isprintable()


def test_long_names_are_cut() -> None:
    assert max(len(line) for line in readable({"n" * 100: "text " * 30}, 40)) <= 40


@given(PLAIN)
def test_one_line_is_one_line(value: object) -> None:
    assert in_one_line(value).isprintable()


def test_what_is_long_is_cut_and_says_so() -> None:
    assert readable("\n".join(map(str, range(100))), 80, most=3) == ["0", "1", "… (98 more lines)"]


def test_the_name_of_a_stored_type_goes() -> None:
    assert readable({"$:Draft": {"title": "Tides"}}, 80) == ["title  Tides"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["f/judge#1"], ["judge"]),
        (["f/judge#1", "f/notify#2"], ["judge", "notify#2"]),
        (["f/a#1/judge#1", "f/b#1/judge#1"], ["a#1/judge#1", "b#1/judge#1"]),
    ],
)
def test_a_question_goes_by_the_shortest_name_that_is_its_own(paths: list[str], names: list[str]) -> None:
    questions = [asked(path) for path in paths]
    assert list(short_names(questions).values()) == names
    assert [named(questions, name) for name in names] == questions
    assert "!" not in "".join(answer_command("r", name) for name in names)


def test_two_questions_of_one_step_go_by_their_ids() -> None:
    questions = [asked("f/judge#1", 1), asked("f/judge#1", 2)]
    assert [named(questions, name) for name in short_names(questions).values()] == questions
    with pytest.raises(click.UsageError, match="no single open question"):
        named(questions, "judge")
