"""Where a run's first span belongs: what is around it, and what it links to.

in a request's span (traceparent came in)  ──▶  a child of it
in a node of another run                   ──▶  a child of that node's span, or of that run's first span
one of a batch                             ──▶  a trace of its own, linked to what the batch was begun in;
                                                where nothing was around, to the batch's first run
"""

from __future__ import annotations

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, get_current_span, set_span_in_context

from agentflow.core.observability.events import ExecutionEvent
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.open_spans import OpenSpans

__all__ = ["surroundings"]


def surroundings(event: ExecutionEvent, spans: OpenSpans) -> tuple[Context, list[Link]]:
    """The context for a span of which no span of its run is known to be around it. Baggage stays in it."""
    current = otel.get_current()
    if event.parent is not None:  # what was around it is over, or was put out
        return spans.root(event.run_id) or current, []
    around = get_current_span(current).get_span_context()
    batch = event.data.get("batch")
    if isinstance(batch, str):
        target = around if around.is_valid else spans.batch(batch)
        links = [] if target is None else [Link(target, {names.BATCH: batch})]
        return set_span_in_context(INVALID_SPAN, current), links
    parent_run = event.data.get("parent_run")
    if isinstance(parent_run, str) and not around.is_valid:
        return spans.root(parent_run) or current, []
    return current, []
