"""What observers were given and what they lost, as counters, so that telemetry which fails is itself seen.

    observations() ──▶ telemetry_events{observer="RunStore"} 4711
                       telemetry_lost{observer="RunStore", reason="raised"} 0
                       telemetry_lost{observer="RunStore", reason="too slow"} 12
                       telemetry_lost{observer="RunStore", reason="disk full"} 3        ← it says so itself: `losses`

Nothing is counted here: the numbers are the observations' own, read when they are asked for. Those of one that was
closed stay in the sum, since a counter that goes back reads as a restart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Protocol, runtime_checkable

from agentflow.core.observability.metrics.snapshot import Series
from agentflow.core.observability.observers import Observation, observations

__all__ = ["Losses", "Lossy", "no_overflow"]

_Totals = Counter[tuple[str, str]]  # by observer, and by reason; "" is what it was given


@runtime_checkable
class Lossy(Protocol):
    """An observer that can lose what it was told, and knows how much of it by why: in a mapping, or in the fields of a
    dataclass."""

    @property
    def losses(self) -> object: ...


class Losses:
    """Serves any number of threads. What begins and ends between two questions is not seen."""

    def __init__(self, watching: Callable[[], Iterable[Observation]] = observations) -> None:
        self._watching = watching
        self._lock = threading.Lock()
        self._known: dict[Observation, None] = {}
        self._over: _Totals = Counter()

    def series(self) -> list[Series]:
        totals = self._totals()
        return [
            Series("telemetry_lost", "counter", {"observer": observer, "reason": reason}, float(count))
            if reason
            else Series("telemetry_events", "counter", {"observer": observer}, float(count))
            for (observer, reason), count in sorted(totals.items())
        ]

    def _totals(self) -> _Totals:
        with self._lock:
            watching = dict.fromkeys(self._watching())
            for gone in [each for each in self._known if each not in watching]:
                self._over = _plus(self._over, _counts(gone))
            self._known = watching
            totals = self._over
            for each in watching:
                totals = _plus(totals, _counts(each))
            return totals


def no_overflow(series: Iterable[Series]) -> list[Series]:
    """`series_overflow` of each metric as 0, to which what overflowed is added: the first time is then an increase."""
    names = sorted({each.name for each in series})
    return [Series("series_overflow", "counter", {"metric": name}) for name in names if name != "series_overflow"]


def _counts(observation: Observation) -> _Totals:
    name = type(observation.observer).__name__
    seen, failed, dropped = observation.seen, observation.failed, observation.dropped
    counts = {(name, ""): seen, (name, "raised"): failed, (name, "too slow"): dropped}
    with suppress(Exception):  # what it cannot say must not keep the others from being heard
        if isinstance(observation.observer, Lossy):
            counts |= {(name, reason): count for reason, count in _by_reason(observation.observer.losses)}
    return Counter(counts)


def _by_reason(losses: object) -> Iterable[tuple[str, int]]:
    if isinstance(losses, Mapping):
        return [(str(reason), int(count)) for reason, count in losses.items()]
    if is_dataclass(losses):
        return [(field.name, int(getattr(losses, field.name))) for field in fields(losses)]
    return []


def _plus(one: _Totals, other: _Totals) -> _Totals:
    """The sum with its zeros, which `+` leaves out: a counter that begins at 1 has no increase to be alarmed by."""
    both = Counter(one)
    both.update(other)
    return both
