"""One event loop's way to the server: its connections, and the tasks that run on it for the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from agentflow.integrations.valkey.connection import Connection

__all__ = ["Link", "done", "undo_when_done"]


class Link:
    """Made on its event loop. `leave` is awaited once: at `farewell.aclose()`, or when the event loop shuts down."""

    __slots__ = ("_tasks", "_wake", "closing", "connection", "farewell", "loop", "worker")

    def __init__(self, connection: Connection, leave: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = connection
        self.worker: asyncio.Task[Any] | None = None
        self.closing = False
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        # An event loop's shutdown closes the asynchronous generators that have begun on it: this one is for that.
        self.farewell = _farewell(self, leave)
        with suppress(StopIteration):
            self.farewell.__anext__().send(None)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def rouse(self, work: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
        """Have the worker look at once; start it where there is none. On the link's own loop."""
        self._wake.set()
        if self.worker is None and not self.closing:
            self.worker = self.start(work(self))

    async def sleep(self, seconds: float) -> None:
        """The worker's: for so long, or until it is roused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def awake(self) -> None:
        """The worker has begun to look."""
        self._wake.clear()

    async def close(self) -> None:
        """Until none of its tasks runs any more."""
        self.closing = True
        self._wake.set()
        while self._tasks:
            await asyncio.wait(list(self._tasks))


async def _farewell(link: Link, leave: Callable[[Link], Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await leave(link)


async def done(task: asyncio.Task[Any], seconds: float) -> None:
    """Until it is done, for so long at most. Neither the end of that nor a cancellation touches the task.

    A loop that was busy finds the answer and the timer at once: then the answer counts.
    """
    await asyncio.wait((task,), timeout=seconds)
    for _ in range(3):
        if task.done():
            return
        await asyncio.sleep(0)


def undo_when_done(task: asyncio.Task[Any], seconds: float, undo: Callable[[], None] | None) -> None:
    """Let it end, within the time it has, and then undo what it may have done."""
    timer = task.get_loop().call_later(seconds, task.cancel)

    def ended(_: asyncio.Task[Any]) -> None:
        timer.cancel()
        if not task.cancelled():
            task.exception()  # seen
        if undo is not None:
            undo()

    task.add_done_callback(ended)
