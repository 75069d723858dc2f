"""The door from sync code into async code: an event loop that runs in a thread of its own.

    Flow.run(…)  ──▶  run_blocking(…)  ──▶  portal thread: event loop  ──▶  result

Because the loop is not the caller's, it also works where the caller already stands in one, as in Jupyter.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from agentflow.core.observability.scope import current_scope

__all__ = ["run_blocking"]

T = TypeVar("T")


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `make()` on the portal's event loop and wait for its result.

    Ctrl-C (or any other exception raised in the waiting thread) cancels the coroutine and waits until it has ended.
    Raises RuntimeError when called on the portal's own loop, which it would block: use `await` there.
    """
    portal = _portal()
    if threading.get_ident() == portal.ident:
        raise RuntimeError("a sync call inside async code would block its event loop: await the async form instead")
    context = copy_context()
    if asyncio._get_running_loop() is not None:
        # The caller blocks its own event loop, where a watcher of its events may live: nothing here may wait for it.
        context.run(current_scope.set, None)
    return _Call(portal.loop, make, context).wait()


class _Call(Generic[T]):
    """One coroutine on its way through the portal."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]], context: Context
    ) -> None:
        self._loop = loop
        self._make = make
        self._context = context
        self._done: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None

    def wait(self) -> T:
        try:
            self._loop.call_soon_threadsafe(self._start, context=self._context)
            return self._done.result()
        except BaseException:
            if not self._done.done():  # not the coroutine's own error: somebody interrupts the waiting
                self._loop.call_soon_threadsafe(self._cancel)
                futures.wait([self._done])
            raise

    def _start(self) -> None:
        if self._done.done():
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._done.done():  # cancelled before its first step, so that nothing of _run ever ran
            self._done.set_exception(asyncio.CancelledError())

    async def _run(self) -> None:
        try:
            result = await self._make()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whoever it ends
            self._done.set_exception(error)
        else:
            self._done.set_result(result)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self._done.done():  # interrupted before it could be started
            self._done.set_exception(asyncio.CancelledError())  # cancel() would not wake futures.wait


class _Portal:
    """A daemon thread with a running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._closing = False
        started = threading.Event()
        self.loop.call_soon(started.set)
        self._thread = threading.Thread(target=self._serve, name="agentflow-portal", daemon=True)
        self._thread.start()
        started.wait()
        self.ident = self._thread.ident

    def _serve(self) -> None:
        while not self._closing:
            # asyncio lets SystemExit and KeyboardInterrupt of any task out of the loop. The task's owner gets them too,
            # and passes them to the thread that waits for it; the portal serves others and stays.
            with suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()

    def close(self) -> None:
        """End what still runs and let open connections close before the interpreter ends."""
        if not self._thread.is_alive():
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_wind_up(), self.loop).result(timeout=5)
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self.loop.close()


async def _wind_up() -> None:
    """Cancel all tasks but this one, wait for them, and close the async generators, as `asyncio.run` does."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


_lock = threading.Lock()
_current: _Portal | None = None


def _portal() -> _Portal:
    global _current
    with _lock:
        if _current is None:
            _current = _Portal()
        return _current


def _close_portal() -> None:
    global _current
    portal, _current = _current, None
    if portal is not None:
        portal.close()


def _forget_portal() -> None:
    """After a fork the child has no portal thread, and the lock may have been held by a thread it does not have."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


atexit.register(_close_portal)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)
