"""The one SQLite file that components keep their tables in: made, opened, brought up to date, or refused.

    .agentflow/               made with mode 0700, and a .gitignore that says *
        runs.db               made with mode 0600; WAL, so that readers never wait for the writer
                              meta: component → version of its tables

    connection = open_database(path)
    prepare(connection, "runs", STEPS)        # STEPS[0] makes version 1 of nothing, STEPS[1] version 2 of that, …

Run records and what makes runs durable live in one file, each with tables and a version of its own. A file that is not
a database, or that belongs to another program, is refused and left as it is. One that is ours and damaged can be set
aside. All errors are RunStoreError, but for those that pass (`sqlite3.OperationalError`: locked, disk full, read-only).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

from agentflow.errors import RunStoreError

__all__ = [
    "Identity",
    "Steps",
    "identity_of",
    "is_busy",
    "is_damage",
    "open_database",
    "open_for_reading",
    "prepare",
    "set_aside",
    "transaction",
    "version_of",
]

Steps: TypeAlias = Sequence[Sequence[str]]
"""The statements that lead from each version of a component's tables to the next."""

Identity: TypeAlias = tuple[int, int]
"""Which file it is, whatever its name: device and inode."""

_MAGIC: Final = b"SQLite format 3\0"
_OURS: Final = 0x41464C57  # "AFLW", in the header of the file: which program it belongs to
_PATIENCE: Final = 1.0  # seconds to wait for another process' transaction before it counts as locked
_WAL_LEFT: Final = 4 * 1024 * 1024  # bytes that the log may keep once it has been copied into the file


def open_database(path: Path) -> sqlite3.Connection:
    """A connection that writes; file and folder are made where they are missing."""
    _make_file(path)
    _refuse_other_files(path)
    connection = _connect(f"{path.absolute().as_uri()}?mode=rw", _PATIENCE)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or it does nothing
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LEFT}")
        _refuse_other_programs(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also where nothing can be changed. Never makes the file."""
    _refuse_other_files(path)
    place = path.absolute().as_uri()
    # A connection that might write tidies up after itself and after whoever was killed; the others leave files behind
    # or need what is not there in a folder that is read-only.
    for mode in ("mode=rw", "mode=ro", "immutable=1"):
        connection = _connect(f"{place}?{mode}", _PATIENCE)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            _refuse_other_programs(connection, path)
        except sqlite3.OperationalError:
            connection.close()
            if mode == "immutable=1":
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError  # pragma: no cover


def _connect(place: str, patience: float) -> sqlite3.Connection:
    return sqlite3.connect(place, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)


# ---- the file ------------------------------------------------------------------------------------------------


def identity_of(path: str | Path) -> Identity | None:
    """Which file stands at `path` now; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_file(path: Path) -> None:
    folder = path.parent
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made or folder.name == ".agentflow":  # in a folder of the user's own it would hide the user's own files
        with suppress(FileExistsError), (folder / ".gitignore").open("x", encoding="utf-8") as out:
            out.write("*\n")
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _refuse_other_files(path: Path) -> None:
    if path.is_dir():
        raise RunStoreError(f"{path} is a folder: a run store is a file", path=path)
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if head and head != _MAGIC:
        raise RunStoreError(f"{path} is no run store, and is left as it is: name another file", path=path)


def _refuse_other_programs(connection: sqlite3.Connection, path: Path) -> None:
    [[owner]] = connection.execute("PRAGMA application_id")
    [[tables]] = connection.execute("SELECT count(*) FROM sqlite_master")
    if owner != _OURS and (owner or tables):
        raise RunStoreError(f"{path} is the database of another program, and is left as it is", path=path)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it says that what stands in the file cannot be right."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether it says that another connection is writing."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def set_aside(path: Path, identity: Identity | None, now: float) -> Path | None:
    """Give a damaged file and its log another name, `runs.db.damaged-…`. None where it was gone already."""
    if identity is None or identity_of(path) != identity:
        return None  # another process was quicker
    name = f"{path.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
    aside = next(each for number in count() if not (each := path.with_name(f"{name}-{number}")).exists())
    with suppress(FileNotFoundError):
        for suffix in ("-wal", "-shm"):  # what is left of them would be taken for the next file's own
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        path.rename(aside)
        return aside
    return None


# ---- versions ------------------------------------------------------------------------------------------------


def prepare(connection: sqlite3.Connection, component: str, steps: Steps, path: Path) -> None:
    """Bring the tables of a component to version `len(steps)`. Raises RunStoreError where they are newer."""
    if _checked(component, version_of(connection, component), len(steps), path) == len(steps):
        return
    with transaction(connection):
        version = _checked(component, version_of(connection, component), len(steps), path)
        connection.execute(f"PRAGMA application_id = {_OURS}")
        connection.execute("CREATE TABLE IF NOT EXISTS meta(component TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (component, len(steps)))


def version_of(connection: sqlite3.Connection, component: str) -> int:
    """0 where the component has no tables in the file yet."""
    with closing(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta' AND type = 'table'")) as found:
        if found.fetchone() is None:
            return 0
    with closing(connection.execute("SELECT version FROM meta WHERE component = ?", (component,))) as found:
        row = found.fetchone()
    return row[0] if row else 0


def _checked(component: str, version: int, known: int, path: Path) -> int:
    if version > known:
        raise RunStoreError(
            f"{path} was written by a newer AgentFlow (version {version} of its tables for {component}, "
            f"and this one knows {known}): update agentflow-engine, or name another file",
            path=path,
        )
    return version


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. It takes the right to write at once, so it cannot fail for want of it half-way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
