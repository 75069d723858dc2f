"""All metrics at one moment: a value to be asked, sent to another process, and added to others.

    snapshot = collector.snapshot()
    snapshot.value("model_duration_seconds", "p95", window=300.0, labels={"provider": "openai"})
    snapshot.select("node_visits", {"flow": "article"})         # one Series for each set of labels
    everybody = MetricsSnapshot.from_json(theirs).merged(snapshot)

Which metrics there are stands in `metric_names.py`. What is merged must not have been merged before: a process that
goes on sends the next snapshot in place of the last one, not beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final

from agentflow.core.observability.metrics.series import Exemplar, Kind, Series, check_stat
from agentflow.core.observability.metrics.series_record import from_record, number, to_record
from agentflow.errors import ConfigurationError

__all__ = ["Exemplar", "Kind", "MetricsSnapshot", "Series", "check_stat"]

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """`time` is wall time in seconds since 1970."""

    time: float
    series: tuple[Series, ...] = ()

    def select(self, name: str, labels: Mapping[str, str] = {}) -> tuple[Series, ...]:
        """The series of a metric whose labels contain these."""
        wanted = labels.items()
        return tuple([each for each in self.series if each.name == name and wanted <= each.labels.items()])

    def value(
        self, name: str, stat: str | None = None, window: float | None = None, labels: Mapping[str, str] = {}
    ) -> float | None:
        """Of all selected series together; None where there is none, or no data in the window.

        Raises ConfigurationError for a statistic or a window that there is not.
        """
        selected = self.select(name, labels)
        alike = [each for each in selected if each.kind == selected[0].kind]  # no two kinds in one process
        return reduce(Series.merged, alike).value(stat, window) if alike else None

    def merged(self, other: MetricsSnapshot) -> MetricsSnapshot:
        """Both, as they were at the later of the two times: what is older by then drops out of its windows."""
        time = max(self.time, other.time)
        found: dict[object, Series] = {}
        for snapshot in (self, other):
            for each in snapshot.series:
                key = (each.name, each.kind, frozenset(each.labels.items()))
                aged = each.older(time - snapshot.time)
                found[key] = found[key].merged(aged) if key in found else aged
        return MetricsSnapshot(time, tuple(found.values()))

    def to_json(self) -> str:
        written = {"version": _VERSION, "time": self.time, "series": [to_record(each) for each in self.series]}
        return json.dumps(written, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> MetricsSnapshot:
        """What `to_json` wrote. Raises ConfigurationError for anything else."""
        try:
            read = json.loads(text)
            if read["version"] != _VERSION:
                raise ValueError(f"its version is {read['version']!r}")
            return MetricsSnapshot(number(read["time"]), tuple([from_record(each) for each in read["series"]]))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ConfigurationError(f"this is no snapshot of metrics, version {_VERSION}: {error}") from error
