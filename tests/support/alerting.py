"""Metrics that a test sets by hand, and an alert with all that is awkward in it."""

from __future__ import annotations

from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.states import AlertState
from agentflow.core.observability.metrics.series import Series
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot

__all__ = ["ALERT", "Gauges"]

ALERT = Alert(
    rule="hot",
    state=AlertState.FIRING,
    previous=AlertState.PENDING,
    severity="critical",
    value=13.5,
    labels={"model": "gpt-4o", "note": "naïve ☃ \r\nx-evil: 1"},
    message="hot is firing",
    fingerprint="f1",
    id="t-1",
    time=1_700_000_000.0,
    since=1_699_999_990.0,
)


class Gauges:
    """`gauges.set("load", 3.0, model="a")`, `gauges.drop("load", model="a")`, `gauges()`; `broken` makes it raise."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.broken: Exception | None = None

    def set(self, name: str, value: float | None, **labels: str) -> None:
        if value is None:
            self.values.pop((name, frozenset(labels.items())), None)
        else:
            self.values[name, frozenset(labels.items())] = value

    def __call__(self) -> MetricsSnapshot:
        if self.broken is not None:
            raise self.broken
        found = [Series(name, "gauge", dict(labels), value) for (name, labels), value in self.values.items()]
        return MetricsSnapshot(0.0, tuple(found))
