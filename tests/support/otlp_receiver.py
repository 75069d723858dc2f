"""A collector's receiving end on loopback: OTLP over HTTP, the protobuf decoded by OpenTelemetry's own classes.

    with receiving() as receiver:
        …export to receiver.endpoint…
        receiver.spans, receiver.metrics, receiver.logs

It can be told to refuse (`status`) or to keep whoever asks waiting (`hold`, an event).
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Received", "Receiver", "attributes_of", "receiving"]

_REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@dataclass(frozen=True, slots=True)
class Received:
    """One request: where it went, with which headers, and what it carried."""

    path: str
    headers: dict[str, str]
    message: Any


class Receiver:
    """What has arrived so far."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.status = 200
        self.hold: threading.Event | None = None
        self.asked = threading.Semaphore(0)
        """Released once for each request that has come, before it is answered."""
        self.endpoint = ""

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self._of("/v1/traces")
            for resource in request.message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self) -> list[Any]:
        return [
            metric
            for request in self._of("/v1/metrics")
            for resource in request.message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    @property
    def logs(self) -> list[Any]:
        return [
            record
            for request in self._of("/v1/logs")
            for resource in request.message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def resource(self) -> dict[str, Any]:
        """What the first traces say of where they come from."""
        return attributes_of(self._of("/v1/traces")[0].message.resource_spans[0].resource)

    def _of(self, path: str) -> list[Received]:
        return [request for request in self.requests if request.path == path]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver, from the moment it listens to the end of the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.asked.release()
            if receiver.hold is not None:
                receiver.hold.wait(30)
            if receiver.status == 200:
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                message = _REQUESTS[self.path].FromString(body)  # type: ignore[attr-defined]
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Received(self.path, headers, message))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


def attributes_of(thing: Any) -> dict[str, Any]:
    """The attributes of a span, a record, a resource or a point as Python's values."""
    return {each.key: _value(each.value) for each in thing.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: _value(item.value) for item in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)
