"""A run whose flow has changed since it began: what is different is said, and `--migrate` mends it.

run 3f2a began with another flow:
  judge is gone
  review is new
error: … say what its steps are called now, as in --migrate judge=review
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from agentflow.cli.failures import USAGE
from agentflow.core.durability.changes import Migration
from agentflow.errors import FlowChangedError

__all__ = ["migration_option", "read_migration", "telling_changes"]

migration_option = click.option(
    "--migrate",
    "pairs",
    multiple=True,
    metavar="OLD=NEW",
    help="What a step of a changed flow is called now; OLD= forgets what it did, and alone an = changes no name. "
    "May be repeated.",
)


def read_migration(pairs: Sequence[str]) -> Migration | None:
    """None where nothing is said. Raises click.BadParameter."""
    renamed: dict[str, str | None] = {}
    for pair in pairs:
        old, sign, new = pair.partition("=")
        if not sign:
            raise click.BadParameter(f"{pair!r} is not OLD=NEW, as in judge=review", param_hint="--migrate")
        if old:
            renamed[old] = new or None
    return renamed if pairs else None


@contextmanager
def telling_changes() -> Iterator[None]:
    """Say a FlowChangedError as the command line can mend it. It becomes a click.ClickException."""
    try:
        yield
    except FlowChangedError as error:
        click.echo(f"run {error.run_id} began with another flow:", err=True)
        for change in error.changes:
            click.echo(f"  {change}", err=True)
        raise _Refusal(
            "the flow has changed: give the one that the run began with (--flow FILE:NAME), or say what its steps are "
            f"called now (agentflow runs resume {error.run_id} --migrate OLD=NEW)"
        ) from error


class _Refusal(click.ClickException):
    exit_code = USAGE
