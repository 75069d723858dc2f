"""What a parked run waits for, in words, and a short name for each question.

    ["article/judge#1!wait:1", "article/notify#2!wait:1"]   ──▶   judge, notify#2
    named(questions, "judge")                               ──▶   the one that is meant

A shell takes the "!" of an id for something else, so questions go by their node wherever that says enough.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import click

from agentflow.cli.durable.readable import clean
from agentflow.core.durability.answers import describe_schema
from agentflow.core.durability.records import Interrupt

__all__ = ["answer_command", "moment", "named", "short_names", "waits_for"]


def short_names(questions: Sequence[Interrupt]) -> Mapping[str, str]:
    """By their ids."""
    return {each.id: _shortest(each, questions) for each in questions}


def _shortest(question: Interrupt, among: Sequence[Interrupt]) -> str:
    for name in _names(question):
        if sum(name in _names(each) for each in among) == 1:
            return name
    return question.id


def _names(question: Interrupt) -> list[str]:
    last = question.path.rpartition("/")[2]
    within = question.path.partition("/")[2]
    plain = last.rpartition("#")[0] if last.endswith("#1") else last
    return [name for name in (plain, last, within, question.path, question.id) if name]


def named(questions: Sequence[Interrupt], word: str | None) -> Interrupt:
    """The question that goes by this name, or the only one. Raises click.UsageError."""
    if word is None:
        if len(questions) == 1:
            return questions[0]
        raise click.UsageError(
            f"It waits for {len(questions)} answers: say with --interrupt which of them this is, "
            f"{' or '.join(short_names(questions).values())}."
        )
    found = [each for each in questions if word in _names(each)]
    if len(found) != 1:
        known = " or ".join(short_names(questions).values()) or "none"
        single = "single " if found else ""
        raise click.UsageError(f"There is no {single}open question {word!r}: there is {known}.")
    return found[0]


def waits_for(interrupts: Sequence[Interrupt], run_id: str) -> Iterator[str]:
    """A line for each thing that it waits for, and one that says how to answer."""
    questions = [each for each in interrupts if each.kind == "question"]
    names = short_names(questions)
    for each in questions:
        until = "" if each.due is None else f", until {moment(each.due)}"
        yield f"it asks: {clean(each.prompt)} ({describe_schema(each.schema)}{until})"
        name = None if len(questions) == 1 else names[each.id]
        yield f"  {answer_command(run_id, name)}"
    for each in interrupts:
        if each.kind == "timer" and each.due is not None:
            yield f"it sleeps until {moment(each.due)}"
            yield f"  agentflow runs resume {run_id}"


def answer_command(run_id: str, name: str | None) -> str:
    which = "" if name is None else f" --interrupt {_quoted(name)}"
    return f"agentflow answer {run_id}{which} ANSWER"


def _quoted(name: str) -> str:
    plain = all(sign.isalnum() or sign in "_-./#" for sign in name) and not name.startswith("#")
    return name if plain else "'" + name.replace("'", "'\\''") + "'"


def moment(at: float) -> str:
    """The time of day, and the day where it is another."""
    try:
        then, now = datetime.fromtimestamp(at), datetime.fromtimestamp(time.time())
    except (OverflowError, ValueError, OSError):
        return "?"
    if then.date() == now.date():
        return f"{then:%H:%M:%S}"
    return f"{then:%b %d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d %H:%M}"
