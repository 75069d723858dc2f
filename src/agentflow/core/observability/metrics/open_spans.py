"""What is under way in which run, so that what is in flight is a count of what is there, and comes back to zero.

    begin(event, meters)    remembered by run and span
    end(event)              forgotten; whose it was, if its beginning was seen
    the run's first span ends: whatever is still open in it is over, too

A run whose end never comes (its event loop was closed, its thread has died) is forgotten when there are 100,000 newer
ones. What begins needs no lock, as it is one entry in a dictionary; what ends, and a run's first span, need one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from agentflow.core.observability.metrics.meters import Gauge
from agentflow.core.observability.metrics.span_meters import SpanMeters

__all__ = ["OpenRun", "OpenSpans"]

_RUNS: Final = 100_000


class OpenRun:
    """A run of which something is under way. `nodes` are the meters at hand for the nodes of its flow, by name."""

    __slots__ = ("nodes", "spans")

    def __init__(self, nodes: dict[str, SpanMeters]) -> None:
        self.nodes = nodes
        self.spans: dict[int, SpanMeters] = {}


class OpenSpans(dict[str, OpenRun]):
    """The runs by their id."""

    __slots__ = ("_most",)

    def __init__(self, most: int = _RUNS) -> None:
        super().__init__()
        self._most = most

    def begin(self, run_id: str, nodes: dict[str, SpanMeters]) -> OpenRun:
        """A run that was not known."""
        if len(self) >= self._most:
            for oldest in list(islice(self, 1 + self._most // 100)):  # many at once: the first of a dictionary is far
                del self[oldest]
        run = self[run_id] = OpenRun(nodes)
        return run

    def in_flight(self) -> Iterator[tuple[Gauge, int]]:
        """How much is under way, by gauge."""
        found: Counter[Gauge] = Counter()
        for run in list(self.values()):
            found.update([meters.in_flight for meters in list(run.spans.values())])
        return iter(found.items())
