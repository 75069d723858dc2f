"""The workers of this process, and who waits for one.

    call ──▶ pack ──▶ an idle worker, a new one, or a place in the queue ──▶ exchange ──▶ the worker is idle again
                                                                   │
                                                                   └─ cancelled, timed out: the worker is ended

A running function cannot be stopped, but its process can. So a call that nobody waits for any more costs its worker,
and the next one in the queue may start another at once.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple, overload

from agentflow.clock import real_wait
from agentflow.core.processes.calls import opened, pack, title
from agentflow.core.processes.worker import Worker
from agentflow.core.robustness.attempt import idempotency_key
from agentflow.core.threads import call_in_thread
from agentflow.errors import ConfigurationError, ProcessError

__all__ = ["ProcessPool", "call_in_process"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_VARIABLE: Final = "AGENTFLOW_PROCESSES"
_GRACE: Final = 1.0
"""Seconds that a worker has to end when it is asked to, before it is killed."""


@overload
async def call_in_process(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...
@overload
async def call_in_process(function: Callable[[*Ts], T], *args: *Ts) -> T: ...
async def call_in_process(function: Callable[[*Ts], object], *args: *Ts) -> object:
    """Run a function in a worker process of this process's pool and return what it returns; an async one is awaited.

    It finds the function by module and name, and sees no context variable; `idempotency_key()` is the same there as
    here. What it raises is raised here, with the worker's traceback as a note. Cancelled, it ends the worker and does
    not wait for it. Raises ProcessError.
    """
    return await _pool().call(function, *args)


class ProcessPool:
    """At most `size` worker processes, one for each processor unless AGENTFLOW_PROCESSES says otherwise.

    They are started when they are needed, used again, and leave when they have had nothing to do for `idle` seconds.
    Who waits for one is served in the order of asking. Safe to use from several event loops and threads. A child made
    by `os.fork` has a pool of its own, with nobody in it yet.
    """

    def __init__(self, size: int | None = None, *, idle: float = 60.0) -> None:
        self.size = _size() if size is None else size
        if self.size < 1:
            raise ConfigurationError(f"a process pool has at least 1 worker, not {size!r}")
        self._idle_seconds = idle
        self._start_empty()
        _pools.add(self)

    def _start_empty(self) -> None:
        # One that can be entered twice: a forgotten coroutine may be closed by the garbage collector, anywhere.
        self._changed = threading.Condition(threading.RLock())
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._dying: deque[Worker] = deque()
        self._places = self.size
        self._turns: deque[_Turn] = deque()
        self._keeper: threading.Thread | None = None
        self._closed = False

    async def call(self, function: Callable[[*Ts], object], *args: *Ts) -> object:
        """As `call_in_process`."""
        message = pack(function, args, idempotency_key())
        with real_wait():
            worker = await self._take()
            try:
                answer = await worker.exchange(message)
            except (OSError, EOFError):
                raise await self._lost(worker, title(function)) from None
            except BaseException:
                self._end(worker)
                raise
        self._give_back(worker)
        return opened(answer, function)

    async def _lost(self, worker: Worker, what: str) -> ProcessError:
        """It died in the middle of a call."""
        worker.hang_up()
        if not self._part_from(worker):
            return ProcessError(f"{what} was under way as its process pool was closed")
        return worker.died(what, await call_in_thread(worker.bury, _GRACE))

    def close(self) -> None:
        """End all workers, whatever they do, and wait until they are gone. Calls under way and waiting ones fail."""
        with self._changed:
            self._closed = True
            leaving = [*self._dying, *self._workers]
            for worker in self._workers:
                worker.hang_up() if worker in self._idle else worker.terminate()
            for gone in (self._workers, self._idle, self._dying):
                gone.clear()
            for turn in self._turns:
                turn.give(None)
            self._turns.clear()
            self._changed.notify_all()
        for worker in leaving:
            worker.bury(_GRACE)
        if self._keeper is not None:
            self._keeper.join()

    # ---- taking a worker, and giving it back -----------------------------------------------------------------

    async def _take(self) -> Worker:
        turn = None
        with self._changed:
            worker = self._rested()
            if worker is not None:
                return worker
            if self._places:
                self._places -= 1
            else:
                turn = _Turn()
                self._turns.append(turn)
        if turn is not None:
            try:
                await turn.come
            except BaseException:
                self._renounce(turn)
                raise
            if turn.worker is not None:
                return turn.worker
        return self._start()

    def _rested(self) -> Worker | None:
        """The idle worker that was busy last: the others may get to leave."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                return worker
            self._end(worker)
        return None

    def _start(self) -> Worker:
        """In a place that was taken already."""
        try:
            if self._closed:
                raise ProcessError("the process pool is closed")
            worker = Worker()
        except BaseException:
            self._free_place()
            raise
        with self._changed:
            self._workers.add(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        with self._changed:
            if worker not in self._workers:  # the pool was closed meanwhile
                worker.hang_up()
                return
            while self._turns:
                if self._turns.popleft().give(worker):
                    return
            worker.idle_since = time.monotonic()
            self._idle.append(worker)
            self._have_keeper()

    def _free_place(self) -> None:
        with self._changed:
            while self._turns:
                if self._turns.popleft().give(None):
                    return
            self._places += 1

    def _renounce(self, turn: _Turn) -> None:
        """Who waited waits no more; what it was given meanwhile goes to the next one."""
        with self._changed:
            if not turn.given:
                with suppress(ValueError):
                    self._turns.remove(turn)
            elif turn.worker is not None:
                self._give_back(turn.worker)
            else:
                self._free_place()

    # ---- ending workers --------------------------------------------------------------------------------------

    def _part_from(self, worker: Worker) -> bool:
        """Whether it was one of ours until now. Its place is free at once."""
        with self._changed:
            if worker not in self._workers:
                return False
            self._workers.remove(worker)
            self._free_place()
            return True

    def _end(self, worker: Worker) -> None:
        if self._part_from(worker):
            worker.terminate()
            with self._changed:
                self._dying.append(worker)
                self._have_keeper()
                self._changed.notify_all()
        worker.hang_up()

    def _have_keeper(self) -> None:
        if self._keeper is None and not self._closed:
            keeper = threading.Thread(target=self._keep, name="agentflow-processes", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending: `close` will do it
                keeper.start()
                self._keeper = keeper

    def _keep(self) -> None:
        """One thread buries who is dying and dismisses who is idle; it leaves when there is neither."""
        while True:
            with self._changed:
                self._dismiss_idle()
                if not self._dying:
                    if self._closed or not self._idle:
                        self._keeper = None
                        return
                    self._changed.wait(self._idle[0].idle_since + self._idle_seconds - time.monotonic())
                    continue
                worker = self._dying.popleft()
            worker.bury(_GRACE)

    def _dismiss_idle(self) -> None:
        long_ago = time.monotonic() - self._idle_seconds
        while self._idle and self._idle[0].idle_since <= long_ago:
            worker = self._idle.popleft()
            self._part_from(worker)
            worker.hang_up()
            self._dying.append(worker)

    def forget(self) -> None:
        """In a forked child: the workers are the parent's."""
        for worker in (*self._workers, *self._dying):
            worker.hang_up()
        self._start_empty()


class _Turn:
    """A place in the queue. `worker` is None where it is the turn to start one."""

    __slots__ = ("_loop", "come", "given", "worker")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.come: asyncio.Future[None] = self._loop.create_future()
        self.given = False
        self.worker: Worker | None = None

    def give(self, worker: Worker | None) -> bool:
        """False where nobody is there any more to take it."""
        self.given, self.worker = True, worker  # before it is woken: its loop may be another thread's
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # its loop is closed
            self.given, self.worker = False, None
        return self.given

    def _wake(self) -> None:
        if not self.come.done():
            self.come.set_result(None)


# ---- the pool of this process --------------------------------------------------------------------------------

_lock = threading.Lock()
_current: ProcessPool | None = None
_pools: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


def _pool() -> ProcessPool:
    global _current
    with _lock:
        if _current is None:
            _current = ProcessPool()
        return _current


def _size() -> int:
    given = os.environ.get(_VARIABLE)
    if given is None:
        return os.cpu_count() or 1
    if not given.isdecimal() or not int(given):
        raise ConfigurationError(f"{_VARIABLE} is a number of processes, 1 or more, not {given!r}")
    return int(given)


def _close_pools() -> None:
    for pool in list(_pools):
        pool.close()


def _forget_pools() -> None:
    global _current, _lock
    _current, _lock = None, threading.Lock()
    for pool in list(_pools):
        pool.forget()


atexit.register(_close_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
