"""Records → numbers: percentiles of all that took time, rates, shares, costs, with their intervals.

    measured(records, window, objective, checks)  ──▶  Measures

Only requests that were *intended* for the window between warm-up and cool-down count, whatever became of them; those
before and after it kept the load as it was, and are told by their number alone. An answer that did not come in time
stands in the percentiles as infinitely late: to leave it out would reward a server for giving up on its slowest ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from agentflow.mcp.optimization.benchmark.checking import PASSING
from agentflow.mcp.optimization.benchmark.objective import Objective
from agentflow.mcp.optimization.benchmark.percentiles import Estimate, mean, percentile, share
from agentflow.mcp.optimization.benchmark.record import Record

__all__ = ["PERCENTILES", "TIMES", "Distribution", "Measures", "Window"]

PERCENTILES: Final[Mapping[str, float]] = {
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
}

TIMES: Final[Mapping[str, str]] = {
    "ttft": "first token",
    "itl": "gap between pieces",
    "tpot": "per output token",
    "e2e": "end to end",
}
"""What is measured in seconds, by its short name; from the intended moment where a beginning matters."""


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run, in seconds from its start."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def until(self, moment: float) -> Window:
        """The part of it before a moment."""
        return Window(self.start, min(self.end, max(self.start, moment)))

    def rate(self, count: float) -> float:
        """So many a second; none where there was no time."""
        return count / self.seconds if self.seconds else 0.0

    def holds(self, moment: float) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Distribution:
    """Values of the same kind, each group what came of one request, in the order of the requests."""

    groups: tuple[Sequence[float], ...]

    @cached_property
    def ordered(self) -> list[float]:
        return sorted([value for group in self.groups for value in group])

    @property
    def count(self) -> int:
        return len(self.ordered)

    @cached_property
    def percentiles(self) -> Mapping[str, Estimate]:
        """Empty where nothing was measured."""
        if not self.ordered:
            return {}
        return {name: percentile(self.ordered, p, self.groups) for name, p in PERCENTILES.items()}

    @cached_property
    def mean(self) -> Estimate | None:
        """Of all values; of one mean a request where a request has several."""
        if not self.ordered:
            return None
        if any(len(group) > 1 for group in self.groups):
            average = math.fsum(self.ordered) / self.count if math.isfinite(self.ordered[-1]) else math.inf
            return Estimate(average)
        return mean([group[0] for group in self.groups if len(group)])


@dataclass(frozen=True)
class Measures:
    """All of one model's numbers. Rates are per second of the window, tokens as the provider counted them where it did
    (`estimated` says of how many answers it did not). `marks` are what each checker gave, by the record's index."""

    name: str
    records: tuple[Record, ...]
    window: Window
    objective: Objective
    marks: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @cached_property
    def counted(self) -> tuple[Record, ...]:
        """The records that count: intended for the window."""
        return tuple([record for record in self.records if self.window.holds(record.intended)])

    @cached_property
    def answered(self) -> tuple[Record, ...]:
        return tuple([record for record in self.counted if record.answered])

    @cached_property
    def good(self) -> tuple[Record, ...]:
        """Answered, within the objective, and passed by every checker that had something to say."""
        return tuple([record for record in self.answered if self.is_good(record)])

    def is_good(self, record: Record) -> bool:
        passed = all(marks.get(record.index, 1.0) >= PASSING for marks in self.marks.values())
        return record.answered and passed and self.objective.met_by(record)

    # ---- times -----------------------------------------------------------------------------------------------

    @cached_property
    def times(self) -> Mapping[str, Distribution]:
        """The distributions of `TIMES`."""
        return {
            "ttft": self._of(lambda record: record.ttft),
            "itl": Distribution(tuple([record.gaps for record in self.answered])),
            "tpot": self._of(lambda record: record.tpot),
            "e2e": self._of(lambda record: record.e2e),
        }

    @cached_property
    def sent_times(self) -> Mapping[str, Distribution]:
        """The same from the moment a request was really sent, as a tool counts that knows of no plan."""
        return {"ttft": self._of(lambda record: record.sent_ttft), "e2e": self._of(lambda record: record.sent_e2e)}

    @cached_property
    def lag(self) -> Distribution:
        """How late requests were sent."""
        return self._of(lambda record: record.lag)

    def _of(self, value: Callable[[Record], float | None]) -> Distribution:
        return Distribution(tuple([(found,) for record in self.counted if (found := value(record)) is not None]))

    # ---- counts, rates, shares -------------------------------------------------------------------------------

    @cached_property
    def errors(self) -> Counter[str]:
        """How many ended in which error."""
        return Counter(record.error for record in self.counted if record.error is not None)

    @property
    def error_share(self) -> Estimate | None:
        return self._share([not record.answered for record in self.counted])

    @property
    def good_share(self) -> Estimate | None:
        return self._share([self.is_good(record) for record in self.counted])

    @property
    def offered(self) -> float:
        """Requests a second that the plan had for the window."""
        return self.window.rate(len(self.counted))

    @property
    def throughput(self) -> float:
        """Answers a second that *ended* within the window, whenever they were asked for."""
        return self.window.rate(len(self._ended))

    @property
    def output_throughput(self) -> float:
        """Output tokens a second, of those answers."""
        return self.window.rate(sum(record.output_tokens for record in self._ended))

    @property
    def goodput(self) -> float:
        """Good requests a second, of those intended for the window."""
        return self.window.rate(len(self.good))

    @cached_property
    def _ended(self) -> list[Record]:
        ended = [record for record in self.records if record.answered and record.ended is not None]
        return [record for record in ended if self.window.holds(record.ended or 0.0)]

    @property
    def most_in_flight(self) -> int:
        """The most requests that were under way at once."""
        moments = [(record.sent, 1) for record in self.records if record.sent is not None]
        moments += [(record.ended, -1) for record in self.records if record.ended is not None]
        most = now = 0
        for _, step in sorted(moments):
            now += step
            most = max(most, now)
        return most

    # ---- tokens and money ------------------------------------------------------------------------------------

    @property
    def input_tokens(self) -> int:
        return sum(record.input_tokens for record in self.answered)

    @property
    def output_tokens(self) -> int:
        return sum(record.output_tokens for record in self.answered)

    @property
    def good_tokens(self) -> int:
        """Output tokens of good answers."""
        return sum(record.output_tokens for record in self.good)

    @property
    def estimated(self) -> int:
        """Of how many answers nobody counted the tokens."""
        return sum(record.estimated for record in self.answered)

    @property
    def pieces_per_token(self) -> float | None:
        """Pieces of text a token; 1 where a gap is the time of one token."""
        pieces = sum(len(record.gaps) + 1 for record in self.answered if record.first is not None)
        return pieces / self.output_tokens if self.output_tokens else None

    @property
    def cost(self) -> float | None:
        """US dollars of all answers that count; None where the price of one is not known."""
        costs = [record.cost for record in self.answered]
        return None if None in costs or not costs else math.fsum(cost for cost in costs if cost is not None)

    @property
    def cost_per_million_good(self) -> float | None:
        """What a million output tokens of good answers cost, with what was paid for the others."""
        if self.cost is None:
            return None
        return self.cost / self.good_tokens * 1e6 if self.good_tokens else math.inf

    @property
    def from_cache(self) -> int:
        return sum(record.cache_hit is not None for record in self.answered)

    # ---- quality ---------------------------------------------------------------------------------------------

    @cached_property
    def quality(self) -> Mapping[str, Estimate]:
        """The mean mark of each checker, over the answers that it had something to say of."""
        return {
            name: share([marks[record.index] for record in self.answered if record.index in marks])
            for name, marks in self.marks.items()
            if any(record.index in marks for record in self.answered)
        }

    def _share(self, hits: Sequence[bool]) -> Estimate | None:
        return share([float(hit) for hit in hits]) if hits else None
