"""What `/metrics` answers, to whom, over which server; and that a server leaves nothing behind.

answer(request) ──▶ reply          the rules, without a network
wsgi_app, asgi_app, serve_metrics  the same rules, as each of them speaks
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from importlib import metadata
from typing import Any
from wsgiref.validate import validator

import pytest

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.observability.observers import observations
from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.integrations.prometheus import (
    MetricsServer,
    PrometheusCollector,
    asgi_app,
    from_settings,
    serve_metrics,
    wsgi_app,
)
from agentflow.integrations.prometheus.answering import Request, answer

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def collector() -> PrometheusCollector:
    metrics = MetricsCollector()
    metrics.count("rows", 3.0)
    return PrometheusCollector(metrics)


class Broken:
    """Metrics that cannot be read."""

    def snapshot(self) -> MetricsSnapshot:
        raise RuntimeError("sk-secret")


# ---- the rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),  # a browser
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4;q=0.5", TEXT),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text; version=1.0.0", OPEN),
        (
            "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4",
            OPEN,
        ),
        (  # Prometheus 2.42
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPEN,
        ),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.7", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),  # which is not written here
        ("application/openmetrics-text;q=much", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        (";;;,,q=1;=", TEXT),
        ("application/vnd.google.protobuf", TEXT),
    ],
)
def test_who_asks_chooses_the_format(collector: PrometheusCollector, accept: str, expected: str) -> None:
    """OpenMetrics for who likes it at least as well as nothing else, text for all others."""
    reply = answer(collector, Request("GET", "/metrics", accept))
    assert (reply.status, dict(reply.headers)["Content-Type"]) == (HTTPStatus.OK, expected)
    assert reply.body.endswith(b"# EOF\n") == (expected == OPEN)
    assert b"agentflow_rows_total 3.0\n" in reply.body


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [("", False), ("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("identity", False), ("GZIP", True)],
)
def test_it_is_compressed_for_who_can_read_that(encoding: str, compressed: bool) -> None:
    """And says so; a cache between must not mix the two up."""
    metrics = MetricsCollector()
    for number in range(100):
        metrics.count("rows", labels={"table": str(number)})
    reply = answer(PrometheusCollector(metrics), Request("GET", "/metrics", "", encoding))
    headers = dict(reply.headers)
    assert ("Content-Encoding" in headers) == compressed
    assert int(headers["Content-Length"]) == len(reply.body)
    assert headers["Vary"] == "Accept, Accept-Encoding"
    body = gzip.decompress(reply.body) if compressed else reply.body
    assert body.count(b"agentflow_rows_total{") == 100


def test_what_is_short_is_not_compressed() -> None:
    """It would only get longer."""
    reply = answer(PrometheusCollector(MetricsCollector()), Request("GET", "/nowhere", "", "gzip"))
    assert "Content-Encoding" not in dict(reply.headers)


def test_head_tells_the_length_and_nothing_else(collector: PrometheusCollector) -> None:
    """As GET would."""
    got, head = (answer(collector, Request(method, "/metrics")) for method in ("GET", "HEAD"))
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.parametrize("path", ["/", "", "/metric", "/metrics/", "/metrics/x", "/../metrics"])
def test_another_path_is_not_found(collector: PrometheusCollector, path: str) -> None:
    """There is one thing here, and the answer says where."""
    reply = answer(collector, Request("GET", path))
    assert (reply.status, reply.body) == (HTTPStatus.NOT_FOUND, b"metrics are at /metrics\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW", "get"])
def test_another_method_is_not_allowed(collector: PrometheusCollector, method: str) -> None:
    """And the answer says which are."""
    reply = answer(collector, Request(method, "/metrics"))
    assert (reply.status, dict(reply.headers)["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD")


def test_metrics_that_cannot_be_read_are_an_error_without_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    """What an exception says may hold a key: it is neither sent nor logged."""
    reply = answer(PrometheusCollector(Broken()), Request("GET", "/metrics"))
    assert (reply.status, reply.body) == (HTTPStatus.INTERNAL_SERVER_ERROR, b"metrics could not be rendered\n")
    assert caplog.messages == ["metrics could not be rendered: RuntimeError"]


# ---- WSGI and ASGI ---------------------------------------------------------------------------------------------


def wsgi(
    app: Any, path: str, mount: str = "", method: str = "GET", **headers: str
) -> tuple[str, dict[str, str], bytes]:
    """What a server that holds the app to PEP 3333 gets."""
    told: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], error: object = None) -> Any:
        told.update(status=status, headers=dict(headers))
        return lambda _: None

    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": mount,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **headers,
    }
    body: Iterable[bytes] = validator(app)(environ, start_response)
    try:
        return told["status"], told["headers"], b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mount", "path", "status"),
    [
        ("", "/metrics", "200 OK"),
        ("", "/", "404 Not Found"),
        ("/metrics", "", "200 OK"),
        ("/metrics", "/", "200 OK"),
        ("/internal", "/metrics", "200 OK"),
        ("/internal", "/other", "404 Not Found"),
    ],
)
def test_a_wsgi_app_answers_where_it_is_mounted(
    collector: PrometheusCollector, mount: str, path: str, status: str
) -> None:
    """Alone at `/metrics`; mounted, there, too."""
    found, _, body = wsgi(wsgi_app(collector), path, mount)
    assert found == status
    assert (b"agentflow_rows_total 3.0" in body) == (status == "200 OK")


def test_a_wsgi_app_negotiates(collector: PrometheusCollector) -> None:
    """The headers reach the rules above."""
    _, headers, body = wsgi(wsgi_app(collector), "/metrics", HTTP_ACCEPT=OPEN, HTTP_ACCEPT_ENCODING="gzip")
    assert headers["Content-Type"] == OPEN
    assert body.endswith(b"# EOF\n")
    assert wsgi(wsgi_app(collector), "/metrics", method="POST")[0] == "405 Method Not Allowed"


async def asgi(app: Any, scope: Mapping[str, Any], *messages: Mapping[str, Any]) -> list[Any]:
    """What the app sends."""
    sent: list[Any] = []
    waiting = iter(messages)

    async def receive() -> Mapping[str, Any]:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("", "/metrics", 200),
        ("", "/", 404),
        ("/metrics", "/metrics", 200),  # Starlette's way: the path includes the mount
        ("/metrics", "/metrics/", 200),
        ("/metrics", "/", 200),  # and others'
        ("/internal", "/internal/metrics", 200),
        ("/internal", "/internal/other", 404),
    ],
)
async def test_an_asgi_app_answers_where_it_is_mounted(
    collector: PrometheusCollector, root: str, path: str, status: int
) -> None:
    """Whether the server's paths include the mount or not."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "headers": [(b"accept", OPEN.encode())]}
    start, body = await asgi(asgi_app(collector), scope)
    assert (start["type"], start["status"], body["type"]) == ("http.response.start", status, "http.response.body")
    if status == 200:
        assert dict(start["headers"])[b"content-type"] == OPEN.encode()
        assert b"agentflow_rows_total 3.0" in body["body"]


