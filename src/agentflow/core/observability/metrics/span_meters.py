"""What is counted of everything that begins and ends: how often it ended how, how long it took, how much is under way.

    meters = SpanMeters(families, NODE, {"flow": "article", "node": "write"}, name="write")
    meters.end("done", event, slot)     node_visits{…}, node_duration_seconds{…}, wait_seconds{scope, name, phase}

The meters of a node are looked up once and then at hand: a visit costs a few additions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.families import Families
from agentflow.core.observability.metrics.meters import Counter, Gauge, Histogram, Sample

__all__ = ["ATTEMPT", "FLOW", "LARGEST", "MODEL", "NODE", "TOOL", "SpanMeters", "Spec", "amount", "text"]

LARGEST: Final = 1e100
"""No value that is counted is as large: sums of them stay numbers."""

_MANY: Final = 64
_NUMBERS: Final = (int, float)  # to make a union of them each time takes longer than all the rest


@dataclass(frozen=True, slots=True)
class Spec:
    """The names of the metrics of one kind of span. `scope` is what `errors` and `wait_seconds` call it."""

    scope: str
    ended: str
    duration: str
    in_flight: str = ""
    tokens: str = ""
    cost: str = ""


FLOW: Final = Spec("flow", "flow_runs", "flow_duration_seconds", "flows_in_flight", "flow_tokens", "flow_cost_dollars")
NODE: Final = Spec(
    "node", "node_visits", "node_duration_seconds", "nodes_in_flight", "node_tokens", "node_cost_dollars"
)
MODEL: Final = Spec(
    "model", "model_calls", "model_duration_seconds", "model_calls_in_flight", "model_tokens", "model_cost_dollars"
)
ATTEMPT: Final = Spec("attempt", "model_attempts", "attempt_duration_seconds")
TOOL: Final = Spec("tool", "tool_calls", "tool_duration_seconds")


class SpanMeters:
    """Of one node, flow, model, provider's attempts, or tool. A meter is made when it is first needed."""

    __slots__ = (
        "_cost",
        "_duration",
        "_ended",
        "_families",
        "_first",
        "_tokens",
        "_waits",
        "fresh",
        "in_flight",
        "labels",
        "most_fresh",
        "name",
        "slot",
        "spec",
    )

    def __init__(self, families: Families, spec: Spec, labels: Mapping[str, str], name: str) -> None:
        self.spec = spec
        self.labels = labels
        self.name = name
        self.in_flight = families.gauge(spec.in_flight, labels) if spec.in_flight else Gauge(labels)
        self.fresh: deque[tuple[float, str, float, object]] = deque()
        """What has ended well in `slot` and is not counted yet: duration, run, wall time, breakdown."""
        self.slot = 0
        self.most_fresh = 1
        self._families = families
        self._duration = families.histogram(spec.duration, labels)
        self._first: Histogram | None = None
        self._ended: dict[str, Counter] = {}
        self._waits: dict[str, Counter] = {}
        self._tokens: dict[str, Counter] = {}
        self._cost: dict[str, Counter] = {}

    def keep(self) -> None:
        """They stay at hand, so what is fresh need not be counted at once."""
        self.most_fresh = _MANY

    def settle(self, slot: int) -> None:
        """Count what is fresh, in the slot in which it ended; what comes from now on ends in this one."""
        then, self.slot = self.slot, slot
        fresh, samples, seconds, ended = self.fresh, list[Sample](), dict[str, float](), 0
        while fresh:
            duration, run_id, time, parts = fresh.popleft()
            ended += 1
            if 0.0 <= duration < LARGEST:
                samples.append((duration, run_id, time))
            _add_up(parts, seconds)
        if not ended:
            return
        self._ended_as("done").add(then, ended)
        self._duration.extend(then, samples)
        for phase, spent in seconds.items():
            self._wait(phase).add(then, spent)

    def end(self, status: str, event: ExecutionEvent, slot: int) -> None:
        """One has ended so, with this event."""
        self._ended_as(status).add(slot, 1.0)
        duration = event.duration
        if duration is not None and 0.0 <= duration < LARGEST:
            self._duration.record(slot, duration, event.run_id, event.time)
        self.park(event, slot)

    def park(self, event: ExecutionEvent, slot: int) -> None:
        """One is parked with this event: what it has spent its time on counts, and it has not ended."""
        seconds: dict[str, float] = {}
        _add_up(event.data.get("breakdown"), seconds)
        for phase, spent in seconds.items():
            self._wait(phase).add(slot, spent)

    def error(self, data: Mapping[str, object], slot: int) -> None:
        """It ended by an error of this type. There are few scopes and many errors, so this is looked up each time."""
        labels = {"scope": self.spec.scope, "error_type": text(data.get("error_type"))}
        self._families.counter("errors", labels).add(slot, 1.0)

    def spend(self, tokens: Sequence[tuple[str, float]], dollars: float | None, slot: int) -> None:
        """Calls of models have used so many tokens of each direction, and cost that much; None where nobody knows."""
        for direction, used in tokens:
            counter = self._tokens.get(direction)
            if counter is None:
                labels = {**self.labels, "direction": direction}
                counter = self._bound(self._tokens, direction, self.spec.tokens, labels)
            counter.add(slot, used)
        if dollars is not None:
            cost = self._cost.get("") or self._bound(self._cost, "", self.spec.cost, self.labels)
            cost.add(slot, dollars)

    def first_token(self, event: ExecutionEvent, seconds: float, slot: int) -> None:
        """The first piece of an answer came after that time."""
        if self._first is None:
            self._first = self._families.histogram("model_first_token_seconds", self.labels)
        self._first.record(slot, seconds, event.run_id, event.time)

    def _ended_as(self, status: str) -> Counter:
        found = self._ended.get(status)
        if found is None:
            found = self._bound(self._ended, status, self.spec.ended, {**self.labels, "status": status})
        return found

    def _wait(self, phase: str) -> Counter:
        """The counter of what its time went into."""
        found = self._waits.get(phase)
        if found is None:
            labels = {"scope": self.spec.scope, "name": self.name, "phase": phase}
            found = self._bound(self._waits, phase, "wait_seconds", labels)
        return found

    def _bound(self, at_hand: dict[str, Counter], key: str, name: str, labels: Mapping[str, str]) -> Counter:
        """The counter, at hand from now on if it is nobody else's."""
        counter = self._families.counter(name, labels)
        if not counter.shared:
            at_hand[key] = counter
        return counter


def _add_up(parts: object, seconds: dict[str, float]) -> None:
    """Add the breakdown of one to that of several; what is no number of seconds, or no breakdown, is left out."""
    if type(parts) is not dict and not isinstance(parts, Mapping):
        return
    for phase, spent in parts.items():
        if (type(spent) is float or type(spent) is int) and 0.0 < spent < LARGEST and type(phase) is str:
            seconds[phase] = seconds.get(phase, 0.0) + spent


def text(value: object) -> str:
    """As a label says it."""
    if isinstance(value, str):
        return value
    return "unknown" if value is None else str(value)


def amount(value: object) -> float | None:
    """A number that is not negative; None for anything else."""
    if (type(value) is float or isinstance(value, _NUMBERS)) and 0 <= value < LARGEST:
        return float(value)
    return None
