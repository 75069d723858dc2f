"""What the reader asks SQLite, and what it makes of the answers.

A run that is "running" in the file and whose process is surely dead (`is_dead`, a function of the reader's) is shown as
lost. Runs that are leaving are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agentflow.core.observability.store.records import By, Feedback, RunRecord
from agentflow.core.observability.store.rows import EVENT_COLUMNS, Row
from agentflow.core.observability.store.schema import COUNTS

__all__ = [
    "ADDRESSES",
    "COSTS",
    "EVENTS",
    "FEEDBACK",
    "LOSSES",
    "NEW_EVENTS",
    "NEW_EVENTS_OF",
    "feedback_of",
    "run_of",
    "runs_where",
]

# ---- runs ----------------------------------------------------------------------------------------------------

_STATUS: Final = "CASE WHEN runs.status = 'running' AND is_dead(process) THEN 'lost' ELSE runs.status END"
_FACTS: Final = "id, kind, name, status, started, seen, duration, error, error_type, tenant, parent_run, events"
_RUNS: Final = f"""SELECT * FROM (
    SELECT {_FACTS.replace("status", f"{_STATUS} AS status")}, {", ".join(COUNTS)}, breakdown,
        (SELECT json_group_array(DISTINCT model) FROM usage WHERE run = runs.number) AS models,
        processes.pid, processes.host, stretch + 1, parked, runs.number
    FROM runs LEFT JOIN processes ON processes.number = runs.process WHERE NOT leaving{{}}
)"""
_NAMES: Final = [*_FACTS.split(", "), *COUNTS]


def runs_where(
    *,
    run: str | None = None,
    name: str | None = None,
    status: str | None = None,
    since: float | None = None,
    until: float | None = None,
    tenant: str | None = None,
    model: str | None = None,
    kind: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """The question for runs, without order and limit, and its values."""
    values: dict[str, Any] = {
        "run": run,
        "end": None if run is None else f"{run}\U0010ffff",
        "name": name,
        "status": status,
        "since": since,
        "until": until,
        "tenant": tenant,
        "model": model,
        "kind": kind,
    }
    conditions = {
        "run": "runs.id >= :run AND runs.id < :end",
        "name": "runs.name GLOB :name" if name is not None and set(name) & set("*?") else "runs.name = :name",
        "since": "runs.started >= :since",
        "until": "runs.started < :until",
        "tenant": "runs.tenant = :tenant",
        "model": "EXISTS (SELECT 1 FROM usage WHERE run = runs.number AND usage.model = :model)",
        "kind": "runs.kind = :kind",
        "status": f"({_STATUS}) = :status",
    }
    wanted = "".join(f" AND {text}" for key, text in conditions.items() if values[key] is not None)
    return _RUNS.format(wanted), {key: value for key, value in values.items() if value is not None}


def run_of(row: Row) -> RunRecord:
    facts = dict(zip(_NAMES, row, strict=False))
    breakdown, models, pid, host, stretches, parked = row[len(_NAMES) : len(_NAMES) + 6]
    return RunRecord(
        **facts,
        breakdown=json.loads(breakdown) if breakdown else {},
        models=tuple(sorted(json.loads(models))),
        pid=pid or 0,
        host=host or "",
        stretches=stretches,
        parked=parked,
    )


ADDRESSES: Final = "SELECT number, pid, began, boot, namespace, machine, host FROM processes"

# ---- events --------------------------------------------------------------------------------------------------

EVENTS: Final = f"""SELECT number, {EVENT_COLUMNS} FROM events
    WHERE run = (SELECT number FROM runs WHERE id = :run AND NOT leaving)
    AND number > :last AND (:after = 0 OR sequence > :after) ORDER BY number LIMIT :page"""

_EVENT: Final = ", ".join(f"events.{name}" for name in EVENT_COLUMNS.split(", "))
_NEW: Final = f"SELECT events.number, runs.id, {_EVENT} FROM events JOIN runs ON runs.number = events.run"
NEW_EVENTS: Final = f"{_NEW} WHERE events.number > :last ORDER BY events.number LIMIT :page"
NEW_EVENTS_OF: Final = f"{_NEW} WHERE runs.id = :run AND events.number > :last ORDER BY events.number LIMIT :page"

# ---- sums ----------------------------------------------------------------------------------------------------

_SUMS: Final = ", ".join(COUNTS)
_SPENT: Final = f"""(
    SELECT hour, name AS flow, model, provider, coalesce(tenant, '') AS tenant,
        {", ".join(f"usage.{name}" for name in COUNTS)}
    FROM usage JOIN runs ON runs.number = usage.run
    UNION ALL
    SELECT hour, flow, model, provider, tenant, {_SUMS} FROM spending
)"""
_KEYS: Final[Mapping[By, tuple[str, str]]] = {
    "model": ("model", "sum(cost) DESC, sum(calls) DESC, 1"),
    "flow": ("flow", "sum(cost) DESC, sum(calls) DESC, 1"),
    "day": ("date(hour * 3600, 'unixepoch', 'localtime')", "1"),
    "provider": ("provider", "sum(cost) DESC, sum(calls) DESC, 1"),
    "tenant": ("tenant", "sum(cost) DESC, sum(calls) DESC, 1"),
}
COSTS: Final[Mapping[str, str]] = {
    by: f"""SELECT {key}, {", ".join(f"sum({name})" for name in COUNTS)} FROM {_SPENT}
        WHERE (:since IS NULL OR hour >= :since) AND (:until IS NULL OR hour < :until)
        GROUP BY 1 ORDER BY {order}"""
    for by, (key, order) in _KEYS.items()
}

# ---- judgements and losses -----------------------------------------------------------------------------------

FEEDBACK: Final = "SELECT number, run_id, time, score, label, comment, source, path FROM feedback"


def feedback_of(row: Row) -> Feedback:
    return Feedback(*row[1:])


LOSSES: Final = """SELECT reason, events, first, last, note, coalesce(pid, 0) FROM losses
    LEFT JOIN processes ON processes.number = losses.process ORDER BY first, reason"""
