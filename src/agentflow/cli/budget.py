"""`agentflow budget`: what is left of the budgets, and what a call has cost of which nobody knew."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED
from agentflow.cli.tracing.amounts import dollars, duration, per_cent
from agentflow.cli.tracing.screen import screen
from agentflow.core.accounts import NANO, Accounts, Held
from agentflow.mcp.optimization.budget.budget import AccountStatus

__all__ = ["command"]

T = TypeVar("T")

_BAR: Final = 20


@click.command("budget", short_help="Say what is left of the budgets.")
@click.option("--file", "file", metavar="FILE", help="One store of budgets; else all that models.yml names.")
@click.option("--held", "wants_held", is_flag=True, help="Show the calls that are not settled.")
@click.option(
    "--correct", nargs=2, type=(str, click.FloatRange(min=0)), metavar="CALL DOLLARS", default=None,
    help="Say what a call has cost that is not settled.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list; amounts are in US dollars.")
@debug_option
def command(file: str | None, wants_held: bool, correct: tuple[str, float] | None, wants_json: bool) -> None:
    """Show every account that has spent something in its current hour, day, month or run: the budgets of the entries of
    models.yml, where they have a store, or those of one file.

    What is reserved belongs to calls under way, or to calls of which nobody knows what they have cost: --held lists
    them with their ids, and --correct says what one has cost. A reservation that nobody settles counts as spent when
    its lease is over.
    """
    stores = _file_store(file) if file is not None else _configured_stores()
    if correct is not None:
        _correct(stores, *correct)
    elif wants_held:
        _print_held(_run(_all_held(stores)), wants_json)
    else:
        _print(_run(_all_standings(stores)), wants_json)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


# ---- where they are kept -------------------------------------------------------------------------------------


def _file_store(file: str) -> list[Accounts]:
    from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts

    if not Path(file).is_file():
        raise click.UsageError(f"there is no file {file}")
    return [SqliteAccounts(file)]


def _configured_stores() -> list[Accounts]:
    """Those of models.yml, without the files that are not there yet."""
    from agentflow.llm.agentflow import AgentFlow
    from agentflow.mcp.optimization.budget.configured import budgets_of

    found: dict[object, Accounts] = {}
    named = budgets_of(AgentFlow.registry)
    if not named:
        click.echo("no entry of models.yml has a budget: {budget: {per_day: 20.0, store: budget.db}}", err=True)
    for model, budget in named:
        if not budget.is_kept:
            click.echo(
                f"note: {model} keeps its budget in the memory of each process: name a store to see it", err=True
            )
            continue
        path = getattr(budget.accounts, "path", None)
        if path is None or path.is_file():
            found.setdefault(path or budget.account, budget.accounts)
    return list(found.values())


async def _all_standings(stores: Sequence[Accounts]) -> list[AccountStatus]:
    rows = []
    for accounts in stores:
        for each in await accounts.standings(now=time.time()):
            amounts = (each.limit / NANO, each.spent / NANO, each.reserved / NANO)
            resets = None if "/run:" in each.account else each.resets
            rows.append(AccountStatus(each.account, *amounts, resets, each.hard))
        await accounts.aclose()
    return sorted(rows, key=lambda row: row.account)


async def _all_held(stores: Sequence[Accounts]) -> list[Held]:
    rows: list[Held] = []
    for accounts in stores:
        rows += await accounts.held(now=time.time())
        await accounts.aclose()
    return rows


# ---- what is shown -------------------------------------------------------------------------------------------


def _print(rows: Sequence[AccountStatus], wants_json: bool) -> None:
    if wants_json:
        click.echo(json.dumps([{**asdict(row), "left": row.left} for row in rows], indent=2))
    elif not rows:
        click.echo("nothing has been spent", err=True)
    else:
        _print_table(rows)


def _print_table(rows: Sequence[AccountStatus]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("account", overflow="fold"),
        *(Column(name, justify="right", no_wrap=True) for name in ("spent", "reserved", "limit", "used")),
        Column("", no_wrap=True),
        Column("resets in", justify="right", no_wrap=True),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    now = time.time()
    for row in rows:
        table.add_row(
            Text(row.account),
            dollars(row.spent),
            dollars(row.reserved) if row.reserved else "",
            dollars(row.limit) if row.hard else f"({dollars(row.limit)})",
            per_cent(row.spent + row.reserved, row.limit),
            _bar(row),
            "" if row.resets_at is None else duration(max(0.0, row.resets_at - now)),
        )
    screen(otherwise=160).print(table)
    if not all(row.hard for row in rows):
        click.echo("(limits in parentheses warn, and refuse nothing)")


def _bar(row: AccountStatus) -> Any:
    from rich.text import Text

    spent = min(_BAR, round(row.spent / row.limit * _BAR))
    reserved = min(_BAR - spent, round(row.reserved / row.limit * _BAR))
    return Text("█" * spent + "░" * reserved, style="#b8860b")


def _print_held(rows: Sequence[Held], wants_json: bool) -> None:
    if wants_json:
        facts = [{**row._asdict(), "amount": row.amount / NANO, "accounts": list(row.accounts)} for row in rows]
        click.echo(json.dumps(facts, indent=2))
    elif not rows:
        click.echo("every call is settled", err=True)
    else:
        now = time.time()
        for row in rows:
            state = "lapsed" if row.lapsed else f"lapses in {duration(max(0.0, row.until - now))}"
            click.echo(f"{row.call}  {dollars(row.amount / NANO):>10}  {state:<18}  {', '.join(row.accounts)}")


def _correct(stores: Sequence[Accounts], call: str, cost: float) -> None:
    from agentflow.mcp.optimization.budget.money import charged

    async def settle() -> bool:
        found = False
        for accounts in stores:
            found = bool(await accounts.settle(call, charged(cost), now=time.time())) or found
            await accounts.aclose()
        return found

    if not _run(settle()):
        click.echo(f"error: no call {call} is held: it was settled before, or its store is another", err=True)
        raise SystemExit(FAILED)
    click.echo(f"{call} has cost {dollars(cost)}", err=True)
