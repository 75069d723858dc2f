"""What events mean in numbers: which meters each kind of event moves.

    node_start                              nodes_in_flight + 1
    node_success, _error, _cancelled        nodes_in_flight − 1, node_visits, node_duration_seconds, wait_seconds
    model_success, …                        the same of the model, tokens and cost of model, node and flow
    retry, rejected, hedge, breaker_state   one counter each

A flow within a flow is a visit of a node of the outer one, as that is where it stands: `flow_runs` counts runs. The
flow of a node is the outermost one. A call whose price is not known is counted in `model_unpriced_calls`, never as
free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeAlias, TypeVar

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metric_families import Families
from agentflow.core.observability.open_spans import OpenSpans
from agentflow.core.observability.series import Kind
from agentflow.core.observability.span_meters import (
    ATTEMPT,
    FLOW,
    MODEL,
    NODE,
    TOOL,
    SpanMeters,
    Spec,
    amount,
    text,
)

__all__ = ["METRICS", "EventMetrics", "Handler"]

K = TypeVar("K")

Handler: TypeAlias = Callable[[ExecutionEvent], None]

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
"""Every metric that AgentFlow itself counts, and its kind."""

_STATUS: Final = {"success": "ok", "error": "error", "cancelled": "cancelled"}
_RUN_STATUS: Final = {"success": "done", "error": "failed", "cancelled": "cancelled"}
_TOKENS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cached_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}
_OPENNESS: Final = {"open": 1.0, "forced_open": 1.0, "half_open": 0.5}


class EventMetrics:
    """Moves the meters of `families`. `handlers` says which method takes which kind of event."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._open = OpenSpans()
        self._flows: dict[str, SpanMeters] = {}
        self._nodes: dict[tuple[str, str], SpanMeters] = {}
        self._models: dict[tuple[str, str], SpanMeters] = {}
        self._attempts: dict[tuple[str, str], SpanMeters] = {}
        self._tools: dict[str, SpanMeters] = {}
        self.handlers: Mapping[str, Handler] = {
            "flow_start": self._flow_start,
            "node_start": self._node_start,
            "model_start": self._model_start,
            **{f"flow_{end}": partial(self._flow_end, status) for end, status in _RUN_STATUS.items()},
            **{f"node_{end}": partial(self._node_end, status) for end, status in _RUN_STATUS.items()},
            **{f"model_{end}": partial(self._model_end, status) for end, status in _STATUS.items()},
            **{f"attempt_{end}": partial(self._attempt_end, status) for end, status in _STATUS.items()},
            **{f"tool_{end}": partial(self._tool_end, status) for end, status in _STATUS.items()},
            "tool_refused": partial(self._tool_end, "refused"),
            "retry": self._retry,
            "limiter_wait": partial(self._waited, "limiter_wait_seconds"),
            "shedder_wait": partial(self._waited, "shedder_wait_seconds"),
            "pool_wait": partial(self._waited, "pool_wait_seconds"),
            "breaker_state": self._breaker,
            "rejected": partial(self._one, "rejections", ("guard", "error_type")),
            "hedge": partial(self._one, "hedges", ("guard",)),
            "fallback": partial(self._one, "fallbacks", ("from", "to")),
            "alert": partial(self._one, "alert_transitions", ("rule", "state")),
            "cache_hit": partial(self._lookup, "hit"),
            "cache_miss": partial(self._lookup, "miss"),
            "feedback": self._feedback,
        }

    # ---- flows and nodes -------------------------------------------------------------------------------------

    def _flow_start(self, event: ExecutionEvent) -> None:
        meters = self._flow(event.path) if event.parent is None else self._node(event)
        self._open.begin(event, meters.in_flight)

    def _flow_end(self, status: str, event: ExecutionEvent) -> None:
        if event.parent is not None:
            self._node_end(status, event)
            return
        self._open.end(event)
        self._ended(self._flow(event.path), status, event)

    def _node_start(self, event: ExecutionEvent) -> None:
        self._open.begin(event, self._node(event).in_flight)

    def _node_end(self, status: str, event: ExecutionEvent) -> None:
        self._open.end(event)
        self._ended(self._node(event), status, event)

    def _ended(self, meters: SpanMeters, status: str, event: ExecutionEvent) -> None:
        slot = self._families.slot()
        meters.end(status, event, slot)
        if status == "failed" or status == "error":
            meters.error(event.data, slot)

    def _flow(self, path: str) -> SpanMeters:
        flow = path.partition("/")[0]
        found = self._flows.get(flow)
        return self._at_hand(self._flows, flow, FLOW, {"flow": flow}, flow) if found is None else found

    def _node(self, event: ExecutionEvent) -> SpanMeters:
        key = (event.path.partition("/")[0], event.node)
        found = self._nodes.get(key)
        if found is None:
            found = self._at_hand(self._nodes, key, NODE, {"flow": key[0], "node": key[1]}, key[1])
        return found

    # ---- models ----------------------------------------------------------------------------------------------

    def _model_start(self, event: ExecutionEvent) -> None:
        self._open.begin(event, self._model(event.data).in_flight)

    def _model_end(self, status: str, event: ExecutionEvent) -> None:
        self._open.end(event)
        meters, data, slot = self._model(event.data), event.data, self._families.slot()
        self._ended(meters, status, event)
        timing = data.get("timing")
        first = amount(timing.get("first_token")) if isinstance(timing, Mapping) else None
        if first is not None:
            self._families.histogram("model_first_token_seconds", meters.labels).record(
                slot, first, event.run_id, event.time
            )
        meters.count("model_lost_requests", data.get("lost_requests"), slot)
        meters.count("model_unpriced_calls", _unpriced(status, data), slot)
        self._spent(meters, "model", data, slot)
        if event.node:  # it is part of a flow
            self._spent(self._node(event), "node", data, slot)
            self._spent(self._flow(event.path), "flow", data, slot)

    def _spent(self, meters: SpanMeters, whose: str, data: Mapping[str, object], slot: int) -> None:
        for direction, fact in _TOKENS.items():
            meters.count(f"{whose}_tokens", data.get(fact), slot, "direction", direction)
        meters.count(f"{whose}_cost_dollars", data.get("cost"), slot)
        meters.count(f"{whose}_cost_dollars", data.get("lost_cost"), slot)

    def _attempt_end(self, status: str, event: ExecutionEvent) -> None:
        key = _asked(event.data)
        meters = self._attempts.get(key)
        if meters is None:
            meters = self._at_hand(self._attempts, key, ATTEMPT, {"provider": key[0], "model": key[1]}, key[1])
        self._ended(meters, status, event)

    def _model(self, data: Mapping[str, object]) -> SpanMeters:
        key = _asked(data)
        found = self._models.get(key)
        if found is None:
            found = self._at_hand(self._models, key, MODEL, {"provider": key[0], "model": key[1]}, key[1])
        return found

    def _tool_end(self, status: str, event: ExecutionEvent) -> None:
        tool = text(event.data.get("tool"))
        meters = self._tools.get(tool)
        if meters is None:
            meters = self._at_hand(self._tools, tool, TOOL, {"tool": tool}, tool)
        self._ended(meters, status, event)

    def _at_hand(
        self, kept: dict[K, SpanMeters], key: K, spec: Spec, labels: Mapping[str, str], name: str
    ) -> SpanMeters:
        """New meters, kept if there is room; without room they are looked up each time."""
        meters = SpanMeters(self._families, spec, labels, name)
        if len(kept) < self._families.most:
            kept[key] = meters
        return meters

    # ---- guards, and the rest --------------------------------------------------------------------------------

    def _retry(self, event: ExecutionEvent) -> None:
        data = event.data
        if data.get("model") is None:
            flow, node = event.path.partition("/")[0], event.node
            self._count("node_retries", {"flow": flow, "node": node})
            return
        provider, model = _asked(data)
        labels = {"provider": provider, "model": model, "error_type": text(data.get("error_type"))}
        self._count("model_retries", labels)

    def _waited(self, name: str, event: ExecutionEvent) -> None:
        seconds = amount(event.data.get("seconds"))
        if seconds is not None:
            meter = self._families.histogram(name, {"guard": text(event.data.get("guard"))})
            meter.record(self._families.slot(), seconds, event.run_id, event.time)

    def _breaker(self, event: ExecutionEvent) -> None:
        guard, to = text(event.data.get("guard")), text(event.data.get("to"))
        self._families.gauge("breaker_open", {"guard": guard}).value = _OPENNESS.get(to, 0.0)
        self._count("breaker_transitions", {"guard": guard, "to": to})

    def _lookup(self, outcome: str, event: ExecutionEvent) -> None:
        self._count("cache_lookups", {"cache": text(event.data.get("cache")), "outcome": outcome})

    def _feedback(self, event: ExecutionEvent) -> None:
        if event.data.get("label") is not None:
            self._count("feedback", {"label": text(event.data["label"])})
        score = event.data.get("score")
        if isinstance(score, int | float) and 0.0 <= score <= 1.0:
            meter = self._families.histogram("feedback_score", {"flow": event.path.partition("/")[0]})
            meter.record(self._families.slot(), float(score), event.run_id, event.time)

    def _one(self, name: str, labels: tuple[str, ...], event: ExecutionEvent) -> None:
        self._count(name, {label: text(event.data.get(label)) for label in labels})

    def _count(self, name: str, labels: Mapping[str, str]) -> None:
        self._families.counter(name, labels).add(self._families.slot(), 1.0)


def _asked(data: Mapping[str, object]) -> tuple[str, str]:
    """Provider and model, as they are configured."""
    return text(data.get("provider")), text(data.get("model"))


def _unpriced(status: str, data: Mapping[str, object]) -> float:
    """How many requests were made whose price is not known."""
    answered = status == "ok" or "cost" in data
    lost = amount(data.get("lost_requests")) if data.get("lost_cost") is None else None
    return (1.0 if answered and amount(data.get("cost")) is None else 0.0) + (lost or 0.0)
