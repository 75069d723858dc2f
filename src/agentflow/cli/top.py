"""`agentflow top`: what all recorded runs are doing now: rates, percentiles, what is in flight, what it costs.

It reads the file that runs are recorded in, of however many processes, and follows what comes.
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.keys import pressed_keys
from agentflow.cli.recorded import file_option, open_runs
from agentflow.cli.tracing.board import HOUR, Board
from agentflow.cli.tracing.board_picture import board_picture
from agentflow.cli.tracing.screen import piped_width
from agentflow.core.observability.store import RunReader, RunRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["command"]

_MOST_EVENTS: Final = 200_000
_AROUND: Final = 16  # lines of the screen that are neither models nor flows


@click.command("top", short_help="Watch rates, percentiles and spending as they are.")
@click.option("--once", is_flag=True, help="Print it once, and leave.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS",
    help="How often it is drawn.",
)  # fmt: skip
@file_option
@debug_option
def command(once: bool, interval: float, file: str | None) -> None:
    """Watch what recorded runs are doing, in all processes that record into one file. q or Ctrl-C leaves.

    Rates are of the last minute, percentiles of the last five (dim: of the last hour), money is what the last hour
    cost.
    """
    from rich.console import Console

    with open_runs(file) as reader:
        watching = _Watching(reader)
        console = Console(file=sys.stdout, highlight=False)
        if once or not console.is_terminal or console.is_dumb_terminal:
            width = console.width if console.is_terminal else piped_width(120)
            console = Console(file=sys.stdout, width=width, highlight=False)
            console.print(watching.picture(console, rows=None))
        else:
            _watch(watching, console, interval)


class _Watching:
    """The events of the last hour, and those that come."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._board = Board()
        self._news = reader.follow(from_now=True)  # before the past is read, so that nothing falls between
        self._read: dict[str, int] = {}
        self._take_the_past()

    def picture(self, console: Console, *, rows: int | None) -> RenderableType:
        while news := self._news.poll():
            for event in news:
                if event.sequence > self._read.get(event.run_id, 0):
                    self._board.take(event)
        running = {run.id for run in self._reader.runs(status="running", limit=None)}
        colours = console.color_system is not None and not console.no_color
        waiting = self._reader.waiting()
        figures = self._board.figures(time.time(), running, waiting)
        return board_picture(
            figures, width=console.width, colours=colours, where=_short(str(self._reader.path)), rows=rows
        )

    def _take_the_past(self) -> None:
        """In the order of time; of an hour with very many events, the later runs."""
        since = time.time() - HOUR
        recent: list[RunRecord] = []
        room = _MOST_EVENTS
        for run in self._reader.runs(limit=None):
            if run.seen < since:
                continue
            room -= run.events
            if room < 0 and recent:
                break
            recent.append(run)
        for run in recent:
            self._read[run.id] = 0
        past = (self._reader.events(run.id) for run in reversed(recent))
        for event in heapq.merge(*past, key=lambda event: event.time):
            self._read[event.run_id] = max(self._read[event.run_id], event.sequence)
            self._board.take(event)


def _watch(watching: _Watching, console: Console, interval: float) -> None:
    from rich.live import Live

    with pressed_keys() as key, Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows = max(2, (console.height - _AROUND) // 2)
            live.update(watching.picture(console, rows=rows), refresh=True)
            if key(interval) in ("q", "Q", "\x03", "\x1b"):
                return


def _short(path: str) -> str:
    """Below the working folder without that folder's name."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)
