"""`agentflow runs fork RUN --at STEP`: a new run that has done what another had done before that step."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.asking import can_ask
from agentflow.cli.durable.errand import Errand
from agentflow.cli.durable.finding import durable_runs, flow_option, model_option, ready_flow
from agentflow.cli.durable.migrating import telling_changes
from agentflow.cli.handing import Handing, handing_options
from agentflow.cli.inputs import read_pairs
from agentflow.cli.recorded import file_option
from agentflow.core.run import new_run_id

__all__ = ["command"]


@click.command("fork", short_help="Begin a new run in the middle of another.")
@click.argument("run", metavar="RUN")
@click.option("--at", "at", required=True, metavar="STEP", help="The first step that is done anew, as write#2.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE",
    help="Change the state as that step finds it: JSON where it is JSON, else text. May be repeated.",
)  # fmt: skip
@click.option("--run-id", metavar="ID", help="What the new run is called.")
@flow_option
@model_option
@handing_options
@click.option("--no-ask", is_flag=True, help="Ask nothing on the terminal: a run with a question ends parked.")
@file_option
@debug_option
def command(
    run: str,
    at: str,
    pairs: tuple[str, ...],
    run_id: str | None,
    target: str | None,
    model: str | None,
    output: Path | None,
    wants_json: bool,
    quiet: bool,
    no_ask: bool,
    file: str | None,
) -> None:
    """Begin a new run that has done what RUN had done before STEP. `agentflow runs show RUN` lists its steps.

    RUN is an id, its beginning, or `last`; it stays as it is.
    """
    handing, update = Handing.of(output, wants_json, quiet), read_pairs(pairs, "--set")
    with durable_runs(file) as runs:
        info = runs.named(run)
    with handing.alone():
        flow = ready_flow(info, target, model)
    with telling_changes():
        errand = Errand(handing, asks=can_ask() and not no_ask, file=runs.file)
        errand.carry_out(
            flow, lambda course: course.forking(info.run_id, run_id or new_run_id(), at, update if pairs else None)
        )
