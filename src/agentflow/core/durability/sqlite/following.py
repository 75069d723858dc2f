"""Those who follow runs: told at once of what is saved in this engine, and looking now and then for the rest.

with followers.of(run_id) as news:      news.wait(seconds): until something is saved, or that long
followers.tell(run_id)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

__all__ = ["Followers", "News"]


class News:
    """Whether there is something new. It serves one follower."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def tell(self) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # its loop is closed: nobody follows any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None) -> bool:
        """Whether something was saved within `seconds`; None waits for ever."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Followers:
    """By the ids of their runs."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._lock = Lock()
        self._following: dict[str, list[News]] = {}

    @contextmanager
    def of(self, run_id: str) -> Iterator[News]:
        news = News()
        with self._lock:
            self._following.setdefault(run_id, []).append(news)
        try:
            yield news
        finally:
            with self._lock:
                self._following[run_id].remove(news)
                if not self._following[run_id]:
                    del self._following[run_id]

    def tell(self, run_id: str) -> None:
        if run_id in self._following:
            with self._lock:
                for news in self._following.get(run_id, ()):
                    news.tell()
