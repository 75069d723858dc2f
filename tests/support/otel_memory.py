"""OpenTelemetry's SDK with everything kept in memory, and an observer that writes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from agentflow.integrations.opentelemetry import OpenTelemetryObserver

__all__ = ["Memory"]


class Memory:
    """`observer` writes here; `options` are its."""

    def __init__(self, *, sampler: Sampler | None = None, **options: Any) -> None:
        self._spans, self._reader, self._logs = (
            InMemorySpanExporter(),
            InMemoryMetricReader(),
            InMemoryLogRecordExporter(),
        )
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.tracers, meter_provider=meters, logger_provider=loggers, **options
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order of their beginning."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: (span.start_time, span.context.span_id))

    def span(self, name: str) -> ReadableSpan:
        """The one of that name."""
        [found] = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> dict[str, str | None]:
        """The name of each span, and of its parent."""
        named = {span.context.span_id: span.name for span in self.spans}
        return {span.name: None if span.parent is None else named.get(span.parent.span_id, "?") for span in self.spans}

    def points(self, metric: str) -> list[Any]:
        """What was measured under that name."""
        data = self._reader.get_metrics_data()
        every = [] if data is None else [
            each for resource in data.resource_metrics for scope in resource.scope_metrics for each in scope.metrics
        ]  # fmt: skip
        return [point for each in every if each.name == metric for point in each.data.data_points]

    def sums(self, metric: str, label: str) -> Mapping[Any, float]:
        """The sum of each point, by the value of one of its attributes."""
        return {point.attributes.get(label): point.sum for point in self.points(metric)}

    @property
    def records(self) -> list[Any]:
        return [each.log_record for each in self._logs.get_finished_logs()]
