"""What a rule looks at: one number, for each group of series.

    Metric("model_duration_seconds", stat="p95", window=300)      a metric
    Ratio(Metric("model_calls", window=300, where={"status": "error"}), Metric("model_calls", window=300))
    BurnRate(Metric("model_calls", where={"status": "error"}), Metric("model_calls"), objective=0.99)

    quantity.read(snapshot, by=("model",))  ──▶  {("gpt-4o",): 12.3, ("kimi",): None}

Series that agree in the labels of `by` are one group and are taken together: counters and gauges are added, histograms
merged. Without `by` there is one group, `()`, and it is always there. None is no value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from agentflow.core.observability.metrics.names import METRICS
from agentflow.core.observability.metrics.series import check_stat
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot, Series
from agentflow.core.observability.metrics.windows import LONGEST
from agentflow.errors import ConfigurationError

__all__ = ["BurnRate", "Group", "Metric", "Quantity", "Ratio"]

Group: TypeAlias = tuple[str, ...]
"""The values of the labels in `by`; empty for a label that a series lacks."""

_STATS: Final = re.compile(r"total|rate|value|count|sum|mean|min|max|p\d{1,2}(\.\d+)?|p100")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Quantity(Protocol):
    """Something that a snapshot has a number for."""

    def read(self, snapshot: MetricsSnapshot, by: Sequence[str]) -> dict[Group, float | None]: ...

    def to_mapping(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of those series whose labels contain `where`.

    `stat` is total or rate (a counter's), value (a gauge's), count, sum, mean, min, max, rate or pNN (a histogram's);
    None is the metric's own: total, value, count. `window` is so many seconds back from now, at most an hour; None is
    since the beginning.
    """

    name: str
    stat: str | None = None
    window: float | None = None
    where: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigurationError(f"metric: found {self.name!r}, allowed is the name of a metric")
        if self.stat is not None and not _STATS.fullmatch(self.stat):
            allowed = "total, rate, value, count, sum, mean, min, max and percentiles such as p95"
            raise ConfigurationError(f"stat: found {self.stat!r}, allowed are {allowed}")
        if self.stat is not None and (kind := METRICS.get(self.name)) is not None:
            try:
                check_stat(kind, self.stat)
            except ConfigurationError as error:
                raise ConfigurationError(f"stat: {self.name} is a {kind}, and {error}") from None
        _check_window("window", self.window)

    def read(self, snapshot: MetricsSnapshot, by: Sequence[str]) -> dict[Group, float | None]:
        return {
            group: MetricsSnapshot(snapshot.time, tuple(series)).value(self.name, self.stat, self.window)
            for group, series in _groups(snapshot.select(self.name, self.where), by).items()
        }

    def to_mapping(self) -> dict[str, object]:
        return {
            "metric": self.name,
            **({} if self.stat is None else {"stat": self.stat}),
            **({} if self.window is None else {"window": self.window}),
            **({"where": dict(self.where)} if self.where else {}),
        }

    def __str__(self) -> str:
        stat = f"{self.stat} of " if self.stat else ""
        window = f" over {self.window:g} s" if self.window else ""
        return f"{stat}{self.name}{window}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How large a part `of` is of `to`. None where `to` is 0 or less than `minimum`; 0 where `of` has no series,
    because counters begin with what they count."""

    of: Metric
    to: Metric
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.minimum < math.inf:
            raise ConfigurationError(f"ratio.minimum: found {self.minimum}, allowed is a finite number, 0 or more")

    def read(self, snapshot: MetricsSnapshot, by: Sequence[str]) -> dict[Group, float | None]:
        parts = self.of.read(snapshot, by)
        wholes = self.to.read(snapshot, by)
        return {group: self._of(parts.get(group), whole) for group, whole in wholes.items()}

    def _of(self, part: float | None, whole: float | None) -> float | None:
        if whole is None or not whole > 0 or whole < self.minimum:
            return None
        return (part or 0.0) / whole

    def to_mapping(self) -> dict[str, object]:
        minimum: dict[str, object] = {"minimum": self.minimum} if self.minimum else {}
        return {"ratio": {"of": self.of.to_mapping(), "to": self.to.to_mapping(), **minimum}}

    def __str__(self) -> str:
        where = ", ".join(f"{name}={value}" for name, value in self.of.where.items())
        return f"share of {self.of}{f' ({where})' if where else ''} in {self.to}"


@dataclass(frozen=True, slots=True)
class BurnRate:
    """How fast an error budget is used up: 1 is as fast as `objective` allows, 14.4 is 2 % of a month's in an hour.

    It is the lower of the rates over a long and a short window: the long one says that it matters, the short one that
    it still goes on, so the alert ends soon after the trouble does. (Beyer et al., The Site Reliability Workbook, 2018,
    chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".) `bad` and `total` are counters, whose own window is not looked
    at; `minimum` is how much of `total` the long window must hold.
    """

    bad: Metric
    total: Metric
    objective: float
    long: float = 3600.0
    short: float = 300.0
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.objective < 1:
            allowed = "a number between 0 and 1, such as 0.99"
            raise ConfigurationError(f"burn_rate.objective: found {self.objective}, allowed is {allowed}")
        _check_window("burn_rate.long", self.long)
        _check_window("burn_rate.short", self.short)
        if not self.short < self.long:
            raise ConfigurationError(f"burn_rate.short: found {self.short:g}, allowed is less than {self.long:g}")

    def read(self, snapshot: MetricsSnapshot, by: Sequence[str]) -> dict[Group, float | None]:
        longs = self._share(self.long, self.minimum).read(snapshot, by)
        shorts = self._share(self.short, 0.0).read(snapshot, by)
        return {group: self._rate(share, shorts.get(group)) for group, share in longs.items()}

    def _share(self, window: float, minimum: float) -> Ratio:
        return Ratio(replace(self.bad, window=window), replace(self.total, window=window), minimum)

    def _rate(self, long: float | None, short: float | None) -> float | None:
        return None if long is None or short is None else min(long, short) / (1 - self.objective)

    def to_mapping(self) -> dict[str, object]:
        minimum: dict[str, object] = {"minimum": self.minimum} if self.minimum else {}
        return {
            "burn_rate": {
                "bad": self.bad.to_mapping(),
                "total": self.total.to_mapping(),
                "objective": self.objective,
                "long": self.long,
                "short": self.short,
                **minimum,
            }
        }

    def __str__(self) -> str:
        return f"burn rate of {self.bad.name} over {self.long:g} s and {self.short:g} s"


def _groups(series: Sequence[Series], by: Sequence[str]) -> dict[Group, list[Series]]:
    if not by:
        return {(): list(series)}
    groups: dict[Group, list[Series]] = {}
    for each in series:
        groups.setdefault(tuple([each.labels.get(label, "") for label in by]), []).append(each)
    return groups


def _check_window(field: str, window: float | None) -> None:
    if window is not None and not 0 < window <= LONGEST:
        allowed = f"more than 0 and at most {LONGEST:g} seconds"
        raise ConfigurationError(f"{field}: found {window!r}, allowed is {allowed}")
