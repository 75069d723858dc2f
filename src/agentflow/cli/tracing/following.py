"""Shows a run while it goes on: the picture, drawn anew a few times a second, and at last as it stays.

Elsewhere than on a terminal: a line for each thing that ends, then the picture; or each event as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.tracing.amounts import duration
from agentflow.cli.tracing.as_json import event_json
from agentflow.cli.tracing.screen import piped_width
from agentflow.cli.tracing.waterfall import picture
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunRecord
from agentflow.core.observability.trace.tree import trace_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["follow_run"]

_PAUSE: Final = 0.25
_ROOM: Final = 14  # lines that stand around the tree
_SHARE: Final = 4.0  # drawing may take a fourth of the time


def follow_run(reader: RunReader, record: RunRecord, *, as_json: bool, everything: bool) -> None:
    """Until the run has ended, or its process is gone."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    following = _Following(reader, record)
    if as_json:
        for event in following.until_the_end():
            click.echo(json.dumps(event_json(event), ensure_ascii=False, default=str))
        return
    if console.is_terminal and not console.is_dumb_terminal:
        _live(following, console)
    else:
        console = Console(file=sys.stdout, width=piped_width(120), highlight=False)
        for event in following.until_the_end():
            _say(event)
    console.print(following.picture(console, most=None if everything else 8))


class _Following:
    """The events so far, and whether there will be more."""

    def __init__(self, reader: RunReader, record: RunRecord) -> None:
        self._reader = reader
        self._record = record
        self._news = reader.follow(record.id)
        self._events: list[ExecutionEvent] = []
        self.over = False

    def poll(self) -> list[ExecutionEvent]:
        """What is new. The status is asked for first: of a run that is over then, nothing more will come."""
        over = self._reader.find(self._record.id).is_over
        found: list[ExecutionEvent] = []
        while page := self._news.poll():
            found += page
        self._events += found
        self.over = over
        return found

    def until_the_end(self) -> Iterator[ExecutionEvent]:
        """One by one, waiting for those to come."""
        while not self.over:
            found = self.poll()
            yield from found
            if not found and not self.over:
                time.sleep(_PAUSE)

    def picture(self, console: Console, *, most: int | None, height: int | None = None) -> RenderableType:
        now = None if self.over else time.time() - self._record.started
        trace = trace_of(self._events, now=now, over=self.over)
        colours = console.color_system is not None and not console.no_color
        return picture(trace, width=console.width, colours=colours, most=most, height=height)


def _live(following: _Following, console: Console) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        while not following.over:
            following.poll()
            began = time.monotonic()
            room = max(3, console.height - _ROOM)
            live.update(following.picture(console, most=4, height=room), refresh=True)
            if not following.over:
                time.sleep(max(_PAUSE, _SHARE * (time.monotonic() - began)))


def _say(event: ExecutionEvent) -> None:
    """A line for what has ended."""
    if event.duration is None:
        return
    what, _, how = event.kind.rpartition("_")
    if what == "attempt":
        return
    word = {
        "success": "took",
        "error": "failed after",
        "cancelled": "was cancelled after",
        "interrupted": "was parked after",
    }.get(how, "ended after")
    name = event.data.get(what) if what in ("model", "tool") else ""
    click.echo(
        f"{duration(event.at):>8}  {what} {event.path}{f' {name}' if name else ''} {word} {duration(event.duration)}"
    )
