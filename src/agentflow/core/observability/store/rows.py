"""Events, runs and losses as rows, and rows as events again.

event_row(7, event)   ──▶  INSERT_EVENT        an event, less what follows from the rest of it
event_of(row, id)     ◀──  EVENT_COLUMNS       the same event again
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store.cleaning import to_json
from agentflow.core.observability.store.schema import COUNTS
from agentflow.core.observability.store.tally import Counts, News

__all__ = [
    "ADD_LOSS",
    "ADD_RUN",
    "ADD_USAGE",
    "CANCEL_RUN",
    "CHANGE_RUN",
    "EVENT_COLUMNS",
    "INSERT_EVENT",
    "INSERT_FEEDBACK",
    "RETIRE_USAGE",
    "Row",
    "event_of",
    "event_row",
    "feedback_row",
    "new_run",
    "run_changes",
    "usage_rows",
]

Row: TypeAlias = tuple[Any, ...]

_LONGEST_NAME: Final = 400  # characters of a model's, a provider's, a tenant's name
_LONGEST_ERROR: Final = 4_000
_SUMS: Final = ", ".join(COUNTS)
_MARKS: Final = ", ".join("?" for _ in COUNTS)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)

# ---- events --------------------------------------------------------------------------------------------------

EVENT_COLUMNS: Final = "sequence, kind, path, node, visit, time, at, duration, attempt, span, parent, data"
INSERT_EVENT: Final = f"INSERT INTO events(run, {EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def event_row(run: int, event: ExecutionEvent, data: str | None) -> Row:
    """`data` is the event's as JSON."""
    follows = _end_of(event.path) == (event.node, event.visit)
    return (
        run,
        event.sequence,
        event.kind,
        event.path,
        None if follows else event.node,
        None if follows else event.visit,
        event.time,
        event.at,
        event.duration,
        None if event.attempt == 1 else event.attempt,
        None if event.span == event.sequence else event.span,
        event.parent,
        data,
    )


def event_of(row: Row, run_id: str) -> ExecutionEvent:
    sequence, kind, path, node, visit, time, at, duration, attempt, span, parent, data = row
    if visit is None:
        node, visit = _end_of(path)
    return ExecutionEvent(
        kind=kind,
        run_id=run_id,
        path=path,
        node=node,
        visit=visit,
        sequence=sequence,
        time=time,
        duration=duration,
        attempt=1 if attempt is None else attempt,
        data={} if data is None else json.loads(data),
        span=sequence if span is None else span,
        parent=parent,
        at=at,
    )


@lru_cache(1_000)
def _end_of(path: str) -> tuple[str, int]:
    """The node and visit that a path ends with."""
    name, found, visit = path.rpartition("/")[2].rpartition("#")
    if not found:
        return visit, 1
    return (name, int(visit)) if visit.isdecimal() and visit.isascii() and len(visit) < 16 else (f"{name}#{visit}", 1)


