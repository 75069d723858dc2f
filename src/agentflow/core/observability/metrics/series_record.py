"""A series as a record that JSON can hold, and back; nothing is believed of what comes from elsewhere.

    {"name": "node_duration_seconds", "kind": "histogram", "labels": {"flow": "article", "node": "write"}, "age": 12.5,
     "distribution": [3, 0.66, 0.12, 0.34, [2396, 2418, 2486], [1, 1, 1]], "into": 12.5, "fine": [[2.5, […]]], …}

A distribution is [count, sum, smallest, largest, buckets, counts]; one of nothing is []. A record that says what cannot
be is refused with ValueError, TypeError or KeyError, which its reader makes one error of.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TypeVar

from agentflow.core.observability.metrics.histogram import EMPTY, Distribution
from agentflow.core.observability.metrics.series import KINDS, Exemplar, Kind, Series
from agentflow.core.observability.metrics.windows import Parts

__all__ = ["from_record", "number", "to_record"]

T = TypeVar("T")


def to_record(series: Series) -> dict[str, object]:
    labels = dict(series.labels)
    record: dict[str, object] = {"name": series.name, "kind": series.kind, "labels": labels, "age": series.age}
    if series.kind == "histogram":
        record |= {"distribution": _numbers(series.distribution)} | _parts(series.recent_distributions, _numbers)
        record["exemplars"] = [[each.value, each.run_id, each.time] for each in series.exemplars]
    else:
        record["amount"] = series.amount
    if series.kind == "counter":
        record |= _parts(series.recent, float)
    return record


def from_record(record: object) -> Series:
    if not isinstance(record, dict):
        raise TypeError("a series is an object")
    kind = _kind(record["kind"])
    labels = {_text(name): _text(value) for name, value in record["labels"].items()}
    name = _text(record["name"])
    age = number(record["age"])
    if kind == "gauge":
        return Series(name, kind, labels, number(record["amount"]), age=age)
    if kind == "counter":
        return Series(name, kind, labels, _grown(record["amount"]), recent=_from_parts(record, _grown), age=age)
    return Series(
        name,
        kind,
        labels,
        distribution=_distribution(record["distribution"]),
        recent_distributions=_from_parts(record, _distribution),
        age=age,
        exemplars=tuple([_exemplar(each) for each in record["exemplars"]]),
    )


def number(value: object) -> float:
    """A number that many of can be added up; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e200:
        raise ValueError(f"{value!r:.100} is no number, or too large a one")
    return float(value)


def _grown(value: object) -> float:
    """What a counter may have counted."""
    read = number(value)
    if read < 0.0:
        raise ValueError(f"a counter does not say {value!r:.100}")
    return read


def _parts(parts: Parts[T], write: Callable[[T], object]) -> dict[str, object]:
    return {
        "into": parts.into,
        "fine": [[age, write(amount)] for age, amount in parts.fine],
        "coarse": [[age, write(amount)] for age, amount in parts.coarse],
    }


def _from_parts(record: dict[str, object], read: Callable[[object], T]) -> Parts[T]:
    return Parts(_aged(record["fine"], read), _aged(record["coarse"], read), number(record["into"]))


def _aged(found: object, read: Callable[[object], T]) -> tuple[tuple[float, T], ...]:
    if not isinstance(found, list):
        raise TypeError("parts are a list")
    return tuple([(max(0.0, number(age)), read(amount)) for age, amount in found])


def _numbers(found: Distribution) -> list[object]:
    if not found.count:
        return []
    return [found.count, found.total, found.minimum, found.maximum, found.buckets.tolist(), found.counts.tolist()]


def _distribution(found: object) -> Distribution:
    if found == []:
        return EMPTY
    if not isinstance(found, list):
        raise TypeError("a distribution is a list")
    count, total, minimum, maximum, buckets, counts = found
    read = Distribution(count, number(total), number(minimum), number(maximum), array("h", buckets), array("Q", counts))
    if len(buckets) != len(counts) or sum(counts) != count or sorted(set(buckets)) != buckets or not all(counts):
        raise ValueError("a distribution's buckets do not fit together")
    return read


def _exemplar(found: object) -> Exemplar:
    if not isinstance(found, list):
        raise TypeError("an exemplar is a list")
    value, run_id, time = found
    return Exemplar(number(value), _text(run_id), number(time))


def _kind(value: object) -> Kind:
    for kind in KINDS:
        if value == kind:
            return kind
    raise ValueError(f"{value!r:.100} is no kind of metric")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    return value
