"""The option `--debug`, which every command takes: show the traceback of an error."""

from __future__ import annotations

from typing import Final

import click

__all__ = ["debug_option", "debugging"]

_DEBUG: Final = "agentflow.debug"


def _remember(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    ctx.meta[_DEBUG] = wanted or debugging(ctx)


def debugging(ctx: click.Context) -> bool:
    """Whether `--debug` was given, before the command's name or after it."""
    return bool(ctx.meta.get(_DEBUG))


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Show the traceback of an error.",
)
