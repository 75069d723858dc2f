"""What is counted of everything that begins and ends: how often it ended how, how long it took, how much is under way.

    meters = SpanMeters(families, NODE, {"flow": "article", "node": "write"}, name="write")
    meters.end("done", event, slot)     node_visits{…}, node_duration_seconds{…}, wait_seconds{scope, name, phase}

The meters of a node are looked up once and then at hand: a visit costs a few additions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.meters import Counter, Gauge, Histogram
from agentflow.core.observability.metric_families import Families

__all__ = ["ATTEMPT", "FLOW", "LARGEST", "MODEL", "NODE", "TOOL", "SpanMeters", "Spec", "amount", "text"]

LARGEST: Final = 1e100
"""No value that is counted is as large: sums of them stay numbers."""

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
        "in_flight",
        "labels",
        "name",
        "spec",
    )

    def __init__(self, families: Families, spec: Spec, labels: Mapping[str, str], name: str) -> None:
        self.spec = spec
        self.labels = labels
        self.name = name
        self.in_flight = families.gauge(spec.in_flight, labels) if spec.in_flight else Gauge(labels)
        self._families = families
        self._duration = families.histogram(spec.duration, labels)
        self._first: Histogram | None = None
        self._ended: dict[str, Counter] = {}
        self._waits: dict[str, Counter] = {}
        self._tokens: dict[str, Counter] = {}
        self._cost: dict[str, Counter] = {}

    def end(self, status: str, event: ExecutionEvent, slot: int) -> None:
        """One has ended so, with this event."""
        ended = self._ended.get(status)
        if ended is None:
            ended = self._bound(self._ended, status, self.spec.ended, {**self.labels, "status": status})
        ended.add(slot, 1.0)
        duration = event.duration
        if duration is not None and 0.0 <= duration < LARGEST:
            self._duration.record(slot, duration, event.run_id, event.time)
        parts = event.data.get("breakdown")
        if type(parts) is dict or isinstance(parts, Mapping):
            waits = self._waits
            for phase, seconds in parts.items():
                if 0.0 < seconds < LARGEST:
                    waited = waits.get(phase)
                    if waited is None:
                        waited = self._wait(phase)
                    waited.add(slot, seconds)

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

    def _wait(self, phase: object) -> Counter:
        """The counter of what its time went into."""
        labels = {"scope": self.spec.scope, "name": self.name, "phase": str(phase)}
        return self._bound(self._waits, str(phase), "wait_seconds", labels)

    def _bound(self, at_hand: dict[str, Counter], key: str, name: str, labels: Mapping[str, str]) -> Counter:
        """The counter, at hand from now on if it is nobody else's."""
        counter = self._families.counter(name, labels)
        if not counter.shared:
            at_hand[key] = counter
        return counter


def text(value: object) -> str:
    """As a label says it."""
    if isinstance(value, str):
        return value
    return "unknown" if value is None else str(value)


def amount(value: object) -> float | None:
    """A number that is not negative; None for anything else."""
    if isinstance(value, _NUMBERS) and 0 <= value < LARGEST:
        return float(value)
    return None
