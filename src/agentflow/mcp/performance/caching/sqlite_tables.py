"""The tables of a cache's file, and what is done with them: plain functions of a connection.

    answers    name, sealed bytes, worth, until when       labels     what they are purged by
    leases     who asks a model for what, until when       counts     entries and bytes (kept by triggers), hits, saved

All times are seconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

__all__ = [
    "COMPONENT",
    "STEPS",
    "Row",
    "add_counts",
    "claim",
    "counts",
    "held_by_other",
    "load",
    "make_room",
    "models",
    "purge",
    "release",
    "save",
    "touch",
]

COMPONENT: Final = "cache"
STEPS: Final = (
    (
        "CREATE TABLE answers(name TEXT NOT NULL UNIQUE, packed BLOB NOT NULL, size INTEGER NOT NULL,"
        " cost REAL NOT NULL, worth REAL NOT NULL, gone REAL NOT NULL, used REAL NOT NULL)",
        "CREATE INDEX answers_gone ON answers(gone)",
        "CREATE TABLE labels(label TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY(label, name)) WITHOUT ROWID",
        "CREATE INDEX labels_name ON labels(name)",
        "CREATE TABLE leases(name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE counts(what TEXT PRIMARY KEY, amount REAL NOT NULL) WITHOUT ROWID",
        "INSERT INTO counts VALUES ('entries', 0), ('bytes', 0), ('purges', 0)",
        "CREATE TRIGGER answers_in AFTER INSERT ON answers BEGIN"
        " UPDATE counts SET amount = amount + 1 WHERE what = 'entries';"
        " UPDATE counts SET amount = amount + NEW.size WHERE what = 'bytes'; END",
        "CREATE TRIGGER answers_out AFTER DELETE ON answers BEGIN"
        " UPDATE counts SET amount = amount - 1 WHERE what = 'entries';"
        " UPDATE counts SET amount = amount - OLD.size WHERE what = 'bytes';"
        " DELETE FROM labels WHERE name = OLD.name; END",
    ),
)

_ROOM: Final = 0.9  # of the bound is left when room has been made
_BATCH: Final = 64
_OVERHEAD: Final = 300  # bytes that a row takes beside its content, about: names, labels, indexes


class Row(NamedTuple):
    name: str
    packed: bytes
    worth: float
    gone: float
    labels: Sequence[str]


def load(connection: sqlite3.Connection, name: str, now: float) -> bytes | None:
    found = connection.execute("SELECT packed FROM answers WHERE name = ? AND gone > ?", (name, now)).fetchone()
    return None if found is None else found[0]


def save(connection: sqlite3.Connection, row: Row, now: float) -> None:
    connection.execute("DELETE FROM answers WHERE name = ?", (row.name,))
    size = len(row.packed) + _OVERHEAD
    connection.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.name, row.packed, size, row.worth, row.worth, row.gone, now),
    )
    connection.executemany("INSERT OR IGNORE INTO labels VALUES (?, ?)", [(label, row.name) for label in row.labels])


def touch(connection: sqlite3.Connection, names: Iterable[str], now: float) -> None:
    """These have been found again: their worth grows by what they cost, and they are no longer old."""
    connection.executemany(
        "UPDATE answers SET used = ?, worth = worth + cost WHERE name = ?", [(now, name) for name in names]
    )


def make_room(connection: sqlite3.Connection, most: int, now: float) -> int:
    """Remove what is too old, and where there are more than `most` bytes, what is worth the least a byte, of equals
    what was used the longest ago. Says how many that were."""
    removed = connection.execute("DELETE FROM answers WHERE gone <= ?", (now,)).rowcount
    connection.execute("DELETE FROM leases WHERE until <= ?", (now,))
    size = counts(connection)["bytes"]
    if size <= most:
        return removed
    while size > most * _ROOM:
        names = connection.execute(
            "SELECT name, size FROM answers ORDER BY worth / size, used LIMIT ?", (_BATCH,)
        ).fetchall()
        if not names:
            break
        for name, bytes_of in names:
            connection.execute("DELETE FROM answers WHERE name = ?", (name,))
            size -= bytes_of
            removed += 1
            if size <= most * _ROOM:
                break
    return removed


def purge(connection: sqlite3.Connection, labels: Sequence[str]) -> int:
    connection.execute("UPDATE counts SET amount = amount + 1 WHERE what = 'purges'")
    if not labels:
        return connection.execute("DELETE FROM answers").rowcount
    each = " INTERSECT ".join(["SELECT name FROM labels WHERE label = ?"] * len(labels))
    return connection.execute(f"DELETE FROM answers WHERE name IN ({each})", tuple(labels)).rowcount


def held_by_other(connection: sqlite3.Connection, name: str, holder: str, now: float) -> bool:
    found = connection.execute("SELECT holder, until FROM leases WHERE name = ?", (name,)).fetchone()
    return found is not None and found[0] != holder and found[1] > now


def claim(connection: sqlite3.Connection, name: str, holder: str, now: float, seconds: float) -> bool:
    if held_by_other(connection, name, holder, now):
        return False
    connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (name, holder, now + seconds))
    return True


def release(connection: sqlite3.Connection, name: str, holder: str) -> None:
    connection.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))


def add_counts(connection: sqlite3.Connection, amounts: Mapping[str, float]) -> None:
    connection.executemany(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT(what) DO UPDATE SET amount = amount + excluded.amount",
        list(amounts.items()),
    )


def counts(connection: sqlite3.Connection) -> dict[str, float]:
    return dict(connection.execute("SELECT what, amount FROM counts").fetchall())


def models(connection: sqlite3.Connection) -> list[tuple[str, int, int, float]]:
    """Model, entries, bytes, and what these answers have cost; the most bytes first."""
    return connection.execute(
        "SELECT substr(label, 7), count(*), sum(size), sum(cost) FROM labels JOIN answers USING (name)"
        " WHERE label LIKE 'model:%' GROUP BY label ORDER BY 3 DESC"
    ).fetchall()
