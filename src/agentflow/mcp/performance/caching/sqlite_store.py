"""Answers in a SQLite file that several processes share: read where they are asked for, written by one thread.

    store = SqliteStore("cache.db", bytes=1 << 30)
    await store.save(name, packed, seconds=3600, worth=0.002, labels=("model:gpt-4o",))
    await store.load(name)

In WAL mode readers wait for nobody, so a look-up takes microseconds and is made on the event loop. Writes are
transactions of a thread of their own, so that what was killed in the middle of one has written nothing.

A file that cannot be used (locked, full, read-only, no database, another program's) is left alone for a while, and the
cache goes on without it. One that is damaged is set aside under another name, and a new one is begun: no answer in it
is worth more than asking again. The logger `agentflow.cache` says both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.store.database import (
    Identity,
    identity_of,
    is_damage,
    open_database,
    prepare,
    set_aside,
    transaction,
)
from agentflow.errors import ConfigurationError, RunStoreError, describe
from agentflow.mcp.performance.caching import sqlite_tables as tables
from agentflow.mcp.performance.caching.keys import secret_from_file
from agentflow.mcp.performance.caching.store import Totals

__all__ = ["SqliteStore"]

T = TypeVar("T")

_CLOCK: Final = SystemClock()
_PAUSE: Final = 10.0  # seconds for which a file that failed is left alone
_PATIENCE: Final = 2.0  # seconds that the writing thread waits for another process
_LOOK: Final = 32  # writes after which room is made
_ASIDE: Final = 3  # damaged files that are set aside: where that many are, it is the disk
_MOST_FOUND: Final = 1_000
_NOTHING: Final = Totals(0, 0, {})
_ABANDONED: Final[list[sqlite3.Connection]] = []  # of a parent process: closing them would give up its locks
_log: Final = logging.getLogger("agentflow.cache")


class SqliteStore:
    """`bytes` bounds what is kept; what saves the fewest dollars a byte leaves first. Opens the file when it is first
    asked, and makes it, for its owner alone, where it is missing."""

    def __init__(self, path: str | os.PathLike[str], *, bytes: int = 1 << 30, clock: Clock = _CLOCK) -> None:
        if bytes < 1:
            raise ConfigurationError(f"the file of a cache holds at least 1 byte, not {bytes}")
        self.path = Path(path)
        self._most = bytes
        self._clock = clock
        self._trouble: str | None = None
        self._again = 0.0  # monotonic: when a file that failed is tried again
        self._aside = 0
        self._epoch = 0
        self._writes = 0
        self._found: deque[str] = deque(maxlen=_MOST_FOUND)  # names to be touched with the next write
        self._thread: ThreadPoolExecutor | None = None
        self._begin()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    def secret(self) -> bytes:
        """The secret that goes with the file, from the one beside it, `cache.db.key`; made where it is missing.

        Where that cannot be read or made, a secret of this process alone: then nobody else finds what it keeps.
        """
        try:
            return secret_from_file(self.path.with_name(self.path.name + ".key"))
        except ConfigurationError as error:
            _log.warning("%s: what is kept is found by this process alone: %s", self.path, error)
            return os.urandom(32)

    @property
    def trouble(self) -> str | None:
        return self._trouble

    async def load(self, name: str) -> bytes | None:
        packed = await self._read(lambda connection: tables.load(connection, name, self._clock.time()), None)
        if packed is not None:
            self._found.append(name)
        return packed

    async def save(self, name: str, packed: bytes, *, seconds: float, worth: float, labels: Sequence[str]) -> None:
        now = self._clock.time()
        row = tables.Row(name, packed, worth, now + seconds, labels)
        await self._written(lambda connection: self._save(connection, row, now), None)

    async def purge(self, labels: Sequence[str]) -> int:
        return await self._written(lambda connection: tables.purge(connection, labels), 0)

    async def purges(self) -> int:
        return await self._read(lambda connection: int(tables.counts(connection)["purges"]), 0)

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        now = self._clock.time()
        if await self._read(lambda connection: tables.held_by_other(connection, name, holder, now), False):
            return False
        return await self._written(lambda connection: tables.claim(connection, name, holder, now, seconds), True)

    async def release(self, name: str, holder: str) -> None:
        await self._written(lambda connection: tables.release(connection, name, holder), None)

    async def count(self, amounts: Mapping[str, float]) -> None:
        await self._written(lambda connection: tables.add_counts(connection, amounts), None)

    async def totals(self) -> Totals:
        return await self._read(_totals, _NOTHING)

    async def aclose(self) -> None:
        """It opens again when it is needed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)
        for side in (self._reading, self._writing):
            with side.lock:
                side.close()

    # ---- one at a time ---------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` returns: here and now, but that the file is opened by a thread."""
        if self._is_left_alone():
            return otherwise
        side = self._reading
        if side.connection is None:
            return await asyncio.get_running_loop().run_in_executor(self._writer(), self._tried, side, work, otherwise)
        return self._tried(side, work, otherwise)

    async def _written(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` returns, once it is committed, by the thread that writes."""
        if self._is_left_alone():
            return otherwise
        return await asyncio.get_running_loop().run_in_executor(
            self._writer(), self._tried, self._writing, work, otherwise
        )

    def _tried(self, side: _Side, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """`otherwise` where the file cannot be used."""
        with side.lock:
            try:
                connection = self._usable(side)
                if side is self._reading:
                    done = work(connection)
                else:
                    with transaction(connection):
                        done = work(connection)
            except (sqlite3.Error, OSError, RunStoreError, OverflowError, UnicodeError) as error:
                self._failed(side, error)
                return otherwise
        if self._trouble is not None:
            self._trouble = None
            _log.warning("%s can be used again", self.path)
        return done

    def _save(self, connection: sqlite3.Connection, row: tables.Row, now: float) -> None:
        found = [self._found.popleft() for _ in range(len(self._found))]
        if found:
            tables.touch(connection, found, now)
        tables.save(connection, row, now)
        self._writes += 1
        if self._writes % _LOOK == 1 or tables.counts(connection)["bytes"] > self._most:
            tables.make_room(connection, self._most, now)

    # ---- opening, failing ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._reading, self._writing = _Side(), _Side()
        self._thread = None

    def _is_left_alone(self) -> bool:
        """Whether the file has failed a moment ago. A forked process begins anew: neither connections nor threads nor
        locks survive that."""
        if self._pid != os.getpid():
            _ABANDONED.extend([each.connection for each in (self._reading, self._writing) if each.connection])
            self._begin()
        return self._trouble is not None and self._clock.monotonic() < self._again

    def _writer(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "agentflow cache")
        return self._thread

    def _usable(self, side: _Side) -> sqlite3.Connection:
        """Its connection to the file that stands at the path now."""
        stale = side.epoch != self._epoch
        if side is self._writing and not stale:
            stale = side.connection is not None and identity_of(self.path) != side.identity
            self._epoch += stale  # the file was taken away: who reads must hear of it
        if stale:
            side.close()
        if side.connection is None:
            side.epoch = self._epoch
            side.connection = self._opened()
            side.identity = identity_of(self.path)
        return side.connection

    def _opened(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            prepare(connection, tables.COMPONENT, tables.STEPS, self.path)
            connection.execute(f"PRAGMA busy_timeout = {round(_PATIENCE * 1000)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, side: _Side, error: Exception) -> None:
        """Say it once, and leave the file alone for a while. What is damaged is replaced."""
        if isinstance(error, sqlite3.Error) and is_damage(error) and self._aside < _ASIDE:
            self._aside += 1
            found = side.identity or identity_of(self.path)
            side.close()
            self._epoch += 1
            with suppress(OSError):
                aside = set_aside(self.path, found, self._clock.time())
                _log.warning("%s is damaged, so it is now %s, and the cache begins anew", self.path, aside)
                return
        if self._trouble is None:
            _log.warning("%s cannot be used, so the cache goes on without it: %s", self.path, describe(error))
        self._trouble = describe(error)
        self._again = self._clock.monotonic() + _PAUSE


class _Side:
    """One of the two connections: to read, or to write. `epoch` tells which beginning of the file it belongs to."""

    __slots__ = ("connection", "epoch", "identity", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.identity: Identity | None = None
        self.epoch = -1

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _totals(connection: sqlite3.Connection) -> Totals:
    counts = tables.counts(connection)
    entries, size = counts.pop("entries"), counts.pop("bytes")
    return Totals(int(entries), int(size), counts)
