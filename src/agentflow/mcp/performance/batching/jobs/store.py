"""The file of batch jobs: every change is one transaction on the disk, and each change of state has its journal entry.

    store = Store.open(path)
    part = store.move("af-1-1", Event.SUBMIT, at=now, reason="…")     only where the table of states allows it
    store.settle(…)                                                   answers, before anybody is given them

Nothing is kept in memory between two calls, so whoever opens the file after a crash knows as much as who wrote it. A
commit waits for the disk (synchronous = FULL): an intent that a power failure could undo would be none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from agentflow.core.observability.store.database import open_database, prepare, transaction
from agentflow.errors import BatchError, UnknownBatchError
from agentflow.mcp.performance.batching.jobs.ids import part_name
from agentflow.mcp.performance.batching.jobs.rows import (
    Counts,
    Entry,
    JobRow,
    NewRequest,
    PartRow,
    RequestRow,
    SettledRow,
    Settling,
)
from agentflow.mcp.performance.batching.jobs.schema import COMPONENT, STEPS
from agentflow.mcp.performance.batching.jobs.states import Event, State, after

__all__ = ["Store"]

_JOB: Final = "id, model, provider, model_id, created, deadline, tenant, policy, digest, direct, cancelled"
_PART: Final = (
    "id, job, number, state, requests, file, batch, outcome, intent, submitted, ended, done, failed, asked, due, "
    "hold, rejected"
)
_REQUEST: Final = "seq, custom_id, path, body, request, state, part, attempts, at_risk"
_SETTLED: Final = "seq, custom_id, state, via, answer, error, cost, attempts, at_risk, billed_twice, settled"
_MOST_JOBS: Final = 1_000
_FACTS: Final = frozenset({"file", "batch", "outcome", "intent", "submitted", "ended", "done", "failed", "due", "hold"})


class Store:
    """One connection. Not shared between threads; several processes may have the file open, and one drives a job."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Raises RunStoreError where the file is none of ours, or newer."""
        path = Path(path)
        connection = open_database(path)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA busy_timeout = 10000")  # another job's answers may be many
            prepare(connection, COMPONENT, STEPS, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with transaction(self._connection):
            yield self._connection

    # ---- jobs ------------------------------------------------------------------------------------------------

    def add(self, job: JobRow, requests: Sequence[NewRequest], runs: Iterable[range]) -> None:
        """A job with its requests, and a planned part for each run of them: all of it, or nothing."""
        with self._change() as change:
            change.execute(f"INSERT INTO batch_jobs({_JOB}) VALUES ({_marks(11)})", astuple(job))
            change.executemany(
                "INSERT INTO batch_requests(job, seq, custom_id, path, body, request) VALUES (?, ?, ?, ?, ?, ?)",
                [(job.id, seq, new.custom_id, new.path, new.body, new.request) for seq, new in enumerate(requests)],
            )
            self._plan(change, job.id, job.created, [list(run) for run in runs], "asked for")

    def job(self, id: str) -> JobRow:
        """The job of that id or of its beginning. Raises UnknownBatchError."""
        found = self._connection.execute(
            f"SELECT {_JOB} FROM batch_jobs WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id = ?1 DESC, created DESC",
            (id,),
        ).fetchmany(6)
        if not found or (len(found) > 1 and found[0][0] != id):
            raise UnknownBatchError(id, [row[0] for row in found], path=self.path)
        return JobRow(*found[0])

    def has(self, id: str) -> bool:
        return self._connection.execute("SELECT 1 FROM batch_jobs WHERE id = ?", (id,)).fetchone() is not None

    def jobs(self) -> list[JobRow]:
        """The newest first."""
        rows = self._connection.execute(f"SELECT {_JOB} FROM batch_jobs ORDER BY created DESC LIMIT {_MOST_JOBS}")
        return [JobRow(*row) for row in rows]

    def call_off(self, job: str, at: float) -> None:
        """It is cancelled from now on."""
        self._decide(job, at, "cancelled", "cancelled by the caller")

    def go_direct(self, job: str, at: float, reason: str) -> None:
        """What is left of it is asked directly from now on."""
        self._decide(job, at, "direct", reason)

    def _decide(self, job: str, at: float, column: str, reason: str) -> None:
        with self._change() as change:
            change.execute(f"UPDATE batch_jobs SET {column} = ? WHERE id = ? AND {column} IS NULL", (at, job))
            _journal(change, job, None, at, column, None, None, reason)

    # ---- parts -----------------------------------------------------------------------------------------------

    def parts(self, job: str) -> list[PartRow]:
        rows = self._connection.execute(f"SELECT {_PART} FROM batch_parts WHERE job = ? ORDER BY number", (job,))
        return [_part(row) for row in rows]

    def part(self, id: str) -> PartRow:
        row = self._connection.execute(f"SELECT {_PART} FROM batch_parts WHERE id = ?", (id,)).fetchone()
        return _part(row)

    def move(self, part: PartRow, event: Event, *, at: float, reason: str, **facts: str | float | None) -> PartRow:
        """The part in its next state. Raises BatchError where somebody else has moved it meanwhile."""
        with self._change() as change:
            self._move(change, part, event, at, reason, facts)
        return self.part(part.id)

    def _move(
        self,
        change: sqlite3.Connection,
        part: PartRow,
        event: Event,
        at: float,
        reason: str,
        facts: dict[str, str | float | None],
    ) -> None:
        new = after(part.state, event)
        assert facts.keys() <= _FACTS
        sets = "".join([f", {name} = ?" for name in facts])
        done = change.execute(
            f"UPDATE batch_parts SET state = ?, asked = 0{sets} WHERE id = ? AND state = ?",
            (new, *facts.values(), part.id, part.state),
        )
        if done.rowcount != 1:
            raise BatchError(
                f"part {part.id} is no longer {part.state}: another program has changed the file", job=part.job
            )
        _journal(change, part.job, part.id, at, event, part.state, new, reason)

    def note(
        self, part: PartRow, *, due: float, asked: int, done: int | None = None, failed: int | None = None
    ) -> None:
        """There is no news of it but this, and when it is asked after next."""
        with self._change() as change:
            change.execute(
                "UPDATE batch_parts SET due = ?, asked = ?, done = coalesce(?, done), failed = coalesce(?, failed) "
                "WHERE id = ?",
                (due, asked, done, failed, part.id),
            )

    def reject(self, part: PartRow, batch: str) -> None:
        """That batch is somebody else's."""
        with self._change() as change:
            rejected = json.dumps([*self.part(part.id).rejected, batch])
            change.execute("UPDATE batch_parts SET rejected = ? WHERE id = ?", (rejected, part.id))

    def batches(self) -> set[str]:
        """The ids of all batches that parts of any job are known to be."""
        rows = self._connection.execute("SELECT batch FROM batch_parts WHERE batch IS NOT NULL")
        return {row[0] for row in rows}

    def finish(
        self,
        part: PartRow,
        event: Event,
        *,
        at: float,
        reason: str,
        settled: Sequence[Settling] = (),
        again: Sequence[int] = (),
        at_risk: Sequence[int] = (),
        counted: bool = True,
        follow_up: Sequence[Sequence[int]] = (),
        due: float = 0.0,
    ) -> None:
        """The part's last state, what becomes of its requests, and what follows it, all at once: nothing falls between.

        `again` are those that are asked again: in the parts of `follow_up` where they stand there, else directly. With
        `counted` False that is no attempt that failed.
        """
        with self._change() as change:
            self._move(change, part, event, at, reason, {})
            self._settle(change, part.job, settled)
            change.executemany(
                "UPDATE batch_requests SET part = NULL, attempts = attempts - ? WHERE job = ? AND seq = ?",
                [(not counted, part.job, seq) for seq in again],
            )
            self._risk(change, part.job, at_risk, True)
            if follow_up:
                self._plan(change, part.job, at, follow_up, f"what {part.id} left", due)

    def _plan(
        self,
        change: sqlite3.Connection,
        job: str,
        at: float,
        runs: Iterable[Sequence[int]],
        reason: str,
        due: float = 0.0,
    ) -> None:
        [[number]] = change.execute("SELECT coalesce(max(number), 0) FROM batch_parts WHERE job = ?", (job,))
        for run in runs:
            number += 1
            name = part_name(job, number)
            change.execute(
                "INSERT INTO batch_parts(id, job, number, state, requests, due) VALUES (?, ?, ?, ?, ?, ?)",
                (name, job, number, State.PLANNED, len(run), due),
            )
            change.executemany(
                "UPDATE batch_requests SET part = ?, attempts = attempts + 1 WHERE job = ? AND seq = ?",
                [(name, job, seq) for seq in run],
            )
            _journal(change, job, name, at, "plan", None, State.PLANNED, reason)

    # ---- requests --------------------------------------------------------------------------------------------

    def requests(
        self, job: str, *, part: str | None = None, states: Sequence[str] = (), loose: bool = False
    ) -> list[RequestRow]:
        """Of a job, or of one part of it, in order. The `loose` ones stand in no part, or were being asked directly."""
        where, values = "job = ?", [job]
        if part is not None:
            where, values = f"{where} AND part = ?", [*values, part]
        if loose:
            where = f"{where} AND (part IS NULL OR state = 'asking')"
        if states:
            where, values = f"{where} AND state IN ({_marks(len(states))})", [*values, *states]
        rows = self._connection.execute(f"SELECT {_REQUEST} FROM batch_requests WHERE {where} ORDER BY seq", values)
        return [_request(row) for row in rows]

    def begin_direct(self, job: str, seq: int, *, at_risk: bool) -> None:
        """It is about to be asked directly."""
        with self._change() as change:
            change.execute(
                "UPDATE batch_requests SET state = 'asking', attempts = attempts + 1, at_risk = max(at_risk, ?) "
                "WHERE job = ? AND seq = ?",
                (at_risk, job, seq),
            )

    def stop_direct(self, job: str, seq: int) -> None:
        """It was not asked after all."""
        with self._change() as change:
            change.execute(
                "UPDATE batch_requests SET state = 'open', attempts = attempts - 1 "
                "WHERE job = ? AND seq = ? AND state = 'asking'",
                (job, seq),
            )

    def settle(self, job: str, settled: Sequence[Settling]) -> list[int]:
        """Write down what became of requests. Returns the numbers of those for which it was news."""
        with self._change() as change:
            return self._settle(change, job, settled)

    def _settle(self, change: sqlite3.Connection, job: str, settled: Sequence[Settling]) -> list[int]:
        [[last]] = change.execute("SELECT coalesce(max(settled), 0) FROM batch_requests WHERE job = ?", (job,))
        news: list[int] = []
        for each in settled:
            found = change.execute(
                "UPDATE batch_requests SET state = ?, via = ?, answer = ?, error = ?, cost = ?, tokens = ?, "
                "settled = ? WHERE job = ? AND seq = ? AND settled IS NULL",
                (each.state, each.via, each.answer, each.error, each.cost, each.tokens, last + 1, job, each.seq),
            )
            if found.rowcount:
                last += 1
                news.append(each.seq)
        return news

    def late(self, job: str, seq: int, *, billed: bool, cost: float | None = None) -> None:
        """A batch tells of a request that was answered another way meanwhile: it is paid for twice, or it is not."""
        with self._change() as change:
            change.execute(
                "UPDATE batch_requests SET at_risk = ?, billed_twice = ?, second_cost = ? WHERE job = ? AND seq = ?",
                (billed, billed, cost, job, seq),
            )

    def risk(self, job: str, seqs: Sequence[int]) -> None:
        """They may be billed twice."""
        with self._change() as change:
            self._risk(change, job, seqs, True)

    def _risk(self, change: sqlite3.Connection, job: str, seqs: Sequence[int], at_risk: bool) -> None:
        change.executemany(
            "UPDATE batch_requests SET at_risk = ? WHERE job = ? AND seq = ?", [(at_risk, job, seq) for seq in seqs]
        )

    def settled(self, job: str, *, after: int = 0, most: int = 500) -> list[SettledRow]:
        """What has been settled since, in the order in which it was."""
        rows = self._connection.execute(
            f"SELECT {_SETTLED} FROM batch_requests WHERE job = ? AND settled > ? ORDER BY settled LIMIT ?",
            (job, after, most),
        )
        return [_settled_row(row) for row in rows]

    def counts(self, job: str) -> Counts:
        row = self._connection.execute(
            "SELECT count(*), sum(settled IS NULL), sum(state = 'answered'), sum(state = 'failed'), "
            "sum(state = 'cancelled'), sum(coalesce(via, '') = 'direct'), sum(at_risk), sum(billed_twice), "
            "sum(cost), sum(state = 'answered' AND cost IS NULL), sum(coalesce(second_cost, 0)) "
            "FROM batch_requests WHERE job = ?",
            (job,),
        ).fetchone()
        *numbers, cost, unpriced, second = [value or 0 for value in row]
        values: list[Any] = [*map(int, numbers), None if unpriced else float(cost), float(second)]
        return Counts(*values)

    def bill(self, part: PartRow) -> float | None:
        """What a part has cost, in US dollars, answers that were there already included; None where a price is
        unknown."""
        [[cost, unpriced]] = self._connection.execute(
            "SELECT sum(CASE via WHEN 'batch' THEN coalesce(cost, 0) ELSE coalesce(second_cost, 0) END), "
            "sum(via = 'batch' AND state = 'answered' AND cost IS NULL) FROM batch_requests WHERE part = ?",
            (part.id,),
        )
        return None if unpriced else float(cost or 0.0)

    # ---- what is learned -------------------------------------------------------------------------------------

    def durations(self, provider: str, model_id: str) -> list[float]:
        """Seconds that batches of that model took; infinite for those that expired."""
        rows = self._connection.execute(
            "SELECT CASE p.outcome WHEN 'completed' THEN p.ended - p.submitted ELSE 9e999 END FROM batch_parts p "
            "JOIN batch_jobs j ON j.id = p.job WHERE j.provider = ? AND j.model_id = ? "
            "AND p.outcome IN ('completed', 'expired') AND p.submitted IS NOT NULL ORDER BY p.ended DESC LIMIT 200",
            (provider, model_id),
        )
        return [float(row[0]) for row in rows]

    def journal(self, job: str) -> list[Entry]:
        rows = self._connection.execute(
            "SELECT at, part, event, old, new, reason FROM batch_journal WHERE job = ? ORDER BY id", (job,)
        )
        return [
            Entry(at, part, event, State(old) if old else None, State(new) if new else None, reason)
            for at, part, event, old, new, reason in rows
        ]


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _request(row: Sequence[Any]) -> RequestRow:
    values: list[Any] = [*row[:-1], bool(row[-1])]
    return RequestRow(*values)


def _settled_row(row: Sequence[Any]) -> SettledRow:
    values: list[Any] = [*row[:8], bool(row[8]), bool(row[9]), row[10]]
    return SettledRow(*values)


def _part(row: Sequence[Any]) -> PartRow:
    values: list[Any] = [*row[:3], State(row[3]), *row[4:-1], tuple(json.loads(row[-1]))]
    return PartRow(*values)


def _journal(
    change: sqlite3.Connection,
    job: str,
    part: str | None,
    at: float,
    event: str,
    old: State | None,
    new: State | None,
    reason: str,
) -> None:
    change.execute(
        "INSERT INTO batch_journal(job, part, at, event, old, new, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (job, part, at, event, old, new, reason),
    )
