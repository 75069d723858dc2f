"""The collector that a Prometheus registry asks, and the two formats it is written in; alone to know prometheus_client.

    collector = PrometheusCollector(metrics)         # metrics: a MetricsCollector, or anything with a snapshot()
    prometheus_client.REGISTRY.register(collector)   # beside your own metrics …
    text(collector), open_metrics(collector)         # … or alone, as bytes

Nothing is counted here and nothing is kept: at each question one snapshot is taken and written down. The formats are
Prometheus' text format 0.0.4, which everything reads, and OpenMetrics 1.0, which has units and exemplars beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Final, Protocol, cast

from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.errors import MissingExtraError
from agentflow.integrations.prometheus.catalogue import CATALOGUE, checked_bounds
from agentflow.integrations.prometheus.families import Family, TraceId, families
from agentflow.integrations.prometheus.losses import Losses, no_overflow
from agentflow.integrations.prometheus.names import checked_prefix
from agentflow.integrations.prometheus.traces import trace_of

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["OPEN_METRICS", "TEXT", "Collects", "PrometheusCollector", "Snapshots", "open_metrics", "text"]

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Snapshots(Protocol):
    """What has metrics to show: a MetricsCollector, a SharedFolder."""

    def snapshot(self) -> MetricsSnapshot: ...


class Collects(Protocol):
    """What can be written down: a PrometheusCollector, or a registry of prometheus_client."""

    def collect(self) -> Iterable[Metric]: ...


class PrometheusCollector:
    """`prefix` begins every name. `bounds` are upper bounds of buckets by metric: `{"tool_duration_seconds": [1, 10]}`.

    `trace_id` tells the trace of a run, for exemplars; they bear the run's id in any case. `losses` are those of this
    process's observers. It serves any number of threads. Raises MissingExtraError, and ConfigurationError for a prefix
    or bounds that cannot be.
    """

    def __init__(
        self,
        metrics: Snapshots,
        *,
        prefix: str = "agentflow",
        bounds: Mapping[str, Sequence[float]] = {},
        trace_id: TraceId = trace_of,
        losses: Losses | None = None,
    ) -> None:
        _require()
        self._metrics = metrics
        self._prefix = checked_prefix(prefix)
        self._bounds = {name: checked_bounds(each) for name, each in bounds.items()}
        self._trace_id = trace_id
        self._losses = losses or Losses()
        self._version = metadata.version("agentflow-engine")

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        build = f"{self._prefix}_build"
        yield _build_info(build, self._version)
        counted = self._metrics.snapshot().series
        shown = families(
            (*counted, *no_overflow(counted), *self._losses.series()),
            prefix=self._prefix,
            bounds=self._bounds,
            trace_id=cache(self._trace_id),
            reserved=(build,),
        )
        for family in shown:
            yield _metric(family)

    def describe(self) -> Iterable[Metric]:
        """What a registry compares with its other collectors' names: nothing, as names come with what is counted."""
        return ()


def text(metrics: Collects) -> bytes:
    """In the text format."""
    from prometheus_client import generate_latest

    return generate_latest(metrics)


def open_metrics(metrics: Collects) -> bytes:
    """In OpenMetrics."""
    from prometheus_client.openmetrics import exposition

    render = cast("Callable[[Collects], bytes]", exposition.generate_latest)  # which is not typed
    return render(metrics)


def _require() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise MissingExtraError("Prometheus", "prometheus") from None


def _build_info(name: str, version: str) -> Metric:
    from prometheus_client.core import InfoMetricFamily

    return InfoMetricFamily(name, CATALOGUE["build_info"].help, {"version": version})


def _metric(family: Family) -> Metric:
    from prometheus_client import Metric
    from prometheus_client.samples import Exemplar

    metric = Metric(family.name, family.help, family.kind, family.unit)
    for sample in family.samples:
        mark = sample.mark
        exemplar = None if mark is None else Exemplar(dict(mark.labels), mark.value, mark.time)
        metric.add_sample(family.name + sample.suffix, dict(sample.labels), sample.value, exemplar=exemplar)
    return metric
