"""The rows of records: kept, found again, copied and counted, each in a part of somebody's transaction.

save(connection, run, row)        a new one at the end, or in the place of the one with its id
load(connection, run)             all of a run, in the order in which they were first saved
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

__all__ = ["RecordRow", "changed", "copy", "large_names", "load", "place_of", "remove", "save", "totals", "which_of"]


class RecordRow(NamedTuple):
    """A record as it stands in the file: the body is empty where it has a file of its own, named `large`."""

    id: str
    kind: str
    body: str
    at: float
    seconds: float
    attempts: int
    cost: float | None
    tokens: int
    large: str | None


_COLUMNS: Final = ", ".join(RecordRow._fields)
_MARKS: Final = ", ".join("?" * len(RecordRow._fields))
_NEXT: Final = "(SELECT ifnull(max(number), 0) + 1 AS next FROM durable_records)"
_SAVE: Final = (
    f"INSERT INTO durable_records(number, seq, run, {_COLUMNS}) VALUES (?, ?, ?, {_MARKS}) "
    "ON CONFLICT(run, id) DO UPDATE SET number = excluded.number, "
    + ", ".join(f"{name} = excluded.{name}" for name in RecordRow._fields[1:])
)
_LOAD: Final = f"SELECT seq, {_COLUMNS} FROM durable_records WHERE run = ?"
_CHANGED: Final = f"SELECT number, {_COLUMNS} FROM durable_records WHERE run = ? AND number > ? ORDER BY number"
_COPY: Final = (
    f"INSERT INTO durable_records(number, seq, run, {_COLUMNS}) "
    "SELECT next + place, next + place, ?, "
    f"{_COLUMNS} FROM (SELECT *, row_number() OVER (ORDER BY seq) - 1 AS place FROM durable_records "
    f"WHERE run = ? AND seq < ?), {_NEXT}"
)
_LAST: Final = 2**63 - 1


def save(connection: sqlite3.Connection, run: int, row: RecordRow) -> None:
    [[number]] = connection.execute("SELECT ifnull(max(number), 0) + 1 FROM durable_records")
    connection.execute(_SAVE, (number, number, run, *row))


def find(connection: sqlite3.Connection, run: int, id: str) -> RecordRow | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM durable_records WHERE run = ? AND id = ?", (run, id)).fetchone()
    return None if found is None else RecordRow._make(found)


def load(connection: sqlite3.Connection, run: int) -> list[RecordRow]:
    rows = connection.execute(_LOAD, (run,)).fetchall()
    rows.sort(key=itemgetter(0))  # SQLite would carry the bodies about while it sorts
    return [RecordRow._make(row[1:]) for row in rows]


def changed(connection: sqlite3.Connection, run: int, after: int) -> tuple[list[RecordRow], int]:
    """Those that were saved since, in that order, and what to ask with next time."""
    rows = connection.execute(_CHANGED, (run, after)).fetchall()
    return [RecordRow._make(row[1:]) for row in rows], rows[-1][0] if rows else after


def place_of(connection: sqlite3.Connection, run: int, id: str) -> int | None:
    """Where it stands in the order."""
    found = connection.execute("SELECT seq FROM durable_records WHERE run = ? AND id = ?", (run, id)).fetchone()
    return None if found is None else int(found[0])


def which_of(
    connection: sqlite3.Connection, run: int, ids: Sequence[str], kinds: Sequence[str] = ("answer",)
) -> set[str]:
    """Those that the run has, being of one of these kinds."""
    found = connection.execute(
        f"SELECT id FROM durable_records WHERE run = ? AND id IN ({_marks(ids)}) AND kind IN ({_marks(kinds)})",
        (run, *ids, *kinds),
    )
    return {id for (id,) in found}


def copy(connection: sqlite3.Connection, source: int, target: int, before: int | None) -> None:
    """Give another run what this one had, before that place where one is given."""
    connection.execute(_COPY, (target, source, _LAST if before is None else before))


def remove(connection: sqlite3.Connection, run: int) -> None:
    connection.execute("DELETE FROM durable_records WHERE run = ?", (run,))


def totals(connection: sqlite3.Connection, run: int) -> tuple[int, float | None, float]:
    """Steps, US dollars (None where nobody knows), and when the last record was over.

    Steps tell their calls' cost again, so that the calls alone are added up.
    """
    [[steps, cost, unpriced, last]] = connection.execute(
        "SELECT ifnull(sum(kind IN ('step', 'item')), 0), ifnull(sum(CASE kind WHEN 'call' THEN cost END), 0), "
        "ifnull(sum(kind = 'call' AND cost IS NULL), 0), ifnull(max(at), 0) FROM durable_records WHERE run = ?",
        (run,),
    )
    return steps, None if unpriced else float(cost), last


def large_names(connection: sqlite3.Connection, names: Iterable[str]) -> set[str]:
    """Which of these files a record leads to."""
    found: set[str] = set()
    listed = list(names)
    for start in range(0, len(listed), 500):
        some: Sequence[str] = listed[start : start + 500]
        rows = connection.execute(f"SELECT DISTINCT large FROM durable_records WHERE large IN ({_marks(some)})", some)
        found.update(name for (name,) in rows)
    return found


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
