"""Every metric that AgentFlow itself counts, and its kind. What they mean, and their labels, stands in docs/metrics.md.

    METRICS["node_visits"]  ──▶  "counter"

Units are in the names: seconds, dollars, tokens. A metric of your own may have any other name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentflow.core.observability.metrics.series import Kind

__all__ = ["METRICS"]

METRICS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(
        "flow_runs node_visits node_retries node_tokens node_cost_dollars flow_tokens flow_cost_dollars model_calls "
        "model_attempts model_retries model_tokens model_cost_dollars model_unpriced_calls model_lost_requests "
        "tool_calls errors rejections breaker_transitions fallbacks hedges cache_lookups wait_seconds "
        "alert_transitions feedback samples_refused series_overflow".split(),
        "counter",
    ),
    **dict.fromkeys("flows_in_flight nodes_in_flight model_calls_in_flight breaker_open".split(), "gauge"),
    **dict.fromkeys(
        "flow_duration_seconds node_duration_seconds model_duration_seconds model_first_token_seconds "
        "tool_duration_seconds attempt_duration_seconds limiter_wait_seconds shedder_wait_seconds pool_wait_seconds "
        "feedback_score".split(),
        "histogram",
    ),
}
