"""Asks a person, on the terminal, what a parked run waits for.

    ? Publish this?                                 judge
      title  Tides
      draft  The moon pulls the sea …
    1 publish | 2 discard > perhaps
    "perhaps" will not do; wanted is publish | discard
    1 publish | 2 discard > 1

All of it goes to stderr, so that stdout holds the run's output and nothing else. An empty line and Ctrl-D leave the
question to be answered later.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from agentflow.cli.durable.questions import moment, short_names
from agentflow.cli.durable.readable import clean, readable
from agentflow.core.durability.answers import describe_schema, parse_answer
from agentflow.core.durability.answers.choices import choices_of, spelled
from agentflow.core.durability.records import Interrupt
from agentflow.errors import AnswerError

__all__ = ["ask", "can_ask"]

_WIDEST: Final = 120
_INDENT: Final = "  "


def can_ask() -> bool:
    """Whether somebody sits at both ends."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(questions: Sequence[Interrupt], answers: dict[str, object]) -> bool:
    """Put into `answers`, by the ids, what is said to one question after the other. False where one is left for later.

    Ctrl-C raises KeyboardInterrupt.
    """
    names = short_names(questions)
    for number, question in enumerate(questions, 1):
        of = f"{number} of {len(questions)}, " if len(questions) > 1 else ""
        _show(question, f"{of}{names[question.id]}")
        given = _answers(question)
        if not given:
            return False
        [answers[question.id]] = given
    return True


def _show(question: Interrupt, place: str) -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST) - len(_INDENT)
    until = "" if question.due is None else f", until {moment(question.due)}"
    click.echo(err=True)
    head = click.style(f"? {clean(question.prompt)}", bold=True) + click.style(f"  ({clean(place)}{until})", dim=True)
    click.echo(head, err=True)
    if question.problem is not None:
        click.echo(click.style(f"{_INDENT}{clean(question.problem)}", fg="yellow"), err=True)
    if question.payload is not None:
        for line in readable(question.payload, width):
            click.echo(f"{_INDENT}{line}".rstrip(), err=True)


def _answers(question: Interrupt) -> list[object]:
    """The one answer, which may be None; nothing where nobody answers."""
    wanted = _wanted(question.schema)
    while (text := _typed(f"{wanted} > ")) is not None:
        try:
            return [parse_answer(text, question.schema)]
        except AnswerError as error:
            click.echo(click.style(clean(str(error)), fg="yellow"), err=True)
    return []


def _wanted(schema: Mapping[str, object] | None) -> str:
    """Where there are choices, with the numbers that they can be typed by."""
    described, choices = describe_schema(schema), [ways[0] for ways in choices_of(schema or {})]
    is_all = len(choices) > 1 and described == " | ".join(map(spelled, choices))
    if not is_all or not all(_means(str(number), choice, schema) for number, choice in enumerate(choices, 1)):
        return described
    return " | ".join(f"{number} {spelled(choice)}" for number, choice in enumerate(choices, 1))


def _means(text: str, choice: object, schema: Mapping[str, object] | None) -> bool:
    try:
        return parse_answer(text, schema) == choice
    except AnswerError:
        return False


def _typed(prompt: str) -> str | None:
    """A line; None for an empty one and for Ctrl-D."""
    click.echo(prompt, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        click.echo(err=True)  # Ctrl-D leaves the cursor where it was
    return line.rstrip("\r\n") if line.strip() else None
