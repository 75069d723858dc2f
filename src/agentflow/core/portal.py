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
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

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
    call = _Call(portal.loop, make)
    portal.loop.call_soon_threadsafe(call.start)
    return call.wait()


class _Call(Generic[T]):
    """One coroutine on its way through the portal."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._loop = loop
        self._make = make
        self._done: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            result = await self._make()
        except BaseException as error:  # noqa: BLE001 - handed to the caller; SystemExit must not end the portal
            self._done.set_exception(error)
        else:
            self._done.set_result(result)

    def wait(self) -> T:
        try:
            return self._done.result()
        except BaseException:
            if not self._done.done():  # not the coroutine's own error: somebody interrupts the waiting
                self._loop.call_soon_threadsafe(self._cancel)
                self._done.exception()
            raise

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Portal:
    """A daemon thread with a running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.loop.call_soon(started.set)
        self._thread = threading.Thread(target=self.loop.run_forever, name="agentflow-portal", daemon=True)
        self._thread.start()
        started.wait()
        self.ident = self._thread.ident

    def close(self) -> None:
        """Let open connections close before the interpreter ends."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self.loop.shutdown_asyncgens(), self.loop).result(timeout=5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)
        self.loop.close()


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
