"""What events mean in numbers: which meters each kind of event moves.

    node_start                              nodes_in_flight + 1
    node_success, _error, _cancelled        nodes_in_flight − 1, node_visits, node_duration_seconds, wait_seconds
    node_interrupted                        nodes_in_flight − 1, wait_seconds: it is parked, and has not ended
    model_success, …                        the same of the model, tokens and cost of model, node and flow
    retry, rejected, hedge, breaker_state   one counter each

The flow of a node is the outermost one; `flow_runs` counts runs, when they end: one that is parked and goes on, however
often, is one run. A call whose price is not known is counted in
`model_unpriced_calls`, never as free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from typing import Final, TypeAlias

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.families import Families
from agentflow.core.observability.metrics.meters_at_hand import ITEM, MetersAtHand, asked, flow_of
from agentflow.core.observability.metrics.open_spans import OpenSpans
from agentflow.core.observability.metrics.span_meters import MODEL, SpanMeters, amount, text

__all__ = ["EventMetrics", "Handler"]

Handler: TypeAlias = Callable[[ExecutionEvent], None]

_STATUS: Final = {"success": "ok", "error": "error", "cancelled": "cancelled"}
_RUN_STATUS: Final = {"success": "done", "error": "failed", "cancelled": "cancelled"}
_RUNS: Final = ("flow", "node")
_PARKED: Final = ("flow_interrupted", "node_interrupted", "tool_interrupted")
_CALLS: Final = ("model", "attempt", "tool")
_IN_FLIGHT: Final = ("flows_in_flight", "nodes_in_flight", "model_calls_in_flight")
_TOKENS: Final = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cached", "cached_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
)
_OPENNESS: Final = {"open": 1.0, "forced_open": 1.0, "half_open": 0.5}


class EventMetrics:
    """Moves the meters of `families`, holding `lock` where it changes what others may change, too.

    `handlers` says what takes which kind of event. They raise TypeError, ValueError and the like for an event whose
    data is not what it should be; nobody but a maker of events by hand sees those.
    """

    def __init__(self, families: Families, lock: RLock) -> None:
        self._families = families
        self._slot = families.slot
        self._acquire, self._release = lock.acquire, lock.release  # in half of the time that `with` takes
        self._runs = OpenSpans()
        self._at_hand = MetersAtHand(families)
        self.handlers: Mapping[str, Handler] = {
            "node_start": self._node_start,
            "flow_start": self._start,
            "model_start": self._model_start,
            **{f"{what}_{end}": partial(self._end, said) for what in _RUNS for end, said in _RUN_STATUS.items()},
            **{f"{what}_{end}": partial(self._end, said) for what in _CALLS for end, said in _STATUS.items()},
            "node_success": self._node_success,
            **dict.fromkeys(_PARKED, self._parked),
            **{kind: partial(self._locked, handle) for kind, handle in self._others().items()},
        }

    def _others(self) -> dict[str, Handler]:
        return {
            "tool_refused": self._refused,
            "resume": lambda event: self._count("flow_resumes", {"flow": flow_of(event)}),
            "cancel": lambda event: self._at_hand.flow(event).end("cancelled", event, self._slot()),
            **{f"compensate_{end}": partial(self._undone, said) for end, said in _RUN_STATUS.items()},
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
            "route": partial(self._one, "routes", ("from", "to")),
            "budget": self._budgeted,
            "batch": self._batched,
            "feedback": self._feedback,
        }

    def settle(self) -> None:
        """Bring everything up to date: what is in queues, and the gauges of what is in flight."""
        slot = self._slot()
        for meters in self._at_hand.nodes():
            meters.settle(slot)
        for name in _IN_FLIGHT:
            for gauge in self._families.gauges(name):
                gauge.under_way = 0
        for gauge, count in self._runs.in_flight():
            gauge.under_way = count

    def _locked(self, handle: Handler, event: ExecutionEvent) -> None:
        self._acquire()
        try:
            handle(event)
        finally:
            self._release()

    # ---- what begins and ends --------------------------------------------------------------------------------

    def _node_start(self, event: ExecutionEvent) -> None:
        run = self._runs.get(event.run_id)
        if run is not None:
            path, node = event.path, event.node
            if path[-2:-1] != "#" and path.rfind("/") > path.rfind("#"):  # "write#1" is no item, nor is "write#12"
                node += ITEM
            meters = run.nodes.get(node)
            if meters is not None:
                run.spans[event.span] = meters
                return
        self._start(event)

    def _node_success(self, event: ExecutionEvent) -> None:
        """Most of all events are this and the one before, so they take no lock: each is an entry in a dictionary or a
        queue. What is in the queue is counted when there is more of it, or when somebody asks."""
        run = self._runs.get(event.run_id)
        meters = None if run is None else run.spans.pop(event.span, None)
        duration = event.duration
        if run is None or meters is None or not run.spans or type(duration) is not float:
            self._end("done", event)
            return
        slot, fresh = self._slot(), meters.fresh
        if slot != meters.slot:
            self._settle(meters, slot)
        fresh.append((duration, event.run_id, event.time, event.data.get("breakdown")))
        if len(fresh) >= meters.most_fresh:
            self._settle(meters, slot)

    def _settle(self, meters: SpanMeters, slot: int) -> None:
        self._acquire()
        try:
            meters.settle(slot)
        finally:
            self._release()

    def _model_start(self, event: ExecutionEvent) -> None:
        run = self._runs.get(event.run_id)
        if run is not None:
            meters = self._at_hand.models.get(asked(event.data))
            if meters is not None:
                run.spans[event.span] = meters
                return
        self._start(event)

    def _start(self, event: ExecutionEvent) -> None:
        self._acquire()
        try:
            run = self._runs.get(event.run_id)
            if run is None:
                run = self._runs.begin(event.run_id, self._at_hand.nodes_of(flow_of(event)))
            run.spans[event.span] = self._at_hand.of(event)
        finally:
            self._release()

    def _end(self, status: str, event: ExecutionEvent) -> None:
        self._acquire()
        try:
            meters = self._begun(event) or self._at_hand.of(event)
            slot = self._slot()
            meters.end(status, event, slot)
            if status == "failed" or status == "error":
                meters.error(event.data, slot)
            if meters.spec is MODEL:
                self._answered(meters, status, event, slot)
        finally:
            self._release()

    def _parked(self, event: ExecutionEvent) -> None:
        """It is no more under way, and has not ended."""
        self._acquire()
        try:
            slot = self._slot()
            (self._begun(event) or self._at_hand.of(event)).park(event, slot)
            if event.parent is None:
                self._count("flow_interruptions", {"flow": flow_of(event)})
        finally:
            self._release()

    def _undone(self, status: str, event: ExecutionEvent) -> None:
        self._count("node_compensations", {"flow": flow_of(event), "node": event.node, "status": status})

    def _begun(self, event: ExecutionEvent) -> SpanMeters | None:
        """The meters that it began with, if that was seen."""
        run = self._runs.get(event.run_id)
        if run is None:
            return None
        meters = run.spans.pop(event.span, None)
        if event.parent is None or not run.spans:
            del self._runs[event.run_id]
        return meters

    def _answered(self, meters: SpanMeters, status: str, event: ExecutionEvent, slot: int) -> None:
        """What a call of a model has used and cost."""
        data = event.data
        timing = data.get("timing")
        first = amount(timing.get("first_token")) if type(timing) is dict else None
        if first is not None:
            meters.first_token(event, first, slot)
        dollars, unpriced, lost = _bill(status, data)
        if unpriced:
            self._families.counter("model_unpriced_calls", meters.labels).add(slot, unpriced)
        if lost:
            self._families.counter("model_lost_requests", meters.labels).add(slot, lost)
        said = [(direction, amount(data[fact])) for direction, fact in _TOKENS if fact in data]
        tokens = [(direction, used) for direction, used in said if used is not None]
        meters.spend(tokens, dollars, slot)
        if event.node:  # it is part of a flow
            self._at_hand.node(event, event.node).spend(tokens, dollars, slot)
            self._at_hand.flow(event).spend(tokens, dollars, slot)

    # ---- guards, and the rest --------------------------------------------------------------------------------

    def _refused(self, event: ExecutionEvent) -> None:
        self._at_hand.of(event).end("refused", event, self._slot())

    def _retry(self, event: ExecutionEvent) -> None:
        data = event.data
        if data.get("model") is None:
            self._count("node_retries", {"flow": flow_of(event), "node": event.node})
            return
        provider, model = asked(data)
        labels = {"provider": provider, "model": model, "error_type": text(data.get("error_type"))}
        self._count("model_retries", labels)

    def _waited(self, name: str, event: ExecutionEvent) -> None:
        seconds = amount(event.data.get("seconds"))
        if seconds is not None:
            meter = self._families.histogram(name, {"guard": text(event.data.get("guard"))})
            meter.record(self._slot(), seconds, event.run_id, event.time)

    def _breaker(self, event: ExecutionEvent) -> None:
        guard, to = text(event.data.get("guard")), text(event.data.get("to"))
        self._families.gauge("breaker_open", {"guard": guard}).value = _OPENNESS.get(to, 0.0)
        self._count("breaker_transitions", {"guard": guard, "to": to})

    def _lookup(self, outcome: str, event: ExecutionEvent) -> None:
        labels = {"model": text(event.data.get("model"))}
        self._count("cache_lookups", {**labels, "outcome": outcome})
        saved = amount(event.data.get("saved"))
        if saved:
            self._count("cache_saved_dollars", labels, saved)

    def _budgeted(self, event: ExecutionEvent) -> None:
        """By the account's kind: `tenant:acme` is one of as many as there are tenants."""
        account = text(event.data.get("account")).partition(":")[0]
        self._count("budget_decisions", {"account": account, "decision": text(event.data.get("decision"))})

    def _batched(self, event: ExecutionEvent) -> None:
        labels = {"model": text(event.data.get("model"))}
        self._count("batches", {**labels, "reason": text(event.data.get("reason"))})
        self._count("batched_requests", labels, amount(event.data.get("size")) or 0.0)

    def _feedback(self, event: ExecutionEvent) -> None:
        if event.data.get("label") is not None:
            self._count("feedback", {"label": text(event.data["label"])})
        score = event.data.get("score")
        if isinstance(score, int | float) and 0.0 <= score <= 1.0:
            meter = self._families.histogram("feedback_score", {"flow": flow_of(event)})
            meter.record(self._slot(), float(score), event.run_id, event.time)

    def _one(self, name: str, labels: tuple[str, ...], event: ExecutionEvent) -> None:
        self._count(name, {label: text(event.data.get(label)) for label in labels})

    def _count(self, name: str, labels: Mapping[str, str], by: float = 1.0) -> None:
        self._families.counter(name, labels).add(self._slot(), by)


def _bill(status: str, data: Mapping[str, object]) -> tuple[float | None, float, float]:
    """What is known of the cost, how many requests have an unknown price, and how many were lost to a faster one."""
    dollars = amount(data.get("cost"))
    unpriced = 1.0 if dollars is None and (status == "ok" or "cost" in data) else 0.0
    if "lost_requests" not in data:
        return dollars, unpriced, 0.0
    lost, lost_dollars = amount(data["lost_requests"]) or 0.0, amount(data.get("lost_cost"))
    if lost_dollars is None:
        return dollars, unpriced + lost, lost
    return (dollars or 0.0) + lost_dollars, unpriced, lost
