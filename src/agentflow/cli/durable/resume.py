"""`agentflow runs resume RUN`: goes on with one that is parked, has failed, was interrupted, or whose process died."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.asking import can_ask
from agentflow.cli.durable.errand import Errand
from agentflow.cli.durable.finding import durable_runs, flow_option, model_option, ready_flow
from agentflow.cli.durable.migrating import migration_option, read_migration, telling_changes
from agentflow.cli.handing import Handing, handing_options
from agentflow.cli.recorded import file_option

__all__ = ["command"]


@click.command("resume", short_help="Go on with a run; what it has done is not done again.")
@click.argument("run", metavar="RUN")
@flow_option
@migration_option
@model_option
@handing_options
@click.option("--no-ask", is_flag=True, help="Ask nothing on the terminal: a run with a question stays parked.")
@file_option
@debug_option
def command(
    run: str,
    target: str | None,
    pairs: tuple[str, ...],
    model: str | None,
    output: Path | None,
    wants_json: bool,
    quiet: bool,
    no_ask: bool,
    file: str | None,
) -> None:
    """Go on with RUN: an id, its beginning, or `last`. One that is done hands out its output once more.

    A run that is parked asks its questions on the terminal; elsewhere it ends with exit code 4.
    """
    handing, migrate = Handing.of(output, wants_json, quiet), read_migration(pairs)
    with durable_runs(file) as runs:
        info = runs.named(run)
    with handing.alone():
        flow = ready_flow(info, target, model)
    with telling_changes():
        errand = Errand(handing, asks=can_ask() and not no_ask, file=runs.file)
        errand.carry_out(flow, lambda course: course.resuming(info.run_id, migrate=migrate))
