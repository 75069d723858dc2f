"""The only file that speaks HTTP: a JSON post answered by a whole body or by a stream of bytes.

    provider ──bytes──▶ Transport.post ──▶ Answer(status, headers, body)
                        Transport.stream ──▶ ByteStream: status, headers, then read() until b""

A transport knows addresses, headers, time limits and connections; what the bytes mean is the provider's business, also
when the status says failure. It is built on aiohttp, which is loaded when the first request is made.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, urlsplit

from agentflow.errors import (
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    ProtocolError,
)
from agentflow.llm.providers.base import ProviderSettings, Timeouts

if TYPE_CHECKING:
    import aiohttp
    import yarl

__all__ = ["AiohttpTransport", "Answer", "ByteStream", "Transport"]

_MIB = 1024 * 1024
_MAX_CONNECTIONS = 1000
_GRACE = 0.5  # seconds a finished stream may take to send its terminator
_GRACE_PIECES = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ByteStream(Protocol):
    """An answer whose body arrives piece by piece. Whoever opened it calls `close()`, whatever happens."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names are looked up in lower case."""
        ...

    async def read(self) -> bytes:
        """The next bytes as they come; b"" at the end. Raises ModelTimeoutError or ModelConnectionError."""
        ...

    async def finish(self) -> None:
        """Read the rest, which nobody needs, so that the connection can serve again."""
        ...

    def close(self) -> None:
        """Free the connection: back to the pool after the end, dropped before it. Never waits, safe to call twice."""
        ...


class Transport(Protocol):
    """Posts JSON to a path below a base address. `model` is for error messages; `total` limits the call in seconds."""

    async def post(self, path: str, body: bytes, *, model: str, total: float | None) -> Answer: ...

    async def stream(self, path: str, body: bytes, *, model: str, total: float | None) -> ByteStream: ...

    async def aclose(self) -> None: ...


