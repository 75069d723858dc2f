"""A file as the value of an option: one that can be written, or the command ends before it does anything."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.files import unwritable

__all__ = ["Writable"]


class Writable(click.ParamType[Path]):
    """A file that can be written, as far as can be told beforehand."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(value)).expanduser()
        problem = unwritable(path)
        if problem is not None:
            self.fail(problem, param, ctx)
        return path