async def test_an_asgi_app_lives_and_ends_with_its_server(collector: PrometheusCollector) -> None:
    """There is nothing to do for either; a WebSocket is closed."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = await asgi(asgi_app(collector), {"type": "lifespan"}, *messages)
    assert [each["type"] for each in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert await asgi(asgi_app(collector), {"type": "websocket"}) == [{"type": "websocket.close", "code": 1000}]


# ---- the server ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does with a server: when it is closed, its thread has ended."""
    yield
    assert [thread.name for thread in threading.enumerate() if "metrics" in thread.name] == []


def fetch(server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, bytes]:
    with closing(HTTPConnection(server.host, server.port, timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def raw(server: MetricsServer, said: bytes) -> bytes:
    """All that comes back for these bytes, until the server closes."""
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(said)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_it_serves_until_it_is_closed(collector: PrometheusCollector) -> None:
    """And then nobody listens there any more; closing twice does no harm."""
    with serve_metrics(0, collector) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/metrics"
        status, body = fetch(server)
        assert (status, b"agentflow_rows_total 3.0" in body) == (200, True)
        assert fetch(server, "/")[0] == 404
        assert fetch(server, method="POST")[0] == 405
        assert fetch(server, method="HEAD") == (200, b"")
        assert fetch(server, "/metrics?name[]=x")[0] == 200
    server.close()
    with pytest.raises(ConnectionRefusedError):
        fetch(server)


def test_a_port_that_is_taken_is_said_at_once(collector: PrometheusCollector) -> None:
    """Before anything else begins; no thread and no observer is left of it."""
    with serve_metrics(0, collector) as server:
        with pytest.raises(ConfigurationError, match=f"port {server.port}: Address already in use"):
            serve_metrics(server.port)
        assert observations() == ()


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 65_536), ("127.0.0.1", -1), ("192.0.2.1", 0), ("a\0b", 0), ("é" * 99, 0)]
)
def test_an_address_that_cannot_be_is_said_at_once(collector: PrometheusCollector, host: str, port: int) -> None:
    """With where it was to be."""
    with pytest.raises(ConfigurationError, match=f"cannot be served at {host}"):
        serve_metrics(port, collector, host=host)


def test_without_metrics_it_counts_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """From when it is served until it is closed."""
    with serve_metrics(0) as server:
        [observation] = observations()
        observation.see(ExecutionEvent("flow_start", "r", "tides", "", 1, 1, 1.0, span=1))
        assert b'agentflow_flows_in_flight{flow="tides"} 1.0' in fetch(server)[1]
        assert b'agentflow_telemetry_lost_total{observer="MetricsCollector",reason="raised"} 0.0' in fetch(server)[1]
    assert observations() == ()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
        (b"GET metrics HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00 hello, TLS \xff\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n: \r\n\xff\xfe: \r\n\r\n", b"200 OK"),
    ],
)
def test_what_is_no_request_is_refused(collector: PrometheusCollector, said: bytes, status: bytes) -> None:
    """Whoever speaks to it, it answers and goes on."""
    with serve_metrics(0, collector) as server:
        assert raw(server, said).startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert fetch(server)[0] == 200


