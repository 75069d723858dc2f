"""`agentflow runs delete RUN…`: forgets what durable runs have kept."""

from __future__ import annotations

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.finding import durable_runs
from agentflow.cli.recorded import file_option

__all__ = ["command"]


@click.command("delete", short_help="Forget what runs have kept.")
@click.argument("words", metavar="RUN…", nargs=-1, required=True)
@file_option
@debug_option
def command(words: tuple[str, ...], file: str | None) -> None:
    """Forget the steps of each RUN: an id, its beginning, or `last`. It cannot be resumed any more.

    What was recorded of it stays, and `agentflow trace` shows it.
    """
    with durable_runs(file) as runs:
        for run_id in [runs.named(word).run_id for word in words]:
            runs.of(runs.engine.delete(run_id))
            click.echo(f"deleted the steps of {run_id}")
