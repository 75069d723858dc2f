"""The open file: one connection, used by one thread at a time, that never makes an event loop wait for other writers.

    await store.write(work)     work(connection) in a transaction of its own, tried again while others write
    await store.read(work)
    store.attempt(work)         once, in this thread: raises Busy where somebody else is writing

With sync="full" every transaction is on the disk when it is over, so a thread does them all; with "normal" one takes
microseconds and is done where it is called. The log is copied into the file by `keep_log_small`, which is for a thread:
SQLite would do it in the middle of a commit, and wait for the disk there.

A process that was forked, and one whose file was taken away, begins anew; `generation` says which beginning it is.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from agentflow.core.durability.sqlite.failures import Busy, explained
from agentflow.core.durability.sqlite.tables import COMPONENT, STEPS
from agentflow.core.observability.store.database import (
    Identity,
    identity_of,
    is_busy,
    open_database,
    prepare,
)
from agentflow.errors import AgentFlowError, DurabilityError

__all__ = ["Store", "Sync"]

T = TypeVar("T")
Sync: TypeAlias = Literal["normal", "full"]

_ABANDONED: Final[list[sqlite3.Connection]] = []  # of a parent process: even the garbage collector must not close them
_STORES: Final[weakref.WeakSet[Store]] = weakref.WeakSet()
_TURN: Final = 0.002  # seconds to wait for another thread of ours before it counts as busy
_FORKING: Final = 2.0  # seconds that a fork waits for a transaction
_SHORTEST, _LONGEST = 0.001, 0.05  # seconds between two tries
_LOOK: Final = 64  # commits after which the size of the log is looked at
_LARGE_LOG: Final = 4 * 1024 * 1024  # bytes: it is worth copying into the file
_HUGE_LOG: Final = 16 * 1024 * 1024  # bytes: writers wait until it has been


class Store:
    """`patience` is how many seconds others may be writing before it is an error. Opens when it is first needed."""

    def __init__(self, path: Path, *, sync: Sync, patience: float) -> None:
        self.path = path
        self.generation = 0
        self.log_is_large: Callable[[], None] = lambda: None
        self._sync = sync
        self._patience = patience
        self._place = str(path)  # a Path would be made a text again at every commit
        self._log = path.with_name(f"{path.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._commits = 0
        self._begin()
        _STORES.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a file yet. What only reads makes none."""
        return self._connection is not None or self.path.exists()

    # ---- transactions ----------------------------------------------------------------------------------------

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, once it is committed. What it raises, nothing of it being in the file."""
        return await self.insist(work, writes=True)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self.insist(work, writes=False)

    async def insist(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """Try until it is done. Raises DurabilityError, also where others are writing for too long."""
        begun, delay = time.monotonic(), _SHORTEST
        while True:
            try:
                return await self._try(work, writes)
            except Busy as busy:
                # What is waited for lives in real time, so this is no matter of the clock that the engine was given.
                if time.monotonic() - begun >= self._patience:
                    raise self.too_busy() from busy.__cause__
            await asyncio.sleep(delay * (0.5 + random.random()))
            delay = min(2 * delay, _LONGEST)

    def too_busy(self) -> DurabilityError:
        """What is raised when patience is at its end."""
        return DurabilityError(
            f"{self.path} was being written by another process for longer than {self._patience:g} seconds: end that "
            "one, or give SqliteDurability more patience"
        )

    async def _try(self, work: Callable[[sqlite3.Connection], T], writes: bool) -> T:
        if self._connection is None:
            await asyncio.to_thread(self._open)
        if self._sync == "normal":
            return self.attempt(work, writes=writes)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "agentflow durability")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self.attempt(work, writes=writes))

    @property
    def is_quick(self) -> bool:
        """Whether an attempt takes microseconds, so that it may be made on an event loop."""
        return self._sync == "normal" and self._connection is not None

    def attempt(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """Once, here and now. Raises Busy where others are writing, DurabilityError where it fails."""
        if not self._lock.acquire(timeout=_TURN):
            raise Busy
        try:
            connection = self._usable()
            if not writes:
                return work(connection)
            done = _committed(connection, work)
            self._count()
            return done
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
            if isinstance(error, sqlite3.Error) and is_busy(error):
                raise Busy from error
            raise explained(error, self.path) from error
        finally:
            self._lock.release()

    def _usable(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Busy  # closed by another task in the meantime; the next try opens it
        if identity_of(self._place) != self._identity:
            self._close()
            self.generation += 1
            raise DurabilityError(f"{self.path} was taken away or replaced: what ran in it cannot be kept any more")
        return self._connection

    def _count(self) -> None:
        self._commits += 1
        if self._commits % _LOOK == 0 and self._log_bytes() > _LARGE_LOG:
            self.log_is_large()

    # ---- the log ---------------------------------------------------------------------------------------------

    def keep_log_small(self) -> None:
        """Copy the log into the file, where it is large. Writers wait for that only where it is out of bounds.

        What cannot be done is done at the next opportunity: everything is in the log.
        """
        if self._connection is None or self._log_bytes() < _LARGE_LOG:
            return
        with suppress(sqlite3.Error):
            connection = _connect(self.path)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if self._log_bytes() > _HUGE_LOG:  # under steady writing it never gets to its end otherwise
                    with self._lock:
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    # ---- opening, closing, forking ---------------------------------------------------------------------------

    def _open(self) -> None:
        """It may wait for other processes, so this is for a thread. Raises Busy, DurabilityError."""
        with self._opening:
            if self._connection is not None:
                return
            try:
                connection = self._opened()
            except (sqlite3.Error, OSError, AgentFlowError) as error:
                if isinstance(error, sqlite3.Error) and is_busy(error):
                    raise Busy from error
                raise explained(error, self.path) from error
            with self._lock:
                self._connection, self._identity = connection, identity_of(self._place)

    def _opened(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            prepare(connection, COMPONENT, STEPS, self.path)
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA synchronous = {self._sync.upper()}")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self, also: Callable[[], None]) -> None:
        """For a thread, as SQLite may copy the log. It opens again when it is needed. `also` is done when it is closed,
        under its lock."""
        with self._opening, self._lock:
            self._close()
            also()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def before_fork(self) -> bool:
        """SQLite's connections do not survive a fork in the middle of a transaction."""
        return self._lock.acquire(timeout=_FORKING)

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connection without closing it: that would give up the parent's locks."""
        if self._connection is not None:
            _ABANDONED.append(self._connection)
            self._connection = None
        self.generation += 1
        self._begin()


def _committed(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """What `transaction` does, without a context manager, which takes longer than keeping a small record."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return done


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0.0, isolation_level=None)


_locked: list[Store] = []


def _before_fork() -> None:
    _locked[:] = [store for store in list(_STORES) if store.before_fork()]


def _after_fork_in_parent() -> None:
    for store in _locked:
        store.after_fork_in_parent()
    _locked.clear()


def _after_fork_in_child() -> None:
    _locked.clear()
    for store in list(_STORES):
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