def test_who_is_too_slow_is_broken_off(collector: PrometheusCollector) -> None:
    """A connection has one deadline for all of it, so that one byte at a time holds nothing for long."""
    with MetricsServer(collector, "127.0.0.1", 0, deadline=0.05) as server:
        assert raw(server, b"GET /metr") == b""
        assert fetch(server)[0] == 200


def test_who_goes_away_does_no_harm(collector: PrometheusCollector) -> None:
    """Before it has said anything, or in the middle."""
    with serve_metrics(0, collector) as server:
        for said in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"):
            with socket.create_connection((server.host, server.port)) as connection:
                connection.sendall(said)
        assert fetch(server)[0] == 200


def test_too_many_at_a_time_are_told_to_come_back(collector: PrometheusCollector) -> None:
    """32 are served at a time; those that only hold the line do not keep others' threads or memory."""
    with serve_metrics(0, collector) as server:
        idle = [socket.create_connection((server.host, server.port), timeout=30) for _ in range(33)]
        answers = [b"", *[each.recv(65_536) for each in idle[32:]]]
        assert answers[-1].startswith(b"HTTP/1.1 503 Service Unavailable")
        for each in idle:
            each.close()


def test_closing_breaks_off_what_is_under_way(collector: PrometheusCollector) -> None:
    """It does not wait for a client that says nothing."""
    server = serve_metrics(0, collector)
    with socket.create_connection((server.host, server.port), timeout=30) as idle:
        fetch(server)
        server.close()
        try:
            left = idle.recv(1)
        except ConnectionResetError:  # as good an end as any
            left = b""
        assert left == b""


def test_many_may_ask_at_once(collector: PrometheusCollector) -> None:
    """Each gets the whole answer."""
    with serve_metrics(0, collector) as server:
        found: list[tuple[int, bytes]] = []
        threads = [threading.Thread(target=lambda: found.append(fetch(server))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [status for status, _ in found] == [200] * 20
        assert len({body.count(b"\n") for _, body in found}) == 1


def test_a_failing_collector_does_not_end_the_server() -> None:
    """The next one who asks is answered, too."""
    with serve_metrics(0, PrometheusCollector(Broken())) as server:
        assert [fetch(server)[0], fetch(server)[0]] == [500, 500]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_it_serves_ipv6(collector: PrometheusCollector) -> None:
    """An address with a colon is one."""
    try:
        server = serve_metrics(0, collector, host="::1")
    except ConfigurationError:
        pytest.skip("no IPv6 on loopback here")
    with server:
        assert server.url == f"http://[::1]:{server.port}/metrics"
        assert fetch(server)[0] == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_off_does_not_hold_the_port(collector: PrometheusCollector) -> None:
    """The port is free once the parent has closed, though the child lives on."""
    server = serve_metrics(0, collector)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        theirs.sendall(b"!")
        theirs.recv(1)  # until the parent lets go
        os._exit(0)
    theirs.close()
    try:
        ours.recv(1)
        server.close()
        with serve_metrics(server.port, collector) as again:
            assert fetch(again)[0] == 200
    finally:
        ours.close()
        os.waitpid(child, 0)


# ---- from models.yml -------------------------------------------------------------------------------------------


def test_the_entry_point_serves_what_the_settings_say() -> None:
    """As models.yml finds it: by its name in the group of integrations."""
    [entry] = [each for each in metadata.entry_points(group="agentflow.integrations") if each.name == "prometheus"]
    assert entry.load() is from_settings
    metrics = MetricsCollector()
    metrics.record("size", 3.0)
    settings = {"port": 0, "host": "127.0.0.1", "prefix": "shop", "bounds": {"size": [2, 4.0]}}
    with from_settings(settings, metrics=metrics) as server:
        body = fetch(server)[1]
    assert b'shop_size_bucket{le="2.0"} 0.0\nshop_size_bucket{le="4.0"} 1.0\nshop_size_bucket{le="+Inf"}' in body
    assert observations() == ()


def test_settings_alone_count_this_process() -> None:
    """Until the server is closed."""
    with from_settings({"port": 0}):
        assert [type(each.observer) for each in observations()] == [MetricsCollector]
    assert observations() == ()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"prot": 1}, "no setting is named 'prot'"),
        ({"port": "9464"}, "port must be int, not str"),
        ({"port": True}, "port must be int, not bool"),
        ({"port": 70_000}, "port 70000"),
        ({"host": 1}, "host must be str"),
        ({"prefix": "A B"}, "prefix must be words"),
        ({"bounds": [1]}, "bounds must be Mapping"),
        ({"bounds": {"x": 1}}, "bounds of x must be a list of numbers"),
        ({"bounds": {"x": ["1"]}}, "bounds of x must be a list of numbers"),
        ({"bounds": {"x": [2, 1]}}, "must be finite numbers that grow"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: Mapping[str, object], complaint: str) -> None:
    """With what is wrong about them; nothing is left open."""
    with pytest.raises(ConfigurationError, match=complaint):
        from_settings(settings)
    assert observations() == ()


def test_a_missing_package_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a collector is made, not when the integration is imported."""
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-engine\[prometheus\]'"):
        serve_metrics(0)
    assert observations() == ()
