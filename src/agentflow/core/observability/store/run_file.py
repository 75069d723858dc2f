"""The open file: batches of events go in, old runs go out. Only the writer's thread works with it.

    file = RunFile(path, retention, here, now)
    file.write(batch, losses)       one transaction; raises what SQLite raises, and then nothing of it is in
    file.trim()                     a small step of retention
    file.close()                    it opens again when it is needed, also where the file was deleted or moved

After a fork a child must not touch its parent's connection, not even to close it: `abandon()`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from agentflow.core.observability.attribution import Parts, merged
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store.database import (
    Identity,
    identity_of,
    open_database,
    prepare,
    set_aside,
    transaction,
)
from agentflow.core.observability.store.losses import Loss, LossKey
from agentflow.core.observability.store.process import Process
from agentflow.core.observability.store.retention import Retention, mark_lost
from agentflow.core.observability.store.rows import (
    ADD_LOSS,
    ADD_RUN,
    ADD_USAGE,
    CHANGE_RUN,
    INSERT_EVENT,
    INSERT_FEEDBACK,
    event_row,
    feedback_row,
    new_run,
    run_changes,
    usage_rows,
)
from agentflow.core.observability.store.schema import COMPONENT, STEPS
from agentflow.core.observability.store.stretches import cancel, go_on
from agentflow.core.observability.store.tally import tally

__all__ = ["Kept", "RunFile"]

_ABANDONED: Final[list[sqlite3.Connection]] = []  # of a parent process: even the garbage collector must not close them
_FACTS: Final = [field.name for field in fields(Process)]


@dataclass(frozen=True, slots=True)
class Kept:
    """An event as it is kept: cleaned, and its data as JSON."""

    event: ExecutionEvent
    data: str | None


class RunFile:
    """Opens when it is first needed. `now` says the wall time."""

    def __init__(self, path: Path, retention: Retention, here: Process, now: Callable[[], float]) -> None:
        self.path = path
        self.retention = retention
        self._here = here
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._process = 0

    def open(self) -> sqlite3.Connection:
        """The connection to the file that stands at the path now. Raises RunStoreError, OSError, `sqlite3.Error`."""
        if self._connection is not None and identity_of(self.path) != self._identity:
            self.close()  # deleted, moved, or replaced
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            self._identity = identity_of(self.path)
            prepare(connection, COMPONENT, STEPS, self.path)
            mark_lost(connection, self._here)
            self._process = _register(connection, self._here, self._now())
        except BaseException:
            connection.close()
            raise
        return connection

    def write(self, batch: Sequence[Kept], losses: Mapping[LossKey, Loss]) -> int:
        """All of it in one transaction. How many events had to stay out because the file is full."""
        connection = self.open()
        left_out = 0
        with transaction(connection):
            numbers = self._write_runs(connection, batch)
            rows = [
                event_row(number, kept.event, kept.data)
                for kept in batch
                if (number := numbers.get(kept.event.run_id)) is not None
            ]
            if self.retention.full:
                left_out = len(rows)
            else:
                connection.executemany(INSERT_EVENT, rows)
            feedback = [feedback_row(kept.event) for kept in batch if kept.event.kind == "feedback"]
            connection.executemany(INSERT_FEEDBACK, feedback)
            for (reason, note), loss in losses.items():
                connection.execute(ADD_LOSS, (self._process, reason, note, loss.events, loss.first, loss.last))
        return left_out

    def _write_runs(self, connection: sqlite3.Connection, batch: Sequence[Kept]) -> dict[str, int]:
        """The numbers of the runs, by their ids; those that are not kept are left out."""
        numbers: dict[str, int] = {}
        for news in tally(kept.event for kept in batch):
            run_id = news.run_id
            number = _number_of(connection, run_id)
            if number is None:
                if not news.told:
                    continue  # feedback on a run that is not here
                connection.execute(ADD_RUN, new_run(news, self._process))
                number = _number_of(connection, run_id)
            assert number is not None
            if news.stretch:
                go_on(connection, number, news)
            if news.kind == "call" and news.breakdown:
                news.breakdown = merged(_breakdown_of(connection, number), news.breakdown)
            connection.execute(CHANGE_RUN, run_changes(number, news, self._process))
            if news.cancelled is not None:
                cancel(connection, number, news.cancelled)
            connection.executemany(ADD_USAGE, usage_rows(number, news))
            numbers[run_id] = number
        return numbers

    def trim(self) -> bool:
        """A small step of retention; whether there may be more to do."""
        return self.retention.step(self.open())

    def set_aside(self) -> Path | None:
        """Give the damaged file another name, so that a new one can begin. Its new name, None where it was gone."""
        identity = identity_of(self.path) if self._connection is None else self._identity
        self.close()
        return set_aside(self.path, identity, self._now())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def abandon(self) -> None:
        """In a child process: forget the parent's connection without closing it."""
        if self._connection is not None:
            _ABANDONED.append(self._connection)
            self._connection = None


def _number_of(connection: sqlite3.Connection, run_id: str) -> int | None:
    row = connection.execute("SELECT number FROM runs WHERE id = ?", (run_id,)).fetchone()
    return None if row is None else int(row[0])


def _breakdown_of(connection: sqlite3.Connection, number: int) -> Parts:
    """What earlier requests of the same question took."""
    [[known]] = connection.execute("SELECT breakdown FROM runs WHERE number = ?", (number,))
    return json.loads(known) if known else {}


def _register(connection: sqlite3.Connection, here: Process, now: float) -> int:
    """The number of this process in the file: the one it had, where it has been here before."""
    same = " AND ".join(f"{name} = ?" for name in _FACTS)
    row = connection.execute(f"SELECT number FROM processes WHERE {same}", astuple(here)).fetchone()
    if row is not None:
        return int(row[0])
    with transaction(connection):
        columns = ", ".join([*_FACTS, "opened"])
        marks = ", ".join("?" for _ in range(len(_FACTS) + 1))
        number = connection.execute(
            f"INSERT INTO processes({columns}) VALUES ({marks})", (*astuple(here), now)
        ).lastrowid
    assert number is not None
    return number
