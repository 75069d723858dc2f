"""Every way a server can fail, through the full client: a typed error on one line, so many attempts, and never the key.

The servers here are hostile: wherever they can, they send back the key that they were sent.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.told import Told

from agentflow.clock import SystemClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

KEY = "sk-sentinel-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
ATTEMPTS = 3
PATIENT = "{connect: 30, first_byte: 30, idle: 30, total: 60}"
"""Where a server fails in another way than by silence: a slow machine must not make it look like one."""
IMPATIENT = "{connect: 30, first_byte: 0.2, idle: 0.2, total: 60}"


@dataclass
class Witness:
    """One call, and everything that it let be seen: error, events, log records, pieces."""

    registry: ModelRegistry
    caplog: pytest.LogCaptureFixture
    seen: list[str] = field(default_factory=list)
    events: list[ExecutionEvent] = field(default_factory=list)
    error: ModelError | None = None

    @property
    def attempts(self) -> int:
        return 1 + [event.kind for event in self.events].count("retry")

    async def call(self, *, streaming: bool) -> ModelError:
        async def sink(event: ExecutionEvent) -> None:
            self.events.append(event)

        asyncio.get_running_loop().set_debug(True)
        token = current_scope.set(Scope(Channel("run", SystemClock(), Told(sink)), "flow/ask#1", "ask", 1))
        try:
            with self.caplog.at_level(logging.DEBUG), pytest.raises(ModelError) as caught:
                await self._ask(streaming)
        finally:
            current_scope.reset(token)
        self.error = caught.value
        return caught.value

    async def _ask(self, streaming: bool) -> None:
        builder = AgentFlow.model("m", registry=self.registry).prompt("Hi")
        if not streaming:
            self.seen.append(await builder.execute())
            return
        async with builder.execute_streaming() as chunks:
            async for chunk in chunks:
                self.seen.append(chunk.content)

    def everything(self) -> str:
        assert self.error is not None
        told = [repr(self.events), *(record.getMessage() + str(record.exc_text) for record in self.caplog.records)]
        told += traceback.format_exception(self.error)
        told += [repr(pickle.loads(pickle.dumps(str(self.error)))), repr(self.registry), repr(vars(self.registry))]
        pending: list[BaseException | None] = [self.error]
        while pending:
            error = pending.pop()
            if error is not None:
                told += [str(error), repr(error), repr(vars(error)), repr(error.args)]
                pending += [error.__cause__, error.__context__]
        return "\n".join(told)

    def assert_well_told(self) -> None:
        assert self.error is not None
        assert "\n" not in str(self.error)
        assert len(str(self.error)) < 1000
        everything = self.everything()
        for length in (len(KEY), 24, 16):  # nor a good part of it
            assert KEY[:length] not in everything
            assert KEY[-length:] not in everything


Witnesses = Callable[[str, type[ModelError]], Witness]


@pytest.fixture
def witness(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Witnesses:
    def make(url: str, kind: type[ModelError]) -> Witness:
        limits = IMPATIENT if kind is ModelTimeoutError else PATIENT
        (tmp_path / "models.yml").write_text(
            f"defaults: {{timeout: {limits}, retry: {{max_attempts: {ATTEMPTS}, base_delay: 0}}}}\n"
            f"providers: {{lab: {{kind: openai, base_url: '{url}', api_key_env: LAB_KEY}}}}\n"
            "models: {m: {provider: lab}}\n"
        )
        return Witness(ModelRegistry.load(environ={"LAB_KEY": KEY}, cwd=tmp_path, home=tmp_path), caplog)

    return make


async def reached(server: Any, requests: int) -> None:
    """Wait until the server has read so many: a client that has given up may be ahead of it. No more may come."""
    async with asyncio.timeout(30):
        while len(server.requests) < requests:
            await asyncio.sleep(0.001)
    assert len(server.requests) == requests


# ---- what servers do -----------------------------------------------------------------------------------------

Handler = Callable[[Any], Awaitable[None]]


def hang_up(after: bytes = b"") -> Handler:
    async def handler(exchange: Any) -> None:
        await exchange.send(after)
        exchange.writer.close()

    return handler


def answer(body: Any, status: int = 200, **headers: str) -> Handler:
    """Respond with `body`, in which KEY stands for the key that was sent."""

    async def handler(exchange: Any) -> None:
        assert exchange.headers["authorization"] == f"Bearer {KEY}"
        await exchange.respond(body, status, **headers)

    return handler


def events(*bodies: Any, then: str = "end") -> Handler:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        for body in bodies:
            await exchange.event(body)
        if then == "silence":
            await asyncio.Event().wait()
        elif then == "end":
            await exchange.end_stream()
        else:
            exchange.writer.close()

    return handler


async def silence(exchange: Any) -> None:
    await asyncio.Event().wait()


async def silence_after_headers(exchange: Any) -> None:
    await exchange.begin_stream()
    await asyncio.Event().wait()


def failing(message: str, **facts: Any) -> dict[str, Any]:
    return {"error": {"message": message, **facts}}


HTML = f"<html>\n<body>\n<h1>Wrong door, {KEY}</h1>\n</body>\n</html>".encode()
PIECE = {"choices": [{"index": 0, "delta": {"content": "one "}}]}
SHORT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"
HUGE = b"HTTP/1.1 200 OK\r\nx-huge: " + KEY.encode() * 2000 + b"\r\n\r\n"

EITHER = [
    ("hangs up at once", hang_up(), ModelConnectionError, ATTEMPTS),
    ("hangs up within the headers", hang_up(b"HTTP/1.1 200 OK\r\nx-"), ModelConnectionError, ATTEMPTS),
    ("speaks something else", hang_up(f"220 mail ready {KEY}\r\n\r\n".encode()), ProtocolError, 1),
    ("sends headers without end", hang_up(HUGE), ProtocolError, 1),
    ("says nothing", silence, ModelTimeoutError, ATTEMPTS),
    ("says nothing after the headers", silence_after_headers, ModelTimeoutError, ATTEMPTS),
    ("breaks off a body", hang_up(SHORT), ModelConnectionError, ATTEMPTS),
    ("sends HTML", answer(HTML, content_type="text/html"), ProtocolError, 1),
    ("sends HTML as JSON", answer(HTML), ProtocolError, 1),
    ("sends nothing", answer(b""), ProtocolError, 1),
    ("sends broken JSON", answer(b'{"choices": [{"mess'), ProtocolError, 1),
    ("sends other JSON", answer({"hello": KEY}), ProtocolError, 1),
    ("sends a list", answer([KEY]), ProtocolError, 1),
    ("sends no UTF-8", answer(b'{"choices": "\xff\xfe"}'), ProtocolError, 1),
    ("sends numbers too large", answer({"usage": {"prompt_tokens": 10**400}}), ProtocolError, 1),
    ("pads before the key", answer(b" " * 3180 + KEY.encode() * 3), ProtocolError, 1),
    ("sends an error and status 200", answer(failing(f"bad {KEY}", type="server_error")), ServerError, ATTEMPTS),
    ("redirects", answer(b"", 307, location=f"http://127.0.0.1:1/{KEY}"), ProtocolError, 1),
    ("refuses the key", answer(failing(f"Incorrect API key\n provided: {KEY}"), 401), AuthenticationError, 1),
    ("refuses with the key as code", answer(failing("no", code=KEY), 400), BadRequestError, 1),
    ("refuses with the key as type", answer(failing({"deep": [KEY]}, type=KEY), 400), BadRequestError, 1),
    ("names the request by the key", answer(failing("no"), 400, x_request_id=KEY), BadRequestError, 1),
    ("fails in HTML", answer(HTML, 500, content_type="text/html"), ServerError, ATTEMPTS),
    ("is overloaded", answer(b"", 503), OverloadedError, ATTEMPTS),
    ("has enough", answer(failing("slow down"), 429, retry_after="0"), RateLimitError, ATTEMPTS),
    ("has enough for an hour", answer(failing("slow down"), 429, retry_after="3600"), RateLimitError, 1),
    ("wants money", answer(failing("pay", code="insufficient_quota"), 429), QuotaExceededError, 1),
]

STREAMED = [
    ("ends before the first word", events(), ProtocolError, 1, ""),
    ("hangs up before the first word", events(then="hang up"), ModelConnectionError, ATTEMPTS, ""),
    ("fails before the first word", events(failing(KEY, type="server_error")), ServerError, ATTEMPTS, ""),
    ("ends in the middle", events(PIECE), StreamInterruptedError, 1, "one "),
    ("hangs up in the middle", events(PIECE, then="hang up"), StreamInterruptedError, 1, "one "),
    ("falls silent in the middle", events(PIECE, then="silence"), ModelTimeoutError, 1, "one "),
    ("fails in the middle", events(PIECE, failing(KEY, type="overloaded_error")), OverloadedError, 1, "one "),
    ("breaks its JSON in the middle", events(PIECE, b'{"choices": [' + KEY.encode()), ProtocolError, 1, "one "),
    ("sends other events", events({"hello": KEY}), ProtocolError, 1, ""),
    ("puts the key on the edge of an excerpt", hang_up(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 160 + KEY.encode()),
     ProtocolError, 1, ""),
]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("handler", "kind", "attempts"), [case[1:] for case in EITHER], ids=[c[0] for c in EITHER])
async def test_a_server_that(
    serve: Any,
    witness: Witnesses,
    handler: Handler,
    kind: type[ModelError],
    attempts: int,
    streaming: bool,
) -> None:
    server = await serve(handler)
    call = witness(server.url, kind)
    error = await call.call(streaming=streaming)
    assert type(error) is kind, repr(error)
    assert call.attempts == attempts
    await reached(server, attempts)
    assert call.seen == []
    call.assert_well_told()
    await call.registry.aclose()


@pytest.mark.parametrize(
    ("handler", "kind", "attempts", "text"), [case[1:] for case in STREAMED], ids=[c[0] for c in STREAMED]
)
async def test_a_stream_that(
    serve: Any,
    witness: Witnesses,
    handler: Handler,
    kind: type[ModelError],
    attempts: int,
    text: str,
) -> None:
    """What was delivered stays delivered, once: such a stream is not begun again."""
    server = await serve(handler)
    call = witness(server.url, kind)
    error = await call.call(streaming=True)
    assert type(error) is kind, repr(error)
    assert call.attempts == attempts
    await reached(server, attempts)
    assert "".join(call.seen) == text
    call.assert_well_told()
    await call.registry.aclose()


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_nobody_listening(witness: Witnesses, streaming: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        call = witness(f"http://127.0.0.1:{free.getsockname()[1]}/v1", ModelConnectionError)
        error = await call.call(streaming=streaming)
    assert type(error) is ModelConnectionError
    assert [event.kind for event in call.events].count("retry") == ATTEMPTS - 1
    assert "is it running" in str(error)
    call.assert_well_told()
    await call.registry.aclose()
