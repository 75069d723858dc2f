"""The rows of runs: how one begins, is taken by a process, and ends.

    claim ──▶ running ──▶ done, waiting, failed, cancelled        all but done and what was cancelled by request
                │                                                 may be claimed again
                └── its owner dies ──▶ read as lost

Each function is a part of somebody's transaction. Whether an owner is alive is asked in there too, so that of two
processes which want the same run exactly one gets it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from agentflow.core.durability.records import Ending, RunSpec
from agentflow.core.durability.sqlite.interrupts import interrupts_text, wake_of
from agentflow.core.durability.sqlite.record_rows import totals
from agentflow.errors import RunEndedError, RunExistsError, RunHeldError

__all__ = [
    "Holder",
    "RunRow",
    "ask_to_end",
    "asked_to_end",
    "begin",
    "cancel",
    "claim",
    "count_anew",
    "end",
    "owners_of_running",
    "refuse_held",
    "remove",
    "respecify",
    "row_numbered",
    "row_of",
    "rows_like",
    "select",
    "spec_of",
    "wake_again",
]


class RunRow(NamedTuple):
    """A run as it stands in the file, `status` as it was written."""

    number: int
    id: str
    flow: str
    status: str
    final: int
    asked_to_end: int
    owner: str | None
    wake: float | None
    created: float
    updated: float
    steps: int
    cost: float | None
    action: str | None
    error: str | None
    tenant: str | None
    source: str | None
    forked_from: str | None
    forked_at: str | None
    limits: str | None
    interrupts: str | None
    inputs: str
    graph: str


Holder: TypeAlias = Callable[[RunRow], "str | None"]
"""Who has the run just now, in words; None where it may be taken."""

_COLUMNS: Final = ", ".join(RunRow._fields)
_SELECT: Final = f"SELECT {_COLUMNS} FROM durable_runs"
_AFTER: Final = "\U0010ffff"  # sorts behind whatever an id goes on with


# ---- reading -------------------------------------------------------------------------------------------------


def row_of(connection: sqlite3.Connection, run_id: str) -> RunRow | None:
    found = connection.execute(f"{_SELECT} WHERE id = ?", (run_id,)).fetchone()
    return None if found is None else RunRow._make(found)


def row_numbered(connection: sqlite3.Connection, number: int) -> RunRow | None:
    found = connection.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()
    return None if found is None else RunRow._make(found)


def rows_like(connection: sqlite3.Connection, start: str, limit: int) -> list[RunRow]:
    """The run of that id alone, or those whose ids begin so."""
    exact = row_of(connection, start)
    if exact is not None or not start:
        return [exact] if exact is not None else []
    found = connection.execute(f"{_SELECT} WHERE id >= ? AND id < ? LIMIT ?", (start, start + _AFTER, limit))
    return [RunRow._make(each) for each in found]


def select(
    connection: sqlite3.Connection,
    *,
    flow: str | None,
    status: str | None,
    due: float | None,
    owners: Sequence[str] | None,
    limit: int,
) -> list[RunRow]:
    """The newest first, or with `due` the earliest. `owners` are those whose runs are meant."""
    by = "" if due is None else "+"  # so that SQLite takes the index of what is due, which is the small one
    conditions: dict[str, object] = {}
    if flow is not None:
        conditions[f"{by}flow = ?"] = flow
    if status is not None:
        conditions[f"{by}status = ?"] = status
    if due is not None:
        conditions["wake <= ?"] = due
    where = [*conditions, *([f"owner IN ({', '.join('?' * len(owners))})"] if owners is not None else [])]
    found = connection.execute(
        f"{_SELECT} {'WHERE ' if where else ''}{' AND '.join(where)} "
        f"ORDER BY {'number DESC' if due is None else 'wake, number'} LIMIT ?",
        (*conditions.values(), *(owners or ()), limit),
    )
    return [RunRow._make(each) for each in found]


def asked_to_end(connection: sqlite3.Connection, owner: str) -> list[str]:
    """The ids of its runs that somebody has cancelled."""
    found = connection.execute("SELECT id FROM durable_runs WHERE asked_to_end = 1 AND owner = ?", (owner,))
    return [run_id for (run_id,) in found]


def owners_of_running(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT DISTINCT owner FROM durable_runs WHERE status = 'running'")
    return [owner for (owner,) in found if owner]


def spec_of(row: RunRow) -> RunSpec:
    return RunSpec(
        run_id=row.id,
        flow=row.flow,
        inputs=row.inputs,
        graph=row.graph,
        tenant=row.tenant,
        limits=row.limits,
        source=row.source,
        forked_from=row.forked_from,
        forked_at=row.forked_at,
    )


# ---- beginning -----------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, spec: RunSpec, status: str, owner: str | None, now: float) -> int:
    """Its number. Raises RunExistsError where the id is taken."""
    columns = "id, flow, status, owner, created, updated, tenant, source, forked_from, forked_at, limits, inputs, graph"
    added = connection.execute(
        f"INSERT INTO durable_runs({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT(id) DO NOTHING RETURNING number",
        (
            *(spec.run_id, spec.flow, status, owner, now, now, spec.tenant, spec.source),
            *(spec.forked_from, spec.forked_at, spec.limits, spec.inputs, spec.graph),
        ),
    ).fetchone()
    if added is None:
        raise RunExistsError(f"there is a run {spec.run_id} already: give this one another id", run_id=spec.run_id)
    return int(added[0])


def claim(connection: sqlite3.Connection, spec: RunSpec, owner: str, holder: Holder, now: float) -> RunRow:
    """The run, now `owner`'s, or a final one as it stands. Raises RunExistsError, RunHeldError, RunEndedError."""
    row = row_of(connection, spec.run_id)
    if row is None:
        begin(connection, spec, "running", owner, now)
    else:
        _refuse_another(row, spec)
        if row.status == "done":
            return row
        refuse_held(row, holder)
        if row.final or row.asked_to_end:
            raise _ended(row)
        connection.execute(
            "UPDATE durable_runs SET status = 'running', owner = ?, updated = ?, wake = NULL, action = NULL, "
            "error = NULL WHERE number = ?",
            (owner, now, row.number),
        )
    claimed = row_of(connection, spec.run_id)
    assert claimed is not None
    return claimed


