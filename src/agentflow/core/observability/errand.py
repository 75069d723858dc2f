"""Something to be told on the event loop that a run belongs to, by code that runs on another, or on none.

    sync node's thread ──▶ model call on the portal's loop ──Errand──▶ the run's loop: told, and put to its reader

Its reader gets the events in their order so, and whoever tells waits while it is behind. What is told is told once:
there, or here where that loop is closed or stands still, so that nobody waits for what does not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import RLock
from typing import Final, Protocol

from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Errand", "Reader"]

_LOOK: Final = 1.0  # seconds between looks at whether the other loop still runs


class Reader(Protocol):
    """Whoever reads the events of one run in their order."""

    async def put(self, event: ExecutionEvent, /) -> None:
        """Hand it over, and wait while the reader is behind."""
        ...

    def leave(self, event: ExecutionEvent, /) -> None:
        """Hand it over without waiting."""
        ...


class Errand:
    """`await errand.done()`, or `errand.wait()` in a thread without a loop. `tell` makes the event, and shows it to
    the observers."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reader: Reader, lock: RLock, tell: Callable[[], ExecutionEvent]
    ) -> None:
        self._loop = loop
        self._reader = reader
        self._lock = lock
        self._tell: Callable[[], ExecutionEvent] | None = tell

    async def done(self) -> None:
        sent = self._sent()
        try:
            if sent is None:
                return
            arrived = asyncio.wrap_future(sent)
            while not arrived.done() and self._loop.is_running():
                await asyncio.wait([arrived], timeout=_LOOK)
        finally:
            self._settle(sent)

    def wait(self) -> None:
        sent = self._sent()
        try:
            while sent is not None and not sent.done() and self._loop.is_running():
                with suppress(TimeoutError, CancelledError):  # cancelled: that loop is closing
                    sent.result(_LOOK)
        finally:
            self._settle(sent)

    def _sent(self) -> Future[None] | None:
        going = self._there()
        try:
            return asyncio.run_coroutine_threadsafe(going, self._loop)
        except RuntimeError:  # it is closed
            going.close()
            return None

    async def _there(self) -> None:
        event = self._told()
        if event is not None:
            await self._reader.put(event)

    def _settle(self, sent: Future[None] | None) -> None:
        """What was not told there is told here: whoever was to wait for it was cancelled, or that loop has ended."""
        if sent is not None:
            sent.cancel()
        event = self._told()
        if event is not None:
            with suppress(RuntimeError):  # it is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._reader.leave, event)

    def _told(self) -> ExecutionEvent | None:
        """Tell it, unless that was done."""
        with self._lock:
            tell, self._tell = self._tell, None
            return None if tell is None else tell()
