"""`agentflow runs`: what has been recorded, the newest first; and what can be done with a durable run.

agentflow runs --status failed                          lists, as it does without any options
agentflow runs show|resume|fork|cancel|delete RUN       each in a module of `durable/`, imported when it is asked for
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple, get_args

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.standing import as_kept, is_unused, kept_runs, unrecorded_runs
from agentflow.cli.recorded import file_option, runs_file, since_option
from agentflow.cli.tracing.amounts import count_of, duration, spent, tokens
from agentflow.cli.tracing.screen import screen
from agentflow.core.observability.store import LossRecord, RunReader, RunRecord
from agentflow.core.observability.store.records import RunStatus
from agentflow.errors import RunStoreError

__all__ = ["command"]

_STYLES: Final = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "magenta",
    "lost": "yellow",
}
_NARROW: Final = 100
_NARROWER: Final = 80


ACTIONS: Final = {
    "show": "Show what a durable run has done, step by step.",
    "resume": "Go on with a run; what it has done is not done again.",
    "fork": "Begin a new run in the middle of another.",
    "cancel": "End runs for good, wherever they run.",
    "delete": "Forget what runs have kept.",
}


class _Actions(click.Group):
    """What can be done with one run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ACTIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ACTIONS:
            return None
        found = import_module(f"agentflow.cli.durable.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("With one run"):
            formatter.write_dl(list(ACTIONS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in ACTIONS and not args[0].startswith("-"):
            near = get_close_matches(args[0], ACTIONS, n=1)
            hint = f"Did you mean `agentflow runs {near[0]}`?" if near else f"There are: {', '.join(ACTIONS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    "runs",
    cls=_Actions,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND RUN …]",
    short_help="List what has been recorded; resume, fork, cancel, show a run.",
)
@click.option("--flow", metavar="NAME", help="Runs of this flow, or questions to this model; * and ? stand for any.")
@click.option(
    "--status",
    type=click.Choice(get_args(RunStatus)),
    help="Runs that stand so; waiting: for an answer or a timer, lost: their process died.",
)
@click.option("-m", "--model", metavar="NAME", help="Runs in which this model has answered.")
@since_option
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list.")
@file_option
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    flow: str | None,
    status: RunStatus | None,
    model: str | None,
    since: float | None,
    limit: int,
    wants_json: bool,
    file: str | None,
) -> None:
    """List recorded runs, the newest first. `agentflow trace ID` shows one, `agentflow trace last` the newest.

    With a command: go on with a run that `agentflow run` has kept, look at its steps, or end it.
    """
    if ctx.invoked_subcommand is not None:
        return
    found, losses = _found(runs_file(file), _Wanted(flow, status, model, since), limit)
    if wants_json:
        click.echo(json.dumps([_as_json(run) for run in found], indent=2))
    elif found:
        _print(found)
        _tell_losses(losses)
    else:
        filtered = any(value is not None for value in (flow, status, model, since))
        hint = (
            "none fits; `agentflow runs` without options lists all" if filtered else "`agentflow run FILE` records one"
        )
        click.echo(f"no runs: {hint}", err=True)


# ---- found ---------------------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """What the options say of the runs that are listed."""

    flow: str | None
    status: RunStatus | None
    model: str | None
    since: float | None

    def has(self, run: RunRecord) -> bool:
        """Of one that was never recorded."""
        return (
            (self.flow is None or fnmatchcase(run.name, self.flow))
            and self.status in (None, run.status)
            and self.model is None
            and (self.since is None or run.started >= self.since)
        )


def _found(file: str | Path, wanted: _Wanted, limit: int) -> tuple[list[RunRecord], Sequence[LossRecord]]:
    """Raises RunStoreError for a file that cannot be read."""
    path = Path(file).expanduser()
    try:
        with RunReader(path) as reader:
            return _recorded(reader, path, wanted, limit), reader.losses()
    except RunStoreError:
        if not is_unused(path):
            raise
    return [run for run in kept_runs(path) if wanted.has(run)][:limit], ()


def _recorded(reader: RunReader, path: Path, wanted: _Wanted, limit: int) -> list[RunRecord]:
    """What is recorded as lost may be known to have ended, and what was lost at once is not recorded at all."""

    def those(status: RunStatus | None) -> list[RunRecord]:
        return reader.runs(name=wanted.flow, status=status, model=wanted.model, since=wanted.since, limit=limit)

    found = those(wanted.status)
    if wanted.status not in (None, "lost", "running"):
        found += those("lost")
    found = [run for run in as_kept(path, found) if wanted.status in (None, run.status)]
    found += [run for run in unrecorded_runs(path) if wanted.has(run)]
    return sorted(found, key=lambda run: -run.started)[:limit]


def _as_json(run: RunRecord) -> dict[str, object]:
    return {**asdict(run), "cost": run.known_cost}


def _print(runs: Sequence[RunRecord]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    console = screen(otherwise=160)
    wide, narrow = console.width >= _NARROW, console.width < _NARROWER
    columns = [
        Column("run", no_wrap=True),  # an id is there to be copied, so it is never cut
        Column("what", ratio=1, no_wrap=True, overflow="ellipsis"),
        Column("status", no_wrap=True),
        *([] if narrow else [Column("began", no_wrap=True)]),
        Column("took", justify="right", no_wrap=True),
        *([] if narrow else [Column("calls", justify="right")]),
        *([Column("tokens", justify="right", no_wrap=True)] if wide else []),
        Column("cost", justify="right", no_wrap=True),
    ]
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), expand=True)
    for run in runs:
        used = f"{tokens(run.input_tokens)}→{tokens(run.output_tokens)}" if run.calls else ""
        table.add_row(
            run.id,
            Text.assemble(_clean(_called(run)), (f"  {_clean(run.error or '')}" if run.error else "", "red")),
            Text(run.status, style=_STYLES[run.status]),
            *([] if narrow else [_began(run.started)]),
            duration(_took(run)),
            *([] if narrow else [f"{run.calls:,}" if run.calls else ""]),
            *([used] if wide else []),
            spent(run.cost, run.calls - run.failed_calls, run.unpriced) if run.calls else "",
        )
    console.print(table)


def _called(run: RunRecord) -> str:
    """A question outside of any flow is called by the models that answered it."""
    return ", ".join(run.models) or run.name if run.kind == "call" else run.name


def _took(run: RunRecord) -> float:
    """Seconds in which it was run, so far: without those in which it waited to go on."""
    whole = run.duration if run.duration is not None else max(0.0, run.seen - run.started)
    return max(0.0, whole - run.parked)


def _began(moment: float) -> str:
    """The time of day, and the day where it is another."""
    try:
        then = datetime.fromtimestamp(moment)
    except (OverflowError, ValueError, OSError):
        return "?"
    now = datetime.fromtimestamp(time.time())
    if then.date() == now.date():
        return f"{then:%H:%M:%S}"
    return f"{then:%b %d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"


def _tell_losses(losses: Sequence[LossRecord]) -> None:
    """What is missing in the file is said, and not left to be found out."""
    lost = sum(loss.events for loss in losses)
    if lost:
        reasons = ", ".join(dict.fromkeys(loss.reason for loss in losses))
        click.echo(f"note: {count_of(lost, 'event')} could not be recorded ({reasons})", err=True)


def _clean(words: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in words)