class AiohttpTransport:
    """One provider's connections: a session for each event loop that uses it, so that several may do so at once.

        transport = AiohttpTransport(settings, base_url="https://api.openai.com/v1", headers={"authorization": …})
        answer = await transport.post("/chat/completions", body, model="gpt-4o", total=60.0)

    Sessions close with `aclose()`, when the transport is forgotten, or when their loop ends (under `asyncio.run` and
    everything else that calls `loop.shutdown_asyncgens()`). Redirects are not followed. A whole body may have
    `max_body` bytes. Header values may be secret: they appear in no error and no repr. `settings.headers` win over
    `headers`.

    Option: `max_connections` (1,000) for each event loop; further calls wait, and that counts as connecting.
    Raises ConfigurationError for a bad address, header or option.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        base_url: str,
        headers: Mapping[str, str],
        max_body: int = 64 * _MIB,
    ) -> None:
        self._base = _checked_address(base_url, settings)
        self._provider = settings.name
        self._limits = settings.timeouts
        self._headers = _checked_headers(headers, settings)
        self._connections = _checked_connections(settings)
        self._max_body = max_body
        self._urls: dict[str, yarl.URL] = {}
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    async def post(self, path: str, body: bytes, *, model: str, total: float | None) -> Answer:
        answer = await self.stream(path, body, model=model, total=total)
        try:
            return Answer(answer.status, answer.headers, await self._read_all(answer))
        finally:
            answer.close()

    async def stream(self, path: str, body: bytes, *, model: str, total: float | None) -> _AiohttpStream:
        session = await self._session()
        call = _Call(self._provider, model, self._where(path), self._limits, total, asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout_at(call.deadline) as call.limit:
                response = await session.post(self._url(path), data=body, allow_redirects=False, trace_request_ctx=call)
            return _AiohttpStream(response, call)
        except _network_errors() as error:
            failure = call.failure(error)
        # Raised out here because aiohttp's exceptions show the request's headers, and so the key, in their repr.
        raise failure

    async def aclose(self) -> None:
        """Close all sessions; those of other loops are asked to close themselves. A later request opens a new one."""
        here = asyncio.get_running_loop()
        while self._sessions:
            loop, session = self._sessions.popitem()
            if loop is here:
                await session.keeper.aclose()
            elif loop.is_closed():
                _discard(session)
            else:
                asyncio.run_coroutine_threadsafe(_close(session), loop)

    def __del__(self) -> None:
        for loop, session in getattr(self, "_sessions", {}).items():
            if loop.is_closed():
                _discard(session)

    async def _read_all(self, answer: _AiohttpStream) -> bytes:
        pieces, size = [], 0
        while piece := await answer.read():
            size += len(piece)
            if size > self._max_body:
                raise ProtocolError(
                    f"{answer.call.where} answers with more than {self._max_body:,} bytes, which no model does",
                    provider=self._provider,
                    model=answer.call.model,
                    status=answer.status,
                )
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.client.closed:
            session = await self._open(loop)
        return session.client

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Session:
        for other in [other for other in self._sessions if other.is_closed()]:
            _discard(self._sessions.pop(other))
        client = _new_client(self._headers, self._limits, self._connections)
        session = self._sessions[loop] = _Session(client, _keep(client))
        await anext(session.keeper)  # never suspends, so two tasks cannot open two sessions
        return session

    def _url(self, path: str) -> yarl.URL:
        url = self._urls.get(path)
        if url is None:
            from yarl import URL

            base = self._base
            url = self._urls[path] = URL(base._replace(path=base.path.rstrip("/") + path).geturl())
        return url

    def _where(self, path: str) -> str:
        """The address for messages: without the query, which may hold a key."""
        return f"{self._base.scheme}://{self._base.netloc}{self._base.path.rstrip('/')}{path}"


# ---- one call ------------------------------------------------------------------------------------------------


class _Call:
    """What is known of one request, and the limit on it until its headers have come."""

    __slots__ = ("deadline", "first_by", "limit", "limits", "model", "provider", "total", "where")

    def __init__(
        self, provider: str, model: str, where: str, limits: Timeouts, total: float | None, now: float
    ) -> None:
        self.provider = provider
        self.model = model
        self.where = where
        self.limits = limits
        self.total = total
        self.deadline = None if total is None else now + total
        self.first_by: float | None = None  # when the first byte of the body is due
        self.limit: asyncio.Timeout | None = None

    def sent(self, now: float) -> None:
        """The request is on its way: from now on the first byte is awaited."""
        if self.limits.first_byte is None:
            return
        self.first_by = now + self.limits.first_byte
        if self.limit is not None:
            self.limit.reschedule(_earliest(self.deadline, self.first_by))

    def due(self, waiting_since: float, begun: bool) -> tuple[float | None, str]:
        """When the read that began at `waiting_since` is late, and by which limit."""
        if not begun:
            when, phase = self.first_by, "first byte"
        else:
            idle = self.limits.idle
            when, phase = None if idle is None else waiting_since + idle, "idle"
        if self.deadline is not None and (when is None or self.deadline < when):
            return self.deadline, "total"
        return when, phase

    def timeout(self, phase: str) -> ModelTimeoutError:
        limits = {
            "connect": self.limits.connect,
            "first byte": self.limits.first_byte,
            "idle": self.limits.idle,
            "total": self.total,
        }
        return ModelTimeoutError(phase, limits[phase] or 0.0, provider=self.provider, model=self.model)

    def failure(self, error: BaseException) -> ModelError:
        """What a failure before the answer's headers means to the caller."""
        import aiohttp

        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self.timeout("connect")
        if self.limit is not None and self.limit.expired():
            return self.timeout(self.due(0.0, begun=False)[1])
        if isinstance(error, aiohttp.ClientResponseError):
            return ProtocolError(
                f"what answers at {self.where} does not speak HTTP: check base_url",
                provider=self.provider,
                model=self.model,
            )
        failure = ModelConnectionError(self._reason(error), provider=self.provider, model=self.model)
        failure.__cause__ = getattr(error, "os_error", None)
        return failure

    def broken(self, error: BaseException) -> ModelConnectionError:
        """What a failure while the body is read means to the caller."""
        return ModelConnectionError(
            f"the connection to {self.where} broke before the answer was whole ({type(error).__name__})",
            provider=self.provider,
            model=self.model,
        )

    def _reason(self, error: BaseException) -> str:
        import aiohttp

        if isinstance(error, aiohttp.ClientSSLError):
            return f"no safe connection to {self.where}: TLS failed ({_os_reason(error)}); check the certificate"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"no connection to {self.where}: its host has no address; check base_url and the network"
        if isinstance(error, ConnectionRefusedError) or isinstance(
            getattr(error, "os_error", None), ConnectionRefusedError
        ):
            return f"no connection to {self.where}: the server refuses it; is it running, and is base_url right?"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"no connection to {self.where}: {_os_reason(error)}; check base_url and the network"
        return f"{self.where} closed the connection before it answered ({type(error).__name__}); try again"


