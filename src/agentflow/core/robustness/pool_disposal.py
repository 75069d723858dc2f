"""How the resources of a pool end: each in a task of its own, on its own event loop, within a time limit.

    disposal = Disposal(close, name="database", listener=None, done=tell_whoever_waits)
    disposal.dispose(entry, "idle")       # from any thread; `done()` follows, whatever becomes of it

Where that loop has ended there is nothing left to close with: the resource is let go.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.pool_slots import Entry
from agentflow.core.robustness.waiting import running_loop

__all__ = ["Disposal", "call_within", "on_loop"]

R = TypeVar("R")
T = TypeVar("T")

_SECONDS: Final = 10.0


class Disposal(Generic[R]):
    """`close` may be a coroutine function, a plain one, or None. What it raises is told to the listener alone."""

    __slots__ = ("_close", "_done", "_listener", "_name", "_tasks")

    def __init__(
        self,
        close: Callable[[R], Awaitable[None] | None] | None,
        *,
        name: str,
        listener: Listener | None,
        done: Callable[[], None],
    ) -> None:
        self._close = close
        self._name = name
        self._listener = listener
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    def dispose(self, entry: Entry[R], why: str) -> None:
        if self._close is None:
            self._ended(why)
        elif not on_loop(entry.home.loop, self._start, self._close, entry, why):
            self._ended("loop_ended")

    def _start(self, close: Callable[[R], Awaitable[None] | None], entry: Entry[R], why: str) -> None:
        work = call_within(_SECONDS, f"closing a resource of {self._name}", close, entry.resource)
        # In a context of its own: the deadline and the span of whoever happened to give it back do not bind this.
        task = entry.home.loop.create_task(work, name=f"close a resource of {self._name}", context=Context())
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, why))

    def _finish(self, why: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._ended(why)
        else:
            self._ended(why, error=error)

    def _ended(self, why: str, **data: object) -> None:
        self._done()
        tell(self._listener, "pool_closed_resource", self._name, why=why, **data)


async def call_within(seconds: float, what: str, function: Callable[[R], Awaitable[T] | T], resource: R) -> T:
    """Call what may be a coroutine function or a plain one."""
    deadline = Deadline(seconds, what)
    try:
        with deadline:
            result = function(resource)
            return cast("T", await result if inspect.isawaitable(result) else result)
    finally:
        deadline.close()


def on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: object) -> bool:
    """Call it there, at once if we are there. False where that loop has ended."""
    if running_loop() is loop:
        function(*args)
        return True
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True
