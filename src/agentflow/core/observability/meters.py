"""What counts: one counter, gauge or histogram with one set of labels, as it goes on.

    counter.add(slot, 1.0)              the present slot of 5 s ──a later slot comes──▶ recent slots, for windows
    histogram.record(slot, 0.2, …)
    meter.series(name, now, age)        → a Series, which is a value

A meter is not made for several threads at once: whoever owns it holds a lock. Its memory depends on how many slots it
keeps and, for a histogram, on how many buckets its values fall into (6,656 at most of either sign), not on how often it
is used. One that is `shared` stands for labels that have none of their own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Final

from agentflow.core.observability.histogram import EMPTY, SMALLEST, Distribution, bucket_of
from agentflow.core.observability.series import Exemplar, Series
from agentflow.core.observability.windows import Recent

__all__ = ["Counter", "Gauge", "Histogram"]

_INFINITE: Final = math.inf
_ORDINARY: Final = 2.0**62
_frexp = math.frexp


class Counter:
    """It only grows."""

    __slots__ = ("_mark", "_recent", "_slot", "labels", "shared", "total")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.shared = False
        self.total = 0.0
        self._mark = 0.0  # the total when the slot began
        self._slot = 0
        self._recent: Recent[float] = Recent(operator.add)

    def add(self, slot: int, amount: float) -> None:
        if slot != self._slot:
            self._turn(slot)
        self.total += amount

    def absorb(self, series: Series, now: float) -> None:
        """What another process has counted."""
        self._turn(self._slot)
        self.total += series.amount
        self._mark = self.total
        self._recent.absorb(series.recent, now)

    def series(self, name: str, now: float, age: float) -> Series:
        self._turn(self._slot)
        return Series(name, "counter", self.labels, self.total, recent=self._recent.parts(now), age=age)

    def _turn(self, slot: int) -> None:
        if self.total != self._mark:
            self._recent.add(self._slot, self.total - self._mark)
            self._mark = self.total
        self._slot = slot


class Gauge:
    """It goes up and down."""

    __slots__ = ("labels", "shared", "value")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.shared = False
        self.value = 0.0

    def absorb(self, series: Series, now: float) -> None:
        self.value += series.amount

    def series(self, name: str, now: float, age: float) -> Series:
        return Series(name, "gauge", self.labels, self.value, age=age)


class Histogram:
    """How often which values came, and the last run of each power of two."""

    __slots__ = (
        "_exemplars",
        "_maximum",
        "_minimum",
        "_open",
        "_recent",
        "_slot",
        "_sum",
        "_total",
        "labels",
        "shared",
    )

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.shared = False
        self._total = EMPTY
        self._recent: Recent[Distribution] = Recent(Distribution.merged)
        self._exemplars: dict[int, tuple[float, str, float]] = {}
        self._slot = 0
        self._open: dict[int, int] = {}  # of the present slot, as are these three
        self._sum = 0.0
        self._minimum = _INFINITE
        self._maximum = -_INFINITE

    def record(self, slot: int, value: float, run_id: str, time: float) -> None:
        """A finite value, and the run that it came from, if any."""
        if slot != self._slot:
            self._turn(slot)
        if SMALLEST <= value < _ORDINARY:  # what bucket_of does, without the call
            mantissa, exponent = _frexp(value)
            bucket = (exponent + 40 << 6) + int(mantissa * 128.0) - 64
        else:
            bucket = bucket_of(value)
        counts = self._open
        counts[bucket] = counts.get(bucket, 0) + 1
        self._sum += value
        if value < self._minimum:
            self._minimum = value
        if value > self._maximum:
            self._maximum = value
        if run_id:
            self._exemplars[bucket >> 6] = (value, run_id, time)

    def absorb(self, series: Series, now: float) -> None:
        """What another process has counted."""
        self._turn(self._slot)
        self._total = self._total.merged(series.distribution)
        self._recent.absorb(series.recent_distributions, now)
        for each in series.exemplars:
            octave = bucket_of(each.value) >> 6
            if octave not in self._exemplars or self._exemplars[octave][2] < each.time:
                self._exemplars[octave] = (each.value, each.run_id, each.time)

    def series(self, name: str, now: float, age: float) -> Series:
        self._turn(self._slot)
        return Series(
            name,
            "histogram",
            self.labels,
            distribution=self._total,
            recent_distributions=self._recent.parts(now),
            age=age,
            exemplars=tuple([Exemplar(*each) for each in sorted(self._exemplars.values())]),
        )

    def _turn(self, slot: int) -> None:
        if self._open:
            seen = Distribution.tallied(self._open, self._sum, self._minimum, self._maximum)
            self._total = self._total.merged(seen)
            self._recent.add(self._slot, seen)
            self._open = {}
            self._sum, self._minimum, self._maximum = 0.0, _INFINITE, -_INFINITE
        self._slot = slot