class _AiohttpStream:
    """A `ByteStream` over an aiohttp response, with one timer for all its reads.

    Silence before the first byte of the body is thinking, which `first_byte` limits; `idle` counts after it. The timer
    is not touched by a read: when it goes off it looks whether a read has waited too long, and if not, sets itself to
    when that could be. So a time limit costs a piece of the stream nothing, and a slow reader is never late.
    """

    __slots__ = (
        "_begun",
        "_content",
        "_expired",
        "_loop",
        "_response",
        "_timer",
        "_waiting_since",
        "call",
        "headers",
        "status",
    )

    def __init__(self, response: aiohttp.ClientResponse, call: _Call) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.call = call
        self._response = response
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._begun = False
        self._expired: str | None = None

    async def read(self) -> bytes:
        self._waiting_since = self._loop.time()
        if self._timer is None and not self._content.is_eof():
            self._watch()
        try:
            data = await self._content.readany()
        except _network_errors() as error:
            failure = self.call.timeout(self._expired) if self._expired else self.call.broken(error)
        else:
            self._waiting_since = None
            if not self._begun:
                self._begin()
            return data
        raise failure

    async def finish(self) -> None:
        if self._content.is_eof():
            return
        try:
            async with asyncio.timeout(_GRACE):
                for _ in range(_GRACE_PIECES):
                    if not await self._content.readany():
                        return
        except _network_errors():
            return  # the answer is whole; close() drops a connection that cannot serve again

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def _begin(self) -> None:
        """The first byte is here: another limit counts from now on."""
        self._begun = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        """End the answer if a read is late; otherwise look again when one could be."""
        now = self._loop.time()
        when, phase = self.call.due(now if self._waiting_since is None else self._waiting_since, self._begun)
        if when is None:
            self._timer = None
        elif when > now:
            self._timer = self._loop.call_at(when, self._watch)
        else:
            self._timer = None
            self._expired = phase
            self._response.close()  # a waiting read, or the next one, fails by this


def _network_errors() -> tuple[type[BaseException], ...]:
    """What aiohttp raises when the network fails. A function, so that aiohttp is loaded late."""
    import aiohttp

    return (aiohttp.ClientError, OSError)


def _os_reason(error: aiohttp.ClientConnectorError | aiohttp.ClientSSLError) -> str:
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


# ---- sessions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Session:
    """An aiohttp session and the generator that closes it."""

    client: aiohttp.ClientSession
    keeper: AsyncGenerator[None, None]


async def _keep(client: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Holds a session open. A loop that ends closes its suspended generators, and so this closes the session."""
    try:
        yield
    finally:
        await client.close()


async def _close(session: _Session) -> None:
    await session.keeper.aclose()


def _discard(session: _Session) -> None:
    """Mark the session of a closed loop as closed. Nothing can be awaited there, and aiohttp awaits nothing then."""
    with suppress(StopIteration):
        session.client.close().send(None)


def _new_client(headers: Mapping[str, str], limits: Timeouts, connections: int) -> aiohttp.ClientSession:
    import aiohttp

    async def headers_sent(
        session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        call = getattr(context, "trace_request_ctx", None)
        if isinstance(call, _Call):
            call.sent(asyncio.get_running_loop().time())

    traces = []
    if limits.first_byte is not None:  # tracing costs each request a little, so only who needs it pays
        traces = [aiohttp.TraceConfig()]
        traces[0].on_request_headers_sent.append(headers_sent)
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect),
        trace_configs=traces,
    )


# ---- settings ------------------------------------------------------------------------------------------------


def _checked_address(base_url: str, settings: ProviderSettings) -> SplitResult:
    """The parts of `base_url`. Its text is not repeated in an error, because it may hold a password."""
    where = f"provider {settings.name!r}: base_url"
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{where} is not an address ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{where} is not an address like https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{where} holds a user name or password: give a key by the environment instead")
    if parts.scheme == "http" and not settings.allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"{where} is http:// to {host}, so the key and the prompts would travel unencrypted: "
            f"use https://, or set `allow_http: true` if that network is your own"
        )
    return parts._replace(fragment="")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_headers(headers: Mapping[str, str], settings: ProviderSettings) -> dict[str, str]:
    """All headers of a request, lower case; those in models.yml win. No error repeats a value."""
    merged = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",  # a compressed stream would arrive late, and a compressed body unbounded
        "content-type": "application/json",
        "user-agent": "agentflow",
    }
    for name, value in (*headers.items(), *settings.headers.items()):
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"provider {settings.name!r}: the header {name!r} holds a character that HTTP cannot carry "
                f"(a line break or a letter beyond ASCII?); if it carries the key, look at how the key was stored"
            )
        merged[name.lower()] = value
    return merged


def _checked_connections(settings: ProviderSettings) -> int:
    value = settings.options.get("max_connections", _MAX_CONNECTIONS)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"provider {settings.name!r}: max_connections is a number of at least 1, not {value!r}"
        )
    return value
