"""Counts what happens in runs: how much, how long, how dear, how often in vain, lately and in all.

    events ──observe──▶ MetricsCollector ──snapshot──▶ MetricsSnapshot ──▶ alerts, Prometheus, `agentflow top`, yourself
                             ▲
                 count, gauge, record: metrics of your own

    metrics = MetricsCollector()
    with observe(metrics):
        await flow.run({"topic": "tides"})
    metrics.snapshot().value("node_duration_seconds", "p95", labels={"node": "write"})

Which metrics there are stands in `docs/metrics.md`. Percentiles are right within 1 %, whatever the values; windows
reach back as far as an hour; memory does not grow with the number of events. Nothing that is counted raises anything:
what cannot be kept is counted, too (`samples_refused`, `series_overflow`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import ClassVar, Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.event_metrics import EventMetrics
from agentflow.core.observability.metrics.families import BOOKKEEPING, Families
from agentflow.core.observability.metrics.names import METRICS
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot, Series
from agentflow.core.observability.metrics.span_meters import LARGEST
from agentflow.errors import ConfigurationError

__all__ = ["MetricsCollector"]

_BAD_EVENT: Final = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


class MetricsCollector:
    """An observer that counts. It serves any number of threads and runs at once.

    `max_series` bounds the sets of labels of each metric; what comes with another goes to one whose labels all say
    "other". A process that was forked begins to count anew, so that its numbers can be merged into its parent's.
    """

    inline: ClassVar[bool] = True

    def __init__(self, *, clock: Clock | None = None, max_series: int = 1000) -> None:
        if max_series < 1:
            raise ConfigurationError(f"max_series is 1 or more, not {max_series!r}")
        self._clock = clock or SystemClock()
        self._max_series = max_series
        self._begin()
        _collectors.add(self)

    def _begin(self) -> None:
        # A finalizer that runs within may be told of, too: hence a lock that its holder may take again.
        self._lock = threading.RLock()
        self._families = Families(self._clock, METRICS, self._max_series)
        self._events = EventMetrics(self._families, self._lock)
        self._handlers = self._events.handlers

    def observe(self, event: ExecutionEvent) -> None:
        handle = self._handlers.get(event.kind)
        if handle is not None:
            try:
                handle(event)
            except _BAD_EVENT:  # somebody made it by hand
                with self._lock:
                    self._families.refuse("event", event.kind)

    # ---- metrics of one's own --------------------------------------------------------------------------------

    def count(self, name: str, value: float = 1.0, labels: Mapping[str, str] = {}) -> None:
        """Add to a counter. What is no number below 10¹⁰⁰, or negative, is refused and counted as that."""
        with self._lock:
            said = self._said(name, value, labels)
            if said is None:
                return
            if value < 0:
                self._families.refuse("negative", name)
                return
            self._families.counter(name, said).add(self._families.slot(), float(value))

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None:
        """Set a gauge."""
        with self._lock:
            said = self._said(name, value, labels)
            if said is not None:
                self._families.gauge(name, said).value = float(value)

    def record(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None:
        """Add a value to a histogram: a duration in seconds, a size in bytes, …"""
        with self._lock:
            said = self._said(name, value, labels)
            if said is not None:
                self._families.histogram(name, said).record(self._families.slot(), float(value), "", 0.0)

    def _said(self, name: object, value: object, labels: object) -> Mapping[str, str] | None:
        """The labels, or None where it cannot be kept. Who counts in the middle of a run wants no error there."""
        said = _texts(labels)
        if not isinstance(name, str) or name in BOOKKEEPING:
            self._families.refuse("name", name if isinstance(name, str) else type(name).__name__)
        elif said is None:
            self._families.refuse("labels", name)
        elif not _is_number(value):
            self._families.refuse("value", name)
        else:
            return said
        return None

    # ---- what came of it -------------------------------------------------------------------------------------

    def snapshot(self) -> MetricsSnapshot:
        """All metrics as they are now. Each metric is consistent in itself."""
        series: list[Series] = []
        with self._lock:
            self._events.settle()
        groups = self._families.series()
        while True:
            with self._lock:  # metric by metric, so that nobody who counts waits for all of them
                group = next(groups, None)
            if group is None:
                return MetricsSnapshot(self._clock.time(), tuple(series))
            series += group

    def merge(self, snapshot: MetricsSnapshot) -> None:
        """Add what another process has counted, as its last word: each of its snapshots holds all that came before."""
        now = self._clock.time()
        for series in snapshot.series:
            with self._lock:
                self._families.absorb(series.older(max(0.0, now - snapshot.time)))


def _texts(labels: object) -> Mapping[str, str] | None:
    """Labels as texts; None where they are none."""
    if not isinstance(labels, Mapping):
        return None
    try:
        if all(isinstance(name, str) and isinstance(value, str | int | float) for name, value in labels.items()):
            return {name: str(value) for name, value in labels.items()}
    except ValueError:  # a whole number of more digits than Python spells out
        pass
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


_collectors: weakref.WeakSet[MetricsCollector] = weakref.WeakSet()


def _begin_anew() -> None:
    for collector in list(_collectors):
        collector._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
