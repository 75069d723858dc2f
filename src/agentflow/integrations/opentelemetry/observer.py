"""The observer that turns what happens into OpenTelemetry's spans, metrics and events.

    with observe(OpenTelemetryObserver()):               # by the providers that the application has configured
        await flow.run({"topic": "tides"})

    events ──▶ Tracing   spans                ──▶ TracerProvider
           ├─▶ Measures  histograms           ──▶ MeterProvider
           └─▶ Details   prompts and answers  ──▶ LoggerProvider, where that is wanted

It is inline, and waits for nobody: what leaves the process is the providers' business, in threads of their own.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from opentelemetry import metrics, trace
from opentelemetry._logs import LoggerProvider, get_logger_provider
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.propagate import inject
from opentelemetry.trace import TracerProvider

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.content import Scribe, capture, capture_from
from agentflow.integrations.opentelemetry.details import Details
from agentflow.integrations.opentelemetry.measures import Measures
from agentflow.integrations.opentelemetry.recording import Recorder
from agentflow.integrations.opentelemetry.semconv import Conventions, conventions
from agentflow.integrations.opentelemetry.tracing import Tracing

__all__ = ["Export", "Losses", "OpenTelemetryObserver"]

_log = logging.getLogger("agentflow.opentelemetry")
_BEGINS: Final = {f"{what}_start": what for what in ("flow", "node", "compensate", "model", "attempt", "tool")}
_ENDS: Final = {
    f"{what}_{how}": what for what in _BEGINS.values() for how in ("success", "error", "cancelled", "interrupted")
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Losses:
    """What did not become what it should, or did not arrive.

    `evicted` spans were ended because too many were open, `unplaced` events belong to no span that is known. For what
    was made by `from_settings`, `refused` is what the exporter was too slow for, `failed` what the collector did not
    take; other providers keep no such account.
    """

    evicted: int = 0
    unplaced: int = 0
    refused: int = 0
    failed: int = 0

    def __bool__(self) -> bool:
        return self != Losses()


class Export(Protocol):
    """What takes things out of the process, and counts what it could not."""

    @property
    def refused(self) -> int: ...

    @property
    def failed(self) -> int: ...

    def flush(self) -> None: ...

    def close(self, timeout: float) -> None: ...


class OpenTelemetryObserver:
    """Spans, metrics and, where wanted, content of what it is shown.

    Providers are the global ones unless given. `content` is NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT; it and
    `versioned` (which names are used) follow the standard environment variables unless given. `chunks` measures the
    time from chunk to chunk, which costs for every chunk. `propagate` says whether requests to models carry the trace's
    context along, `activate` whether flows', nodes' and tools' spans are current while they run. More than
    `max_open_spans` are not kept open. `export` belongs to the providers; `flush` and `close` are passed on to it.
    """

    inline: Final = True

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        content: str | None = None,
        versioned: Conventions | None = None,
        redactor: Redactor | None = None,
        chunks: bool = False,
        propagate: bool = True,
        activate: bool = True,
        max_open_spans: int = 10_000,
        export: Export | None = None,
    ) -> None:
        if max_open_spans < 1:
            raise ValueError("max_open_spans must be 1 at least")
        table = conventions(os.environ) if versioned is None else versioned
        wanted = capture_from(os.environ) if content is None else capture(content)
        scribe = Scribe(redactor or Redactor(), finish_reasons=table.message_finish_reason)
        scope = (names.SCOPE, None)
        tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
        meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
        meter = meters.get_meter(*scope, schema_url=table.schema_url)
        self.content = bool(wanted)
        self.chunks = chunks
        self._tracing = Tracing(
            tracers.get_tracer(*scope, schema_url=table.schema_url),
            Recorder(table, scribe, wanted),
            room=max_open_spans,
            activate=activate,
        )
        self._measures = Measures(meter, table)
        self._details: Details | None = None
        if wanted.on_events:
            loggers = get_logger_provider() if logger_provider is None else logger_provider
            self._details = Details(loggers.get_logger(*scope, schema_url=table.schema_url), table, scribe)
        self._propagate = propagate
        self._export = export
        self._closed = False
        if export is not None:
            atexit.register(self.close)
        meter.create_observable_counter(
            names.LOST_METRIC, [self._lost], "{item}", "Spans and events that did not become what they should."
        )

    def observe(self, event: ExecutionEvent) -> None:
        kind = event.kind
        if (what := _BEGINS.get(kind)) is not None:
            self._tracing.begin(what, event)
        elif (what := _ENDS.get(kind)) is not None:
            self._end(what, event)
        elif kind == "chunk":
            self._chunk(event)
        elif kind == "feedback":
            self._tracing.judged(event)
        else:
            self._tracing.happened(event)

    def headers(self, run_id: str, span: int) -> Mapping[str, str]:
        """What a request made within that span carries along, by the propagator that is configured globally."""
        carrier: dict[str, str] = {}
        context = self._tracing.context(run_id, span) if self._propagate else None
        if context is not None:
            inject(carrier, context)
        return carrier

    @property
    def losses(self) -> Losses:
        out = self._export
        refused, failed = (0, 0) if out is None else (out.refused, out.failed)
        return Losses(self._tracing.spans.evicted, self._tracing.unplaced, refused, failed)

    @property
    def open_spans(self) -> int:
        return len(self._tracing.spans)

    def flush(self) -> None:
        """Send what has ended. It waits for the collector, so it is not for the event loop."""
        if self._export is not None:
            self._export.flush()

    def close(self, timeout: float = 5.0) -> None:
        """Send what has ended, for about `timeout` seconds, and nothing more. The end of the process does it, too."""
        if self._export is not None and not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._export.close(timeout)
            if self.losses:
                _log.warning("not all telemetry has arrived: %s", self.losses)

    def _end(self, what: str, event: ExecutionEvent) -> None:
        entry = self._tracing.end(what, event)
        self._measures.ended(what, event, entry)
        if self._details is not None and what == "model" and entry is not None and entry.recording:
            self._details.ended(event, entry)

    def _chunk(self, event: ExecutionEvent) -> None:
        entry = self._tracing.spans.get((event.run_id, event.span)) if self.chunks else None
        if entry is not None:
            self._measures.chunk(event, entry)

    def _lost(self, _: CallbackOptions) -> Iterable[Observation]:
        losses = self.losses
        for reason in ("evicted", "unplaced", "refused", "failed"):
            yield Observation(getattr(losses, reason), {"reason": reason})
