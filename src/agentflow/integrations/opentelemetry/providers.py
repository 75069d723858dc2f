"""Providers of our own, for whoever has configured none: OTLP over HTTP to one collector.

    own = OwnProviders(endpoint="http://127.0.0.1:4318", service_name="search", …)
    own.tracers, own.meters, own.loggers        ──▶  …/v1/traces, …/v1/metrics, …/v1/logs

Without an endpoint, the standard variables count (OTEL_EXPORTER_OTLP_ENDPOINT and its kin), and then localhost.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from agentflow.integrations.opentelemetry.delivery import Delivery, LogDelivery, SpanDelivery

__all__ = ["OwnProviders"]

_NAME: Final = "service.name"
_LAST: Final = 2.5  # seconds for one request when the process ends: where nobody listens, it is asked once more


class OwnProviders:
    """`timeout` is seconds for one request to the collector, `interval` seconds between two of metrics; `sample` is
    the part of traces that is recorded, where whoever called has not decided that already. `measure` and `logs` say
    whether there are metrics and events: not every collector takes them."""

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        service_name: str | None = None,
        headers: Mapping[str, str] | None = None,
        sample: float | None = None,
        timeout: float = 5.0,
        interval: float | None = None,
        measure: bool = True,
        logs: bool = False,
    ) -> None:
        resource = _resource(service_name)

        def url(signal: str) -> str | None:
            return None if endpoint is None else f"{endpoint.rstrip('/')}/v1/{signal}"

        def spans(patience: float) -> OTLPSpanExporter:
            return OTLPSpanExporter(endpoint=url("traces"), headers=headers, timeout=patience)

        def events(patience: float) -> OTLPLogExporter:
            return OTLPLogExporter(endpoint=url("logs"), headers=headers, timeout=patience)

        last = min(timeout, _LAST)
        self._spans = SpanDelivery(spans(timeout), spans(last))
        self.tracers = TracerProvider(
            None if sample is None else ParentBasedTraceIdRatio(sample), resource, shutdown_on_exit=False
        )
        self.tracers.add_span_processor(self._spans)
        self._meters: MeterProvider | None = None
        if measure:
            exporter = OTLPMetricExporter(endpoint=url("metrics"), headers=headers, timeout=timeout)
            reader = PeriodicExportingMetricReader(exporter, None if interval is None else interval * 1_000.0)
            self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        self.meters = self._meters or NoOpMeterProvider()
        self._closed = False
        self.loggers: LoggerProvider | None = None
        self._logs: LogDelivery | None = None
        if logs:
            self._logs = LogDelivery(events(timeout), events(last))
            self.loggers = LoggerProvider(resource, shutdown_on_exit=False)
            self.loggers.add_log_record_processor(self._logs)

    @property
    def refused(self) -> int:
        return sum(each.refused for each in self._deliveries())

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self._deliveries())

    def _deliveries(self) -> list[Delivery]:
        return [each.delivery for each in (self._spans, self._logs) if each is not None]

    def flush(self) -> None:
        """Send what there is. It waits for the collector."""
        for each in (self._spans, self._logs):
            if each is not None:
                each.force_flush()
        if self._meters is not None:
            with suppress(Exception):  # the reader's time-out, or the exporter's
                self._meters.force_flush()

    def close(self, timeout: float) -> None:
        """Send what there is, for about `timeout` seconds, and no more from then on."""
        if self._closed:
            return
        self._closed = True
        for each in (self._spans, self._logs):
            if each is not None:
                each.close(timeout)
        down = self._spans.delivery.down
        if self._meters is not None:
            with suppress(Exception):
                self._meters.shutdown(1.0 if down else timeout * 1_000.0)  # milliseconds


def _resource(service_name: str | None) -> Resource:
    """The name that was given, else OTEL_SERVICE_NAME's, else `agentflow`."""
    if service_name is not None:
        return Resource.create({_NAME: service_name})
    found = Resource.create()
    unnamed = str(found.attributes.get(_NAME, "unknown_service")).startswith("unknown_service")
    return found.merge(Resource({_NAME: "agentflow"})) if unnamed else found
