"""How far a batch job is, as it goes: a bar on a terminal, a line at each change elsewhere; on stderr.

submitted  ━━━━━━━━━━━╺━━━━━━━━  312/1000  2 failed  $0.0412  0:41:07
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from agentflow.mcp.performance.batching.jobs.result import BatchStatus

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["following", "summary"]

_EVERY: Final = 0.25  # seconds between two looks at the file


@asynccontextmanager
async def following(status: Callable[[], BatchStatus], stream: TextIO, *, quiet: bool = False) -> AsyncIterator[None]:
    """For the body, show what `status` says."""
    if quiet:
        yield
        return
    show = _Bar(stream) if stream.isatty() else _Lines(stream)
    with show:
        show.see(status())
        task = asyncio.ensure_future(_follow(status, show))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            show.see(status())


async def _follow(status: Callable[[], BatchStatus], show: _Bar | _Lines) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        show.see(status())


class _Bar:
    """A bar that moves, by what is settled and by what the provider says it is done with."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        self._progress: Progress = Progress(*columns, console=Console(file=stream))
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def see(self, status: BatchStatus) -> None:
        if self._task is None:
            self._task = self._progress.add_task(status.state, total=status.total, told="")
        self._progress.update(
            self._task, description=str(status.state), completed=status.likely_done, told=_told(status)
        )


class _Lines:
    """A line whenever something has changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = ""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def see(self, status: BatchStatus) -> None:
        line = f"{status.state}: {status.likely_done} of {status.total} {_told(status)}".rstrip()
        if line != self._said:
            self._said = line
            print(line, file=self._stream, flush=True)


def _told(status: BatchStatus) -> str:
    counted = (
        (status.failed, "failed"),
        (status.cancelled, "cancelled"),
        (status.direct, "asked directly"),
        (status.at_risk, "may be billed twice"),
    )
    told = [f"{count} {what}" for count, what in counted if count]
    if status.cost:
        told.append(f"${status.cost:.4f}")
    if status.chance is not None and not status.done:
        told.append(f"{status.chance:.0%} in time")
    return "  ".join(told)


def summary(status: BatchStatus) -> str:
    """What became of it, on a line."""
    told = [f"{status.answered} of {status.total} answered", *_told(status).split("  ")]
    if status.billed_twice:
        told.append(f"{status.billed_twice} were billed twice, for ${status.second_cost:.4f}")
    return f"{status.id}: {', '.join([each for each in told if each])}"
