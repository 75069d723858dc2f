"""Where a client is sent: to a server in good order, or to a place where it cannot even ask.

with PLACES["refused"](speaker, act, trust) as place:
    place.url            for models.yml, with `place.settings` beside it
    place.server         what answers there, if anything does
    place.attempts()     how many have arrived; None where nobody is there to count them
"""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import trustme
from tests.support.faults.server import Act, FaultServer
from tests.support.speakers import Speaker

__all__ = ["PLACES", "Place", "Trust", "has_ipv6"]


@dataclass
class Place:
    url: str
    settings: Mapping[str, str] = field(default_factory=dict)
    server: FaultServer | None = None
    attempts: Callable[[], int | None] = lambda: None


class Trust:
    """An authority that a client is told to trust, and one that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.bundle = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(self.bundle)

    def context(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    @property
    def settings(self) -> Mapping[str, str]:
        return {"ca_bundle": str(self.bundle)}


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback, which the fault "IPv6 leads nowhere" needs."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# ---- servers -------------------------------------------------------------------------------------------------


@contextmanager
def _server(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    with FaultServer(speaker, act) as server:
        yield Place(server.url, {}, server, lambda: len(server.requests))


@contextmanager
def _two_servers(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    with _server(speaker, act, trust) as place, FaultServer(speaker, act) as other:
        assert place.server is not None
        place.server.other = other
        yield place


@contextmanager
def _safe_and_unsafe(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    """A server that speaks TLS as it should, and one that does not."""
    context = trust.context(trust.authority.issue_cert("localhost"))
    with FaultServer(speaker, act, context) as server, FaultServer(speaker, act) as other:
        server.other = other
        yield Place(server.url, trust.settings, server, lambda: len(server.requests))


@contextmanager
def _behind_proxy(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    """A proxy that wants a password, before a server that is never reached."""
    with FaultServer(speaker, act) as proxy:
        settings = {"proxy": f"http://127.0.0.1:{proxy.port}"}
        yield Place(f"https://api.test{speaker.folder}", settings, None, lambda: len(proxy.requests))


@contextmanager
def _behind_plain_proxy(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    with FaultServer(speaker, act) as proxy:
        settings = {"proxy": f"http://127.0.0.1:{proxy.port}", "allow_http": "true"}
        yield Place(f"http://api.test{speaker.folder}", settings, None, lambda: len(proxy.requests))


# ---- TLS -----------------------------------------------------------------------------------------------------

_Certificates = Callable[[Trust], trustme.LeafCert]


def _with_certificate(issue: _Certificates) -> Callable[..., AbstractContextManager[Place]]:
    @contextmanager
    def place(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
        with FaultServer(speaker, act, trust.context(issue(trust))) as server:
            yield Place(server.url, trust.settings, None, lambda: server.connections)

    return place


def _expired(trust: Trust) -> trustme.LeafCert:
    begin, end = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2001, 2002))
    return trust.authority.issue_cert("localhost", not_before=begin, not_after=end)


def _elsewhere(trust: Trust) -> trustme.LeafCert:
    return trust.authority.issue_cert("elsewhere.test")


def _unknown(trust: Trust) -> trustme.LeafCert:
    return trust.stranger.issue_cert("localhost")


def _without_tls(answer: bytes) -> Callable[..., AbstractContextManager[Place]]:
    """A port that takes connections and answers the first bytes of TLS with something else, or with nothing."""

    @contextmanager
    def place(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
        with ExitStack() as stack:
            listening = _Listening(answer)
            stack.callback(listening.stop)
            url = f"https://localhost:{listening.port}{speaker.folder}"
            yield Place(url, trust.settings, None, lambda: listening.connections)

    return place


class _Listening:
    """Takes connections, says `answer` to whatever comes, and goes when the client goes."""

    def __init__(self, answer: bytes) -> None:
        self.connections = 0
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._lines.append(line)
            if self._answer:
                line.recv(65536)
                line.sendall(self._answer)


# ---- nowhere -------------------------------------------------------------------------------------------------


@contextmanager
def _refused(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Place(f"http://127.0.0.1:{taken.getsockname()[1]}{speaker.folder}")


@contextmanager
def _full(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    """A port whose queue of connections is full, so that the kernel answers no further one: a black hole."""
    with ExitStack() as stack:
        port = _fill(stack, socket.AF_INET, "127.0.0.1")
        yield Place(f"http://127.0.0.1:{port}{speaker.folder}")


def _fill(stack: ExitStack, family: socket.AddressFamily, host: str) -> int:
    listening = stack.enter_context(socket.socket(family))
    listening.bind((host, 0))
    listening.listen(0)
    for _ in range(3):
        waiting = stack.enter_context(socket.socket(family))
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    return int(listening.getsockname()[1])


_Found = list[tuple[Any, ...]]


@contextmanager
def _looked_up(host: str, find: Callable[[], _Found]) -> Iterator[list[str]]:
    """Answer the question for this host's address instead of the machine's resolver. Yields the list of questions."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(name: Any, *rest: Any, **more: Any) -> _Found:
        if name != host:
            return real(name, *rest, **more)
        asked.append(host)
        return find()

    with patch.object(socket, "getaddrinfo", getaddrinfo):
        yield asked


@contextmanager
def _no_such_host(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    def find() -> _Found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with _looked_up("nowhere.invalid", find) as asked:
        yield Place(f"https://nowhere.invalid{speaker.folder}", {}, None, lambda: len(asked))


@contextmanager
def _slow_names(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    over = threading.Event()

    def find() -> _Found:
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with _looked_up("slow.invalid", find):  # asked once: later attempts join the question that is still open
        try:
            yield Place(f"https://slow.invalid{speaker.folder}")
        finally:
            over.set()


@contextmanager
def _dead_ipv6(speaker: Speaker, act: Act, trust: Trust) -> Iterator[Place]:
    """A host with two addresses, the first of which is a black hole."""
    with ExitStack() as stack:
        server = stack.enter_context(FaultServer(speaker, act))
        dead = _fill(stack, socket.AF_INET6, "::1")
        found: _Found = [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", dead, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", server.port)),
        ]
        stack.enter_context(_looked_up("both.localhost", lambda: found))
        url = f"http://both.localhost:{server.port}{speaker.folder}"
        yield Place(url, {}, server, lambda: len(server.requests))


PLACES: Final[Mapping[str, Callable[[Speaker, Act, Trust], AbstractContextManager[Place]]]] = {
    "server": _server,
    "two servers": _two_servers,
    "TLS and plain": _safe_and_unsafe,
    "proxy": _behind_proxy,
    "plain proxy": _behind_plain_proxy,
    "expired": _with_certificate(_expired),
    "wrong host": _with_certificate(_elsewhere),
    "unknown authority": _with_certificate(_unknown),
    "no handshake": _without_tls(b""),
    "no TLS": _without_tls(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"),
    "refused": _refused,
    "full": _full,
    "no such host": _no_such_host,
    "slow names": _slow_names,
    "dead IPv6": _dead_ipv6,
}
