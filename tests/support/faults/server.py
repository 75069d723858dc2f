"""A server on a raw socket that breaks what servers may break: a thread for each connection, and bytes as they are.

    with FaultServer(speaker, act) as server:      act(exchange) answers a request, or does not
        server.url                                 http://127.0.0.1:41234/v1, or https:// with a context
        server.requests, server.connections        what arrived
        server.begin(other)                        from the next request on, which is number 0 again

It runs in threads because its clients are tested with a blocked event loop, too. What `act` sends to a client that has
gone raises an OSError, which ends that connection and nothing else.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from tests.support.speakers import Answer, Speaker

__all__ = ["Act", "Exchange", "FaultServer", "answer_well"]

_LONGEST: Final = 20.0  # seconds, after which a test has gone wrong


@dataclass
class Exchange:
    """One request as it arrived, its number on this server (from 0), and the raw means to answer it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    number: int
    speaker: Speaker
    line: socket.socket
    server: FaultServer

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        """Whether a stream was asked for."""
        return self.speaker.asked(self.path, self.json).streamed

    # ---- bytes -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.line.sendall(data)

    def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Test", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def respond(self, body: object, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, **{"content_type": "application/json", "content_length": str(len(raw)), **headers})
        self.send(raw)

    def begin_stream(self, **headers: str) -> None:
        self.head(**{"content_type": "text/event-stream", "transfer_encoding": "chunked", **headers})

    def piece(self, data: bytes) -> None:
        """A part of a stream, in its own frame."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    # ---- answers ---------------------------------------------------------------------------------------------

    def whole(self, answer: Answer) -> bytes:
        return json.dumps(self.speaker.whole(answer), ensure_ascii=False).encode()

    def events(self, answer: Answer) -> list[bytes]:
        return self.speaker.events(answer, self.json)

    def stream(self, *events: bytes) -> None:
        """A stream in good order, each event in its own frame."""
        self.begin_stream()
        for event in events:
            self.piece(event)
        self.end_stream()

    # ---- ways to leave ---------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Drop the connection with RST."""
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.line.close()

    def close(self) -> None:
        """Close the connection with FIN."""
        with suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()

    def half_close(self) -> None:
        """Say no more, but go on to listen."""
        self.line.shutdown(socket.SHUT_WR)

    # ---- waiting ---------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Wait; raises ConnectionError once the client has gone."""
        if self._gone_within(seconds):
            raise ConnectionResetError("the client has gone")

    def wait_until_left(self) -> None:
        """Say nothing until the client has gone."""
        self._gone_within(_LONGEST)

    def wait_until_heard(self) -> None:
        """Wait until the client has told of its first words (`server.heard`), so that what follows is the middle."""
        assert self.server.heard.wait(_LONGEST), "nobody heard the first words"

    def _gone_within(self, seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and not self.server.stopped:
            ready, _, _ = select.select([self.line], [], [], min(left, 0.05))
            if ready:
                return _is_over(self.line)
        return self.server.stopped


Act = Callable[[Exchange], None]


def answer_well(answer: Answer) -> Act:
    """The act of a server that works."""

    def act(exchange: Exchange) -> None:
        if exchange.streamed:
            exchange.stream(*exchange.events(answer))
        else:
            exchange.respond(exchange.whole(answer))

    return act


@dataclass
class FaultServer:
    """See above. `open` connections are those that neither side has closed; `other` is a server that this one knows."""

    speaker: Speaker
    act: Act
    context: ssl.SSLContext | None = None
    requests: list[Exchange] = field(default_factory=list)
    connections: int = 0
    other: FaultServer | None = None
    heard: threading.Event = field(default_factory=threading.Event)
    stopped: bool = False

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lines: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def __enter__(self) -> FaultServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = True
        self.heard.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_LONGEST)
        if self._failures and error is None:
            raise self._failures[0]

    def begin(self, act: Act) -> None:
        """Act otherwise from now on, and count anew."""
        with self._lock:
            self.requests.clear()
            self.connections = 0
            self.act = act

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        scheme, host = ("http", "127.0.0.1") if self.context is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}{self.speaker.folder}"

    @property
    def open(self) -> int:
        with self._lock:
            return len(self._lines)

    def emptied(self, seconds: float = 3.0) -> bool:
        """Whether every connection has been closed, or is within that time."""
        ends = time.monotonic() + seconds
        while self.open and time.monotonic() < ends:
            time.sleep(0.002)
        return not self.open

    # ---- threads ---------------------------------------------------------------------------------------------

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._lines.add(line)
            self._start(self._serve, line)

    def _serve(self, raw: socket.socket) -> None:
        line = raw
        try:
            raw.settimeout(_LONGEST)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is not None:
                line = self._secured(raw, self.context)
            reader = _Reader(line)
            while not self.stopped and (asked := reader.request()):
                self._answer(*asked, line)
        except (OSError, ValueError):  # the client has gone, or we have; ValueError: of a socket that is closed
            pass
        except BaseException as error:  # told when the server stops: a thread has nobody who hears it
            self._failures.append(error)
        finally:
            line.close()
            with self._lock:
                self._lines.discard(line)

    def _secured(self, raw: socket.socket, context: ssl.SSLContext) -> socket.socket:
        """The same connection, encrypted; `raw` is of no use any more."""
        with self._lock:
            self._lines.discard(raw)
        line = context.wrap_socket(raw, server_side=True)
        with self._lock:
            self._lines.add(line)
        return line

    def _answer(self, path: str, headers: Mapping[str, str], body: bytes, line: socket.socket) -> None:
        with self._lock:
            exchange = Exchange(path, headers, body, len(self.requests), self.speaker, line, self)
            self.requests.append(exchange)
        self.act(exchange)


class _Reader:
    """Requests from a socket, one after the other."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._data = b""

    def request(self) -> tuple[str, dict[str, str], bytes] | None:
        """Path, headers and body; None once the client has gone."""
        while b"\r\n\r\n" not in self._data:
            if not self._more():
                return None
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._data) < length:
            if not self._more():
                return None
        body, self._data = self._data[:length], self._data[length:]
        return first.split(" ")[1], headers, body

    def _more(self) -> bool:
        data = self._line.recv(65536)
        self._data += data
        return bool(data)


def _is_over(line: socket.socket) -> bool:
    try:
        return not line.recv(1, socket.MSG_PEEK)
    except ssl.SSLError:
        return False
    except OSError:
        return True
