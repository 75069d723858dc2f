"""What Anthropic's Messages API answers, read: a whole message, or the events of one.

    {"content": [block, …], "usage": …}                      ──read_answer──▶  Response
    message_start, content_block_*, message_delta, …         ──Reading.read──▶  StreamChunk, StreamChunk, …

Both ways give the same answer. Usage in a stream is cumulative and may be restated: the last value of each count wins.
What a message says beside what is modelled (why it was refused, its container, what hosted tools cost) is in the
answer's opaque data under "answer", which never goes back to the API: it takes no such fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from agentflow.errors import ModelError
from agentflow.llm.content import Json, Raw, Reasoning, Text, ToolCall, content_of
from agentflow.llm.messages import Response, StreamChunk, ToolCallDelta, Usage
from agentflow.llm.providers.anthropic.blocks import API, part_of, said
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import EXCERPT, Source, no_answer, too_deep, wire_error
from agentflow.llm.providers.history import ANSWER
from agentflow.llm.providers.lenient import count, mapping, mappings, text
from agentflow.llm.streaming.join import laid_over
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["MessageReading", "read_answer"]

_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "paused",  # sent back as it is, the turn goes on
    "compaction": "paused",
    "refusal": "content_filter",
}
_MODELLED: Final = ("type", "role", "id", "model", "content", "stop_reason", "usage")
_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "service_tier",
)

_OBJECT: Final[msgspec.json.Decoder[Mapping[str, Json]]] = msgspec.json.Decoder(Mapping[str, Json])


# ---- a whole message -----------------------------------------------------------------------------------------


def read_answer(body: bytes, source: Source) -> Response:
    """A whole answer with status 200. Raises ProtocolError where it is none, or what an error in it says."""
    try:
        return _response(decoded(_OBJECT, body, source), body, source)
    except RecursionError:
        raise too_deep(body, source) from None


def _response(message: Mapping[str, Json], body: bytes, source: Source) -> Response:
    if message.get("type") == "error" or message.get("error") is not None:
        raise _error(message, source)
    blocks = message.get("content")
    if not isinstance(blocks, list):
        raise no_answer("it has no list of content blocks", body, source)
    usage, raw = mapping(message.get("usage")), text(message.get("stop_reason")) or None
    return Response(
        content_of([part for block in blocks if isinstance(block, Mapping) and (part := part_of(block)) is not None]),
        text(message.get("model")) or source.model,
        source.provider,
        usage=_usage(usage),
        finish_reason=_finish(raw),
        raw_finish_reason=raw,
        request_id=source.request_id,
        opaque=_opaque(message, usage),
        id=text(message.get("id")) or None,
        service_tier=text(usage.get("service_tier")) or None,
    )


def _error(wire: Mapping[str, Json], source: Source) -> ModelError:
    """The error that an answer holds; its own request id stands in where the headers had none."""
    if source.request_id is None and (request_id := text(wire.get("request_id"))):
        source = replace(source, request_id=source.quote(request_id, EXCERPT))
    return wire_error(wire.get("error") or wire, source)


def _finish(raw: str | None) -> str | None:
    """Our word for the provider's, which stays as it is where we have none."""
    return None if raw is None else _FINISH.get(raw, raw)


def _usage(wire: Mapping[str, Json]) -> Usage | None:
    """What the whole answer took. What the API spent on summing up a long conversation it bills, but does not count."""
    if "input_tokens" not in wire and "output_tokens" not in wire:
        return None
    beside = [each for each in mappings(wire.get("iterations")) if each.get("type") == "compaction"]
    return sum([_spent(each) for each in beside], _spent(wire))


