"""`agentflow runs show RUN`: what a durable run began with, how it stands, and what each step of it came to."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.finding import durable_runs, flow_of
from agentflow.cli.durable.questions import moment, waits_for
from agentflow.cli.durable.readable import readable
from agentflow.cli.durable.shown import heading, info_json, step_json, steps_table
from agentflow.cli.recorded import file_option
from agentflow.cli.tracing.amounts import count_of, dollars, duration, tokens
from agentflow.cli.tracing.screen import screen
from agentflow.core.durability.history import StepHistory, history_of
from agentflow.core.durability.records import Record, RunInfo
from agentflow.core.durability.values import decode
from agentflow.errors import FlowFileError, SerializationError

__all__ = ["command"]


@click.command("show", short_help="Show what a durable run has done, step by step.")
@click.argument("run", metavar="RUN")
@click.option(
    "--step", "step_id", metavar="ID", help="Show this step in full, as write#2, or write for its first visit."
)
@click.option("--json", "wants_json", is_flag=True, help="Print JSON: the run and its steps, with --step that step.")
@file_option
@debug_option
def command(run: str, step_id: str | None, wants_json: bool, file: str | None) -> None:
    """Show RUN: an id, its beginning, or `last`. `agentflow trace RUN` shows when it did what, and why it was slow."""
    with durable_runs(file) as runs:
        info = runs.named(run)
        records = runs.of(runs.engine.records(info.run_id))
    inputs, steps = _read(info, records)
    if step_id is not None:
        step = _step_named(steps, step_id)
        _print_json(step_json(step)) if wants_json else _show_step(step)
    elif wants_json:
        _print_json(info_json(info, inputs, steps))
    else:
        _show(info, inputs, steps)


def _read(info: RunInfo, records: Sequence[Record]) -> tuple[object, list[StepHistory]]:
    """The input and the steps. A type that only the flow's own file registers is known once that is loaded."""
    try:
        return decode(info.spec.inputs, "input"), history_of(records)
    except SerializationError:
        if info.spec.source is None:
            raise
        try:
            flow_of(info, None)
        except FlowFileError as error:
            click.echo(f"note: what the flow's file could have told is unknown: {error}", err=True)
        return decode(info.spec.inputs, "input"), history_of(records)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


# ---- the whole run -------------------------------------------------------------------------------------------


def _show(info: RunInfo, inputs: object, steps: list[StepHistory]) -> None:
    console = screen(otherwise=160)
    for line in (*heading(info, inputs), *waits_for(info.interrupts, info.run_id)):
        room = console.width if not line.startswith("  ") else len(line)  # a command is there to be copied
        click.echo(line if len(line) <= room else f"{line[: room - 1]}…")
    if steps:
        click.echo()
        console.print(steps_table(steps, info.spec.flow, console.width))


# ---- one step ------------------------------------------------------------------------------------------------


def _step_named(steps: Sequence[StepHistory], word: str) -> StepHistory:
    """By its id, or by the end of it. Raises click.BadParameter."""
    found = [step for step in steps if step.id == word]
    found = found or [step for step in steps if step.id.endswith((f"/{word}", f"/{word}#1"))]
    if len(found) != 1:
        several = f"no single step {word!r}: several end so: {', '.join(step.id for step in found[:5])}"
        none = f"there is no step {word!r}: the last are {', '.join(step.id for step in steps[-5:]) or 'none'}"
        raise click.BadParameter(several if found else none, param_hint="--step")
    return found[0]


def _show_step(step: StepHistory) -> None:
    cost = f", {dollars(step.cost)}" if step.cost != 0.0 or step.calls else ""
    used = f", {tokens(step.tokens)} tokens" if step.tokens else ""
    tried = f", {count_of(step.attempts, 'attempt')}" if step.attempts > 1 else ""
    click.echo(f"{step.id}: {step.status} at {moment(step.at)}, took {duration(step.seconds)}{tried}{used}{cost}")
    if step.action is not None:
        click.echo(f"action  {step.action}")
    for call in step.calls:
        click.echo(f"call    {duration(call.seconds)}, {tokens(call.tokens)} tokens, {dollars(call.cost)}")
    for name, value in _values(step).items():
        click.echo(f"\n{name}:")
        for line in readable(value, screen(otherwise=160).width - 2, most=None):
            click.echo(f"  {line}".rstrip())


def _values(step: StepHistory) -> dict[str, object]:
    found: dict[str, object] = {**step.changed, **{f"{name} +": list(values) for name, values in step.added.items()}}
    found |= {"removed": ", ".join(step.removed)} if step.removed else {}
    found |= {"result": step.result} if step.result is not None else {}
    if step.interrupt is not None:
        found |= {"asked": step.interrupt.prompt}
        found |= {"payload": step.interrupt.payload} if step.interrupt.payload is not None else {}
        found |= {"answer": step.answer} if step.status == "answered" else {}
    return found | ({"error": str(step.error)} if step.error is not None else {})
