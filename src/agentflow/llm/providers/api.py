"""What all providers that speak HTTP have in common: one carries requests to any `Api`, which is pure.

    Request ──Api.write──▶ Wire(path, body) ──Transport──▶ bytes ──Api.read──▶ Response
                                                       └──▶ events ──Api.reading──▶ StreamChunk, StreamChunk, …

An adapter is an `Api`: how a request is written, how an answer is read, how a stream is read. It does no I/O, knows no
key, and asks nothing of the clock. `HTTPProvider` does the rest once: keys, streams that are cut or are none, errors in
answers with status 200, and telling a whole answer from a part.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from agentflow.core.robustness.attempt import idempotency_key
from agentflow.core.robustness.retry_after import server_limits
from agentflow.core.threads import call_in_thread
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelConnectionError,
    ModelError,
    ProtocolError,
    StreamInterruptedError,
)
from agentflow.llm.content import Json, plain
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.llm.providers.base import ProviderSettings, Secret, SecretHeaders, TokenSource
from agentflow.llm.providers.failures import EXCERPT, Source, no_answer, read_error, without_key
from agentflow.llm.providers.http import AiohttpTransport, Answer, ByteStream, Transport
from agentflow.llm.streaming.join import chunks_of
from agentflow.llm.streaming.sse import ServerSentEvent, SSEParser

__all__ = ["Api", "Auth", "HTTPProvider", "Reading", "Wire", "decoded", "merged"]

T = TypeVar("T")
_Headers: TypeAlias = Mapping[str, str] | None

_LONGEST_PARTIAL: Final = 4 * 1024 * 1024  # characters of a stream that its error may quote
_LONGEST_EVENT: Final = 64 * 1024 * 1024  # bytes, as a whole body may have: a picture comes in one event
_BOM: Final = b"\xef\xbb\xbf"
_LONE_SURROGATE: Final = re.compile(
    r"(?<!\\)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-goog-request-id")


class Wire(Struct, frozen=True):
    """A request as an API gets it: the path below the base address, the JSON body, and headers of this call alone."""

    path: str
    body: Mapping[str, Json]
    headers: Mapping[str, str] = {}


class Reading(Protocol):
    """One stream as it is read. `finished` once the reason why the answer ended is known, so that what follows may be
    lost; `done` once the API's end mark has come."""

    finished: bool
    done: bool

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        """The chunks that an event holds, most often one. Raises ModelError: ProtocolError, or what an error says."""
        ...

    def end(self) -> Iterable[StreamChunk]:
        """What is known once the stream is over and `finished`: most often nothing more."""
        ...


class Api(Protocol):
    """One wire format, as pure functions. `name` is the key of its opaque data."""

    name: str

    def write(self, request: Request, *, stream: bool) -> Wire:
        """Raises BadRequestError for what the API cannot say."""
        ...

    def read(self, body: bytes, source: Source) -> Response:
        """A whole answer with status 200. Raises ProtocolError where it is none, or what an error in it says."""
        ...

    def reading(self, source: Source) -> Reading: ...


class Auth(Struct, frozen=True):
    """How an API takes its key: the header's name, and what stands before the key in it."""

    header: str = "authorization"
    prefix: str = "Bearer "

    def headers(self, settings: ProviderSettings) -> SecretHeaders:
        """The header with the key of the settings; none where there is no key."""
        return SecretHeaders() if settings.api_key is None else self.carry(settings.api_key, settings)

    def carry(self, key: Secret, settings: ProviderSettings) -> SecretHeaders:
        if settings.auth_header is not None:
            return SecretHeaders({settings.auth_header.lower(): key.reveal()})
        return SecretHeaders({self.header: self.prefix + key.reveal()})


_BEARER: Final = Auth()


