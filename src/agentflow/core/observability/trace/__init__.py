"""A run's events put together: its tree, the path that decided how long it took, and what it used."""

from agentflow.core.observability.trace.critical_path import Stretch, critical_spans, stretches
from agentflow.core.observability.trace.totals import Totals, by_model, by_node, place_of, totals, totals_by
from agentflow.core.observability.trace.tree import Mark, Span, Status, Trace, trace_of

__all__ = [
    "Mark",
    "Span",
    "Status",
    "Stretch",
    "Totals",
    "Trace",
    "by_model",
    "by_node",
    "critical_spans",
    "place_of",
    "stretches",
    "totals",
    "totals_by",
    "trace_of",
]
