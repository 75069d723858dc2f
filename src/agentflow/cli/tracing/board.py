"""What is going on, from the events of all runs: rates, percentiles, what is in flight, what it costs. No I/O.

    events of the last hour, then those that come ──▶ Board ──▶ Figures for a moment

Events are counted as of when they happened: the collector's clock is the time of the last event, and then that of
whoever asks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot

__all__ = ["Board", "Figures", "Line", "Trouble"]

MINUTE: Final = 60.0
LATELY: Final = 300.0
HOUR: Final = 3600.0
_MOST_TROUBLES: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A model or a flow. Rates are of the last minute; latencies in seconds, of the last five minutes, else (`stale`)
    of the last hour; money is what the last hour cost. None is what nobody knows."""

    name: str
    in_flight: int
    per_minute: float
    p50: float | None
    p95: float | None
    p99: float | None
    stale: bool
    first_token: float | None
    done: int
    failed: int
    tokens_in: float
    tokens_out: float
    dollars: float
    unpriced: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that failed lately."""

    time: float
    run_id: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything, at one moment. `waits` is what the flows of the last five minutes spent their time on."""

    time: float
    flows: tuple[Line, ...]
    models: tuple[Line, ...]
    waits: Mapping[str, float]
    troubles: tuple[Trouble, ...]
    last: float | None
    """When the last event happened."""
    waiting: int = 0
    """Runs that are parked, for an answer or a timer."""


class _EventTime:
    """A clock that is moved: to each event, and to now."""

    def __init__(self) -> None:
        self.now = 0.0

    def move(self, time: float) -> None:
        self.now = max(self.now, time)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError("this clock is only read")

    def random(self) -> float:
        return 0.5


class Board:
    """Takes events, run by run in their order."""

    def __init__(self) -> None:
        self._clock = _EventTime()
        self._metrics: MetricsCollector | None = None
        self._open: dict[tuple[str, int], tuple[str, str]] = {}
        self._troubles: deque[Trouble] = deque(maxlen=_MOST_TROUBLES)
        self._last: float | None = None

    def take(self, event: ExecutionEvent) -> None:
        self._clock.move(event.time)
        if self._metrics is None:
            self._metrics = MetricsCollector(clock=self._clock)
        self._metrics.observe(event)
        self._last = self._clock.now
        what, _, how = event.kind.rpartition("_")
        if what not in ("flow", "model"):
            return
        if how == "start":
            name = event.node if what == "flow" else str(event.data.get("model"))
            if what == "model" or event.parent is None:
                self._open[event.run_id, event.span] = (what, name)
        elif how in ("success", "error", "cancelled", "interrupted"):
            self._open.pop((event.run_id, event.span), None)
            if how == "error":
                self._note(event)

    def _note(self, event: ExecutionEvent) -> None:
        """What failed, once: a flow that fails for it says nothing new."""
        if not any(trouble.run_id == event.run_id for trouble in self._troubles) or event.kind == "model_error":
            self._troubles.append(Trouble(event.time, event.run_id, event.path, str(event.data.get("error", ""))))

    def figures(self, now: float, running: Collection[str], waiting: int = 0) -> Figures:
        """As of `now`, in seconds since 1970. `running` are the runs that go on: what others left open is dead.
        `waiting` is how many are parked."""
        self._clock.move(now)
        for key in [key for key in self._open if key[0] not in running]:
            del self._open[key]
        at_work = Counter(self._open.values())
        found = self._metrics.snapshot() if self._metrics is not None else MetricsSnapshot(now)
        return Figures(
            now,
            _lines(found, "flow", at_work),
            _lines(found, "model", at_work),
            _waits(found),
            tuple(reversed(self._troubles)),
            self._last,
            waiting,
        )


@dataclass(frozen=True, slots=True)
class _Names:
    """The metrics that a kind of line is made of."""

    label: str
    runs: str
    seconds: str
    tokens: str
    cost: str


_NAMES: Final = {
    "flow": _Names("flow", "flow_runs", "flow_duration_seconds", "flow_tokens", "flow_cost_dollars"),
    "model": _Names("model", "model_calls", "model_duration_seconds", "model_tokens", "model_cost_dollars"),
}


def _lines(found: MetricsSnapshot, what: str, at_work: Counter[tuple[str, str]]) -> tuple[Line, ...]:
    names = _NAMES[what]
    seen = {each.labels.get(names.label, "") for each in found.select(names.runs)}
    seen |= {name for kind, name in at_work if kind == what}
    lines = [_line(found, what, name, at_work[what, name]) for name in sorted(seen)]
    alive = [line for line in lines if line.in_flight or line.done or line.failed]
    return tuple(sorted(alive, key=lambda line: (-line.dollars, -line.in_flight, -line.done, line.name)))


def _line(found: MetricsSnapshot, what: str, name: str, in_flight: int) -> Line:
    names = _NAMES[what]
    labels = {names.label: name}

    def total(metric: str, window: float, **more: str) -> float:
        return found.value(metric, "total", window, {**labels, **more}) or 0.0

    def seconds(stat: str, window: float) -> float | None:
        return found.value(names.seconds, stat, window, labels)

    stale = seconds("p50", LATELY) is None
    window = HOUR if stale else LATELY
    failed = sum(int(total(names.runs, HOUR, status=status)) for status in ("failed", "error"))
    return Line(
        name,
        in_flight,
        total(names.runs, MINUTE),
        seconds("p50", window),
        seconds("p95", window),
        seconds("p99", window),
        stale,
        found.value("model_first_token_seconds", "p50", window, labels) if what == "model" else None,
        int(total(names.runs, HOUR)) - failed,
        failed,
        total(names.tokens, MINUTE, direction="input"),
        total(names.tokens, MINUTE, direction="output"),
        total(names.cost, HOUR),
        int(total("model_unpriced_calls", HOUR)) if what == "model" else 0,
    )


def _waits(found: MetricsSnapshot) -> dict[str, float]:
    waits: dict[str, float] = {}
    for each in found.select("wait_seconds", {"scope": "flow"}):
        seconds = each.value("total", LATELY)
        if seconds:
            phase = each.labels.get("phase", "unattributed")
            waits[phase] = waits.get(phase, 0.0) + seconds
    return waits
