"""Hands out how a run ended: its output to stdout or a file, the whole of it as JSON.

    handing = Handing.of(output, wants_json, quiet)      refuses a file that cannot be written, before anything runs
    with handing.alone(): …                              what a flow prints does not stand in its JSON
    handing.give(result, key)

The options -o, --json and -q are those of every command that runs a flow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agentflow.cli.files import unwritable, write_whole
from agentflow.cli.outcome import as_text, result_json
from agentflow.core import FlowResult

__all__ = ["Handing", "handing_options"]

C = TypeVar("C", bound=Callable[..., Any])


def handing_options(command: C) -> C:
    """`-o/--output`, `--json` and `-q/--quiet`, as `output`, `wants_json` and `quiet`."""
    options = (
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write the output there; - is stdout.",
        ),
        click.option(
            "--json", "wants_json", is_flag=True, help="Print the whole result as JSON: status, output, state."
        ),
        click.option("-q", "--quiet", is_flag=True, help="No progress and no notes; errors are still said."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Handing:
    """`output` is None for stdout."""

    output: Path | None
    wants_json: bool
    quiet: bool

    @classmethod
    def of(cls, output: Path | None, wants_json: bool, quiet: bool) -> Handing:
        """As the options say. Raises click.BadParameter for a file that cannot be written."""
        if output is None or output == Path("-"):
            return cls(None, wants_json, quiet)
        problem = unwritable(output)
        if problem is not None:
            raise click.BadParameter(problem, param_hint="--output")
        return cls(output, wants_json, quiet)

    def alone(self) -> AbstractContextManager[object]:
        return redirect_stdout(sys.stderr) if self.wants_json else nullcontext()

    @property
    def unwritten(self) -> str:
        """What an interrupted command says of its file."""
        return "" if self.output is None else f"; {self.output} was not written"

    def say(self, line: str) -> None:
        """What is no error, unless nobody wants to hear it."""
        if not self.quiet:
            click.echo(line, err=True)

    def print_json(self, result: FlowResult, key: str | None) -> None:
        if not self.wants_json:
            return
        json = result_json(result, key)
        click.echo(json.text)
        if json.types:
            self.say(f"note: JSON has no word for {', '.join(json.types)}; their repr stands there")

    def give(self, result: FlowResult, key: str | None) -> None:
        """The output of a run that is done. Raises click.ClickException where a file is wanted and there is none."""
        if key is None:
            self._tell_nothing(result)
        elif self.output is not None:
            write_whole(self.output, _ended(as_text(result.state[key])))
            if not (self.quiet or self.wants_json):
                click.echo(f"wrote {self.output}")
        elif not self.wants_json:
            click.echo(_ended(as_text(result.state[key])), nl=False)

    def _tell_nothing(self, result: FlowResult) -> None:
        holds = f"the state holds {', '.join(result.state) or 'nothing'}"
        if self.output is not None:
            raise click.ClickException(
                f"{self.output} was not written, because the run left no output: let a node write the key `output` "
                f"({holds})"
            )
        if not self.wants_json:
            self.say(f"no output: {holds}; --json shows it, and what a node writes under `output` is printed")


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else text + "\n"
