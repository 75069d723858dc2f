"""Tells whoever watches this process of each change of an alert, as an event of kind `alert`.

The events of one manager are a run of their own, named after it: an alert is part of no other.
"""

from __future__ import annotations

from agentflow.clock import Clock
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import observations

__all__ = ["Announcer"]


class Announcer:
    """`name` is the run that the events are of."""

    __slots__ = ("_began", "_clock", "_name", "_sequence")

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._began = clock.monotonic()
        self._sequence = 0

    def tell(self, alert: Alert) -> None:
        watching = observations()
        if not watching:
            return
        self._sequence += 1
        event = ExecutionEvent(
            kind="alert",
            run_id=self._name,
            path=alert.rule,
            node="",
            visit=1,
            sequence=self._sequence,
            time=alert.time,
            data={
                "rule": alert.rule,
                "state": alert.state.value,
                "previous": alert.previous.value,
                "severity": alert.severity,
                "value": alert.finite_value,
                "labels": dict(alert.labels),
            },
            at=self._clock.monotonic() - self._began,
        )
        for each in watching:
            each.see(event)
