"""Reads recorded runs, also while they are being recorded. It changes nothing, and never makes a file.

    with RunReader() as reader:                       # .agentflow/runs.db
        for run in reader.runs(status="failed", since=time.time() - 3600):
            print(run.id, run.name, run.error)
        events = reader.events(reader.find("4f9a").id)
        for row in reader.costs(by="model"): ...

A file that is missing, damaged or of another version is a RunStoreError; an id that nobody or several have, an
UnknownRunError. Times are seconds since 1970. One thread at a time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store.database import Identity, identity_of, is_damage, open_for_reading, version_of
from agentflow.core.observability.store.process import Process, standing, this_process
from agentflow.core.observability.store.queries import (
    ADDRESSES,
    COSTS,
    EVENTS,
    FEEDBACK,
    LOSSES,
    NEW_EVENTS,
    NEW_EVENTS_OF,
    feedback_of,
    run_of,
    runs_where,
)
from agentflow.core.observability.store.records import By, CostRow, Feedback, LossRecord, Outcome, RunRecord, RunStatus
from agentflow.core.observability.store.rows import Row, event_of
from agentflow.core.observability.store.schema import COMPONENT, STEPS
from agentflow.errors import ConfigurationError, RunStoreError, UnknownRunError

__all__ = ["Following", "RunReader"]

_PAGE: Final = 500  # rows read at once: a long look at one moment keeps the writer's log from being emptied
_SHOWN: Final = 8  # ids that an ambiguous one may mean


class RunReader:
    def __init__(self, path: str | os.PathLike[str] = ".agentflow/runs.db") -> None:
        self.path: Final = Path(path).expanduser().absolute()
        self._here = this_process()
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._open()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> RunReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- runs ------------------------------------------------------------------------------------------------

    def runs(
        self,
        *,
        name: str | None = None,
        status: RunStatus | None = None,
        since: float | None = None,
        until: float | None = None,
        tenant: str | None = None,
        model: str | None = None,
        kind: str | None = None,
        limit: int | None = 50,
    ) -> list[RunRecord]:
        """Runs that began in [since, until), the newest first. `name` may hold `*` and `?`; `limit=None` is all."""
        where, values = runs_where(
            name=name, status=status, since=since, until=until, tenant=tenant, model=model, kind=kind
        )
        values["limit"] = -1 if limit is None else limit
        rows = self._ask(f"{where} ORDER BY started DESC, number DESC LIMIT :limit", values)
        return [run_of(row) for row in rows]

    def find(self, run: str) -> RunRecord:
        """The run of that id, or the only one whose id begins so. Raises UnknownRunError."""
        where, values = runs_where(run=run)
        rows = self._ask(f"{where} ORDER BY id = :run DESC, started DESC LIMIT {_SHOWN + 1}", values) if run else []
        found = [run_of(row) for row in rows]
        if not found or (len(found) > 1 and found[0].id != run):
            raise UnknownRunError(run, [each.id for each in found[:_SHOWN]], path=self.path)
        return found[0]

    def waiting(self) -> int:
        """How many runs are parked, for an answer or a timer."""
        [[count]] = self._ask("SELECT count(*) FROM runs WHERE status = 'waiting' AND NOT leaving", {})
        return int(count)

    def events(self, run_id: str, after: int = 0) -> Iterator[ExecutionEvent]:
        """What the run told, in that order; with `after` only events of a higher `sequence`. Nothing for an unknown id.

        They are read little by little: what is told meanwhile is among them.
        """
        last = 0
        while rows := self._ask(EVENTS, {"run": run_id, "last": last, "after": after, "page": _PAGE}):
            for _, *row in rows:
                yield event_of(tuple(row), run_id)
            last = rows[-1][0]

    def follow(self, run_id: str | None = None, *, from_now: bool = False) -> Following:
        """What one run, or any, tells from the beginning or `from_now`, asked for again and again."""
        last = 0
        if from_now:
            [(last,)] = self._ask("SELECT coalesce(max(number), 0) FROM events", {})
        return Following(self, run_id, last)

    # ---- sums and judgements ---------------------------------------------------------------------------------

    def costs(self, by: By = "model", *, since: float | None = None, until: float | None = None) -> list[CostRow]:
        """What was spent in [since, until), to the full hour: the dearest first, days in order. Runs that have left
        the file count too."""
        if by not in COSTS:
            raise ConfigurationError(f"costs are by {', '.join(COSTS)}, not {by!r}")
        rows = self._ask(
            COSTS[by],
            {
                "since": None if since is None else int(since // 3600),
                "until": None if until is None else int(-(-until // 3600)),
            },
        )
        return [CostRow(*row) for row in rows]

    def feedback(self, run_id: str) -> list[Feedback]:
        """What was said of the run, in the order of time."""
        return [feedback_of(row) for row in self._ask(f"{FEEDBACK} WHERE run_id = :run ORDER BY time", {"run": run_id})]

    def outcomes(
        self, *, name: str | None = None, model: str | None = None, since: float | None = None
    ) -> Iterator[Outcome]:
        """Every judgement with the run it is about, the oldest first: what routers and optimisers learn from."""
        where, values = runs_where(name=name, model=model, since=since)
        last = 0
        while rows := self._ask(
            f"{FEEDBACK} WHERE number > :last AND run_id IN (SELECT id FROM ({where})) ORDER BY number LIMIT {_PAGE}",
            {**values, "last": last},
        ):
            for row in rows:
                yield Outcome(self.find(row[1]), feedback_of(row))
            last = rows[-1][0]

    def losses(self) -> list[LossRecord]:
        """What is missing in the file, as far as its writers could say."""
        return [LossRecord(*row) for row in self._ask(LOSSES, {})]

    # ---- the file --------------------------------------------------------------------------------------------

    def new_events(self, run_id: str | None, last: int) -> list[tuple[int, ExecutionEvent]]:
        """Those with a higher number than `last`, each with its number."""
        query = NEW_EVENTS if run_id is None else NEW_EVENTS_OF
        rows = self._ask(query, {"run": run_id, "last": last, "page": _PAGE})
        return [(number, event_of(tuple(row), name)) for number, name, *row in rows]

    def _ask(self, query: str, values: Mapping[str, object]) -> list[Row]:
        try:
            return self._at_hand().execute(query, values).fetchall()
        except UnicodeEncodeError:
            return []  # half a character, which is in no file
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _at_hand(self) -> sqlite3.Connection:
        if self._connection is None or identity_of(self.path) != self._identity:
            self._open()
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        self.close()
        self._identity = identity_of(self.path)
        if self._identity is None:
            raise RunStoreError(
                f"there are no recorded runs at {self.path}: `agentflow run` records them, "
                f"and in a program `observe(RunStore())` does",
                path=self.path,
            )
        try:
            connection = open_for_reading(self.path)
        except (sqlite3.Error, OSError) as error:
            raise self._unreadable(error) from error
        try:
            self._check_version(connection)
            standings = {number: self._standing(facts) for number, *facts in connection.execute(ADDRESSES)}
        except sqlite3.Error as error:
            connection.close()
            raise self._unreadable(error) from error
        except RunStoreError:
            connection.close()
            raise
        self._connection = connection
        self._watch_processes(connection, standings)

    def _watch_processes(self, connection: sqlite3.Connection, known: dict[int, str]) -> None:
        """Teach SQLite which processes are dead. One that lives is looked at again each time."""

        def is_dead(number: int) -> int:
            if known.get(number) != "dead":
                [*found] = connection.execute(f"{ADDRESSES} WHERE number = ?", (number,))
                known[number] = self._standing(found[0][1:]) if found else "unknown"
            return known[number] == "dead"

        connection.create_function("is_dead", 1, is_dead)

    def _standing(self, facts: list[Any]) -> str:
        return standing(Process(*facts), self._here)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = version_of(connection, COMPONENT)
        if version == len(STEPS):
            return
        if version > len(STEPS):
            hint = "it was written by a newer AgentFlow: update agentflow-engine"
        elif version:
            hint = "it was written by an older AgentFlow: record a run, and it is brought up to date"
        else:
            hint = "no run has been recorded in it yet"
        raise RunStoreError(f"{self.path} cannot be read: {hint}", path=self.path)

    def _unreadable(self, error: Exception) -> RunStoreError:
        damaged = isinstance(error, sqlite3.Error) and is_damage(error)
        hint = "it is damaged; the next run that is recorded sets it aside" if damaged else str(error)
        return RunStoreError(f"{self.path} cannot be read: {hint}", path=self.path)


class Following:
    """`poll()` returns what is new since the last time, in the order in which it was written; [] where nothing is."""

    def __init__(self, reader: RunReader, run_id: str | None, last: int) -> None:
        self._reader = reader
        self._run_id = run_id
        self._last = last

    def poll(self) -> list[ExecutionEvent]:
        found = self._reader.new_events(self._run_id, self._last)
        if found:
            self._last = found[-1][0]
        return [event for _, event in found]
