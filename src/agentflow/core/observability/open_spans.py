"""What is under way in which run, so that gauges come back to zero whatever becomes of it.

    begin(event, gauge)     gauge + 1, and remembered by run and span
    end(event)              gauge − 1, if its beginning was seen
    the run's first span ends: whatever is still open in it is over, too

A run whose end never comes (its event loop was closed, its thread has died) is forgotten when there are 100,000 newer
ones.
"""

from __future__ import annotations

from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.meters import Gauge

__all__ = ["OpenSpans"]

_RUNS: Final = 100_000


class OpenSpans:
    """The gauges of what has begun and not ended, by run and span."""

    __slots__ = ("_most", "_runs", "forgotten")

    def __init__(self, most: int = _RUNS) -> None:
        self._most = most
        self._runs: dict[str, dict[int, Gauge]] = {}
        self.forgotten = 0

    def begin(self, event: ExecutionEvent, gauge: Gauge) -> None:
        spans = self._runs.get(event.run_id)
        if spans is None:
            spans = self._another(event.run_id)
        if event.span not in spans:
            spans[event.span] = gauge
            gauge.value += 1.0

    def end(self, event: ExecutionEvent) -> None:
        spans = self._runs.get(event.run_id)
        if spans is None:
            return
        gauge = spans.pop(event.span, None)
        if gauge is not None:
            gauge.value -= 1.0
        if event.parent is None or not spans:
            self._settle(event.run_id)

    def _another(self, run_id: str) -> dict[int, Gauge]:
        if len(self._runs) >= self._most:
            self.forgotten += 1
            self._settle(next(iter(self._runs)))
        spans = self._runs[run_id] = {}
        return spans

    def _settle(self, run_id: str) -> None:
        for gauge in self._runs.pop(run_id).values():
            gauge.value -= 1.0
