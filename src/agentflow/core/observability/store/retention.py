"""What leaves the file so that it stays within its bounds: the oldest runs that are over, a little at a time.

    retention.step(connection)          one small step in a transaction of its own; False: there is nothing to do
    retention.full                      it is at its bound, and nothing may leave

What a run has spent is added up by hour, model, flow and tenant before it goes, so costs stay known. Runs that still go
on stay, those of processes that are surely dead do not count as such. Runs that wait stay as long as others can go for
them, and leave at their age like all: one that goes on after that is recorded again from there. The pages that become
free are given back to the file system.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from agentflow.clock import Clock
from agentflow.core.observability.store.database import transaction
from agentflow.core.observability.store.process import Process, standing
from agentflow.core.observability.store.rows import RETIRE_USAGE

__all__ = ["Retention", "mark_lost"]

_ENOUGH: Final = 0.9  # of the bound: where deleting ends once it has begun
_EVENTS: Final = 2_000  # events that one step deletes
_PAGES: Final = 512  # pages that one step gives back
_SLACK: Final = 16  # free pages that may stay: what is written next needs some
_OFTEN: Final = 60.0  # seconds between two looks for what has become too old
_SPENDING: Final = 3 * 366 * 24  # hours that sums of spending are kept
_RUNS: Final = "SELECT number FROM runs WHERE"
_WAITING: Final = "status = 'waiting'"
_OVER: Final = "status IN ('done', 'failed', 'cancelled', 'lost')"


class Retention:
    """`max_bytes` bounds the file, `max_age` (seconds since a run's end) its runs; None: no such bound."""

    def __init__(self, *, max_bytes: int | None, max_age: float | None, here: Process, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._here = here
        self._clock = clock
        self._zero = clock.time() - clock.monotonic()
        self._shrinking = False
        self._looked = float("-inf")
        self._aging = True
        self.full = False

    def step(self, connection: sqlite3.Connection) -> bool:
        monotonic = self._clock.monotonic()
        # A clock that is set ahead would make everything old: what has passed is believed, and no more.
        now = min(self._clock.time(), self._zero + monotonic)
        used, free, page = _pages(connection)
        self._judge((used + _SLACK) * page)
        if monotonic - self._looked >= _OFTEN:
            self._looked = monotonic
            self._aging = self._max_age is not None
            _tidy(connection, now, self._max_age, self._here)
            mark_lost(connection, self._here)
            return True
        if (self._shrinking or self._aging) and self._delete_some(connection, now):
            return True
        if free > _SLACK:
            connection.execute(f"PRAGMA incremental_vacuum({min(_PAGES, free - _SLACK)})").fetchall()
            return True
        return False

    def _judge(self, used: int) -> None:
        """`used` is bytes, the free pages that may stay included."""
        if self._max_bytes is None:
            return
        if used > self._max_bytes:
            self._shrinking = True
        elif used <= _ENOUGH * self._max_bytes:
            self._shrinking = False
        self.full = self.full and used > self._max_bytes

    def _delete_some(self, connection: sqlite3.Connection, now: float) -> bool:
        with transaction(connection):
            leaving = connection.execute("SELECT number FROM runs WHERE leaving LIMIT 1").fetchone()
            if leaving is None:
                leaving = self._next_to_leave(connection, now)
            if leaving is None:
                return False
            _delete_part(connection, leaving[0])
        return True

    def _next_to_leave(self, connection: sqlite3.Connection, now: float) -> tuple[int] | None:
        found: tuple[int] | None = None
        if self._aging and self._max_age is not None:
            # By when it was last heard of, not by when it began: a run may take days.
            query = f"{_RUNS} status != 'running' AND started < :limit AND seen < :limit ORDER BY started LIMIT 1"
            found = connection.execute(query, {"limit": now - self._max_age}).fetchone()
            self._aging = found is not None
        if found is None and self._shrinking:
            found = self._oldest(connection, _OVER) or self._oldest(connection, _WAITING)
            if found is None:
                self._shrinking = False
                used, _, page = _pages(connection)
                self.full = self._max_bytes is not None and (used + _SLACK) * page > self._max_bytes
        return found

    def _oldest(self, connection: sqlite3.Connection, which: str) -> tuple[int] | None:
        found: tuple[int] | None = connection.execute(f"{_RUNS} {which} ORDER BY started LIMIT 1").fetchone()
        return found


def _delete_part(connection: sqlite3.Connection, number: int) -> None:
    """The run, or so many of its events that a transaction stays short; until it is gone nobody sees it any more."""
    deleted = connection.execute(
        "DELETE FROM events WHERE number IN (SELECT number FROM events WHERE run = ? LIMIT ?)", (number, _EVENTS)
    ).rowcount
    if deleted >= _EVENTS:
        connection.execute("UPDATE runs SET leaving = 1 WHERE number = ?", (number,))
        return
    connection.execute(RETIRE_USAGE, (number,))
    connection.execute("DELETE FROM usage WHERE run = ?", (number,))
    connection.execute("DELETE FROM feedback WHERE run_id = (SELECT id FROM runs WHERE number = ?)", (number,))
    connection.execute("DELETE FROM runs WHERE number = ?", (number,))


def _tidy(connection: sqlite3.Connection, now: float, max_age: float | None, here: Process) -> None:
    """What is small, and would still grow for ever."""
    with transaction(connection):
        connection.execute("DELETE FROM spending WHERE hour < ?", (int(now // 3600) - _SPENDING,))
        if max_age is not None:
            connection.execute(
                "DELETE FROM feedback WHERE time < ? AND run_id NOT IN (SELECT id FROM runs)", (now - max_age,)
            )
            connection.execute("DELETE FROM losses WHERE last < ?", (now - max_age,))
        connection.execute(
            "DELETE FROM processes WHERE opened < ? AND number NOT IN (SELECT process FROM runs) "
            "AND number NOT IN (SELECT process FROM losses) AND (pid, began, boot) != (?, ?, ?)",
            (now - 24 * 3600, here.pid, here.began, here.boot),
        )


def mark_lost(connection: sqlite3.Connection, here: Process, birth: Callable[[int], str | None] | None = None) -> None:
    """Runs that go on in no process any more will never say how they ended."""
    rows = connection.execute(
        "SELECT number, pid, began, boot, namespace, machine, host FROM processes "
        "WHERE number IN (SELECT process FROM runs WHERE status = 'running')"
    ).fetchall()
    dead = [number for number, *facts in rows if standing(Process(*facts), here, birth) == "dead"]
    if dead:
        with transaction(connection):
            for number in dead:
                connection.execute(
                    "UPDATE runs SET status = 'lost' WHERE process = ? AND status = 'running'", (number,)
                )


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Pages in use, pages that are free, bytes of a page."""
    [[count]] = connection.execute("PRAGMA page_count")
    [[free]] = connection.execute("PRAGMA freelist_count")
    [[size]] = connection.execute("PRAGMA page_size")
    return count - free, free, size
