"""Counts what goes out and what does not: nothing waits for an exporter, and nothing that is lost is lost unseen.

    span ended ──admit──▶ [ 2,048 spans ] ──▶ BatchSpanProcessor's thread ──▶ exporter ──▶ collector
                  │ no room                                                      │ it failed
                  ╰─▶ refused                                                    ╰─▶ failed

The processor would drop what it has no room for without a number. So this one asks first, and gives it twice the room
that may be used.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["Delivery", "LogDelivery", "SpanDelivery"]

_BATCH: Final = 512
_DELAY: Final = 1_000  # milliseconds until what there is goes out
_log = logging.getLogger("agentflow.opentelemetry")


class Delivery:
    """How many of what went where. `handed` counts what was given to the exporter, `failed` what that did not bring
    there; `waiting` is on its way."""

    def __init__(self, what: str, room: int) -> None:
        self._what = what
        self._room = room
        self._give_up: float | None = None
        self._renew()

    def _renew(self) -> None:
        """After a fork: what waited is the parent's."""
        self._lock = threading.RLock()  # an abandoned span may be ended by the collector, in any line
        self._process = os.getpid()
        self.handed = self.failed = self.refused = self._admitted = 0
        self.down = False
        """Whether the last batch came to nothing."""

    @property
    def waiting(self) -> int:
        return self._admitted - self.handed

    def admit(self) -> bool:
        """Whether there is room for one more."""
        if self._process != os.getpid():
            self._renew()
        with self._lock:
            if self._give_up is None and self.waiting < self._room:
                self._admitted += 1
                return True
            self.refused += 1
            refused = self.refused
        if self._give_up is None and refused == 10 ** (len(str(refused)) - 1):  # the first, the tenth, …
            _log.warning("the collector is too slow: %d %s lost", refused, self._what)
        return False

    def hand(self, count: int) -> bool:
        """The exporter is to have them. Whether it shall try: at the end, only until it fails once."""
        with self._lock:
            self.handed += count
        return self._give_up is None or (not self.down and time.monotonic() < self._give_up)

    def settle(self, count: int, arrived: bool) -> None:
        with self._lock:
            self.down = not arrived
            if arrived:
                return
            self.failed += count
            failed = self.failed
        if failed == count:
            _log.warning("the collector cannot be reached: %d %s lost, and counted from now on", failed, self._what)

    def close(self, timeout: float) -> None:
        """Admit nothing more, and have what waits tried for `timeout` seconds."""
        self.down = False
        self._give_up = time.monotonic() + timeout


class _CountedSpans(SpanExporter):
    def __init__(self, exporter: SpanExporter, delivery: Delivery) -> None:
        self.exporter = exporter
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        arrived = False
        try:
            arrived = self._delivery.hand(len(spans)) and self.exporter.export(spans) is SpanExportResult.SUCCESS
        finally:
            self._delivery.settle(len(spans), arrived)
        return SpanExportResult.SUCCESS if arrived else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.exporter.shutdown()


class SpanDelivery(SpanProcessor):
    """A BatchSpanProcessor whose losses are known, and whose end takes no longer than it may.

    `last` is the exporter for the end, when nobody has the patience that `exporter` has with a collector that is down.
    """

    def __init__(self, exporter: SpanExporter, last: SpanExporter, *, room: int = 2_048) -> None:
        self.delivery = Delivery("spans", room)
        self._counted = _CountedSpans(exporter, self.delivery)
        self._last = last
        self._batches = BatchSpanProcessor(self._counted, 2 * room, _DELAY, min(_BATCH, room))
        self._end: Callable[[], None] = self._batches.shutdown

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._batches.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled and self.delivery.admit():
            self._batches.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def close(self, timeout: float) -> None:
        """Send what waits, for about so many seconds."""
        self.delivery.close(timeout)
        before, self._counted.exporter = self._counted.exporter, self._last
        before.shutdown()  # it ends the pause between two of its attempts
        self._end()


class _CountedLogs(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter, delivery: Delivery) -> None:
        self.exporter = exporter
        self._delivery = delivery

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        arrived = False
        try:
            arrived = self._delivery.hand(len(batch)) and self.exporter.export(batch) is LogRecordExportResult.SUCCESS
        finally:
            self._delivery.settle(len(batch), arrived)
        return LogRecordExportResult.SUCCESS if arrived else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        end: Callable[[], None] = self.exporter.shutdown
        end()


class LogDelivery(LogRecordProcessor):
    """The same for log records."""

    def __init__(self, exporter: LogRecordExporter, last: LogRecordExporter, *, room: int = 2_048) -> None:
        self.delivery = Delivery("events", room)
        self._counted = _CountedLogs(exporter, self.delivery)
        self._last = last
        self._batches = BatchLogRecordProcessor(self._counted, _DELAY, min(_BATCH, room), None, 2 * room)
        self._end: Callable[[], None] = self._batches.shutdown

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if self.delivery.admit():
            self._batches.on_emit(log_record)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def shutdown(self) -> None:
        self.close(0.0)

    def close(self, timeout: float) -> None:
        self.delivery.close(timeout)
        self._counted.shutdown()
        self._counted.exporter = self._last
        self._end()
