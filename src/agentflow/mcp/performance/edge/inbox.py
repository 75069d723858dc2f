"""What a thread tells a coroutine: pieces come in from any thread and are read on one event loop.

inbox = Inbox()                   on the loop
inbox.put(piece)                  in the thread that writes
pieces = await inbox.all()        on the loop: all that are there, at least one
inbox.waiting                     how many were not read yet: who writes may rest
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """`on_read` is called on the loop whenever pieces were read."""

    def __init__(self, on_read: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[T] = deque()
        self._news = asyncio.Event()
        self._on_read = on_read

    @property
    def waiting(self) -> int:
        return len(self._pieces)

    def put(self, piece: T) -> bool:
        """Whether there is still a loop to read it."""
        self._pieces.append(piece)
        if len(self._pieces) > 1:  # whoever put the first has called already
            return not self._loop.is_closed()
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            return False
        return True

    async def all(self) -> list[T]:
        await self._news.wait()
        self._news.clear()
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        if self._on_read is not None:
            self._on_read()
        return pieces
