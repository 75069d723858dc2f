"""`agentflow answer RUN [ANSWER]`: answers what a parked run asks, and goes on with it.

agentflow answer last                       asks, on a terminal; elsewhere it says what is asked
agentflow answer last yes                   the answer to the only question
agentflow answer last --interrupt judge --file verdict.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.asking import ask, can_ask
from agentflow.cli.durable.errand import Errand
from agentflow.cli.durable.finding import DurableRuns, durable_runs, flow_option, model_option, ready_flow
from agentflow.cli.durable.migrating import telling_changes
from agentflow.cli.durable.questions import named, waits_for
from agentflow.cli.failures import PARKED
from agentflow.cli.handing import Handing, handing_options
from agentflow.cli.recording import Recording
from agentflow.core.durability.answering import answered, no_question
from agentflow.core.durability.answers import parse_answer
from agentflow.core.durability.records import Interrupt, RunInfo
from agentflow.errors import InputError

__all__ = ["command"]


@click.command("answer", short_help="Answer what a parked run asks, and go on with it.")
@click.argument("run", metavar="RUN")
@click.argument("word", metavar="[ANSWER]", required=False)
@click.option("--interrupt", metavar="NAME", help="Which question, where there are several: its node, or its whole id.")
@click.option("--file", "source", metavar="FILE", help="Read the answer from a file; - is stdin.")
@click.option("--only", is_flag=True, help="Keep the answer, and leave it to others to go on with the run.")
@flow_option
@model_option
@handing_options
@click.option("--runs", "runs_path", metavar="FILE", help="The file of runs.")
@debug_option
def command(
    run: str,
    word: str | None,
    interrupt: str | None,
    source: str | None,
    only: bool,
    target: str | None,
    model: str | None,
    output: Path | None,
    wants_json: bool,
    quiet: bool,
    runs_path: str | None,
) -> None:
    """Answer RUN: an id, its beginning, or `last`, the newest that waits. Without an ANSWER it shows what is asked, and
    asks it on a terminal.

    The answer is read as the question wants it: yes or no, one of the choices or its number, a number, a text, JSON.
    """
    handing = Handing.of(output, wants_json, quiet)
    text = _text(word, source)
    with durable_runs(runs_path) as runs:
        info = runs.named(run, status="waiting")
        questions = _questions(info)
        answers = _asked(info, questions) if text is None else _parsed(info, named(questions, interrupt), text)
        if only:
            _keep(runs, info, answers)
            return
    with handing.alone():
        flow = ready_flow(info, target, model)
    with telling_changes():
        errand = Errand(handing, asks=can_ask() and len(answers) == len(questions), file=runs.file)
        errand.carry_out(flow, lambda course: course.resuming(info.run_id, answers))


def _text(word: str | None, source: str | None) -> str | None:
    if source is None:
        return word
    if word is not None:
        raise click.UsageError("The answer is given twice: as a word, and by --file.")
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; --file takes a file with the answer, or -") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: this is no text in UTF-8: {error.reason}") from error


def _questions(info: RunInfo) -> tuple[Interrupt, ...]:
    """Raises AnswerError where there are none."""
    found = tuple(each for each in info.interrupts if each.kind == "question")
    if not found:
        raise no_question(info)
    return found


def _parsed(info: RunInfo, question: Interrupt, text: str) -> dict[str, object]:
    return {question.id: parse_answer(text, question.schema)}


def _asked(info: RunInfo, questions: tuple[Interrupt, ...]) -> dict[str, object]:
    """What a person says. Raises click's Exit, with what is asked, where nobody is there or nobody answers."""
    answers: dict[str, object] = {}
    if can_ask():
        ask(questions, answers)
    if not answers:
        for line in waits_for(questions, info.run_id):
            click.echo(line)
        raise click.exceptions.Exit(PARKED)
    return answers


def _keep(runs: DurableRuns, info: RunInfo, answers: dict[str, object]) -> None:
    with Recording(wanted=True, file=runs.file):  # whoever keeps an audit log has the answer in it
        runs.of(answered(runs.engine, info.run_id, answers))
    click.echo(f"kept; to go on: agentflow runs resume {info.run_id}")