def _refuse_another(row: RunRow, spec: RunSpec) -> None:
    if row.flow != spec.flow:
        raise RunExistsError(
            f"run {row.id} is one of the flow {row.flow!r}, not of {spec.flow!r}: give this one another id",
            run_id=row.id,
        )
    if row.inputs != spec.inputs:
        raise RunExistsError(
            f"run {row.id} began with other inputs: give this one another id, or resume that one", run_id=row.id
        )


def _ended(row: RunRow) -> RunEndedError:
    return RunEndedError(row.id, "cancelled", "was cancelled for good: begin another, or fork it")


def refuse_held(row: RunRow, holder: Holder) -> None:
    """Raises RunHeldError where somebody is running it."""
    who = holder(row)
    if who is not None:
        raise RunHeldError(row.id, who)


# ---- ending --------------------------------------------------------------------------------------------------


def end(connection: sqlite3.Connection, number: int, owner: str, ending: Ending | None, now: float) -> str:
    """Write how this stretch ended, None for cancelled. What it is now: the run may have been cancelled meanwhile, and
    "answered" says that it has not ended, as what it waits for has come."""
    [[asked, status]] = connection.execute(
        "SELECT asked_to_end AND owner = ?2, status FROM durable_runs WHERE number = ?1", (number, owner)
    ).fetchall() or [[0, "gone"]]
    if status != "running":
        return str(status)
    becomes = "cancelled" if ending is None or (asked and ending.status != "done") else ending.status
    pending = ending.interrupts if ending is not None and becomes == "waiting" else ()
    if any(_is_answered(connection, number, each.id) for each in pending):
        return "answered"
    steps, cost, _ = totals(connection, number)
    connection.execute(
        "UPDATE durable_runs SET status = ?, final = ?, asked_to_end = 0, wake = ?, updated = ?, steps = ?, cost = ?, "
        "action = ?, error = ?, interrupts = ? WHERE number = ? AND owner = ?",
        (
            *(becomes, becomes == "done" or bool(asked), wake_of(pending), now, steps, cost),
            *((None, None) if ending is None else (ending.action, ending.error)),
            *(interrupts_text(pending) if pending else None, number, owner),
        ),
    )
    return becomes


def _is_answered(connection: sqlite3.Connection, number: int, interrupt: str) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM durable_records WHERE run = ? AND id = ?", (number, f"{interrupt}!answer")
        ).fetchall()
    )


def cancel(connection: sqlite3.Connection, row: RunRow, now: float) -> None:
    """End one that nobody runs, for good."""
    connection.execute(
        "UPDATE durable_runs SET status = 'cancelled', final = 1, asked_to_end = 0, wake = NULL, updated = ? "
        "WHERE number = ?",
        (now, row.number),
    )


def ask_to_end(connection: sqlite3.Connection, row: RunRow) -> None:
    """Tell whoever runs it."""
    connection.execute("UPDATE durable_runs SET asked_to_end = 1 WHERE number = ?", (row.number,))


def wake_again(connection: sqlite3.Connection, row: RunRow, now: float) -> None:
    """There is something to go on with, if it is parked."""
    connection.execute(
        "UPDATE durable_runs SET wake = min(ifnull(wake, ?1), ?1), updated = ?1 "
        "WHERE number = ?2 AND status = 'waiting'",
        (now, row.number),
    )


# ---- changing what is there ----------------------------------------------------------------------------------


def respecify(connection: sqlite3.Connection, number: int, spec: RunSpec, now: float) -> None:
    """Another graph, and what else a run needs to go on."""
    connection.execute(
        "UPDATE durable_runs SET flow = ?, inputs = ?, graph = ?, source = ?, updated = ? WHERE number = ?",
        (spec.flow, spec.inputs, spec.graph, spec.source, now, number),
    )


def count_anew(connection: sqlite3.Connection, number: int) -> None:
    steps, cost, _ = totals(connection, number)
    connection.execute("UPDATE durable_runs SET steps = ?, cost = ? WHERE number = ?", (steps, cost, number))


def remove(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM durable_runs WHERE number = ?", (number,))
