"""Where a run's first span belongs: what is around it, and what it links to.

in a request's span (traceparent came in)  ──▶  a child of it
in a node of another run                   ──▶  a child of that node's span, or of that run's first span
one of a batch                             ──▶  a trace of its own, linked to what the batch was begun in;
                                                where nothing was around, to the batch's first run
a run that goes on later                   ──▶  in the trace that it began in, inside its first span, and linked to what
                                                it goes on in; where nobody knows that trace, as a run of its own
"""

from __future__ import annotations

from typing import Final

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentflow.core.observability.events import ExecutionEvent, stretch_of
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.open_spans import OpenSpans

__all__ = ["surroundings"]

_W3C: Final = TraceContextTextMapPropagator()


def surroundings(event: ExecutionEvent, spans: OpenSpans) -> tuple[Context, list[Link]]:
    """The context for a span of which no span of its run is known to be around it. Baggage stays in it."""
    current = otel.get_current()
    if event.parent is not None:  # what was around it is over, or was put out
        return spans.root(event.run_id) or current, []
    around = get_current_span(current).get_span_context()
    if stretch_of(event) and (began := _beginning(event, spans)) is not None:
        return began, [Link(around)] if around.is_valid else []
    batch = event.data.get("batch")
    if isinstance(batch, str):
        target = around if around.is_valid else spans.batch(batch)
        links = [] if target is None else [Link(target, {names.BATCH: batch})]
        return set_span_in_context(INVALID_SPAN, current), links
    parent_run = event.data.get("parent_run")
    if isinstance(parent_run, str) and not around.is_valid:
        return spans.root(parent_run) or current, []
    return current, []


def _beginning(event: ExecutionEvent, spans: OpenSpans) -> Context | None:
    """Where the run first began: this process remembers it for a while, and whoever keeps the run may have kept it."""
    known = spans.root(event.run_id)
    if known is not None:
        return known
    kept = event.data.get("traceparent")
    if not isinstance(kept, str):
        return None
    context = _W3C.extract({"traceparent": kept}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None