class HTTPProvider:
    """A provider that speaks `api` over HTTP. Subclasses add what else a provider of theirs can do.

    A key is sent where there is one; local servers need none. `settings.token` is asked before each call and wins over
    the key. Raises ConfigurationError where the settings cannot work, and a ModelError where a call fails. An answer
    that ends without an end mark raises StreamInterruptedError; once the finish reason is there, a broken line costs
    only what would have followed.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        api: Api,
        *,
        base_url: str,
        auth: Auth = _BEARER,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.api = api
        self._name = settings.name
        self._settings = settings
        self._key = settings.api_key
        self._total = settings.timeouts.total
        fixed = SecretHeaders({**auth.headers(settings), **(headers or {})})
        self._transport: Transport = transport or AiohttpTransport(settings, base_url=base_url, headers=fixed)

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, request: Request) -> Response:
        wire = self.api.write(request, stream=False)
        answer, source = await self._post(wire, request.model, request.timeout)
        return self.api.read(answer.body, source)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        wire = self.api.write(request, stream=True)
        body = self._encode(wire, request.model)
        key, headers = await self._credentials(wire)
        answer = await self._transport.stream(
            wire.path, body, model=request.model, total=self._limit(request.timeout), headers=headers
        )
        try:
            source = self._source(request.model, answer, key)
            reader = _StreamReader(self.api.reading(source), source)
            if not _is_event_stream(answer):
                for chunk in self._unstreamed(await _whole(answer), source, reader):
                    yield chunk
                return
            while not reader.done:
                try:
                    data = await answer.read()
                except ModelConnectionError as error:
                    for chunk in reader.broken(error):
                        yield chunk
                    return
                for chunk in reader.feed(data) if data else reader.end():
                    yield chunk
            await answer.finish()
        finally:
            answer.close()

    async def aclose(self) -> None:
        await self._transport.aclose()

    # ---- for what else a provider can do ---------------------------------------------------------------------

    async def post_bytes(
        self,
        path: str,
        body: bytes,
        *,
        model: str,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> tuple[Answer, Source]:
        """A body that is written already, such as a file; `headers` say what it is, where it is not JSON. `transport`
        is where to, if not where all else goes."""
        key, own = await self._credentials(Wire(path, {}, headers or {}))
        carrier = transport or self._transport
        answer = await carrier.post(path, body, model=model, total=self._total, headers=own)
        return self._good(answer, model, key)

    async def get_bytes(self, path: str) -> tuple[Answer, Source]:
        """What stands at a path: a state, a list, a whole file."""
        return await self._get(path)

    def written(self, request: Request) -> tuple[str, bytes]:
        """The path and the body of a direct call that is not streamed."""
        wire = self.api.write(request, stream=False)
        return wire.path, self._encode(wire, request.model)

    def understood(self, body: bytes, request: Request, request_id: str | None = None) -> Response:
        """The answer that a body holds, whichever way it came."""
        return self.api.read(body, self.source(request.model, request_id))

    def source(self, model: str, request_id: str | None = None) -> Source:
        """What is known of something that came in no answer of its own."""
        return Source(self._name, model, request_id, self._key)

    async def _post(self, wire: Wire, model: str, timeout: float | None) -> tuple[Answer, Source]:
        """A whole answer with status 200, and where it comes from; else the error that it stands for."""
        body = self._encode(wire, model)
        key, headers = await self._credentials(wire)
        answer = await self._transport.post(wire.path, body, model=model, total=self._limit(timeout), headers=headers)
        return self._good(answer, model, key)

    async def _get(self, path: str) -> tuple[Answer, Source]:
        """As `_post`, for what is only read, such as a list of models."""
        key, headers = self._key, None
        if self._settings.token is not None:
            key, headers = await self._fresh(self._settings.token, {})
        answer = await self._transport.get(path, model="", total=self._total, headers=headers)
        return self._good(answer, "", key)

    def _good(self, answer: Answer, model: str, key: Secret | None) -> tuple[Answer, Source]:
        source = self._source(model, answer, key)
        if answer.status != 200:
            raise read_error(answer, source)
        return answer, source

    def _limit(self, timeout: float | None) -> float | None:
        return self._total if timeout is None else timeout

    async def _credentials(self, wire: Wire) -> tuple[Secret | None, _Headers]:
        """The key of this call, and the headers that are its own."""
        headers = wire.headers
        name = self._settings.idempotency_header
        if name is not None and (shared := idempotency_key()) is not None:
            headers = {**headers, name.lower(): shared}
        if self._settings.token is not None:
            return await self._fresh(self._settings.token, headers)
        return self._key, headers or None

    async def _fresh(self, token: TokenSource, headers: Mapping[str, str]) -> tuple[Secret | None, _Headers]:
        """A token made for this call, and the headers that carry it."""
        key = Secret(await self._token(token))
        return key, SecretHeaders({**headers, **_BEARER.carry(key, self._settings)})

    async def _token(self, source: TokenSource) -> str:
        """What the callable gives; a plain one is asked in a thread, for it may ask a server."""
        try:
            made = source() if inspect.iscoroutinefunction(source) else await call_in_thread(source)
            token = await made if inspect.isawaitable(made) else made
        except Exception as error:  # noqa: BLE001 - it is raised below as ours, but not with it: its text may be secret
            reason = f"it raised {type(error).__name__}"
        else:
            if isinstance(token, str) and token:
                return token
            reason = f"it gave a {type(token).__name__}, not a text"
        raise AuthenticationError(f"the provider's token callable failed: {reason}", provider=self._name)

    def _encode(self, wire: Wire, model: str) -> bytes:
        try:
            return _ENCODER.encode(wire.body)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadRequestError(
                f"the request cannot be written as JSON: {error}", provider=self._name, model=model
            ) from error

    def _source(self, model: str, answer: Answer | ByteStream, key: Secret | None) -> Source:
        found = None
        for name in _REQUEST_IDS:
            found = answer.headers.get(name)
            if found:
                found = without_key(found, key)
                break
        observe = self._settings.observe
        if observe is not None:
            limits = server_limits(answer.headers, now=time.time())
            if limits is not None:
                observe(model, limits)
        return Source(self._name, model, found or None, key)

    def _unstreamed(self, answer: Answer, source: Source, reader: _StreamReader) -> Iterator[StreamChunk]:
        """A whole answer in chunks: some servers do not stream, whatever they are asked, and some stream under the name
        of JSON."""
        if answer.status != 200:
            raise read_error(answer, source)
        if answer.body.lstrip().startswith((b"data:", b"event:", b":")):
            return reader.all(answer.body)
        return chunks_of(self.api.read(answer.body, source))


# ---- stream --------------------------------------------------------------------------------------------------


class _StreamReader:
    """The bytes of one streamed answer in, its chunks out; knows whether the answer is whole.

    What comes before the first word, call or end is held back: until then nothing was delivered, and whoever asked may
    ask again.
    """

    __slots__ = ("_head", "_held", "_parser", "_partial", "_partial_size", "_reading", "_source", "_started")

    def __init__(self, reading: Reading, source: Source) -> None:
        self._reading = reading
        self._source = source
        self._parser = SSEParser(max_line=_LONGEST_EVENT, max_event=_LONGEST_EVENT)
        self._head = b""  # the first bytes, until an event shows that this is a stream
        self._held: list[StreamChunk] = []
        self._started = False
        self._partial: list[str] = []
        self._partial_size = 0

    @property
    def done(self) -> bool:
        """Nothing more is wanted from the server."""
        return self._reading.done

    def all(self, body: bytes) -> Iterator[StreamChunk]:
        """A whole stream at once."""
        yield from self.feed(body)
        if not self.done:
            yield from self.end()

    def feed(self, data: bytes) -> Iterator[StreamChunk]:
        if not self._started and len(self._head) < EXCERPT:
            self._head += data[:EXCERPT]
        for event in self._parser.feed(data):
            yield from self._read(event)
            if self._reading.done:
                return

    def end(self) -> Iterator[StreamChunk]:
        """The body is over. Raises where the answer is not."""
        for event in self._parser.close():
            try:
                yield from self._read(event)
            except ProtocolError as error:  # the last line was cut
                if not self._reading.finished:
                    raise self._interrupted() from error
        yield from self._last()
        self._reading.done = True

    def broken(self, error: ModelConnectionError) -> Iterator[StreamChunk]:
        """The connection broke. Before the first word the same request may be sent again, so that error stands."""
        if not self._started:
            raise error
        yield from self._last(error)

    def _last(self, cause: Exception | None = None) -> Iterator[StreamChunk]:
        if not self._reading.finished:
            raise self._interrupted() from cause
        for chunk in self._reading.end():
            yield from self._hand_on(chunk)
        yield from self._held
        self._held = []

    def _read(self, event: ServerSentEvent) -> Iterator[StreamChunk]:
        if not event.data or event.data.isspace():  # a sign of life, and no more
            return
        try:
            for chunk in self._reading.read(event):
                if self._started:
                    yield self._note(chunk)
                else:
                    yield from self._hand_on(chunk)
        except ModelError as error:
            error.partial = "".join(self._partial)
            raise

    def _hand_on(self, chunk: StreamChunk) -> Iterator[StreamChunk]:
        """The chunk, unless it only opens what may follow."""
        if not (self._started or _says_something(chunk)):
            self._held.append(chunk)
            return
        self._started = True
        yield from self._held
        self._held = []
        yield self._note(chunk)

    def _note(self, chunk: StreamChunk) -> StreamChunk:
        if chunk.content and self._partial_size < _LONGEST_PARTIAL:
            self._partial.append(chunk.content)
            self._partial_size += len(chunk.content)
        return chunk

    def _interrupted(self) -> ModelError:
        source = self._source
        if not self._started and not self._held:
            return no_answer("it is no event stream of this API", self._head, source)
        if not self._started:
            return ModelConnectionError(
                "the stream ended before the answer began; try again",
                provider=source.provider,
                model=source.model,
                request_id=source.request_id,
            )
        return StreamInterruptedError(
            "the stream ended before the answer did; ask again, or use what is in `partial`",
            partial="".join(self._partial),
            provider=source.provider,
            model=source.model,
            request_id=source.request_id,
        )


def _says_something(chunk: StreamChunk) -> bool:
    return bool(chunk.content or chunk.reasoning or chunk.tool_calls or chunk.finish_reason or chunk.part is not None)


def _is_event_stream(answer: ByteStream) -> bool:
    """Whether the body is to be read as events: some servers leave the type out, or write text/plain."""
    kind = answer.headers.get("content-type", "")
    return answer.status == 200 and ("event-stream" in kind or not ("json" in kind or "html" in kind))


async def _whole(answer: ByteStream) -> Answer:
    """The body of an answer that is no stream; the transport bounds it."""
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return Answer(answer.status, answer.headers, b"".join(pieces))


# ---- JSON, for the adapters ----------------------------------------------------------------------------------

_ENCODER: Final = msgspec.json.Encoder(enc_hook=plain)


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | str, source: Source) -> T:
    """What a body says, by the decoder of its shape. Raises ProtocolError.

    A byte order mark is passed over, as in a stream. Half a surrogate pair, which gateways leave that cut texts by
    UTF-16, is read as U+FFFD.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # no UTF-8, a number of 5,000 digits, too deep
        reason = str(error)
    if isinstance(body, bytes) and body.startswith(_BOM):
        return decoded(decoder, body.removeprefix(_BOM), source)
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    whole = _LONE_SURROGATE.sub(r"\\ufffd", text)
    if whole != text:
        return decoded(decoder, whole, source)
    raise no_answer(reason, text.encode("utf-8", "replace"), source)


def merged(body: dict[str, Json], params: Mapping[str, Json]) -> dict[str, Json]:
    """`body` with `params` on top, mapping by mapping: the caller's own words for the wire win."""
    for name, value in params.items():
        below = body.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            body[name] = merged(dict(below), value)
        else:
            body[name] = value
    return body
