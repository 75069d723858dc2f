"""What the events of any run keep to, however it ended: what began has ended once, and its time is accounted for.

assert misfits(seen.events) == []
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

from agentflow.core.observability.events import STRETCH, ExecutionEvent, stretch_of

__all__ = ["misfits"]

_ENDS = ("success", "error", "cancelled", "interrupted")
_EXACT = 1e-3  # seconds


def misfits(events: Iterable[ExecutionEvent]) -> list[str]:
    """What is wrong, in words."""
    runs: dict[str, list[ExecutionEvent]] = {}
    for event in events:
        if event.sequence > 0:  # what was said beside the run is no part of it
            runs.setdefault(event.run_id, []).append(event)
    return [f"{run}: {problem}" for run, told in runs.items() for problem in _of_run(told)]


def _of_run(events: list[ExecutionEvent]) -> Iterable[str]:
    numbers = [event.sequence for event in events]
    told = Counter(map(stretch_of, events))
    if sorted(numbers) != [stretch * STRETCH + at + 1 for stretch in sorted(told) for at in range(told[stretch])]:
        yield f"numbers have holes: {numbers}"
    open_spans: dict[int, ExecutionEvent] = {}
    begun: dict[int, str] = {}
    for event in events:
        what, _, how = event.kind.rpartition("_")
        if how == "start":
            open_spans[event.span], begun[event.span] = event, what
            if event.span != event.sequence:
                yield f"{event.kind} {event.sequence} begins span {event.span}"
            if event.parent is not None and event.parent not in begun:
                yield f"{event.kind} {event.sequence} stands in {event.parent}, which never began"
        elif how in _ENDS and what in ("flow", "node", "compensate", "model", "attempt", "tool"):
            start = open_spans.pop(event.span, None)
            if start is None or begun[event.span] != what:
                yield f"{event.kind} {event.sequence} ends {event.span}, which is not open"
            else:
                yield from _of_end(start, event)
    for event in open_spans.values():
        yield f"{event.kind} {event.sequence} at {event.path} never ended"


def _of_end(start: ExecutionEvent, end: ExecutionEvent) -> Iterable[str]:
    if (start.path, start.node, start.visit, start.parent, start.attempt) != (
        *(end.path, end.node, end.visit, end.parent),
        end.attempt if end.kind.startswith("attempt") else start.attempt,
    ):
        yield f"{end.kind} {end.sequence} stands elsewhere than its beginning"
    if end.duration is None or abs(end.duration - (end.at - start.at)) > _EXACT:
        yield f"{end.kind} {end.sequence} lasted {end.duration}, from {start.at} to {end.at}"
    elif not end.kind.startswith("attempt"):
        parts = cast("Mapping[str, float]", end.data["breakdown"])
        if abs(sum(parts.values()) - end.duration) > _EXACT or any(seconds < 0 for seconds in parts.values()):
            yield f"{end.kind} {end.sequence} lasted {end.duration}, of which are told {dict(parts)}"
