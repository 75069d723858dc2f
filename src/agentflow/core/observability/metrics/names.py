"""Every metric that AgentFlow itself counts, its kind and its labels. What they mean stands in docs/metrics.md.

    METRICS["node_visits"]  ──▶  "counter"
    LABELS["node_visits"]   ──▶  ("flow", "node", "status")

Units are in the names: seconds, dollars, tokens. A metric of your own may have any other name, and any labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentflow.core.observability.metrics.series import Kind

__all__ = ["LABELS", "METRICS"]

_MODEL: Final = ("provider", "model")
_NODE: Final = ("flow", "node")

_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "flow_runs": ("flow", "status"),
    "flow_interruptions": ("flow",),
    "flow_resumes": ("flow",),
    "node_visits": (*_NODE, "status"),
    "node_retries": _NODE,
    "node_compensations": (*_NODE, "status"),
    "node_tokens": (*_NODE, "direction"),
    "node_cost_dollars": _NODE,
    "flow_tokens": ("flow", "direction"),
    "flow_cost_dollars": ("flow",),
    "model_calls": (*_MODEL, "status"),
    "model_attempts": (*_MODEL, "status"),
    "model_retries": (*_MODEL, "error_type"),
    "model_tokens": (*_MODEL, "direction"),
    "model_cost_dollars": _MODEL,
    "model_unpriced_calls": _MODEL,
    "model_lost_requests": _MODEL,
    "tool_calls": ("tool", "status"),
    "errors": ("scope", "error_type"),
    "rejections": ("guard", "error_type"),
    "breaker_transitions": ("guard", "to"),
    "fallbacks": ("from", "to"),
    "hedges": ("guard",),
    "cache_lookups": ("model", "outcome"),
    "cache_saved_dollars": ("model",),
    "routes": ("from", "to"),
    "budget_decisions": ("account", "decision"),
    "batches": ("model", "reason"),
    "batched_requests": ("model",),
    "wait_seconds": ("scope", "name", "phase"),
    "alert_transitions": ("rule", "state"),
    "feedback": ("label",),
    "samples_refused": ("reason",),
    "series_overflow": ("metric",),
}
_GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "flows_in_flight": ("flow",),
    "nodes_in_flight": _NODE,
    "model_calls_in_flight": _MODEL,
    "breaker_open": ("guard",),
}
_HISTOGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "flow_duration_seconds": ("flow",),
    "node_duration_seconds": _NODE,
    "model_duration_seconds": _MODEL,
    "model_first_token_seconds": _MODEL,
    "tool_duration_seconds": ("tool",),
    "attempt_duration_seconds": _MODEL,
    "limiter_wait_seconds": ("guard",),
    "shedder_wait_seconds": ("guard",),
    "pool_wait_seconds": ("guard",),
    "feedback_score": ("flow",),
}

LABELS: Final[Mapping[str, tuple[str, ...]]] = {**_COUNTERS, **_GAUGES, **_HISTOGRAMS}

METRICS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(_COUNTERS, "counter"),
    **dict.fromkeys(_GAUGES, "gauge"),
    **dict.fromkeys(_HISTOGRAMS, "histogram"),
}
