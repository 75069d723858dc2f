"""OpenAI's Chat Completions, and every server that speaks it: pure functions each way, and who calls them.

    Request ──to_wire──▶ JSON ──POST /chat/completions──▶ JSON ──read_response──▶ Response
                                                     └──▶ events ──read_chunk──▶ StreamChunk, StreamChunk, …

Written from OpenAI's API reference and from recorded traffic of it and of compatible servers, which differ: they leave
fields out, add their own, and put usage in three places. So unknown fields are ignored, enumerations are open, and a
field counts only when it is there. What an error means is decided in `failures`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast
from urllib.parse import urlsplit

import msgspec

from agentflow.errors import (
    BadRequestError,
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ProtocolError,
    StreamInterruptedError,
)
from agentflow.llm.messages import Json, Message, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.failures import EXCERPT, Source, no_answer, read_error, wire_error, without_key
from agentflow.llm.providers.http import AiohttpTransport, Answer, ByteStream, Transport
from agentflow.llm.streaming.sse import SSEParser

__all__ = ["OpenAIProvider", "read_chunk", "read_response", "to_wire"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_PATH = "/chat/completions"


class OpenAIProvider:
    """A provider for OpenAI and any compatible server: `base_url` in models.yml makes the difference.

        provider = OpenAIProvider(ProviderSettings(name="lab", kind="openai", base_url="http://127.0.0.1:8000/v1"))
        response = await provider.execute(Request("llama-3", (Message("user", "Hello"),)))

    A key is sent where there is one; local servers need none. Options of the provider in models.yml:

    - `max_tokens_field`: the wire's name for `max_tokens`. OpenAI's and Azure's newer models refuse the old name, many
      compatible servers know no other, so the default is `max_completion_tokens` at `api.openai.com` and
      `*.openai.azure.com`, and `max_tokens` elsewhere.
    - `organization`, `project`: sent as the headers OpenAI has for them.
    - those of the transport, see `AiohttpTransport`.

    Raises ConfigurationError where the settings cannot work, and a ModelError where a call fails. An answer that ends
    without an end mark raises StreamInterruptedError; once the finish reason is there, a broken line costs only usage.
    """

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        base_url = settings.base_url or DEFAULT_BASE_URL
        self._name = settings.name
        self._key = settings.api_key
        self._total = settings.timeouts.total
        self._max_tokens_field = _max_tokens_field(settings, base_url)
        self._transport: Transport = transport or AiohttpTransport(
            settings, base_url=base_url, headers=_headers(settings)
        )

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, request: Request) -> Response:
        body = self._encode(request, stream=False)
        answer = await self._transport.post(_PATH, body, model=request.model, total=self._limit(request))
        source = self._source(request, answer)
        if answer.status != 200:
            raise read_error(answer, source)
        return read_response(answer.body, source)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        body = self._encode(request, stream=True)
        answer = await self._transport.stream(_PATH, body, model=request.model, total=self._limit(request))
        try:
            source = self._source(request, answer)
            if not _is_event_stream(answer):
                yield _unstreamed(await _whole(answer), source)
                return
            reader = _StreamReader(source)
            while not reader.done:
                try:
                    data = await answer.read()
                except ModelConnectionError as error:
                    reader.broken(error)
                    return
                for chunk in reader.feed(data) if data else reader.end():
                    yield chunk
            await answer.finish()
        finally:
            answer.close()

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _limit(self, request: Request) -> float | None:
        return self._total if request.timeout is None else request.timeout

    def _encode(self, request: Request, *, stream: bool) -> bytes:
        try:
            return _ENCODER.encode(to_wire(request, stream=stream, max_tokens_field=self._max_tokens_field))
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequestError(
                f"the request cannot be written as JSON: {error}", provider=self._name, model=request.model
            ) from error

    def _source(self, request: Request, answer: Answer | ByteStream) -> Source:
        headers = answer.headers
        request_id = without_key(headers.get("x-request-id") or headers.get("request-id") or "", self._key)
        return Source(self._name, request.model, request_id or None, self._key)


# ---- request -------------------------------------------------------------------------------------------------


def to_wire(request: Request, *, stream: bool, max_tokens_field: str = "max_tokens") -> dict[str, Json]:
    """The body of a request. `request.params` win over what is set by name, except `stream` and the wish for usage."""
    body: dict[str, Json] = {
        "model": request.model,
        "messages": [_message_to_wire(message) for message in request.messages],
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.max_tokens is not None:
        body[max_tokens_field] = request.max_tokens
    if request.stop:
        body["stop"] = request.stop
    if request.seed is not None:
        body["seed"] = request.seed
    body.update(request.params)
    return _streamed(body) if stream else _unstreamed_body(body)


def _streamed(body: dict[str, Json]) -> dict[str, Json]:
    """Ask for a stream with usage at its end, which servers send on request only."""
    options = body.get("stream_options")
    body["stream"] = True
    body["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
    return body


def _unstreamed_body(body: dict[str, Json]) -> dict[str, Json]:
    body.pop("stream", None)
    body.pop("stream_options", None)
    return body


def _message_to_wire(message: Message) -> dict[str, Json]:
    """One turn. `opaque` wins: it is what this API sent, down to a content that is no plain text."""
    wire: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.name is not None:
        wire["name"] = message.name
    wire.update(message.opaque)
    return wire


def _plain(value: object) -> Json:
    """What msgspec does not know by itself: read-only mappings and other sequences."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


