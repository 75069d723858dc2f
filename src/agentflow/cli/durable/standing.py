"""How runs stand by what is kept of them, where what was recorded of them cannot say.

as_kept(file, runs)     a run that was killed as it ended is shown as it ended, and not as lost
unrecorded_runs(file)   runs that were killed before anything was recorded of them
kept_runs(file)         all that are kept, for a file in which nothing was ever recorded

What is recorded is written a moment later than what is kept. It is one question to the file for all runs of a list.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agentflow.core.durability.records import RunInfo
from agentflow.core.observability.store import RunRecord
from agentflow.core.observability.store.database import open_for_reading, version_of
from agentflow.core.observability.store.schema import COMPONENT
from agentflow.errors import AgentFlowError, UnknownRunError

__all__ = ["as_kept", "is_unused", "kept_runs", "unrecorded_runs"]

_ENDED: Final = """SELECT id, status, updated, error FROM durable_runs
    WHERE status <> 'running' AND id IN (SELECT value FROM json_each(?))"""
_ALL: Final = "SELECT id FROM durable_runs ORDER BY number DESC LIMIT 1000"
_UNRECORDED: Final = """SELECT id FROM durable_runs WHERE status = 'running'
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = durable_runs.id) ORDER BY number DESC LIMIT 1000"""


def as_kept(file: Path, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The same runs. Those that count as lost stand as they are kept, where that is known."""
    lost = [run.id for run in runs if run.status == "lost"]
    if not lost:
        return list(runs)
    ended = {id: (status, updated, error) for id, status, updated, error in _asked(file, _ENDED, json.dumps(lost))}
    return [_ended(run, *ended[run.id]) if run.id in ended else run for run in runs]


def _ended(run: RunRecord, status: Any, updated: float, error: str | None) -> RunRecord:
    took = None if status == "waiting" else max(0.0, updated - run.started)
    return replace(run, status=status, seen=max(run.seen, updated), duration=took, error=error)


def _asked(file: Path, question: str, *values: str) -> list[Any]:
    """Nothing, where the file keeps no runs."""
    try:
        with closing(open_for_reading(file)) as connection:
            return connection.execute(question, values).fetchall()
    except (sqlite3.Error, OSError, AgentFlowError):
        return []


def is_unused(file: Path) -> bool:
    """Whether it is a file that is ours, or will be, and in which no run has been recorded yet."""
    try:
        with closing(open_for_reading(file)) as connection:
            return version_of(connection, COMPONENT) == 0
    except (sqlite3.Error, OSError, AgentFlowError):
        return False


def kept_runs(file: Path) -> list[RunRecord]:
    """All of them, the newest first, as they would be recorded."""
    return _read(file, _ALL)


def unrecorded_runs(file: Path) -> list[RunRecord]:
    """Those that have not ended and that nothing is recorded of, though of others there is."""
    try:
        return _read(file, _UNRECORDED)
    except AgentFlowError:  # as in a folder that is read-only: what is recorded can be listed all the same
        return []


def _read(file: Path, question: str) -> list[RunRecord]:
    ids = [id for (id,) in _asked(file, question)]
    return [_recorded(info) for info in asyncio.run(_found(file, ids))] if ids else []


async def _found(file: Path, ids: Sequence[str]) -> list[RunInfo]:
    from agentflow.core.durability.sqlite import SqliteDurability  # not where all has been recorded

    engine, found = SqliteDurability(file), list[RunInfo]()
    try:
        for id in ids:
            with suppress(UnknownRunError):  # deleted meanwhile
                found.append(await engine.find(id))
    finally:
        await engine.close()
    return found


def _recorded(info: RunInfo) -> RunRecord:
    over = info.status not in ("running", "waiting", "lost")
    return RunRecord(
        id=info.run_id,
        kind="flow",
        name=info.spec.flow,
        status=info.status,
        started=info.created,
        seen=info.updated,
        duration=info.updated - info.created if over else None,
        error=info.error,
        error_type=None,
        tenant=info.spec.tenant,
        parent_run=None,
        events=0,
        calls=0,
        failed_calls=0,
        unpriced=0,
        input_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=info.cost or 0.0,
    )
