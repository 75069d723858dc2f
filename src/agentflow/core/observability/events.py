"""What happened in a run, as frozen records of one type.

    flow_start ─ node_start ─ model_start ─ attempt_start … attempt_success ─ model_success ─ node_success ─ …
    span 1       span 2       span 3        span 4          span 4            span 3          span 2

What begins and ends is a span. It is named by the number of the event that began it, and `parent` is the span around
it, so a trace is a tree. Which kinds there are, and what their `data` says, stands in `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CONTENT", "STRETCH", "ExecutionEvent", "execution_event", "stretch_of"]

STRETCH: Final = 1_000_000_000
"""Numbers of events that one stretch of a run has to itself: a run that was parked, or whose process died, and goes on
later, goes on from the next multiple, so that nobody needs to know how far the last stretch came."""

CONTENT: Final = frozenset({"messages", "answer", "arguments", "tool_calls", "quote", "question", "fingerprint"})
"""The facts that hold what was asked, answered or passed on: told to who wants contents, and to nobody else."""


def stretch_of(event: ExecutionEvent) -> int:
    """Which stretch of its run it happened in, from 0: how often the run had gone on by then."""
    return event.sequence // STRETCH


@dataclass(frozen=True, slots=True)
class ExecutionEvent:
    """One thing that happened in a run.

    `kind` is an open string: flow_start, node_success, retry, chunk, model_error, … or the user's own. `path` names
    every level with its visit (`article/inner#2/write#1`), `node` and `visit` are its end; a model call bears those of
    the node that makes it. `sequence` counts from 1 within the run, and in a run that goes on in a later stretch from
    `stretch * STRETCH + 1`. `time` is wall time in seconds since 1970, `at` seconds since the run first began:
    monotonic within a stretch, by the wall clock between two. `duration` is monotonic seconds since the matching start
    (None where nothing ended). `span` is the `sequence` of the event that began what this is about, `parent` that of
    what is around it (None for what nothing is around).
    """

    kind: str
    run_id: str
    path: str
    node: str
    visit: int
    sequence: int
    time: float
    duration: float | None = None
    attempt: int = 1
    data: Mapping[str, object] = field(default_factory=dict)
    span: int = 0
    parent: int | None = None
    at: float = 0.0


class _Draft:
    """An ExecutionEvent that is still being written."""

    __slots__ = ExecutionEvent.__slots__


def execution_event(
    kind: str,
    run_id: str,
    path: str,
    node: str,
    visit: int,
    sequence: int,
    time: float,
    duration: float | None,
    attempt: int,
    data: Mapping[str, object],
    span: int,
    parent: int | None,
    at: float,
) -> ExecutionEvent:
    """The same as `ExecutionEvent(…)` in a fourth of the time: the fields are set before the record is frozen."""
    draft: Any = _Draft()
    draft.kind, draft.run_id, draft.path, draft.node, draft.visit = kind, run_id, path, node, visit
    draft.sequence, draft.time, draft.duration, draft.attempt, draft.data = sequence, time, duration, attempt, data
    draft.span, draft.parent, draft.at = span, parent, at
    draft.__class__ = ExecutionEvent
    event: ExecutionEvent = draft
    return event