# ---- response ------------------------------------------------------------------------------------------------


class _Details(msgspec.Struct):
    cached_tokens: float | None = None
    reasoning_tokens: float | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    cached_tokens: float | None = None  # Moonshot


class _Choice(msgspec.Struct):
    index: int | None = None
    message: dict[str, object] | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None  # Moonshot


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: object = None


class _Delta(msgspec.Struct):
    content: str | list[object] | None = None
    reasoning_content: object = None  # DeepSeek, Moonshot, vLLM, Z.ai
    reasoning: object = None  # OpenRouter, Groq
    refusal: object = None


class _ChunkChoice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None  # Moonshot


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: object = None
    message: object = None  # an error without an envelope


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_BODY = msgspec.json.Decoder(_Body)
_CHUNK = msgspec.json.Decoder(_Chunk)

_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "guardrail_intervened": "content_filter",
}


def read_response(body: bytes, source: Source) -> Response:
    """A whole answer with status 200. Raises ProtocolError where it is none, or what an error in it says."""
    try:
        wire = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise no_answer(str(error), body, source) from None
    if wire.error is not None:
        raise wire_error(wire.error, source)
    choice = wire.choices[0] if wire.choices else _Choice()
    if choice.message is None:
        raise no_answer("it has no choices[0].message", body, source)
    message = choice.message
    refusal = _text(message.get("refusal"))
    return Response(
        _content(message.get("content")) or refusal,
        wire.model or source.model,
        source.provider,
        usage=_usage(wire.usage or choice.usage),
        finish_reason="content_filter" if refusal else _finish(choice.finish_reason),
        raw_finish_reason=choice.finish_reason or None,
        request_id=source.request_id,
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        opaque=_opaque(message),
    )


def read_chunk(data: str, source: Source) -> StreamChunk | None:
    """One event of a stream; None where it says nothing. A refusal arrives as content with the reason content_filter.

    Raises ProtocolError where it is no JSON of this API, or what an error in it says.
    """
    try:
        wire = _CHUNK.decode(data)
    except msgspec.DecodeError as error:
        raise no_answer(str(error), data.encode(), source) from None
    if wire.error is not None:
        raise wire_error(wire.error, source)
    if not wire.choices:
        return _last_words(wire, data, source)
    choice = wire.choices[0] if not wire.choices[0].index else _Nothing
    delta = choice.delta or _NoDelta
    content, usage, finish = delta.content, wire.usage or choice.usage, choice.finish_reason
    reasoning = delta.reasoning_content or delta.reasoning
    refusal = _text(delta.refusal)
    if not (content or reasoning or refusal or finish or usage):
        return None
    return StreamChunk(
        content if type(content) is str else _content(content) or refusal,
        _text(reasoning),
        "content_filter" if refusal else _finish(finish),
        finish or None,
        _usage(usage),
        wire.model,
        source.request_id,
    )


_Nothing = _ChunkChoice()
_NoDelta = _Delta()


def _last_words(wire: _Chunk, data: str, source: Source) -> StreamChunk | None:
    """A chunk without choices: usage at the end, a note at the start, or an error without its envelope."""
    if wire.choices is None and wire.message is not None:
        raise wire_error(msgspec.json.decode(data), source)
    usage = _usage(wire.usage)
    return StreamChunk(usage=usage, model=wire.model, request_id=source.request_id) if usage else None


