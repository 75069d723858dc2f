"""Accounts in a SQLite file: exact among all processes of one machine, and they outlive each of them.

    reserve ──┐                                       one thread of this process writes, one transaction for
    settle  ──┼──▶ [ queue ] ──▶ thread ──▶ file      all that has gathered meanwhile; whoever else writes to the
    settle  ──┘                                       file waits its turn

`kill -9` loses nothing that was granted; after a power cut the last moments may be missing. A process that ends without
`aclose` may leave settlements unsaid: those calls count as they were reserved. Keep the file on a disk of the machine's
own: network file systems do not lock.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar, cast

from agentflow.clock import real_wait
from agentflow.core.accounts import Charge, Held, Standing, Verdict
from agentflow.core.observability.store.database import is_busy, open_database, prepare, transaction
from agentflow.errors import BudgetUnavailableError, ConfigurationError, describe
from agentflow.mcp.optimization.budget import rows
from agentflow.mcp.optimization.budget.memory import KEPT

__all__ = ["SqliteAccounts"]

T = TypeVar("T")

_COMPONENT: Final = "budget"
_BATCH: Final = 256  # decisions in a transaction
_IDLE: Final = 2.0  # seconds after which the thread ends that has nothing to do
_PAUSE: Final = 0.05  # seconds between two tries to settle what could not be written
_TRIES: Final = 200  # then it counts as it was reserved
_SWEEP: Final = 3_600.0  # seconds between two looks for what may be forgotten


class _Work(NamedTuple):
    """A decision that somebody waits for, or nobody does. Without `decide` it is the end."""

    decide: Callable[[sqlite3.Connection], object] | None
    loop: asyncio.AbstractEventLoop | None = None
    waiter: asyncio.Future[Any] | None = None
    tries: int = 1

    def answer(self, result: object, error: Exception | None = None) -> None:
        if self.loop is not None and self.waiter is not None:
            with suppress(RuntimeError):  # that event loop is closed
                self.loop.call_soon_threadsafe(_hand, self.waiter, result, error)


class SqliteAccounts:
    """See `Accounts`. `patience` is how many seconds another process may hold the file. Opens nothing before it is
    first asked."""

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 5.0) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:" or "\0" in name:
            raise ConfigurationError(f"a budget's store is a file on a disk, not {name!r}: leave it out for memory")
        self.path = Path(name).expanduser().absolute()
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        """In a forked child, too: the parent's thread is not there, and its connection is the parent's."""
        self._pid = os.getpid()
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._lock = threading.RLock()  # a finalizer of this thread may come in between
        self._thread: threading.Thread | None = None
        self._swept = 0.0

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        return await self._ask(
            partial(rows.reserve, call=call, amount=amount, charges=charges, now=now, lease=lease), now
        )

    async def settle(self, call: str, amount: int, *, now: float) -> tuple[Standing, ...]:
        return await self._ask(partial(rows.settle, call=call, amount=amount, now=now))

    def settle_soon(self, call: str, amount: int, *, now: float) -> None:
        self._put(_Work(partial(rows.settle, call=call, amount=amount, now=now)))

    async def standings(self, *, now: float) -> tuple[Standing, ...]:
        return await self._ask(partial(rows.standings, now=now))

    async def held(self, *, now: float) -> tuple[Held, ...]:
        return await self._ask(partial(rows.held, now=now))

    async def aclose(self) -> None:
        if self._thread is not None and self._pid == os.getpid():
            await self._wait_for(None)

    # ---- asking ----------------------------------------------------------------------------------------------

    async def _ask(self, decide: Callable[[sqlite3.Connection], T], now: float = 0.0) -> T:
        if now - self._swept > _SWEEP:
            self._swept = now
            self._put(_Work(partial(rows.forget, before=now - KEPT)))
        return cast("T", await self._wait_for(decide))

    async def _wait_for(self, decide: Callable[[sqlite3.Connection], object] | None) -> object:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[object] = loop.create_future()
        self._put(_Work(decide, loop, waiter))
        with real_wait():
            return await waiter

    def _put(self, work: _Work) -> None:
        if self._pid != os.getpid():
            self._begin()
        self._queue.put(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="agentflow-budget", daemon=True)
                self._thread.start()

    # ---- the thread ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            batch = self._gathered()
            if work := [each for each in batch if each.decide is not None]:
                connection = self._carry_out(work, connection)
            if not batch or batch[-1].decide is None:
                _close(connection)
                connection = None
                for end in batch[-1:]:
                    end.answer(None)
                if self._may_end():
                    return

    def _gathered(self) -> list[_Work]:
        """What there is to be done, up to an end; empty after a while without."""
        batch: list[_Work] = []
        with suppress(Empty):
            batch.append(self._queue.get(timeout=_IDLE))
            while len(batch) < _BATCH and batch[-1].decide is not None:
                batch.append(self._queue.get_nowait())
        return batch

    def _may_end(self) -> bool:
        with self._lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True

    def _carry_out(self, batch: Sequence[_Work], connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """All of it in one transaction; the connection to go on with. What cannot be written is told whoever waits, and
        tried again where nobody does."""
        begun = time.monotonic()
        while True:
            try:
                if connection is None:
                    connection = self._opened()
                with transaction(connection):
                    results = [work.decide(connection) for work in batch if work.decide is not None]
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                late = time.monotonic() - begun > self._patience
                if isinstance(error, sqlite3.Error) and is_busy(error) and not late:
                    continue
                self._failed(batch, error)
                _close(connection)
                return None
        for work, result in zip(batch, results, strict=True):
            work.answer(result)
        return connection

    def _opened(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            prepare(connection, _COMPONENT, rows.STEPS, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, batch: Sequence[_Work], error: Exception) -> None:
        message = f"{self.path} cannot be used just now ({describe(error)}): look at the file and its disk"
        for work in batch:
            if work.waiter is None and work.tries < _TRIES:
                self._queue.put(work._replace(tries=work.tries + 1))
            else:
                work.answer(None, BudgetUnavailableError("budget", message, retry_after=1.0))
        time.sleep(_PAUSE)


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with suppress(sqlite3.Error):
            connection.close()


def _hand(waiter: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(result)
    else:
        waiter.set_exception(error)
