"""How runs stand by what is kept of them, where what was recorded of them cannot say.

as_kept(file, runs)     a run that was killed as it ended is shown as it ended, and not as lost
kept_runs(file)         runs that were killed before anything was recorded

What is recorded is written a moment later than what is kept. It is one question to the file for all runs of a list.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agentflow.core.durability.records import RunInfo
from agentflow.core.observability.store import RunRecord
from agentflow.core.observability.store.database import open_for_reading, version_of
from agentflow.core.observability.store.schema import COMPONENT
from agentflow.errors import AgentFlowError

__all__ = ["as_kept", "is_unused", "kept_runs"]

_ENDED: Final = """SELECT id, status, updated, error FROM durable_runs
    WHERE status <> 'running' AND id IN (SELECT value FROM json_each(?))"""
_ANY: Final = "SELECT 1 FROM durable_runs LIMIT 1"
_MOST: Final = 1000


def as_kept(file: Path, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The same runs. Those that count as lost stand as they are kept, where that is known."""
    lost = [run.id for run in runs if run.status == "lost"]
    ended = {id: (status, updated, error) for id, status, updated, error in _asked(file, _ENDED, json.dumps(lost))}
    return [_ended(run, *ended[run.id]) if run.id in ended else run for run in runs] if ended else list(runs)


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
    """The newest first, as they would be recorded."""
    from agentflow.core.durability.sqlite import SqliteDurability  # not for those that have been recorded

    if not _asked(file, _ANY):
        return []
    engine = SqliteDurability(file)

    async def found() -> Sequence[RunInfo]:
        try:
            return await engine.runs(limit=_MOST)
        finally:
            await engine.close()

    return [_recorded(info) for info in asyncio.run(found())]


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