def _content(value: object) -> str:
    """Text, also where a server sends it in parts; what is no text stays in `opaque`."""
    if not isinstance(value, list):
        return _text(value)
    parts = [part for part in value if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
    return "".join([_text(part.get("text")) for part in parts])


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _finish(raw: str | None) -> str | None:
    """Our word for the provider's, which stays as it is where we have none."""
    return _FINISH.get(raw, raw) if raw else None


def _usage(wire: _Usage | None) -> Usage | None:
    if wire is None or (wire.prompt_tokens is None and wire.completion_tokens is None):
        return None
    prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
    cached = (prompt.cached_tokens if prompt else None) or wire.cached_tokens
    reasoning = completion.reasoning_tokens if completion else None
    return Usage(
        int(wire.prompt_tokens or 0),
        int(wire.completion_tokens or 0),
        int(cached or 0),
        int(reasoning or 0),
    )


def _opaque(message: Mapping[str, object]) -> Mapping[str, Json]:
    """What goes back unchanged with the next request: every field that says something and is not modelled."""
    kept = {name: value for name, value in message.items() if value and name not in ("role", "content")}
    if isinstance(message.get("content"), list):
        kept["content"] = message["content"]
    return cast("Mapping[str, Json]", kept)


# ---- stream --------------------------------------------------------------------------------------------------


class _StreamReader:
    """The bytes of one streamed answer in, its chunks out; knows whether the answer is whole."""

    __slots__ = ("_finished", "_head", "_parser", "_parts", "_refused", "_source", "done")

    def __init__(self, source: Source) -> None:
        self.done = False  # nothing more is wanted from the server
        self._source = source
        self._parser = SSEParser()
        self._parts: list[str] = []
        self._head = b""  # the first bytes, until an event shows that this is a stream
        self._finished = False
        self._refused = False

    def feed(self, data: bytes) -> Iterator[StreamChunk]:
        if not self._parts and len(self._head) < EXCERPT:
            self._head += data[:EXCERPT]
        for event in self._parser.feed(data):
            if event.data == "[DONE]":
                self.done = True
                return
            chunk = read_chunk(event.data, self._source)
            if chunk is not None:
                yield self._note(chunk)

    def end(self) -> Iterator[StreamChunk]:
        """The body is over. Raises where the answer is not."""
        self.done = True
        for event in self._parser.close():
            if event.data == "[DONE]":
                return
            try:
                chunk = read_chunk(event.data, self._source)
            except ProtocolError as error:  # the last line was cut
                raise self._interrupted() from error
            if chunk is not None:
                yield self._note(chunk)
        if not self._finished:
            raise self._interrupted()

    def broken(self, error: ModelConnectionError) -> None:
        """The connection broke. Before the first word the same request may be sent again, so that error stands."""
        if not self._parts:
            raise error
        if not self._finished:
            raise self._interrupted() from error

    def _note(self, chunk: StreamChunk) -> StreamChunk:
        self._parts.append(chunk.content)
        if chunk.finish_reason is None:
            return chunk
        self._finished = self._finished or chunk.raw_finish_reason is not None
        if self._refused and chunk.finish_reason == "stop":
            return replace(chunk, finish_reason="content_filter")
        self._refused = chunk.finish_reason == "content_filter"
        return chunk

    def _interrupted(self) -> ModelError:
        source = self._source
        if not self._parts:
            return no_answer("it is no event stream of this API", self._head, source)
        return StreamInterruptedError(
            "the stream ended before the answer did; ask again, or use what is in `partial`",
            partial="".join(self._parts),
            provider=source.provider,
            model=source.model,
            request_id=source.request_id,
        )


def _is_event_stream(answer: ByteStream) -> bool:
    """Whether the body is to be read as events: some servers leave the type out, or write text/plain."""
    kind = answer.headers.get("content-type", "")
    return answer.status == 200 and ("event-stream" in kind or not ("json" in kind or "html" in kind))


async def _whole(answer: ByteStream, limit: int = 16 * 1024 * 1024) -> Answer:
    """The body of an answer that is no stream, or as much of it as an error needs."""
    pieces, size = [], 0
    while size < limit and (piece := await answer.read()):
        pieces.append(piece)
        size += len(piece)
    return Answer(answer.status, answer.headers, b"".join(pieces))


def _unstreamed(answer: Answer, source: Source) -> StreamChunk:
    """A whole answer as a single chunk: some servers do not stream, whatever they are asked."""
    if answer.status != 200:
        raise read_error(answer, source)
    whole = read_response(answer.body, source)
    return StreamChunk(
        whole.text,
        whole.reasoning,
        whole.finish_reason,
        whole.raw_finish_reason,
        whole.usage,
        whole.model,
        whole.request_id,
    )


# ---- settings ------------------------------------------------------------------------------------------------


def _headers(settings: ProviderSettings) -> dict[str, str]:
    headers = {}
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key.reveal()}"
    for option, header in (("organization", "openai-organization"), ("project", "openai-project")):
        if option in settings.options:
            headers[header] = _string_option(settings, option)
    return headers


def _max_tokens_field(settings: ProviderSettings, base_url: str) -> str:
    if "max_tokens_field" in settings.options:
        return _string_option(settings, "max_tokens_field")
    host = urlsplit(base_url).hostname or ""
    modern = host == "api.openai.com" or host.endswith(".openai.azure.com")
    return "max_completion_tokens" if modern else "max_tokens"


def _string_option(settings: ProviderSettings, option: str) -> str:
    value = settings.options[option]
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"provider {settings.name!r}: {option} is a text, not {value!r}")
    return value
