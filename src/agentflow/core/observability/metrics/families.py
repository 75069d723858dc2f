"""All meters of one process, by name and labels, within bounds.

    families.counter("node_visits", {"flow": "article", "node": "write", "status": "done"})  ──▶  a Counter, always
        there is one of these labels                        that
        there is room                                       a new one
        the metric has as many sets of labels as it may     the one whose labels all say "other"; it is `shared`

`series_overflow{metric}` counts how often something was sent to the last. A label's value is redacted, and cut to 120
characters. What cannot be kept at all is counted in `samples_refused{reason}`: a wrong name, a wrong value, labels that
cannot be, another kind than before.

Not made for several threads at once: whoever owns it holds a lock.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from agentflow.clock import Clock
from agentflow.core.observability.metrics.meters import Counter, Gauge, Histogram
from agentflow.core.observability.metrics.series import Kind, Series
from agentflow.core.observability.metrics.windows import SLOT
from agentflow.core.observability.redaction.redactor import redact

__all__ = ["BOOKKEEPING", "Families"]

BOOKKEEPING: Final = frozenset({"samples_refused", "series_overflow"})
"""Metrics that tell of what could not be kept as it came."""

_FAMILIES: Final = 1000  # metrics that there may be, of all names
_LABELS: Final = 20  # labels that one metric may have
_LENGTH: Final = 120  # characters of a label's value
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_log = logging.getLogger("agentflow.metrics")

Meter: TypeAlias = Counter | Gauge | Histogram
M = TypeVar("M", Counter, Gauge, Histogram)


class _Family(dict[tuple[tuple[str, str], ...], Meter]):
    """The meters of one metric, by their labels in order of name."""

    __slots__ = ("kind", "other")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.other: Meter | None = None


class Families:
    """`known` are metrics whose kind is settled; `most` bounds the sets of labels of one metric."""

    def __init__(self, clock: Clock, known: Mapping[str, Kind], most: int) -> None:
        self.most = most
        self._clock = clock
        self._families = {name: _Family(kind) for name, kind in known.items()}
        self._refused = 0
        self._now = self._born = clock.monotonic()
        self._slot = int(self._now // SLOT)
        self._until = (self._slot + 1) * SLOT
        self._monotonic = clock.monotonic

    # ---- time ------------------------------------------------------------------------------------------------

    def slot(self) -> int:
        """The present slot of 5 s. It never goes back, whatever the clock does."""
        now = self._monotonic()
        if now >= self._until:
            self._slot = int(now // SLOT)
            self._until = (self._slot + 1) * SLOT
        return self._slot

    def now(self) -> float:
        """In seconds; not before the present slot."""
        self._now = max(self._now, self._monotonic(), self.slot() * SLOT)
        return self._now

    # ---- meters ----------------------------------------------------------------------------------------------

    def counter(self, name: str, labels: Mapping[str, str]) -> Counter:
        return self._of(Counter, "counter", name, labels)

    def gauge(self, name: str, labels: Mapping[str, str]) -> Gauge:
        return self._of(Gauge, "gauge", name, labels)

    def gauges(self, name: str) -> list[Gauge]:
        """All that there are of that name."""
        return [meter for meter in self._families[name].values() if isinstance(meter, Gauge)]

    def histogram(self, name: str, labels: Mapping[str, str]) -> Histogram:
        return self._of(Histogram, "histogram", name, labels)

    def _of(self, kind: type[M], word: Kind, name: str, labels: Mapping[str, str]) -> M:
        family = self._family(word, name)
        if family is None:
            return kind(labels)  # it counts, but nobody sees it
        key = tuple(sorted(labels.items()))
        found = family.get(key)
        if found is None:
            if not _fit(labels):
                self.refuse("labels", name)
                return kind(labels)
            found = self._another(kind, name, family, key)
        assert isinstance(found, kind)
        return found

    def _another(self, kind: type[M], name: str, family: _Family, key: tuple[tuple[str, str], ...]) -> Meter:
        if len(family) >= (_FAMILIES if name in BOOKKEEPING else self.most):
            return self._other(kind, name, family, key)
        clean = tuple([(label, _clean(value)) for label, value in key])
        found = family.get(clean)
        if found is None:
            found = family[clean] = kind(dict(clean))
        return found

    def _other(self, kind: type[M], name: str, family: _Family, key: tuple[tuple[str, str], ...]) -> Meter:
        if name not in BOOKKEEPING:
            self.counter("series_overflow", {"metric": name}).add(self.slot(), 1.0)
        if family.other is None:
            labels = {label: "other" for label, _ in key}
            family.other = family.setdefault(tuple(labels.items()), kind(labels))
            family.other.shared = True
        return family.other

    def _family(self, kind: Kind, name: str) -> _Family | None:
        family = self._families.get(name)
        if family is not None:
            if family.kind == kind:
                return family
            self.refuse("kind", name)
            return None
        if not _NAME.fullmatch(name):
            self.refuse("name", name)
        elif len(self._families) >= _FAMILIES:
            self.refuse("names", name)
        else:
            family = self._families[name] = _Family(kind)
        return family

    def refuse(self, reason: str, name: str) -> None:
        """Something could not be kept."""
        self._refused += 1
        if _worth_a_line(self._refused):
            shown = _clean(name)
            _log.warning("a sample of %r is refused for its %s (%d refused by now)", shown, reason, self._refused)
        self.counter("samples_refused", {"reason": reason}).add(self.slot(), 1.0)

    # ---- values ----------------------------------------------------------------------------------------------

    def series(self) -> Iterator[tuple[Series, ...]]:
        """All that there is, metric by metric."""
        now = self.now()
        age = now - self._born
        for name, family in list(self._families.items()):
            yield tuple([meter.series(name, now, age) for meter in list(family.values())])

    def absorb(self, series: Series) -> None:
        """What another process has counted."""
        if series.kind == "counter":
            meter: Meter = self.counter(series.name, series.labels)
        elif series.kind == "gauge":
            meter = self.gauge(series.name, series.labels)
        else:
            meter = self.histogram(series.name, series.labels)
        meter.absorb(series, self.now())


def _fit(labels: Mapping[str, str]) -> bool:
    return len(labels) <= _LABELS and all(_NAME.fullmatch(label) is not None for label in labels)


def _clean(value: str) -> str:
    """Without what nobody may read. A secret that the cut goes through is one that is redacted first."""
    return redact(value[: 10 * _LENGTH])[:_LENGTH]


def _worth_a_line(count: int) -> bool:
    """The first, the tenth, the hundredth, …"""
    return str(count).rstrip("0") == "1"
