"""A snapshot as families of samples: Prometheus' shapes, made by no more than the standard library.

    MetricsSnapshot ──▶ Family(agentflow_model_calls, counter)  ──▶ …_total{model="gpt-4o",status="ok"} 12
                        Family(agentflow_model_duration_seconds, histogram)
                                     ──▶ …_bucket{model="gpt-4o",le="2.0"} 9  # the newest run that fell into it
                                         …_bucket{…,le="+Inf"} 12   …_count 12   …_sum 31.4

Percentiles are not exported: those of several processes cannot be put together, buckets can. Two metrics whose names
become the same are one family where their kind is the same (series whose labels become the same are added up); else the
later one's name gets an ending, so nothing is lost and nothing is said twice.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentflow.core.observability.metrics.snapshot import Exemplar, Kind, Series
from agentflow.integrations.prometheus.catalogue import CATALOGUE, Entry
from agentflow.integrations.prometheus.names import family_name, label_names, label_value, number, unit_of

__all__ = ["Family", "Mark", "Sample", "TraceId", "families"]

TraceId = Callable[[str], str | None]
"""From a run's id to the id of its trace, where one is known."""

_ENDINGS: Final[Mapping[Kind, str]] = {"counter": "_events", "gauge": "_value", "histogram": "_spread"}
_ROOM: Final = 128  # characters that OpenMetrics leaves for the labels of an exemplar, names included


@dataclass(frozen=True, slots=True)
class Mark:
    """An exemplar: a value that fell into a bucket, when, and what it belongs to."""

    labels: Mapping[str, str]
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: what is added to the family's name, labels, a value, and perhaps an exemplar."""

    suffix: str
    labels: Mapping[str, str]
    value: float
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric."""

    name: str
    kind: Kind
    help: str
    unit: str
    samples: list[Sample] = field(default_factory=list)


def families(
    series: Iterable[Series],
    *,
    prefix: str,
    bounds: Mapping[str, Sequence[float]],
    trace_id: TraceId,
    reserved: Iterable[str] = (),
) -> list[Family]:
    """In the order of their names. `bounds` are those of metrics that are to have others than the catalogue's;
    `reserved` are names of families that are made elsewhere."""
    found: dict[str, _Group] = {}
    taken = set(reserved)
    for (name, kind), several in _grouped(series).items():
        group = _group(family_name(prefix, name), name, kind, found, taken)
        group.series.extend(several)
    return [_family(name, group, bounds.get(group.told), trace_id) for name, group in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class _Group:
    """What will be one family, and the name that its metric was counted under."""

    told: str
    kind: Kind
    series: list[Series] = field(default_factory=list)


def _grouped(series: Iterable[Series]) -> dict[tuple[str, Kind], list[Series]]:
    """By name and kind; what the catalogue knows comes first, so that it keeps its name."""
    groups: dict[tuple[str, Kind], list[Series]] = {}
    for each in series:
        groups.setdefault((each.name, each.kind), []).append(each)
    return {key: groups[key] for key in sorted(groups, key=lambda key: (key[0] not in CATALOGUE, key))}


def _group(name: str, told: str, kind: Kind, found: dict[str, _Group], taken: set[str]) -> _Group:
    while name in taken or (name in found and found[name].kind != kind):
        name += _ENDINGS[kind]
    if name not in found:
        found[name] = _Group(told, kind)
    return found[name]


def _family(name: str, group: _Group, bounds: Sequence[float] | None, trace_id: TraceId) -> Family:
    entry = _entry(group.told)
    family = Family(name, group.kind, entry.help, unit_of(name))
    for each in _distinct(group.kind, group.series):
        family.samples.extend(_samples(each, bounds or entry.bounds, trace_id))
    return family


def _entry(name: str) -> Entry:
    return CATALOGUE.get(name) or Entry(f"A metric of the program's own: {label_value(name)}.")


def _distinct(kind: Kind, group: Sequence[Series]) -> Iterable[Series]:
    """One series for each set of labels as they will be written."""
    taken = ("le",) if kind == "histogram" else ()
    found: dict[tuple[tuple[str, str], ...], Series] = {}
    for each in group:
        names = label_names(each.labels, taken)
        labels = {names[label]: label_value(value) for label, value in each.labels.items()}
        key = tuple(sorted(labels.items()))
        renamed = replace(each, labels=labels)
        found[key] = found[key].merged(renamed) if key in found else renamed
    return found.values()


def _samples(series: Series, bounds: Sequence[float], trace_id: TraceId) -> Iterable[Sample]:
    labels = series.labels
    if series.kind != "histogram":
        yield Sample("_total" if series.kind == "counter" else "", labels, series.amount)
        return
    marks = _marks(series.exemplars, bounds, trace_id)
    count = series.distribution.count
    for bound, below in zip((*bounds, math.inf), (*series.buckets(bounds), count), strict=True):
        yield Sample("_bucket", {**labels, "le": number(bound)}, below, marks.get(bound))
    yield Sample("_count", labels, count)
    yield Sample("_sum", labels, series.distribution.total)


def _marks(exemplars: Iterable[Exemplar], bounds: Sequence[float], trace_id: TraceId) -> dict[float, Mark]:
    """The newest exemplar of each bucket, by its bound."""
    edges = (*bounds, math.inf)
    newest = {edges[bisect_left(edges, each.value)]: each for each in sorted(exemplars, key=lambda each: each.time)}
    return {bound: Mark(_traced(each.run_id, trace_id), each.value, each.time) for bound, each in newest.items()}


def _traced(run_id: str, trace_id: TraceId) -> dict[str, str]:
    """Which trace, and which run; as much of it as there is room for."""
    labels = {"trace_id": trace_id(run_id), "run_id": run_id}
    kept: dict[str, str] = {}
    room = _ROOM
    for name, value in labels.items():
        if value and len(name) + len(value) <= room:
            kept[name] = label_value(value)
            room -= len(name) + len(value)
    return kept
