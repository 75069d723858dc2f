"""Ends a command that runs for ever: the first Ctrl-C or SIGTERM asks, the second Ctrl-C ends the process at once.

with Stopping() as stopping:
    stop = stopping.event()         an asyncio.Event of the running loop
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType, TracebackType
from typing import Any, Final

import click

__all__ = ["Stopping"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """`asked` says whether it has been asked to end."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def __enter__(self) -> Stopping:
        for each in _SIGNALS:
            self._before[each] = signal.signal(each, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def event(self) -> asyncio.Event:
        """Set as soon as it is asked."""
        made = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), made))
        if self.asked:
            made.set()
        return made

    def _hear(self, number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:  # the next one ends the process as it would any program
            signal.signal(each, signal.SIG_DFL)
        self.asked = True
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)
            loop.call_soon_threadsafe(_say)  # and not here, in the middle of whatever is being printed


def _say() -> None:
    click.echo("ending when what is under way has ended; Ctrl-C ends at once", err=True)
