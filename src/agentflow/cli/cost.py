"""`agentflow cost`: what was spent, by model, flow or day; and what would have been cheaper.

agentflow cost --by flow            adds up, as it does without any options
agentflow cost optimize             in a module of its own (`cost_optimize.py`), imported when it is asked for
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, Literal

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.recorded import file_option, open_runs, since_option
from agentflow.cli.tracing.amounts import count_of, spent, tokens
from agentflow.cli.tracing.screen import screen
from agentflow.core.observability.store import CostRow

__all__ = ["command"]

By = Literal["model", "flow", "day", "provider", "tenant"]
_BAR: Final = 24
_NARROW: Final = 80  # from here on names need the room


class _Actions(click.Group):
    """What can be done with what was spent."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["optimize"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "optimize":
            return None
        from agentflow.cli.cost_optimize import command as optimize

        return optimize

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([("optimize", "Propose what would have been cheaper.")])


@click.group(
    "cost",
    cls=_Actions,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND …]",
    short_help="Say what was spent, and what would have been cheaper.",
)
@click.option(
    "--by", type=click.Choice(["model", "flow", "day", "provider", "tenant"]), default="model", show_default=True,
    help="What to add up by.",
)  # fmt: skip
@since_option
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list; costs are in US dollars.")
@file_option
@debug_option
@click.pass_context
def command(ctx: click.Context, by: By, since: float | None, wants_json: bool, file: str | None) -> None:
    """Add up what recorded model calls have cost, in US dollars. Hours are counted whole.

    A call whose price nobody knows is no free call: "+?" says that there were some, "?" that there were no others.

    `agentflow cost optimize` goes over the same calls and proposes what would have been cheaper.
    """
    if ctx.invoked_subcommand is not None:
        return
    with open_runs(file) as reader:
        rows = reader.costs(by=by, since=since)
    if wants_json:
        click.echo(json.dumps([{by: row.key, **_facts(row)} for row in rows], indent=2))
    elif not rows:
        click.echo("nothing was spent: no model call has been recorded" + (" since then" if since else ""), err=True)
    else:
        _print(by, rows)


def _facts(row: CostRow) -> dict[str, object]:
    facts = asdict(row)
    del facts["key"]
    return {**facts, "cost": row.known_cost}


def _print(by: str, rows: Sequence[CostRow]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    console = screen(otherwise=160)
    bar = _BAR if console.width >= _NARROW else 0
    table = Table(
        Column(by, overflow="fold", footer="all"),
        Column("cost", justify="right", no_wrap=True, footer=_cost(rows)),
        Column("", no_wrap=True),
        Column("calls", justify="right", footer=f"{sum(row.calls for row in rows):,}"),
        Column("failed", justify="right", footer=_some(sum(row.failed_calls for row in rows))),
        Column("tokens in", justify="right", footer=tokens(sum(row.input_tokens for row in rows))),
        Column("out", justify="right", footer=tokens(sum(row.output_tokens for row in rows))),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        show_footer=len(rows) > 1,
    )
    most = max(row.cost for row in rows)
    for row in rows:
        table.add_row(
            Text(row.key or "(none)"),
            _cost([row]),
            Text("█" * round(row.cost / most * bar) if most else "", style="#b8860b"),
            f"{row.calls:,}",
            Text(_some(row.failed_calls), style="red"),
            tokens(row.input_tokens),
            tokens(row.output_tokens),
        )
    console.print(table)
    unknown = sum(row.unpriced for row in rows)
    if unknown:
        click.echo(f"?: nobody knows the price of {count_of(unknown, 'call')}; models.yml may name it")


def _cost(rows: Sequence[CostRow]) -> str:
    answered = sum(row.calls - row.failed_calls for row in rows)
    return spent(sum(row.cost for row in rows), answered, sum(row.unpriced for row in rows))


def _some(count: int) -> str:
    return f"{count:,}" if count else ""
