"""Where a moment of a run stands on a line: time runs evenly, but pauses that are longer than all the work are short.

a run of 40 s that waited a week         ├─ 21 s ─┼┄┄┄ 7 d ┄┄┄┼─ 19 s ─┤       half of the line is the work's

scale = scale_of(trace)
scale.share(moment)         from 0 to 1
scale.ticks(width)          which moments to name, and at which cell
"""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cli.tracing.bars import axis
from agentflow.core.observability.trace.tree import Trace

__all__ = ["Scale", "scale_of"]


@dataclass(frozen=True, slots=True)
class Scale:
    """From `start` to `end`, in seconds since the run began. Each of the `pauses`, from and until, is drawn as if it
    had taken `factor` of its time."""

    start: float
    end: float
    pauses: tuple[tuple[float, float], ...] = ()
    factor: float = 1.0

    def share(self, moment: float) -> float:
        whole = self._drawn(self.end)
        return self._drawn(moment) / whole if whole > 0.0 else 0.0

    def ticks(self, width: int) -> list[tuple[int, float]]:
        """Round steps; where pauses are drawn short, the moments where these begin and end."""
        if not self.pauses:
            return axis(self.end - self.start, width)
        moments = [self.start, *(moment for pause in self.pauses for moment in pause), self.end]
        return [(round(self.share(moment) * width), moment - self.start) for moment in dict.fromkeys(moments)]

    def _drawn(self, moment: float) -> float:
        short = sum(max(0.0, min(moment, until) - since) for since, until in self.pauses)
        return moment - self.start - short * (1.0 - self.factor)


def scale_of(trace: Trace) -> Scale:
    worked = trace.duration - trace.parked
    if trace.parked <= worked or worked <= 0.0:
        return Scale(trace.start, trace.end)
    pauses = tuple((span.start, span.end) for root in trace.roots for span in root.children if span.what == "pause")
    return Scale(trace.start, trace.end, pauses, worked / trace.parked)
