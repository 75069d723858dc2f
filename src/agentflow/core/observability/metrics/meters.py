"""What counts: one counter, gauge or histogram with one set of labels, as it goes on.

    counter.add(slot, 1.0)              the present slot of 5 s ──a later slot comes──▶ recent slots, for windows
    histogram.record(slot, 0.2, …)
    meter.series(name, now, age)        → a Series, which is a value

A meter is not made for several threads at once: whoever owns it holds a lock. Its memory depends on how many slots it
keeps and, for a histogram, on how many buckets its values fall into (6,592 at most of either sign), not on how often it
is used. One that is `shared` stands for labels that have none of their own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Final, TypeAlias

from agentflow.core.observability.metrics.histogram import SMALLEST, Distribution, bucket_of
from agentflow.core.observability.metrics.series import Exemplar, Series
from agentflow.core.observability.metrics.windows import Recent

__all__ = ["Counter", "Gauge", "Histogram", "Sample"]

_ORDINARY: Final = 2.0**62
_BATCH: Final = 64

Sample: TypeAlias = tuple[float, str, float]
"""A value, the run that it came from ("" for none), and its wall time."""


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
    """It goes up and down. What is `under_way` comes to its value."""

    __slots__ = ("labels", "shared", "under_way", "value")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.shared = False
        self.value = 0.0
        self.under_way = 0

    def absorb(self, series: Series, now: float) -> None:
        self.value += series.amount

    def series(self, name: str, now: float, age: float) -> Series:
        return Series(name, "gauge", self.labels, self.value + self.under_way, age=age)


class Histogram:
    """How often which values came, and the last run of each power of two."""

    __slots__ = ("_exemplars", "_fresh", "_open", "_recent", "_slot", "_total", "labels", "shared")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.shared = False
        self._total = _Tally()
        self._recent: Recent[Distribution] = Recent(Distribution.merged)
        self._exemplars: dict[int, Sample] = {}
        self._slot = 0
        self._open = _Tally()  # of the present slot
        self._fresh: list[Sample] = []  # what is not in it yet: to add up many at once takes a third of the time

    def record(self, slot: int, value: float, run_id: str, time: float) -> None:
        """A finite value, and the run that it came from, if any."""
        if slot != self._slot:
            self._turn(slot)
        self._fresh.append((value, run_id, time))
        if len(self._fresh) >= _BATCH:
            self._open.add(self._fresh, self._exemplars)

    def extend(self, slot: int, samples: list[Sample]) -> None:
        """Many values of one slot."""
        if slot != self._slot:
            self._turn(slot)
        self._fresh += samples
        if len(self._fresh) >= _BATCH:
            self._open.add(self._fresh, self._exemplars)

    def absorb(self, series: Series, now: float) -> None:
        """What another process has counted."""
        self._turn(self._slot)
        self._total.include(series.distribution)
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
            distribution=self._total.distribution(),
            recent_distributions=self._recent.parts(now),
            age=age,
            exemplars=tuple([Exemplar(*each) for each in sorted(self._exemplars.values()) if each[1]]),
        )

    def _turn(self, slot: int) -> None:
        if self._fresh:
            self._open.add(self._fresh, self._exemplars)
        if self._open.counts:
            seen = self._open.distribution()
            self._total.include(seen)
            self._recent.add(self._slot, seen)
            self._open = _Tally()
        self._slot = slot


class _Tally:
    """A distribution that is still being counted."""

    __slots__ = ("_maximum", "_minimum", "_sum", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._sum = 0.0
        self._minimum = math.inf
        self._maximum = -math.inf

    def add(self, samples: list[Sample], exemplars: dict[int, Sample]) -> None:
        """Count the samples, keep the last of each octave, and empty the list."""
        counts, frexp = self.counts, math.frexp
        for sample in samples:
            value = sample[0]
            if SMALLEST <= value < _ORDINARY:  # what bucket_of does, without the call
                mantissa, exponent = frexp(value)
                bucket = (exponent + 40 << 6) + int(mantissa * 128.0) - 64
            else:
                bucket = bucket_of(value)
            counts[bucket] = counts.get(bucket, 0) + 1
            exemplars[bucket >> 6] = sample
        values = [sample[0] for sample in samples]
        self._sum += sum(values)
        self._minimum = min(self._minimum, min(values))
        self._maximum = max(self._maximum, max(values))
        samples.clear()

    def include(self, seen: Distribution) -> None:
        for bucket, count in zip(seen.buckets, seen.counts, strict=True):
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self._sum += seen.total
        self._minimum = min(self._minimum, seen.minimum)
        self._maximum = max(self._maximum, seen.maximum)

    def distribution(self) -> Distribution:
        return Distribution.tallied(self.counts, self._sum, self._minimum, self._maximum)
