"""Where the command line's runs are recorded, and how a command finds one of them.

AGENTFLOW_RUNS=FILE    another file than models.yml's, or .agentflow/runs.db; `off` records nothing
4f9a, last             a run by the beginning of its id, or the newest
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import click

from agentflow.core.observability.store import DEFAULT_PATH, RunReader, RunRecord
from agentflow.core.observability.trace.tree import Trace, trace_of
from agentflow.errors import AgentFlowError, RunStoreError

__all__ = [
    "OFF",
    "VARIABLE",
    "file_option",
    "named_file",
    "open_runs",
    "run_named",
    "runs_file",
    "since_option",
    "trace_in",
    "until_option",
]

VARIABLE: Final = "AGENTFLOW_RUNS"
OFF: Final = "off"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def named_file() -> str | None:
    """The file that AGENTFLOW_RUNS names, or OFF; None where it says nothing."""
    named = os.environ.get(VARIABLE, "").strip()
    return OFF if named.lower() == OFF else named or None


def runs_file(file: str | None) -> str | Path:
    """The file of --file, else of AGENTFLOW_RUNS, else of models.yml, else the usual one."""
    named = named_file()
    return file or (None if named == OFF else named) or _configured_file() or DEFAULT_PATH


def open_runs(file: str | None) -> RunReader:
    """What is recorded in that file. Raises RunStoreError, which says what to do."""
    return RunReader(runs_file(file))


def _configured_file() -> Path | None:
    """Where models.yml has runs recorded. A broken one keeps nobody from looking, but may have named another file."""
    from agentflow.llm.agentflow import AgentFlow  # whoever names the file does not wait for it

    try:
        return AgentFlow.registry.observing.runs_path
    except AgentFlowError as error:
        click.echo(f"note: the usual file is read, as the configuration cannot be: {error}", err=True)
        return None


def run_named(reader: RunReader, word: str) -> RunRecord:
    """The run of that id or of its beginning, or the `last` one. Raises UnknownRunError, and RunStoreError where there
    is none at all."""
    newest = reader.runs(limit=1)
    if not newest:
        how = "`agentflow run` records runs, and in a program `observe(RunStore())` does"
        raise RunStoreError(f"nothing is recorded in {reader.path} yet: {how}", path=reader.path)
    return newest[0] if word == "last" else reader.find(word)


def trace_in(reader: RunReader, record: RunRecord) -> Trace:
    """The run as far as it has come."""
    now = time.time() - record.started if not record.is_over else None
    return trace_of(reader.events(record.id), now=now, over=record.is_over)


file_option = click.option(
    "--file", "file", metavar="FILE", help=f"The file of runs; else {VARIABLE}, models.yml, {DEFAULT_PATH}."
)


class _Moment(click.ParamType[float]):
    """`90s`, `15m`, `2h`, `7d`: so long ago; `2026-11-27`, `2026-11-27T14:30`: then, local time."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        if text == "today":
            return datetime.now().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        number, unit = text[:-1], _UNITS.get(text[-1:])
        try:
            if unit is not None:
                return (datetime.now() - timedelta(seconds=float(number) * unit)).timestamp()
            return datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: 15m, 2h or 7d ago, today, or a date as in 2026-11-27", param, ctx)


since_option = click.option("--since", type=_Moment(), metavar="TIME", help="15m, 2h, 7d ago, today, or a date.")
until_option = click.option("--until", type=_Moment(), metavar="TIME", help="Up to then, spelled as --since.")