def _spent(wire: Mapping[str, Json]) -> Usage:
    """The counts made inclusive: this API counts what was read from a cache, or written to one, beside the input."""
    by_time = mapping(wire.get("cache_creation"))
    an_hour = count(by_time.get("ephemeral_1h_input_tokens"))
    five_minutes = count(by_time.get("ephemeral_5m_input_tokens"))
    written = count(wire.get("cache_creation_input_tokens")) or five_minutes + an_hour
    cached = count(wire.get("cache_read_input_tokens"))
    return Usage(
        input_tokens=count(wire.get("input_tokens")) + cached + written,
        output_tokens=count(wire.get("output_tokens")),
        cached_tokens=cached,
        reasoning_tokens=count(mapping(wire.get("output_tokens_details")).get("thinking_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(an_hour, written),
    )


def _opaque(message: Mapping[str, Json], usage: Mapping[str, Json]) -> Mapping[str, Json]:
    kept = said(message, *_MODELLED)
    if uncounted := said(usage, *_COUNTS):
        kept["usage"] = uncounted
    return {API: {ANSWER: kept}} if kept else {}


# ---- a stream ------------------------------------------------------------------------------------------------


class _Event(msgspec.Struct):
    """What most events hold; `message_delta`, which comes once, is read again for the rest."""

    type: str | None = None
    index: int | None = None
    delta: dict[str, Json] | None = None
    content_block: dict[str, Json] | None = None
    message: object = None  # an object, or the words of an error
    error: object = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_NOTHING: Final[tuple[StreamChunk, ...]] = ()
_IMPLIED: Final = {"text_delta": "text", "citations_delta": "text", "thinking_delta": "thinking"}


class _Open:
    """A block that is still coming: as it began, the pieces of its input, and what waits for its first word. Of a call
    that is `began` once a piece of its input came; else what it had at the start is the whole of it.

    `slot` counts the blocks, since some servers give every block the same index.
    """

    __slots__ = ("began", "block", "input", "slot", "waiting")

    def __init__(self, slot: int, block: Mapping[str, Json]) -> None:
        self.slot = slot
        self.block = dict(block)
        self.input: list[str] = []
        self.began = False
        self.waiting: Mapping[str, Json] = {}


class MessageReading:
    """One stream of events. Unknown events and deltas pass, and so does what comes without the event that opens it."""

    __slots__ = ("_message", "_open", "_slots", "_source", "_usage", "done", "finished")

    def __init__(self, source: Source) -> None:
        self.finished = False
        self.done = False
        self._source = source
        self._open: dict[int, _Open] = {}
        self._slots = 0
        self._message: dict[str, Json] = {}
        self._usage: dict[str, Json] = {}

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        if event.data == "[DONE]":  # not of this API, but of servers that also speak OpenAI's
            return self._stop()
        try:
            return [*self._read(decoded(_EVENT, event.data, self._source), event)]
        except RecursionError:
            raise too_deep(event.data, self._source) from None

    def end(self) -> Iterable[StreamChunk]:
        """What is left where the stream broke off between the finish reason and the end mark."""
        return self._stop()

    def _read(self, wire: _Event, event: ServerSentEvent) -> Iterable[StreamChunk]:
        if wire.error:
            raise _error(decoded(_OBJECT, event.data, self._source), self._source)
        index = wire.index or 0
        match wire.type or event.event:
            case "content_block_delta":
                return self._delta(index, wire.delta or {})
            case "content_block_start":
                return self._start(index, wire.content_block or {})
            case "content_block_stop":
                return self._close(index)
            case "message_start":
                return self._begin(mapping(wire.message))
            case "message_delta":
                return self._ending(decoded(_OBJECT, event.data, self._source))
            case "message_stop":
                return self._stop()
            case "error":
                raise _error(decoded(_OBJECT, event.data, self._source), self._source)
            case _:
                return _NOTHING

    # ---- the message -----------------------------------------------------------------------------------------

    def _begin(self, message: Mapping[str, Json]) -> Iterable[StreamChunk]:
        self._message.update(said(message))
        self._usage.update(said(mapping(message.get("usage"))))
        chunk = StreamChunk(
            usage=_usage(self._usage),
            model=text(message.get("model")) or None,
            request_id=self._source.request_id,
            id=text(message.get("id")) or None,
            service_tier=text(self._usage.get("service_tier")) or None,
        )
        return (chunk,)

    def _ending(self, wire: Mapping[str, Json]) -> Iterable[StreamChunk]:
        self._message.update(said(wire, "type", "delta", "usage"))
        self._message.update(said(mapping(wire.get("delta"))))
        self._usage.update(said(mapping(wire.get("usage"))))
        raw = text(mapping(wire.get("delta")).get("stop_reason")) or None
        if raw is not None:
            self.finished = True
            yield from self._close_all()
        yield StreamChunk(
            finish_reason=_finish(raw),
            raw_finish_reason=raw,
            usage=_usage(self._usage),
            request_id=self._source.request_id,
            service_tier=text(self._usage.get("service_tier")) or None,
        )

    def _stop(self) -> Iterable[StreamChunk]:
        self.done = True
        chunks = list(self._close_all())
        if opaque := _opaque(self._message, self._usage):
            chunks.append(StreamChunk(opaque=opaque))
        return chunks

    # ---- its blocks ------------------------------------------------------------------------------------------

    def _start(self, index: int, block: Mapping[str, Json]) -> Iterable[StreamChunk]:
        again = self._open.get(index)
        if again is not None and block.get("id") and block["id"] == again.block.get("id"):
            return  # the same event twice, which is one call
        yield from self._close(index)
        opened, part = self._opened(index, block), part_of(block)
        if isinstance(part, Reasoning):
            yield StreamChunk(reasoning=part.text, slot=opened.slot, opaque=part.opaque)
        elif isinstance(part, ToolCall):
            yield _piece(ToolCallDelta(opened.slot, part.id, part.name, opaque=part.opaque))
        elif isinstance(part, Text):
            opened.waiting = part.opaque
            yield from self._words(opened, part.text)
        elif block.get("type") == "fallback":  # from here on another model speaks
            yield StreamChunk(model=text(mapping(block.get("to")).get("model")) or None)

    def _opened(self, index: int, block: Mapping[str, Json]) -> _Open:
        opened = self._open[index] = _Open(self._slots, block)
        self._slots += 1
        return opened

    def _delta(self, index: int, delta: Mapping[str, Json]) -> Iterable[StreamChunk]:
        kind = delta.get("type")
        opened = self._open.get(index)
        if opened is None:
            opened = self._opened(index, {"type": _IMPLIED.get(text(kind))})
        match kind:
            case "text_delta":
                return self._words(opened, text(delta.get("text")))
            case "thinking_delta":
                return (StreamChunk(reasoning=text(delta.get("thinking")), slot=opened.slot),)
            case "input_json_delta":
                return self._input(opened, text(delta.get("partial_json")))
            case "signature_delta":
                return (StreamChunk(slot=opened.slot, opaque={API: said(delta, "type")}),)
            case "citations_delta":
                return self._cite(opened, delta.get("citation"))
            case _:
                opened.block.update(said(delta, "type"))
                return _NOTHING

    def _words(self, opened: _Open, words: str) -> Iterable[StreamChunk]:
        """Text, and with its first word what waited for it: a chunk of opaque data alone would open a thought."""
        if not words:
            return _NOTHING
        waiting, opened.waiting, opened.began = opened.waiting, {}, True
        return (StreamChunk(words, slot=opened.slot, opaque=waiting),)

    def _cite(self, opened: _Open, citation: Json) -> Iterable[StreamChunk]:
        cited: Mapping[str, Json] = {API: {"citations": [citation]}}
        if opened.began:
            return (StreamChunk(slot=opened.slot, opaque=cited),)
        opened.waiting = laid_over(opened.waiting, cited)
        return _NOTHING

    def _input(self, opened: _Open, piece: str) -> Iterable[StreamChunk]:
        if not piece:
            return _NOTHING
        if opened.block.get("type") != "tool_use":
            opened.input.append(piece)
            return _NOTHING
        opened.began = True
        return (_piece(ToolCallDelta(opened.slot, arguments=piece)),)

    def _close(self, index: int) -> Iterable[StreamChunk]:
        opened = self._open.pop(index, None)
        return _NOTHING if opened is None else _last(opened)

    def _close_all(self) -> Iterator[StreamChunk]:
        for index in tuple(self._open):
            yield from self._close(index)


def _assembled(opened: _Open) -> Mapping[str, Json]:
    """A block with the input that came in pieces; where that is no JSON object, the block stays as it began."""
    call = ToolCall.parse("", "", "".join(opened.input))
    return {**opened.block, "input": call.arguments} if opened.input and not call.invalid else opened.block


def _last(opened: _Open) -> tuple[StreamChunk, ...]:
    """What is known of a block only once it is whole."""
    kind = opened.block.get("type")
    if kind == "tool_use":
        given = part_of(opened.block)
        if opened.began or not isinstance(given, ToolCall):
            return ()
        return (_piece(ToolCallDelta(opened.slot, arguments=given.raw)),)
    if kind == "text":
        return (StreamChunk(slot=opened.slot, part=Text("", opaque=opened.waiting)),) if opened.waiting else ()
    if isinstance(kind, str) and kind not in ("thinking", "redacted_thinking"):
        return (StreamChunk(slot=opened.slot, part=Raw(API, _assembled(opened))),)
    return ()


def _piece(delta: ToolCallDelta) -> StreamChunk:
    return StreamChunk(tool_calls=(delta,))
