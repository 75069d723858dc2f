"""`agentflow runs cancel RUN…`: ends runs for good, wherever they run."""

from __future__ import annotations

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.finding import durable_runs
from agentflow.cli.recorded import file_option
from agentflow.cli.recording import Recording
from agentflow.core.durability.conduct import called_off

__all__ = ["command"]


@click.command("cancel", short_help="End runs for good, wherever they run.")
@click.argument("words", metavar="RUN…", nargs=-1, required=True)
@file_option
@debug_option
def command(words: tuple[str, ...], file: str | None) -> None:
    """End each RUN for good: an id, its beginning, or `last`. What it has done is not undone.

    One that is under way in another process ends as soon as that one hears of it.
    """
    with durable_runs(file) as runs, Recording(wanted=True, file=runs.file):
        for info in [runs.named(word) for word in words]:
            if runs.of(called_off(runs.engine, info)):
                under_way = f", as soon as {info.owner} hears of it" if info.status == "running" else ""
                click.echo(f"cancelled {info.run_id}{under_way}")
            else:
                click.echo(f"{info.run_id} had ended before: it is {info.status}")
