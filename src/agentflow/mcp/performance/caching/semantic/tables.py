"""What the semantic tier has learned, in SQLite: tables of its own in the file of the exact tier, or in any other.

    entries   ──  frame, name of the answer, digest of the answer, labels
    wordings  ──  vector and marks of each question that had this answer
    realms    ──  whether a tenant's tier is on, and the state of its test

Vectors are float32, the rest is MessagePack. Written by one thread, read once, when the tier is first asked. A file
that cannot be used costs what was learned, and no question: the logger `agentflow.cache` says so.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentflow.core.observability.store.database import open_database, prepare, transaction
from agentflow.errors import RunStoreError, describe
from agentflow.mcp.performance.caching.semantic.entries import Entry, Wording
from agentflow.mcp.performance.caching.semantic.likelihood import Evidence, Label
from agentflow.mcp.performance.caching.semantic.marks import Marks
from agentflow.mcp.performance.caching.semantic.watch import Watch

__all__ = ["Learned", "Tables"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Work: TypeAlias = Callable[[sqlite3.Connection], None]

_STEPS: Final = (
    (
        "CREATE TABLE semantic_facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE semantic_entries(id INTEGER PRIMARY KEY, realm TEXT NOT NULL, frame BLOB NOT NULL,"
        " key TEXT NOT NULL, kept BLOB NOT NULL, labels BLOB NOT NULL)",
        "CREATE TABLE semantic_wordings(id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, marks BLOB NOT NULL,"
        " vector BLOB NOT NULL)",
        "CREATE INDEX semantic_wordings_entry ON semantic_wordings(entry)",
        "CREATE TRIGGER semantic_entries_out AFTER DELETE ON semantic_entries BEGIN"
        " DELETE FROM semantic_wordings WHERE entry = OLD.id; END",
        "CREATE TABLE semantic_realms(name TEXT PRIMARY KEY, watch BLOB NOT NULL) WITHOUT ROWID",
    ),
)
_SAVE: Final = (
    "INSERT INTO semantic_entries VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT(id) DO UPDATE SET key = excluded.key, kept = excluded.kept, labels = excluded.labels"
)
_log: Final = logging.getLogger("agentflow.cache")


class Learned(Struct, frozen=True):
    """All that is in the file, the oldest first."""

    wordings: Sequence[tuple[Wording, NDArray[np.float32]]] = ()
    watches: dict[str, Watch] = {}


class Tables:
    """`origin` tells embeddings of one kind from those of another: what was written with another one is dropped."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "agentflow semantic cache")
        self._broken = False

    async def read(self, most: int) -> Learned:
        """The newest `most` wordings."""
        return await self._in_thread(self._read, most) or Learned()

    async def add(self, wording: Wording, vector: NDArray[np.float32], gone: Iterable[Entry]) -> None:
        """One more wording, with its entry as it is now."""
        entry = _row(wording.entry)
        row = (wording.id, wording.entry.id, _packed(wording.marks), vector.tobytes())
        left = [(each.id,) for each in gone]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM semantic_entries WHERE id = ?", left)
            connection.execute(_SAVE, entry)
            connection.execute("INSERT OR REPLACE INTO semantic_wordings VALUES (?, ?, ?, ?)", row)

        await self._written(work)

    async def change(self, entry: Entry) -> None:
        """Its labels, or the name and digest of its answer, have changed."""
        row = _row(entry)
        await self._written(lambda connection: _run(connection, _SAVE, row))

    async def remove(self, entry: Entry) -> None:
        await self._written(
            lambda connection: _run(connection, "DELETE FROM semantic_entries WHERE id = ?", (entry.id,))
        )

    async def forget(self, realm: str) -> None:
        """The labels of a realm."""
        await self._written(
            lambda connection: _run(connection, "UPDATE semantic_entries SET labels = x'90' WHERE realm = ?", (realm,))
        )

    async def watch(self, realm: str, watch: Watch) -> None:
        row = (realm, _packed(watch))
        await self._written(
            lambda connection: _run(connection, "INSERT OR REPLACE INTO semantic_realms VALUES (?, ?)", row)
        )

    async def aclose(self) -> None:
        """It opens again when it is needed."""
        await self._in_thread(self._close, None)
        thread, self._thread = self._thread, ThreadPoolExecutor(1, "agentflow semantic cache")
        await asyncio.to_thread(thread.shutdown)

    # ---- in the thread ---------------------------------------------------------------------------------------

    async def _written(self, work: Work) -> None:
        await self._in_thread(self._write, work)

    async def _in_thread(self, function: Callable[[Argument], Result], argument: Argument) -> Result | None:
        """None where the file cannot be used."""
        if self._broken:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, argument)
        except (sqlite3.Error, OSError, RunStoreError, msgspec.MsgspecError, ValueError) as error:
            self._broken = not _passes(error)
            _log.warning("%s: what the cache learns of likeness is not kept: %s", self._path, describe(error))
            return None

    def _write(self, work: Work) -> None:
        connection = self._open()
        with transaction(connection):
            work(connection)

    def _read(self, most: int) -> Learned:
        connection = self._open()
        rows = connection.execute(
            "SELECT w.id, w.marks, w.vector, e.id, realm, frame, key, kept, labels FROM semantic_wordings AS w"
            " JOIN semantic_entries AS e ON e.id = w.entry ORDER BY w.id DESC LIMIT ?",
            (most,),
        ).fetchall()
        watches = connection.execute("SELECT name, watch FROM semantic_realms").fetchall()
        entries: dict[int, Entry] = {}
        return Learned(
            [_wording(entries, *row) for row in reversed(rows)],
            {name: msgspec.msgpack.decode(packed, type=Watch) for name, packed in watches},
        )

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_database(self._path)
            try:
                prepare(connection, "semantic", _STEPS, self._path)
                with transaction(connection):
                    _claim(connection, self._origin)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _close(self, _: None) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _claim(connection: sqlite3.Connection, origin: str) -> None:
    """Vectors of another origin cannot be compared with ours."""
    found = connection.execute("SELECT value FROM semantic_facts WHERE name = 'origin'").fetchone()
    if found is not None and found[0] != origin:
        connection.execute("DELETE FROM semantic_entries")
    connection.execute("INSERT OR REPLACE INTO semantic_facts VALUES ('origin', ?)", (origin,))


def _row(entry: Entry) -> tuple[object, ...]:
    labels = [] if entry.evidence is None else [(each.similarity, each.right) for each in entry.evidence.labels]
    return entry.id, entry.realm, entry.frame, entry.key, entry.kept, _packed(labels)


def _wording(
    entries: dict[int, Entry], id: int, packed: bytes, vector: bytes, number: int, *said: Any
) -> tuple[Wording, NDArray[np.float32]]:
    marks = msgspec.msgpack.decode(packed, type=Marks)
    if number not in entries:
        realm, frame, key, kept, labels = said
        seen = [Label(*label) for label in msgspec.msgpack.decode(labels, type=list[tuple[float, bool]])]
        evidence = Evidence(seen) if seen else None
        entries[number] = Entry(number, realm, frame, key, kept, marks.anchored, evidence)
    return Wording(id, entries[number], marks), np.frombuffer(vector, np.float32)


def _packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def _run(connection: sqlite3.Connection, statement: str, row: Sequence[object]) -> None:
    connection.execute(statement, row)


def _passes(error: Exception) -> bool:
    """Whether the next attempt may succeed: another process was writing."""
    return isinstance(error, sqlite3.OperationalError)
