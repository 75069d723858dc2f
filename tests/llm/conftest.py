"""A server on loopback that answers as a test tells it to, byte by byte if need be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest


@dataclass
class Exchange:
    """One request as it arrived, and the means to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Test", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def respond(self, body: object, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content_type": "application/json", **headers, "content_length": str(len(raw))}
        await self.head(status, **headers)
        await self.send(raw)

    async def begin_stream(self, **headers: str) -> None:
        await self.head(**{"content_type": "text/event-stream", "transfer_encoding": "chunked", **headers})

    async def piece(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: object) -> None:
        await self.piece(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class LoopbackServer:
    """Keep-alive HTTP over a raw socket. `requests` and `connections` tell what arrived, `open` who is still there."""

    handler: Handler
    requests: list[Exchange] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while not writer.is_closing():
                exchange = await self._read(reader, writer)
                self.requests.append(exchange)
                answer = asyncio.ensure_future(self.handler(exchange))
                await self._answer_or_leave(answer, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, as many tests want
        finally:
            self.open -= 1
            self.lost.set()
            writer.close()

    async def _answer_or_leave(self, answer: asyncio.Future[None], reader: asyncio.StreamReader) -> None:
        """Let the handler finish, unless the client hangs up first."""
        hung_up = asyncio.ensure_future(self._hung_up(reader))
        try:
            await asyncio.wait({answer, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answer, hung_up):
                task.cancel()
            results = await asyncio.gather(answer, hung_up, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _hung_up(self, reader: asyncio.StreamReader) -> None:
        while not reader.at_eof():
            await asyncio.sleep(0.002)  # StreamReader has no way to wait for the end without reading

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Exchange(head[0].split(" ")[1], headers, body, writer)


Serve = Callable[[Handler], Awaitable[LoopbackServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers for one test: `server = await serve(handler)`."""
    started: list[LoopbackServer] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(handler: Handler) -> LoopbackServer:
        server = LoopbackServer(handler)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(server.serve(reader, writer)))

        server.server = await asyncio.start_server(connected, "127.0.0.1", 0)
        started.append(server)
        return server

    yield start
    for server in started:
        assert server.server is not None
        server.server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
