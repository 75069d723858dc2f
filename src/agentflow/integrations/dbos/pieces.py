"""Pieces of text on their way from a run to whoever watches it, wherever that is.

    pieces.add("Once ")     from any thread: gathered, and sent together every 50 ms
    await pieces.flush()    what is left, before the run ends

What is sent twice, as a step ran again after a crash, is seen twice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Final

from agentflow.errors import DurabilityError
from agentflow.integrations.dbos.journal import DbosJournal

__all__ = ["STREAM", "Pieces"]

STREAM: Final = "pieces"
_GATHER: Final = 0.05  # seconds
_LOG: Final = logging.getLogger("agentflow.durability")


class Pieces:
    """Of one stretch of a run. `loop` is the engine's."""

    def __init__(self, journal: DbosJournal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._sending: asyncio.Task[None] | None = None

    def add(self, piece: str) -> None:
        with self._lock:
            self._waiting.append(piece)
            first = len(self._waiting) == 1
        if first:
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        while True:
            await asyncio.sleep(_GATHER)
            if not await self._send():
                return

    async def _send(self) -> bool:
        with self._lock:
            pieces, self._waiting = self._waiting, []
        if not pieces:
            return False
        try:
            await self._journal.step("pieces", lambda: _write(pieces))
        except DurabilityError as error:  # who watches may miss some; the run goes on
            _LOG.warning("pieces of run %s were not sent: %s", self._journal.run_id, error)
        return True

    async def flush(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])
        await self._send()


def _write(pieces: list[str]) -> int:
    from dbos import DBOS

    DBOS.write_stream(STREAM, pieces)
    return len(pieces)
