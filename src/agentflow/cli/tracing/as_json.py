"""A trace as JSON: the answers, the sums, and every span with the number of what is around it.

Durations are in seconds, costs in US dollars; what is not known is null. `path` says where the run's time went, in
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from agentflow.cli.tracing.answers import answers_to
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.trace.critical_path import critical_spans, stretches
from agentflow.core.observability.trace.totals import Totals, by_model, by_node, totals, totals_by
from agentflow.core.observability.trace.tree import Mark, Span, Trace

__all__ = ["event_json", "trace_json"]


def trace_json(trace: Trace) -> dict[str, object]:
    root = trace.root
    critical = critical_spans(root) if root is not None else frozenset()
    return {
        "run_id": trace.run_id,
        "name": trace.name,
        "status": trace.status,
        "started": trace.started,
        "duration": trace.duration,
        "parked": trace.parked,
        "answers": asdict(answers_to(trace)),
        "totals": _sums(totals(trace.walk())),
        "models": {name: _sums(each) for name, each in totals_by(trace, by_model).items()},
        "nodes": {name: _sums(each) for name, each in totals_by(trace, by_node).items()},
        "breakdown": dict(root.breakdown) if root is not None else {},
        "path": [
            {"span": each.span.number, "category": each.category, "start": each.start, "end": each.end}
            for each in (stretches(root) if root is not None else ())
        ],
        "graph": trace.graph,
        "marks": [_mark(mark) for mark in trace.marks],
        "spans": [_span(span, span.number in critical) for span in trace.walk()],
    }


def _sums(total: Totals) -> dict[str, object]:
    return {**asdict(total), "cost": total.known_cost}


def _span(span: Span, critical: bool) -> dict[str, object]:
    return {
        "number": span.number,
        "parent": span.parent,
        "kind": span.what,
        "name": span.name,
        "path": span.path,
        "visit": span.visit,
        "item": span.item,
        "attempt": span.attempt,
        "status": span.status,
        "start": span.start,
        "end": span.end,
        "duration": span.duration,
        "critical": critical,
        "breakdown": dict(span.breakdown),
        "data": {name: value for name, value in span.data.items() if name != "graph"},
        "marks": [_mark(mark) for mark in span.marks],
    }


def _mark(mark: Mark) -> dict[str, object]:
    return {"kind": mark.kind, "at": mark.at, "attempt": mark.attempt, "data": dict(mark.data)}


def event_json(event: ExecutionEvent) -> Mapping[str, object]:
    """An event as it was told, with the names of its fields."""
    return {**{name: getattr(event, name) for name in ExecutionEvent.__slots__}, "data": dict(event.data)}
