"""RUN → the durable run that is meant, and its flow.

with durable_runs(file) as runs:
    info = runs.named("last")         an id, its beginning, or the newest
    runs.of(engine.records(…))        what an engine says
flow_of(info, "flow.py:article")      from where it was loaded at the beginning, or from FILE:NAME
ready_flow(info, None, "stage/x")     the same, asking the model that was asked at the beginning, or this one
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import click

from agentflow.cli.load import AnyFlow, load_flow
from agentflow.cli.models import use_model
from agentflow.cli.recorded import runs_file
from agentflow.cli.source import Source
from agentflow.core.durability.records import RunInfo, RunStatus
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.core.observability.store import RunReader
from agentflow.errors import AgentFlowError, FlowFileError, UnknownRunError

__all__ = ["DurableRuns", "durable_runs", "flow_of", "flow_option", "model_option", "ready_flow"]

T = TypeVar("T")
LAST: Final = "last"

flow_option = click.option(
    "--flow", "target", metavar="FILE[:NAME]", help="Where the flow is now; else where it was when the run began."
)
model_option = click.option(
    "-m", "--model", metavar="NAME", help="The model of every call that names none; else the one the run began with."
)


class DurableRuns:
    """Those in one file, until the end of its `with`."""

    def __init__(self, file: str | Path) -> None:
        self.file = file
        self.engine = SqliteDurability(file)

    def __enter__(self) -> DurableRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run(self.engine.close())

    def of(self, said: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(said)

    def named(self, word: str, *, status: RunStatus | None = None) -> RunInfo:
        """`last` is the newest; with `status` the newest that stands so. Raises UnknownRunError, and click.BadParameter
        for a run that is recorded and not durable."""
        if word == LAST:
            return self._newest(status)
        try:
            return self.of(self.engine.find(word))
        except UnknownRunError as error:
            if not error.matches:
                self._refuse_recorded(word)
            raise

    def _newest(self, status: RunStatus | None) -> RunInfo:
        found = self.of(self.engine.runs(status=status, limit=1))
        if not found:
            which = "no durable run" if status is None else f"no durable run that is {status}"
            raise click.BadParameter(f"there is {which} in {self.file}", param_hint="RUN")
        return found[0]

    def _refuse_recorded(self, word: str) -> None:
        try:
            with RunReader(self.file) as reader:
                recorded = reader.find(word)
        except AgentFlowError:
            return
        raise click.BadParameter(
            f"run {recorded.id} is recorded but not durable, so there is nothing to go on from: "
            f"`agentflow trace {recorded.id}` shows what it did",
            param_hint="RUN",
        )


def durable_runs(file: str | None) -> DurableRuns:
    """`file` is that of --file."""
    return DurableRuns(runs_file(file))


def ready_flow(info: RunInfo, target: str | None, model: str | None) -> AnyFlow:
    """The run's flow, and its model as the default of this process. Raises what `flow_of` and `use_model` raise."""
    model = model or (info.spec.source and Source.read(info.spec.source).model)
    flow = flow_of(info, target, model)
    if model is not None:
        use_model(model)
    return flow


def flow_of(info: RunInfo, target: str | None, model: str | None = None) -> AnyFlow:
    """The run's flow. Raises FlowFileError, and click.UsageError where nobody knows where it is."""
    place = target or (info.spec.source and Source.read(info.spec.source).target)
    if not place:
        raise click.UsageError(
            f"Run {info.run_id} of the flow {info.spec.flow!r} was begun by a program: say with --flow FILE:NAME where "
            "its flow is."
        )
    try:
        return load_flow(place, model)
    except FlowFileError as error:
        if target is not None or error.__cause__ is not None:  # it is where it was, and does not work
            raise
        words = str(error)
        joined = f"{words} If" if words.endswith("?") else f"{words}; if"
        raise FlowFileError(f"{joined} the flow is elsewhere now, say so with --flow FILE:NAME") from error
