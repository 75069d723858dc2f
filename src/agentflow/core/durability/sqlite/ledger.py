"""What can be done with the runs in a file: each method is the inside of one transaction.

    await store.write(lambda connection: ledger.cancel(connection, run_id))

It knows what the rows do not say: which owners are alive, and which runs are under way in this very engine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

from agentflow.clock import Clock
from agentflow.core.durability.records import RunInfo, RunSpec, RunStatus
from agentflow.core.durability.sqlite import record_rows, run_rows
from agentflow.core.durability.sqlite.interrupts import interrupts_from
from agentflow.core.durability.sqlite.large_bodies import LargeBodies
from agentflow.core.durability.sqlite.owners import Owners
from agentflow.core.durability.sqlite.record_rows import RecordRow
from agentflow.core.durability.sqlite.run_rows import RunRow
from agentflow.core.durability.sqlite.stretch import Stretches
from agentflow.errors import AnswerError, DurabilityError, UnknownRunError

__all__ = ["Ledger"]

_SHOWN: Final = 5  # runs that an ambiguous id is said to mean


class Ledger:
    """Of one file. Its methods are called under the lock of the store, one at a time."""

    def __init__(self, owners: Owners, bodies: LargeBodies, under_way: Stretches, clock: Clock, path: str) -> None:
        self._owners = owners
        self._bodies = bodies
        self._under_way = under_way
        self._clock = clock
        self._path = path

    # ---- who has what ----------------------------------------------------------------------------------------

    def holder(self, row: RunRow) -> str | None:
        """Who runs it just now, in words."""
        return self._owners.words(row.owner) if row.owner and self._status(row) == "running" else None

    def _status(self, row: RunRow) -> RunStatus:
        if row.status != "running":
            return cast(RunStatus, row.status)
        if row.owner == self._owners.name:
            runs = row.id in self._under_way
        else:
            runs = row.owner is not None and self._owners.is_alive(row.owner)
        return "running" if runs else "cancelled" if row.asked_to_end else "lost"

    def row(self, connection: sqlite3.Connection, run_id: str) -> RunRow:
        """Raises UnknownRunError where none, or more than one, has an id that begins so."""
        found = run_rows.rows_like(connection, run_id, _SHOWN)
        if len(found) != 1:
            raise UnknownRunError(run_id, [row.id for row in found], path=self._path)
        return found[0]

    def free_row(self, connection: sqlite3.Connection, run_id: str) -> RunRow:
        """The same, of one that nobody runs. Raises RunHeldError."""
        row = self.row(connection, run_id)
        run_rows.refuse_held(row, self.holder)
        return row

    # ---- reading ---------------------------------------------------------------------------------------------

    def find(self, connection: sqlite3.Connection, run_id: str) -> RunInfo:
        return self._info(connection, self.row(connection, run_id))

    def records(self, connection: sqlite3.Connection, run_id: str) -> list[RecordRow]:
        return record_rows.load(connection, self.row(connection, run_id).number)

    def news(self, connection: sqlite3.Connection, number: int, after: int) -> tuple[bool, list[RecordRow], int]:
        """Whether the run goes on, what was saved since, and what to ask with next time."""
        row = run_rows.row_numbered(connection, number)  # before the records: what ends it is saved before it ends
        goes_on = row is not None and self._status(row) == "running"
        return goes_on, *record_rows.changed(connection, number, after)

    def listed(
        self,
        connection: sqlite3.Connection,
        flow: str | None,
        status: RunStatus | None,
        due: float | None,
        limit: int,
    ) -> list[RunInfo]:
        owners = self._owners_that_are(status, connection) if status in ("running", "lost") else None
        rows = run_rows.select(
            connection,
            flow=flow,
            status="running" if status == "lost" else status,
            due=due,
            owners=owners,
            limit=limit,
        )
        found = [self._info(connection, row) for row in rows]
        return [info for info in found if status is None or info.status == status]

    def _owners_that_are(self, status: str, connection: sqlite3.Connection) -> list[str]:
        owners = run_rows.owners_of_running(connection)
        me = self._owners.name  # some of ours may run, and others not
        return [each for each in owners if each == me or self._owners.is_alive(each) == (status == "running")]

    def _info(self, connection: sqlite3.Connection, row: RunRow) -> RunInfo:
        status = self._status(row)
        steps, cost, updated = row.steps, row.cost, row.updated
        if row.status == "running":
            steps, cost, last = record_rows.totals(connection, row.number)
            updated = max(updated, last)
        interrupts = interrupts_from(row.interrupts) if status in ("waiting", "running", "lost") else ()
        if interrupts:
            answered = record_rows.which_of(connection, row.number, [f"{each.id}!answer" for each in interrupts])
            interrupts = tuple(each for each in interrupts if f"{each.id}!answer" not in answered)
        return RunInfo(
            spec=run_rows.spec_of(row),
            status=status,
            created=row.created,
            updated=updated,
            action=row.action,
            error=row.error,
            owner=self._owners.words(row.owner) if row.owner and row.status == "running" else None,
            due=min((each.due for each in interrupts if each.due is not None), default=None),
            interrupts=interrupts,
            steps=steps,
            cost=cost,
        )

    # ---- changing --------------------------------------------------------------------------------------------

    def claim(self, connection: sqlite3.Connection, spec: RunSpec) -> RunRow:
        """Begin it, or take it. Raises RunExistsError, RunHeldError, RunEndedError."""
        me = self._owners.me  # what bears our name was left behind: a run has one stretch here at a time

        def holder(row: RunRow) -> str | None:
            return None if row.owner == me else self.holder(row)

        return run_rows.claim(connection, spec, me, holder, self._clock.time())

    def answer(self, connection: sqlite3.Connection, run_id: str, answers: Mapping[str, RecordRow]) -> str:
        """The run's whole id. Raises AnswerError where one of them is not waited for."""
        row = self.row(connection, run_id)
        over = row.final or (self._status(row) == "cancelled" and row.asked_to_end)
        for interrupt, answer in answers.items():
            known = record_rows.which_of(connection, row.number, [interrupt, answer.id], kinds=("wait", "answer"))
            if over or interrupt not in known or answer.id in known:
                raise AnswerError(
                    f"run {row.id} does not wait for an answer to {interrupt}"
                    + (": it has one" if answer.id in known else ""),
                    run_id=row.id,
                    interrupt=interrupt,
                )
            self.save(connection, row.number, answer, None)
        run_rows.wake_again(connection, row, self._clock.time())
        return row.id

    def save(self, connection: sqlite3.Connection, number: int, row: RecordRow, large: bytes | None) -> RecordRow:
        """What stands in its place now: the first answer counts, also where a run saves that it waits for none any
        more. `large` is the body, where it stands in a file of its own: somebody may have swept it up meanwhile."""
        first = record_rows.find(connection, number, row.id) if row.kind == "answer" else None
        if first is not None:
            return first
        if row.large is not None and large is not None and not self._bodies.has(row.large):
            self._bodies.put(large)
        record_rows.save(connection, number, row)
        return row

    def fork(self, connection: sqlite3.Connection, spec: RunSpec, update: RecordRow | None) -> None:
        source = self.row(connection, spec.forked_from or "")
        place = None
        if spec.forked_at is not None:
            place = record_rows.place_of(connection, source.number, spec.forked_at)
            if place is None:
                raise DurabilityError(f"run {source.id} has no record {spec.forked_at}", run_id=source.id)
        number = run_rows.begin(connection, spec, "waiting", None, self._clock.time())
        record_rows.copy(connection, source.number, number, place)
        if update is not None:
            record_rows.save(connection, number, update)
        run_rows.count_anew(connection, number)

    def rewrite(self, connection: sqlite3.Connection, spec: RunSpec, rows: Iterable[RecordRow]) -> None:
        row = self.free_row(connection, spec.run_id)
        record_rows.remove(connection, row.number)
        for each in rows:
            record_rows.save(connection, row.number, each)
        run_rows.respecify(connection, row.number, spec, self._clock.time())
        run_rows.count_anew(connection, row.number)

    def cancel(self, connection: sqlite3.Connection, run_id: str) -> tuple[str, bool]:
        """Its whole id, and whether it had not ended."""
        row = self.row(connection, run_id)
        if row.final or row.status == "failed":
            return row.id, False
        if self._status(row) == "running":
            run_rows.ask_to_end(connection, row)
        else:
            run_rows.cancel(connection, row, self._clock.time())
        return row.id, True

    def delete(self, connection: sqlite3.Connection, run_id: str) -> None:
        row = self.free_row(connection, run_id)
        record_rows.remove(connection, row.number)
        run_rows.remove(connection, row.number)

    def sweep(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        """Remove those files that no record leads to. Nobody can add one meanwhile, as this is a transaction."""
        for name in set(names) - record_rows.large_names(connection, names):
            self._bodies.remove(name)
