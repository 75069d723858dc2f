"""A server of `/metrics` and nothing else, in one thread beside the program, on the standard library.

    with serve_metrics(9464) as server:        # counts all of this process, and shows it
        print(server.url)                      # http://127.0.0.1:9464/metrics

    serve_metrics(9464, PrometheusCollector(metrics), host="0.0.0.0")       # what you count yourself, for others to see

It serves one event loop of its own, so its thread waits for many connections as for one. Each has ten seconds in all,
however slowly it speaks; beyond 32 at a time they are told to come back. One request a connection. A child that is
forked off closes its copy of the socket: it does not serve, and the port is free once its parent stops.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import threading
import weakref
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Final

from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.observers import Observation, observe
from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus.answering import Reply, Request, answer
from agentflow.integrations.prometheus.exposition import Collects, PrometheusCollector

__all__ = ["MetricsServer", "serve_metrics"]

_log: Final = logging.getLogger("agentflow.prometheus")
_DEADLINE: Final = 10.0  # seconds for one connection, from its beginning to its end
_CONNECTIONS: Final = 32
_LONGEST: Final = 16 * 1024  # bytes of a request's head
_PATIENCE: Final = 5.0  # seconds that close() waits for the thread


def serve_metrics(port: int, metrics: Collects | None = None, *, host: str = "127.0.0.1") -> MetricsServer:
    """Serve `metrics` until `close()` or the end of the `with`; port 0 is any free one.

    Without `metrics` a MetricsCollector counts all of this process from now on, for as long as it is served. Whoever
    can reach the host and port can read: beyond loopback put a proxy with authentication before it. Raises
    ConfigurationError where the port is taken or may not be used, MissingExtraError.
    """
    if metrics is not None:
        return MetricsServer(metrics, host, port)
    counting = MetricsCollector()
    server = MetricsServer(PrometheusCollector(counting), host, port)
    server.observation = observe(counting)
    return server


class MetricsServer:
    """Made by `serve_metrics`. `observation` is what ends with it, if it began something."""

    def __init__(self, metrics: Collects, host: str, port: int, *, deadline: float = _DEADLINE) -> None:
        self._metrics = metrics
        self._deadline = deadline
        self._socket = _listening(host, port)
        self._talks: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._closing = threading.Lock()
        self.observation: Observation | None = None
        address = self._socket.getsockname()
        self.host, self.port = str(address[0]), int(address[1])
        self._thread = threading.Thread(target=self._run, name="agentflow metrics server", daemon=True)
        self._thread.start()
        self._ready.wait()
        _serving.add(self)
        atexit.register(self.close)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening, break off what is under way, end the thread. Doing it twice does it once."""
        with self._closing:
            atexit.unregister(self.close)
            _serving.discard(self)
            if self.observation is not None:
                self.observation.close()
            if self._loop is not None and self._stop is not None:
                with suppress(RuntimeError):  # the loop is closed: it has ended already
                    self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_PATIENCE)
            self._socket.close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"

    def abandon(self) -> None:
        """In a process that was forked off: the thread and its loop are the parent's."""
        self._loop = None
        self._socket.close()

    # ---- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 - a thread has nobody to raise to
            _log.exception("the server of metrics ended")
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._socket, limit=_LONGEST)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.get_running_loop().create_task(self._talk(reader, writer, len(self._talks) >= _CONNECTIONS))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, full: bool) -> None:
        """One request, one reply. What is too slow or gone is broken off."""
        try:
            async with asyncio.timeout(self._deadline):
                writer.write(_wire(_BUSY if full else await self._reply(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it went away, or it never said what it wanted
        finally:
            writer.transport.abort()

    async def _reply(self, reader: asyncio.StreamReader) -> Reply:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        request = _read(head)
        return _plain(HTTPStatus.BAD_REQUEST) if request is None else answer(self._metrics, request)


def _listening(host: str, port: int) -> socket.socket:
    where = f"metrics cannot be served at {host}, port {port}"
    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"{where}: there is no such port")
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_CONNECTIONS)
    except (OSError, TypeError, UnicodeError) as error:  # no such address; a host that is no name at all
        listening.close()
        raise ConfigurationError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    return listening


def _read(head: bytes) -> Request | None:
    """What was asked; None where it is no HTTP/1 request."""
    lines = head.decode("latin-1").split("\r\n")
    match lines[0].split(" "):
        case [method, target, "HTTP/1.0" | "HTTP/1.1"] if method and target.startswith("/"):
            pass
        case _:
            return None
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    accept, encoding = (",".join(headers.get(name, ())) for name in ("accept", "accept-encoding"))
    return Request(method, target.partition("?")[0], accept, encoding)


def _plain(status: HTTPStatus) -> Reply:
    body = f"{status.phrase}\n".encode()
    return Reply(status, (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))), body)


_BUSY: Final = _plain(HTTPStatus.SERVICE_UNAVAILABLE)


def _wire(reply: Reply) -> bytes:
    headers = [f"{name}: {value}" for name, value in (*reply.headers, ("Connection", "close"))]
    lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + reply.body


_serving: weakref.WeakSet[MetricsServer] = weakref.WeakSet()


def _forked() -> None:
    for server in list(_serving):
        server.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