INSERT_FEEDBACK: Final = (
    "INSERT INTO feedback(run_id, time, score, label, comment, source, path) VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def feedback_row(event: ExecutionEvent) -> Row:
    data = event.data
    score = data.get("score")
    return (
        event.run_id,
        event.time,
        float(score) if isinstance(score, int | float) else None,
        *(None if (said := data.get(name)) is None else _word(str(said)) for name in ("label", "comment", "source")),
        event.path,
    )


# ---- runs ----------------------------------------------------------------------------------------------------

ADD_RUN: Final = (
    """INSERT INTO runs(id, kind, name, status, started, seen, process) VALUES (?, ?, ?, 'running', ?, ?, ?)"""
)

# What came after the end of a run changes nothing of how it ended; what comes of a lost one says that it lives. What a
# process tells that did not know that another one had gone on with its run changes neither: it adds to the sums alone.
CHANGE_RUN: Final = f"""UPDATE runs SET
    process = CASE WHEN :stretch < stretch THEN process
        WHEN :status = 'running' OR :stretch > stretch OR (status = 'lost' AND :told) THEN :process ELSE process END,
    started = CASE WHEN :status = 'running' AND events = 0 THEN :started ELSE started END,
    duration = CASE WHEN :stretch < stretch OR :status IS NULL THEN duration ELSE :duration END,
    ended = CASE WHEN :stretch < stretch OR :status IS NULL THEN ended ELSE :ended END,
    error = CASE WHEN :stretch < stretch OR :status IS NULL THEN error ELSE :error END,
    error_type = CASE WHEN :stretch < stretch OR :status IS NULL THEN error_type ELSE :error_type END,
    breakdown = CASE WHEN :stretch < stretch OR :status IS NULL THEN breakdown
        ELSE coalesce(:breakdown, breakdown) END,
    status = CASE WHEN :stretch < stretch THEN status WHEN :status IS NOT NULL THEN :status
        WHEN status = 'lost' AND :told THEN 'running' ELSE status END,
    stretch = max(stretch, :stretch),
    parked = parked + :parked,
    tenant = coalesce(:tenant, tenant),
    parent_run = coalesce(:parent_run, parent_run),
    seen = max(seen, :seen),
    events = events + :events,
    {", ".join(f"{name} = {name} + :{name}" for name in COUNTS)}
WHERE number = :number"""

CANCEL_RUN: Final = """UPDATE runs
    SET status = 'cancelled', duration = max(0.0, :at - started), parked = parked + :parked, breakdown = :breakdown
    WHERE number = :number AND status IN ('running', 'waiting', 'lost')"""
"""One that nobody was running was ended from outside."""


def new_run(news: News, process: int) -> Row:
    return (news.run_id, news.kind, _word(news.name), news.started, news.seen, process)


def run_changes(number: int, news: News, process: int) -> dict[str, Any]:
    total = {name: sum(getattr(counts, name) for counts in news.usage.values()) for name in COUNTS}
    return {
        "number": number,
        "process": process,
        "status": news.status,
        "told": news.told,
        "stretch": news.stretch,
        "ended": news.ended,
        "parked": news.parked,
        "started": news.started,
        "seen": news.seen,
        "duration": news.duration,
        "error": _word(news.error, _LONGEST_ERROR),
        "error_type": _word(news.error_type),
        "breakdown": None if news.breakdown is None else _word(to_json(news.breakdown), _LONGEST_ERROR),
        "tenant": _word(news.tenant),
        "parent_run": _word(news.parent_run),
        "events": news.events,
        **total,
    }


ADD_USAGE: Final = f"""INSERT INTO usage(run, hour, model, provider, {_SUMS}) VALUES (?, ?, ?, ?, {_MARKS})
    ON CONFLICT DO UPDATE SET {_ADDED}"""

RETIRE_USAGE: Final = f"""INSERT INTO spending(hour, flow, model, provider, tenant, {_SUMS})
    SELECT hour, name, model, provider, coalesce(tenant, ''), {", ".join(f"usage.{name}" for name in COUNTS)}
    FROM usage JOIN runs ON runs.number = usage.run WHERE runs.number = ?
    ON CONFLICT DO UPDATE SET {_ADDED}"""
"""What a run has spent outlives it."""


def usage_rows(number: int, news: News) -> Iterator[Row]:
    for (hour, model, provider), counts in news.usage.items():
        yield (number, hour, _word(model), _word(provider), *_values(counts))


def _values(counts: Counts) -> Sequence[float]:
    return [getattr(counts, name) for name in COUNTS]


ADD_LOSS: Final = """INSERT INTO losses(process, reason, note, events, first, last) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET events = events + excluded.events, last = max(last, excluded.last)"""


def _word(text: str | None, longest: int = _LONGEST_NAME) -> str | None:
    """Short enough for a column, and without halves of characters, which none can hold."""
    if text is None:
        return None
    text = text if len(text) <= longest else f"{text[:longest]}…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
