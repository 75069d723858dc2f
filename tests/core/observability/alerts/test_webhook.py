"""Webhooks against a real receiver on loopback, and their retries on a clock that jumps."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme
from tests.support.alerting import ALERT, Gauges

from agentflow.clock import SystemClock, VirtualClock
from agentflow.core.observability.alerts.action_mapping import read_action
from agentflow.core.observability.alerts.manager import AlertManager
from agentflow.core.observability.alerts.post import Target
from agentflow.core.observability.alerts.presets import breaker_open
from agentflow.core.observability.alerts.signature import is_genuine, signed
from agentflow.core.observability.alerts.webhook import Webhook
from agentflow.errors import AlertActionError, ConfigurationError, OperationTimeoutError

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()


class Receiver:
    """Answers each request with the next of `answers` (the last one for ever), and keeps what came."""

    def __init__(self, *answers: int, headers: Mapping[str, str] = {}) -> None:
        self.answers = list(answers) or [204]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            more: ClassVar[Mapping[str, str]] = headers

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.answers[0] if len(receiver.answers) == 1 else receiver.answers.pop(0)
                self.send_response(status)
                for name, value in self.more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return SECRET


def hook(receiver: Receiver, **options: Any) -> Webhook:
    options = {"secret_env": "HOOK_SECRET", "base_delay": 0.001, "max_delay": 0.001, **options}
    return Webhook(f"http://{receiver.address}/hook?team=search", **options)


# ---- a real receiver


async def test_the_receiver_gets_the_alert_and_can_tell_that_it_is_genuine(secret: str) -> None:
    with Receiver().serving() as receiver:
        await hook(receiver).act(ALERT)
    [(path, headers, body)] = receiver.requests
    assert path == "/hook?team=search"
    assert (headers["host"], headers["content-type"]) == (receiver.address, "application/json")
    assert json.loads(body) == ALERT.to_json()
    now = SystemClock().time()
    assert is_genuine(secret, headers, body, now=now)
    assert not is_genuine(secret, headers, body + b" ", now=now)
    assert not is_genuine("another", headers, body, now=now)
    assert not is_genuine(secret, {**headers, "webhook-id": "t-2"}, body, now=now)
    assert not is_genuine(secret, headers, body, now=now + 301)
    assert not is_genuine(secret, {}, body, now=now)
    assert "x-evil" not in headers


async def test_it_is_tried_again_signed_anew_under_the_same_id(secret: str) -> None:
    with Receiver(500, 503, 200).serving() as receiver:
        await hook(receiver).act(ALERT)
    assert [headers["webhook-id"] for _, headers, _ in receiver.requests] == ["t-1"] * 3
    assert all(is_genuine(secret, headers, body, now=SystemClock().time()) for _, headers, body in receiver.requests)


async def test_it_is_tried_no_more_often_than_it_may_be(secret: str) -> None:
    with Receiver(500).serving() as receiver:
        with pytest.raises(AlertActionError, match=rf"^http://{receiver.address} answered 500\n"):
            await hook(receiver, max_attempts=3).act(ALERT)
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
async def test_what_would_not_be_answered_otherwise_is_not_asked_again(secret: str, status: int) -> None:
    with Receiver(status, headers={"location": "http://127.0.0.1:1/elsewhere"}).serving() as receiver:
        with pytest.raises(AlertActionError, match=f"answered {status}"):
            await hook(receiver).act(ALERT)
    assert len(receiver.requests) == 1


async def test_a_receiver_that_is_not_there_is_tried_again(secret: str) -> None:
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(OSError, match="Connect call failed") as caught:
            await Webhook(url, max_attempts=2, base_delay=0.001).act(ALERT)
    assert len(caught.value.__notes__) == 1


async def test_without_a_secret_nothing_is_signed() -> None:
    with Receiver().serving() as receiver:
        await hook(receiver, secret_env=None).act(ALERT)
    [(_, headers, _)] = receiver.requests
    assert "webhook-signature" not in headers
    assert headers["webhook-id"] == "t-1"


async def test_further_headers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "Bearer abc")
    with Receiver().serving() as receiver:
        await hook(receiver, secret_env=None, headers_env={"authorization": "HOOK_TOKEN"}).act(ALERT)
    assert receiver.requests[0][1]["authorization"] == "Bearer abc"


async def test_a_receiver_is_spoken_to_by_tls_and_its_certificate_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    webhook = Webhook(f"https://{receiver.address}/", max_attempts=1)
    monkeypatch.setattr(receiver.server, "handle_error", lambda *anything: None)
    with receiver.serving():
        with pytest.raises(ssl.SSLCertVerificationError):
            await webhook.act(ALERT)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        await webhook.act(ALERT)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed before there was an answer"),
        (b"HTTP/1.1 200 OK\r\nx: y\r\n", "the connection was closed before there was an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers does not speak HTTP"),
        (b"HTTP/1.1 ok\r\n\r\n", "what answers does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b"\r\n\r\n", "a line of the answer is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "the answer has too many headers"),
    ],
)
async def test_nonsense_for_an_answer_is_a_failure(answer: bytes, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match=words):
            await Webhook(f"http://127.0.0.1:{port}/", max_attempts=1).act(ALERT)


async def test_a_word_of_patience_is_not_the_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await Webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", max_attempts=1).act(ALERT)


async def test_a_receiver_that_says_nothing_is_given_up_and_nothing_stays_open() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side goes away
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret-path"
        with pytest.raises(OperationTimeoutError, match=r"a request to http://127.0.0.1:\d+ took longer than 0.05 s"):
            await Webhook(url, timeout=0.05, max_attempts=1).act(ALERT)
        await asyncio.wait_for(closed.wait(), 10)


# ---- retries, on a clock that jumps


class Posts:
    """Stands in for the network: answers in turn, and notes when it was asked."""

    def __init__(self, clock: VirtualClock, *answers: tuple[int, dict[str, str]] | Exception) -> None:
        self.clock, self.answers, self.times = clock, list(answers), list[float]()

    async def __call__(self, target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        self.times.append(self.clock.monotonic())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_what_is_given_up_before_its_next_attempt_says_why_there_had_to_be_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        raise ConnectionRefusedError(111, "Connection refused")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await Webhook("http://127.0.0.1:9/T0/secret", base_delay=1.0, clock=clock, post=refuse).act(ALERT)

    clock = VirtualClock()
    clock.run(main())
    [said] = caplog.messages
    assert said.startswith("a webhook was given up between two attempts: ")
    assert "Connection refused" in said
    assert "secret" not in said


def test_the_waits_double_and_are_bounded() -> None:
    clock = VirtualClock()
    posts = Posts(clock, *[(500, {})] * 6)
    webhook = Webhook("http://h/", clock=clock, post=posts, max_attempts=6, base_delay=1.0, max_delay=4.0)
    with pytest.raises(AlertActionError):
        clock.run(webhook.act(ALERT))
    waits = [later - sooner for sooner, later in zip(posts.times, posts.times[1:], strict=False)]
    assert all(low <= wait <= 2 * low for wait, low in zip(waits, [0.5, 1.0, 2.0, 2.0, 2.0], strict=True))


@pytest.mark.parametrize(("asked", "least", "most"), [("20", 20.0, 21.0), ("86400", 60.0, 61.0), ("soon", 0.0, 1.0)])
def test_what_the_receiver_asks_for_is_waited_up_to_a_minute(asked: str, least: float, most: float) -> None:
    clock = VirtualClock()
    posts = Posts(clock, (429, {"retry-after": asked}), (200, {}))
    clock.run(Webhook("http://h/", clock=clock, post=posts).act(ALERT))
    assert least <= posts.times[1] <= most


def test_each_attempt_has_its_own_time() -> None:
    clock = VirtualClock()

    async def slow(target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        await clock.sleep(100.0)
        return 200, {}

    webhook = Webhook("http://h/", clock=clock, post=slow, timeout=10.0, max_attempts=2, base_delay=0.0)
    with pytest.raises(OperationTimeoutError):
        clock.run(webhook.act(ALERT))
    assert clock.monotonic() == 20.0


# ---- secrets


def test_neither_secret_nor_path_is_ever_shown(
    secret: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOOK_URL", "http://hooks.example/T0/private-path")
    caplog.set_level(logging.DEBUG)
    clock = VirtualClock()

    async def broken(target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        raise OSError(f"cannot reach {target!r}, {target}")

    webhook = Webhook(url_env="HOOK_URL", secret_env="HOOK_SECRET", clock=clock, post=broken)
    gauges = Gauges()
    gauges.set("breaker_open", 1.0, guard="g")
    manager = AlertManager(gauges, [breaker_open()], actions={"ops": webhook}, clock=clock, grace=1000.0)

    async def main() -> None:
        async with manager:
            await asyncio.sleep(1.0)

    clock.run(main())
    counts = manager.counts()
    assert counts.actions["ops"].failed == 1
    shown = f"{webhook!r} {counts!r} {caplog.text}"
    assert "hooks.example" in shown
    for hidden in (secret, secret.removeprefix("whsec_"), "private-path"):
        assert hidden not in shown


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x-secret",
        "h/x-secret",
        "",
        "http://",
        "http://user:x-secret@h/",
        "http://h:99999/x-secret",
        "http://h/x-secret\r\nx-evil: 1",
        "http://h/x-secret with space",
        "http://[::1/x-secret",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed is an address that begins with http") as caught:
        Webhook(url)
    assert "x-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://h", "h", 443, "/", "h"),
        ("http://H:8080/a b".replace(" ", "%20"), "h", 8080, "/a%20b", "h:8080"),
        ("http://[::1]:80/x?y=1&z=ä#f", "::1", 80, "/x?y=1&z=%C3%A4", "[::1]:80"),
        ("https://bücher.example/ü", "xn--bcher-kva.example", 443, "/%C3%BC", "xn--bcher-kva.example"),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    target = Target.of(url)
    assert (target.host, target.port, target.path, target.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a webhook has either url or url_env"),
        ({"url": "http://h", "url_env": "X"}, "a webhook has either url or url_env"),
        ({"url_env": "NOT_SET"}, "the environment variable NOT_SET is not set"),
        ({"url": "http://h", "secret_env": "NOT_SET"}, "the environment variable NOT_SET is not set"),
        ({"url": "http://h", "secret_env": "ODD_SECRET"}, "that begins with whsec_ goes on in base64"),
        ({"url": "http://h", "headers_env": {"a b": "HOOK_SECRET"}}, "headers_env: 'a b' or its value"),
        ({"url": "http://h", "headers_env": {"a": "ODD_HEADER"}}, "headers_env: 'a' or its value"),
        ({"url": "http://h", "timeout": 0.0}, "timeout: found 0.0, allowed is a finite number"),
        ({"url": "http://h", "max_attempts": 0}, "max_attempts counts the first attempt"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    secret: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("ODD_SECRET", "whsec_!!!")
    monkeypatch.setenv("ODD_HEADER", "x\r\ny")
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        Webhook(**options)
    assert words in str(caught.value)
    assert "!!!" not in str(caught.value)


def test_a_webhook_is_read_from_a_mapping(secret: str) -> None:
    clock = VirtualClock()
    short = read_action({"webhook": "http://h/x", "secret_env": "HOOK_SECRET"}, "a", clock=clock)
    assert short == Webhook("http://h/x", secret_env="HOOK_SECRET")
    long = read_action(
        {"webhook": {"url": "http://h/x", "secret_env": "HOOK_SECRET", "timeout": "5s", "max_attempts": 2}},
        "a",
        clock=clock,
    )
    assert long == Webhook("http://h/x", secret_env="HOOK_SECRET", timeout=5.0, max_attempts=2)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"webhook": {"url": "http://h", "secret": "x"}}, "a.webhook.secret: unknown field; did you mean secret_env?"),
        ({"webhook": {"url": "http://h"}, "timeout": 1}, "a.timeout: unknown field"),
        ({"webhook": "http://h", "secret": "x"}, "a.secret: unknown field; did you mean secret_env?"),
        ({"webhook": "h"}, "a.url: found something else, allowed is an address"),
        ({"webhook": {}}, "a: a webhook has either url or url_env"),
        (
            {"webhook": {"url": "http://h", "max_attempts": "5"}},
            "a.webhook.max_attempts: found '5', allowed is",
        ),
    ],
)
def test_a_misfit_in_a_webhook_is_named(mapping: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_action(mapping, "a", clock=VirtualClock())
    assert words in str(caught.value)


# ---- the signature alone


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks libraries."""
    body = b'{"test": 2432232314}'
    headers = signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", body, now=1614265330.0)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_one_of_several_signatures_is_enough() -> None:
    headers = signed("new", "i", b"x", now=100.0)
    both = {**headers, "Webhook-Signature": f"v1,AAAA {headers['webhook-signature']} v2,é"}
    del both["webhook-signature"]
    assert is_genuine("new", both, b"x", now=100.0)


@pytest.mark.parametrize("moment", ["", "x", "-100", "1e2", "٣", "9" * 400])
def test_a_moment_that_is_none_is_not_genuine(moment: str) -> None:
    assert not is_genuine("s", {**signed("s", "i", b"x", now=100.0), "webhook-timestamp": moment}, b"x", now=100.0)
