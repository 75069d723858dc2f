"""One metric with one set of labels, at one moment: what was counted, since the beginning and lately.

    series.value("p99", 300.0)          # the slowest hundredth of the last five minutes began here
    series.value("rate", 60.0)          # a second, in the last minute
    series.buckets([0.1, 1.0, 10.0])    # how many did not exceed each, since the beginning

    counter      total, rate
    gauge        value
    histogram    count, sum, mean, min, max, rate, and any pNN from p0 to p100: p50, p99, p99.9

A window is in seconds, at most an hour; it takes whole slots (see `windows.py`). None is since the beginning. A gauge
has no past: it is what it is in any window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from agentflow.core.observability.metrics.histogram import EMPTY, Distribution
from agentflow.core.observability.metrics.windows import Parts, check_window
from agentflow.errors import ConfigurationError

__all__ = ["KINDS", "Exemplar", "Kind", "Series", "check_stat"]

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
KINDS: Final[tuple[Kind, ...]] = ("counter", "gauge", "histogram")

_STATS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "counter": ("total", "rate"),
    "gauge": ("value",),
    "histogram": ("count", "sum", "mean", "min", "max", "rate"),
}

_NO_AMOUNTS: Final[Parts[float]] = Parts()
_NO_DISTRIBUTIONS: Final[Parts[Distribution]] = Parts()


def check_stat(kind: Kind, stat: str) -> None:
    """Raises ConfigurationError where metrics of that kind have no such statistic."""
    if stat not in _STATS[kind] and not (kind == "histogram" and _share(stat) is not None):
        known = ", ".join([*_STATS[kind], *(["p50, p99, p99.9, …"] if kind == "histogram" else [])])
        raise ConfigurationError(f"a {kind} has no {stat!r}; it has {known}")


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A value that came, the run it came from, and its wall time."""

    value: float
    run_id: str
    time: float


@dataclass(frozen=True, slots=True)
class Series:
    """`amount` is the total of a counter or the value of a gauge, `distribution` what a histogram has seen; `recent`
    and `recent_distributions` are the same by slots of time. `age` is for how many seconds it has been counted.

    `exemplars` of a histogram are its last values of each power of two, with their runs; the smallest first.
    """

    name: str
    kind: Kind
    labels: Mapping[str, str] = field(default_factory=dict)
    amount: float = 0.0
    distribution: Distribution = EMPTY
    recent: Parts[float] = _NO_AMOUNTS
    recent_distributions: Parts[Distribution] = _NO_DISTRIBUTIONS
    age: float = 0.0
    exemplars: tuple[Exemplar, ...] = ()

    def value(self, stat: str | None = None, window: float | None = None) -> float | None:
        """None where there is no data. Without `stat`: the total, the value, or the count.

        Raises ConfigurationError for a statistic or a window that there is not.
        """
        if window is not None:
            check_window(window)
        if stat is not None:
            check_stat(self.kind, stat)
        if self.kind == "gauge":
            return self.amount
        if self.kind == "counter":
            increase = self.amount if window is None else math.fsum(self.recent.within(window))
            return self._rate(increase, window) if stat == "rate" else increase
        found = self.within(window)
        return self._rate(found.count, window) if stat == "rate" else _statistic(found, stat or "count")

    def within(self, window: float | None = None) -> Distribution:
        """What a histogram has seen in the last `window` seconds."""
        if window is None:
            return self.distribution
        check_window(window)
        return EMPTY.merged(*self.recent_distributions.within(window))

    def buckets(self, bounds: Sequence[float]) -> tuple[int, ...]:
        """How many values of a histogram did not exceed each bound: its cumulative buckets, since the beginning."""
        return self.distribution.up_to(bounds)

    def merged(self, other: Series) -> Series:
        """Both together: counters and gauges add up, histograms are as if they had been one."""
        newest = {math.frexp(each.value)[1]: each for each in sorted((*self.exemplars, *other.exemplars), key=_time)}
        return replace(
            self,
            amount=self.amount + other.amount,
            distribution=self.distribution.merged(other.distribution),
            recent=self.recent.joined(other.recent),
            recent_distributions=self.recent_distributions.joined(other.recent_distributions),
            age=max(self.age, other.age),
            exemplars=tuple(sorted(newest.values(), key=_value)),
        )

    def older(self, seconds: float) -> Series:
        """The same, seen that much later."""
        return replace(
            self, recent=self.recent.older(seconds), recent_distributions=self.recent_distributions.older(seconds)
        )

    def _rate(self, amount: float, window: float | None) -> float | None:
        if window is None:
            return amount / self.age if self.age > 0.0 else None
        parts = self.recent if self.kind == "counter" else self.recent_distributions
        return amount / parts.reach(window)


def _statistic(found: Distribution, stat: str) -> float | None:
    if stat == "count":
        return float(found.count)
    if stat == "sum":
        return found.total
    if not found.count:
        return None
    if stat == "mean":
        return found.mean
    if stat == "min":
        return found.minimum
    if stat == "max":
        return found.maximum
    return found.quantile(_share(stat) or 0.0)


def _share(stat: str) -> float | None:
    """0.99 for "p99"; None where it is no percentile."""
    digits = stat.removeprefix("p")
    if digits == stat or not digits.replace(".", "", 1).isdecimal() or not digits.isascii():
        return None
    percent = float(digits)
    return percent / 100.0 if percent <= 100.0 else None


def _time(exemplar: Exemplar) -> float:
    return exemplar.time


def _value(exemplar: Exemplar) -> float:
    return exemplar.value
