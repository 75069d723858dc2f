"""`agentflow trace RUN`: what a run did, why it was slow, what it cost; in the terminal, as a page, as JSON, or live.

agentflow trace last                       the newest run
agentflow trace 4f9a --html page.html      one file for a browser
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.files import unwritable, write_whole
from agentflow.cli.recorded import file_option, open_runs, run_named, trace_in
from agentflow.cli.tracing.amounts import count_of
from agentflow.cli.tracing.as_json import trace_json
from agentflow.cli.tracing.screen import screen
from agentflow.core.observability.store import RunReader, RunRecord
from agentflow.core.observability.trace.tree import Trace

__all__ = ["command"]

_PIPED_WIDTH: Final = 120
_AFTER: Final = 5.0  # seconds after its last event for which a loss may still have been its


@click.command("trace", short_help="Show a recorded run: what it did, why it was slow, what it cost.")
@click.argument("run", default="last")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page for a browser; - is stdout."
)
@click.option("--json", "wants_json", is_flag=True, help="Print all of it as JSON; with --follow a line an event.")
@click.option("--follow", is_flag=True, help="Show it live, until it has ended.")
@click.option("--all", "everything", is_flag=True, help="A line for every span, however many of a kind there are.")
@file_option
@debug_option
def command(run: str, html: Path | None, wants_json: bool, follow: bool, everything: bool, file: str | None) -> None:
    """Show the run whose id is RUN or begins so; `last`, which is also the default, is the newest.

    Bars are coloured by what the time went into; where there are no colours, a letter stands for each. Broad bars
    decided how long the run took, slim ones ran beside them.
    """
    if html is not None and str(html) != "-" and (problem := unwritable(html)) is not None:
        raise click.BadParameter(problem, param_hint="--html")
    if follow and html is not None:
        raise click.UsageError("--follow shows a run as it goes on, a page shows what was: give one of them")
    with open_runs(file) as reader:
        record = run_named(reader, run)
        if follow:
            from agentflow.cli.tracing.following import follow_run

            follow_run(reader, record, as_json=wants_json, everything=everything)
            return
        trace = trace_in(reader, record)
        _tell_losses(reader, record)
    if wants_json:
        click.echo(json.dumps(trace_json(trace), indent=2, ensure_ascii=False, default=str))
    if html is not None:
        _write_page(trace, html, quiet=wants_json)
    elif not wants_json:
        _show(trace, everything=everything)


def _tell_losses(reader: RunReader, record: RunRecord) -> None:
    """What was lost while the run went on may be missing in it."""
    until = record.seen + _AFTER
    lost = sum(each.events for each in reader.losses() if each.last >= record.started and each.first <= until)
    if lost:
        click.echo(
            f"note: {count_of(lost, 'event')} of that time could not be recorded; spans may be missing", err=True
        )


def _write_page(trace: Trace, html: Path, *, quiet: bool) -> None:
    from agentflow.cli.tracing.page import page_of

    page = page_of(trace)
    if str(html) == "-":
        click.echo(page, nl=False)
        return
    write_whole(html, page)
    if not quiet:
        click.echo(f"wrote {html}")


def _show(trace: Trace, *, everything: bool) -> None:
    from agentflow.cli.tracing.waterfall import picture

    console = screen(otherwise=_PIPED_WIDTH)
    colours = console.color_system is not None and not console.no_color
    console.print(picture(trace, width=console.width, colours=colours, most=None if everything else 8))
