"""One provider's connections, on aiohttp, which is loaded when the first request is made.

    AiohttpTransport ─▶ a session for each event loop ─▶ Call (its time limits) ─▶ BodyStream

All that it reads is bounded: a line, a header, a body, a stream, and what any of them decompresses to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import quote, urlencode

from agentflow.core.robustness.attempt import current_attempt
from agentflow.llm.providers.base import ProviderSettings, SecretHeaders, Timeouts
from agentflow.llm.providers.http.address import (
    checked_address,
    checked_connections,
    checked_headers,
    joined,
    own_headers,
)
from agentflow.llm.providers.http.body import BodyStream
from agentflow.llm.providers.http.call import MAX_LINE, Call, network_errors
from agentflow.llm.providers.http.certificates import tls_context
from agentflow.llm.providers.http.proxies import chosen_proxy
from agentflow.llm.providers.http.transport import Answer

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import yarl

__all__ = ["AiohttpTransport"]

_MIB = 1024 * 1024
_MAX_TARGETS = 256  # how many addresses are remembered: some hold a model's name, some an id that never comes again


class AiohttpTransport:
    """One provider's connections: a session for each event loop that uses it, so that several may do so at once.

        transport = AiohttpTransport(settings, base_url="https://api.openai.com/v1", headers={"authorization": …})
        answer = await transport.post("/chat/completions", body, model="gpt-4o", total=60.0)

    Sessions close with `aclose()`, when the transport is forgotten, or when their loop ends (under `asyncio.run` and
    everything else that calls `loop.shutdown_asyncgens()`). Redirects are not followed. A whole body may have
    `max_body` bytes, a stream `max_stream`. We ask for nothing compressed; gzip and deflate that come all the same are
    undone piece by piece and count as what they decompress to. Header values may be secret: they appear in no error and
    no repr. `settings.headers` win over `headers`.

    Certificates are always verified. `settings.proxy` is used for every address; without it the proxy variables of
    `environ` (the process's own environment) are obeyed, NO_PROXY too, but never for loopback.

    Option: `max_connections` (1,000) for each event loop; further calls wait in the order they came, as long as their
    total limit allows. Raises ConfigurationError for a bad address, header, proxy, certificate file or option.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        base_url: str,
        headers: Mapping[str, str],
        max_body: int = 64 * _MIB,
        max_stream: int = 1024 * _MIB,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._base = checked_address(base_url, settings)
        self._proxy = chosen_proxy(settings, self._base, os.environ if environ is None else environ)
        self._tls = tls_context(settings)
        self._provider = settings.name
        self._limits = settings.timeouts
        self._headers = own_headers(headers, settings, self._proxy)
        self._query = urlencode(settings.query, quote_via=quote)
        self._connections = checked_connections(settings)
        self._max_body = max_body
        self._max_stream = max_stream
        self._targets: dict[str, _Target] = {}
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    def get(
        self, path: str, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Answer]:
        return self._whole("GET", path, None, model, total, headers)

    def post(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Answer]:
        return self._whole("POST", path, body, model, total, headers)

    async def stream(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> BodyStream:
        response, call, places = await self._send("POST", path, body, model, total, headers)
        return BodyStream(response, call, places, self._max_stream if is_stream(response) else self._max_body)

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

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        model: str,
        total: float | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[aiohttp.ClientResponse, Call, asyncio.Semaphore]:
        """The answer's head, what is known of the call, and where its place is to be given back."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.client.closed:
            session = await self._open(loop)
        target = self._targets.get(path) or self._target(path)
        options: _Options = {"headers": self._headers}
        attempt = current_attempt.get()
        scope = None if attempt is None else attempt.scope
        if scope is not None:
            scope.note(method=method, url=target.where, address=target.url.host, port=target.url.port)
            carried = scope.channel.headers(scope.span)
            if carried:  # what was asked for wins over what only watches
                options["headers"] = SecretHeaders({**carried, **self._headers})
        if headers:
            own = checked_headers(headers, self._provider)
            options["headers"] = SecretHeaders({**options["headers"], **own})
        if self._proxy is not None:
            options["proxy"], options["proxy_headers"] = self._proxy.url, self._proxy.headers
        call = Call(self._provider, model, target.where, self._proxy, self._limits, total, loop.time())
        places = session.places
        response, placed = None, False
        try:
            await (call.wait_for_place(places) if places.locked() else places.acquire())
            placed = True
            with call.bounds:
                response = await session.client.request(
                    method, target.url, data=body, allow_redirects=False, trace_request_ctx=call, **options
                )
            if scope is not None:
                scope.note(status=response.status)
            return response, call, places
        except asyncio.CancelledError as error:
            error.__traceback__ = None  # behind it stand frames that hold the headers, and so the key
            raise
        except network_errors() as error:
            failure = call.failure(error)
        finally:
            call.close()
            if placed and response is None:
                places.release()
        # Raised out here because aiohttp's exceptions show the request's headers, and so the key, in their repr.
        raise failure

    async def _whole(
        self,
        method: str,
        path: str,
        body: bytes | None,
        model: str,
        total: float | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        response, call, places = await self._send(method, path, body, model, total, headers)
        # A file that is fetched may be long, as the answers of a batch are.
        most = self._max_stream if method == "GET" and is_stream(response) else self._max_body
        answer = BodyStream(response, call, places, most)
        try:
            here = answer.here()  # most answers have come with their head
            if here is not None:
                return Answer(answer.status, answer.headers, here)
            pieces = []
            while piece := await answer.read():
                pieces.append(piece)
        finally:
            answer.close()
        return Answer(answer.status, answer.headers, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Session:
        for other in [other for other in self._sessions if other.is_closed()]:
            _discard(self._sessions.pop(other))
        client = _new_client(self._limits, self._tls)
        session = _Session(client, asyncio.Semaphore(self._connections), _keep(client))
        self._sessions[loop] = session
        await anext(session.keeper)  # never suspends, so two tasks cannot open two sessions
        return session

    def _target(self, path: str) -> _Target:
        """Where a path leads, remembered."""
        from yarl import URL

        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        base = self._base
        host = str(URL(f"{base.scheme}://{base.netloc}")).rstrip("/")  # a name beyond ASCII is encoded
        where = f"{base.scheme}://{base.netloc}{base.path.rstrip('/')}{path.partition('?')[0]}"
        target = _Target(URL(host + joined(base, path, self._query), encoded=True), where)
        self._targets[path] = target
        return target


@dataclass(frozen=True, slots=True)
class _Target:
    """An address, and how messages name it: without the query, which may hold a key."""

    url: yarl.URL
    where: str


class _Options(TypedDict, total=False):
    """What a request is told beside its address and its body."""

    headers: Mapping[str, str]
    proxy: str
    proxy_headers: Mapping[str, str]


def is_stream(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer comes in pieces that are read one by one; an error, or a whole document, is kept whole."""
    kind = response.headers.get("content-type", "").lower()
    return response.status < 300 and ("stream" in kind or "ndjson" in kind or "jsonl" in kind)


@dataclass(frozen=True, slots=True)
class _Session:
    """An aiohttp session, the places for its calls, and the generator that closes it.

    aiohttp could count connections as well, but loses a place when a call is cancelled in the moment it gets one: those
    behind it then wait for ever. A semaphore passes it on.
    """

    client: aiohttp.ClientSession
    places: asyncio.Semaphore
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


def _new_client(limits: Timeouts, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    import aiohttp

    from agentflow.llm.providers.http.connections import Connections

    async def headers_sent(
        session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        call = getattr(context, "trace_request_ctx", None)
        if isinstance(call, Call):
            call.sent(asyncio.get_running_loop().time())

    traces = []
    if limits.first_byte is not None:  # tracing costs each request a little, so only who needs it pays
        traces = [aiohttp.TraceConfig()]
        traces[0].on_request_headers_sent.append(headers_sent)
    return aiohttp.ClientSession(
        # No headers here: aiohttp would send them to a proxy, too, and the key as the password for it.
        connector=Connections(tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect),
        trace_configs=traces,
    )
