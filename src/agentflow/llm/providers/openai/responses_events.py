"""The events in which OpenAI's Responses API streams an answer.

    response.created ─▶ output_item.added ─▶ output_text.delta, … ─▶ output_item.done ─▶ … ─▶ response.completed
                        (id, name of a call)  (words, arguments)      (opaque data)            (usage, finish reason)

A stream says everything three times: in deltas, in the item that is done, and in the whole answer at its end. What is
handed on is the first of it, and of the later ones what was not there yet: some servers leave deltas out, some items.
There are some sixty types of events; those without words of the answer pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from agentflow.llm.content import Json, Reasoning, Text, ToolCall
from agentflow.llm.messages import StreamChunk, ToolCallDelta
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source, too_deep, wire_error
from agentflow.llm.providers.lenient import mapping, text
from agentflow.llm.providers.openai.responses_items import Piece, entry_of, read_item
from agentflow.llm.providers.openai.responses_output import end_chunk, failure, is_refusal, items_of, logprobs
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["OutputReading"]


class _Event(Struct):
    """What an event may have; which of it counts depends on its type."""

    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: Json = None
    delta: Json = None
    logprobs: Json = None
    item: Json = None
    part: Json = None
    response: Json = None
    error: Json = None


_EVENT: Final = msgspec.json.Decoder(_Event)

_Key: TypeAlias = int | str

# Where the words of an event belong, see `Piece`.
_WORDS: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_THOUGHTS: Final = {"response.reasoning_summary_text.delta": "summary", "response.reasoning_text.delta": "thoughts"}
_BEGINS: Final = {
    "response.content_part.added": "words",  # or thoughts, by the part's type
    "response.reasoning_part.added": "thoughts",  # vLLM
    "response.reasoning_summary_part.added": "summary",
}
_ENDS: Final = {
    "response.content_part.done": "words",
    "response.output_text.done": "words",
    "response.refusal.done": "words",
    "response.reasoning_part.done": "thoughts",
    "response.reasoning_text.done": "thoughts",
    "response.reasoning_summary_text.done": "summary",
    "response.reasoning_summary_part.done": "summary",
}
_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.cancelled"})
_FIRST: Final = frozenset({"response.created", "response.queued", "response.in_progress"})


class _Growing(Struct):
    """A part that is still streaming: where it goes, and how much of it has been handed on. Of a call `slot` is the
    index, and `named` whether its name has been."""

    slot: int
    length: int = 0
    tokens: int = 0
    named: bool = False


class OutputReading:
    """One stream as it is read. An item's key is its `output_index`, else its id; its entries go by list and index.

    Neither is to be relied on: there are servers that give every item the index 0, and some that give every event of an
    item another id. So an item that begins at a taken index goes by its id, and an id that is not known by its index.
    """

    __slots__ = (
        "_at",
        "_calls",
        "_done",
        "_entries",
        "_keys",
        "_name",
        "_open",
        "_refused",
        "_slots",
        "_source",
        "_told",
        "done",
        "finished",
    )

    def __init__(self, source: Source, name: str) -> None:
        self.finished = False
        self.done = False
        self._source = source
        self._name = name  # the API's in opaque data
        self._told = False
        self._slots = 0
        self._entries: dict[tuple[_Key, str, int], _Growing] = {}
        self._open: dict[tuple[_Key, str], _Growing] = {}  # the entry that is being written
        self._calls: dict[_Key, _Growing] = {}
        self._at: dict[int, _Key] = {}  # the key of the item that has last begun at an index
        self._keys: dict[str, _Key] = {}  # by the item's id
        self._done: set[_Key] = set()  # the items that are complete, by key and by id
        self._refused = False

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        if event.data == "[DONE]":
            return ()  # some servers end so as well; the answer has ended before
        try:
            wire = decoded(_EVENT, event.data, self._source)
            return self._chunks(wire.type or event.event, wire, event.data)
        except RecursionError:
            raise too_deep(event.data, self._source) from None

    def end(self) -> Iterable[StreamChunk]:
        return ()

    def _chunks(self, kind: str, wire: _Event, data: str) -> list[StreamChunk]:
        if kind in _WORDS:
            return self._words(wire, refused=kind == "response.refusal.delta")
        if kind in _THOUGHTS:
            return self._thoughts(wire, _THOUGHTS[kind])
        if kind == "response.function_call_arguments.delta":
            return self._arguments(wire)
        if kind in _BEGINS:
            self._begin(wire, _field(_BEGINS[kind], wire))
        elif kind in _ENDS:
            self._open.pop((self._key(wire), _field(_ENDS[kind], wire)), None)
        elif kind == "response.output_item.added":
            return self._added(wire)
        elif kind == "response.output_item.done":
            key = self._key(wire)
            return [] if key in self._done else list(self._complete(key, mapping(wire.item)))
        elif kind in _FIRST:
            return self._began(mapping(wire.response))
        elif kind in _LAST:
            return self._last(kind, mapping(wire.response))
        else:
            self._fail(kind, wire, data)
        return []

    # ---- pieces ----------------------------------------------------------------------------------------------

    def _words(self, wire: _Event, *, refused: bool) -> list[StreamChunk]:
        growing = self._growing(wire, "words", wire.content_index)
        self._refused = self._refused or refused
        words, tokens = text(wire.delta), logprobs(wire.logprobs)
        growing.length += len(words)
        growing.tokens += len(tokens)
        return [StreamChunk(words, slot=growing.slot, logprobs=tuple(tokens))] if words or tokens else []

    def _thoughts(self, wire: _Event, field: str) -> list[StreamChunk]:
        growing = self._growing(wire, field, wire.summary_index if field == "summary" else wire.content_index)
        words = text(wire.delta)
        growing.length += len(words)
        return [StreamChunk(reasoning=words, slot=growing.slot)] if words else []

    def _arguments(self, wire: _Event) -> list[StreamChunk]:
        call = self._call(self._key(wire))
        words = text(wire.delta)
        call.length += len(words)
        return [StreamChunk(tool_calls=(ToolCallDelta(call.slot, arguments=words),))] if words else []

    def _added(self, wire: _Event) -> list[StreamChunk]:
        """An item begins; a call has its name by then. Its arguments are waited for: some send them twice."""
        item, key = mapping(wire.item), self._claim(wire)
        if item.get("type") != "function_call":
            return []
        call, (piece,) = self._call(key), read_item(item, self._name)
        if not isinstance(piece.part, ToolCall) or call.named or not piece.part.name:
            return []
        call.named = True
        return [StreamChunk(tool_calls=(ToolCallDelta(call.slot, piece.part.id, piece.part.name),))]

    # ---- items that are done ---------------------------------------------------------------------------------

    def _complete(self, key: _Key, item: Mapping[str, Json]) -> Iterator[StreamChunk]:
        """What of an item has not been handed on, and its opaque data."""
        if not item:
            return
        self._done.update((key, text(item.get("id")) or key))
        for piece in read_item(item, self._name):
            part = piece.part
            if isinstance(part, ToolCall):
                yield from self._rest_of_call(self._call(key), part)
            elif isinstance(part, Text | Reasoning):
                yield self._rest(key, piece, part)
            else:
                yield StreamChunk(slot=self._slot(), part=part)

    def _rest(self, key: _Key, piece: Piece, part: Text | Reasoning) -> StreamChunk:
        place = (key, piece.field, piece.place)
        growing = self._entries.get(place) or _Growing(self._slot())
        self._refused = self._refused or is_refusal(part, self._name)
        tokens = tuple(logprobs(entry_of(part, self._name).get("logprobs"))[growing.tokens :])
        if not part.text and not growing.length:
            return StreamChunk(slot=growing.slot, part=part, logprobs=tokens)
        rest = part.text[growing.length :]
        if isinstance(part, Text):
            return StreamChunk(rest, slot=growing.slot, opaque=part.opaque, logprobs=tokens)
        return StreamChunk(reasoning=rest, slot=growing.slot, opaque=part.opaque)

    def _rest_of_call(self, call: _Growing, part: ToolCall) -> Iterator[StreamChunk]:
        rest = part.raw[call.length :]
        named = ("", "") if call.named else (part.id, part.name)
        if rest or part.opaque or not call.named:
            yield StreamChunk(tool_calls=(ToolCallDelta(call.slot, *named, rest, part.opaque),))

    # ---- the whole answer ------------------------------------------------------------------------------------

    def _began(self, response: Mapping[str, Json]) -> list[StreamChunk]:
        """What is known of the answer before its first word; it is told twice."""
        if self._told:
            return []
        self._told = True
        model, name = text(response.get("model")) or None, text(response.get("id")) or None
        return [StreamChunk(model=model, id=name, request_id=self._source.request_id)]

    def _last(self, kind: str, response: Mapping[str, Json]) -> list[StreamChunk]:
        output = items_of(response, self._source) or []
        chunks = [chunk for index, item in enumerate(output) for chunk in self._missed(index, item)]
        whole = response if response.get("status") else {**response, "status": kind.removeprefix("response.")}
        self.finished = self.done = True
        return [*chunks, end_chunk(whole, self._source, self._name, calls=bool(self._calls), refused=self._refused)]

    def _missed(self, index: int, item: Mapping[str, Json]) -> Iterator[StreamChunk]:
        """An item of the whole answer that no event has completed."""
        name = text(item.get("id"))
        known = self._keys.get(name, index)
        if not self._done.isdisjoint((index, name, known)):
            return
        begun = {*self._calls, *[key for key, _, _ in self._entries]}
        yield from self._complete(next((key for key in (known, index, name) if key in begun), index), item)

    def _fail(self, kind: str, wire: _Event, data: str) -> None:
        """Raise what an error event says, nested or flat, or an answer that has failed; other events pass."""
        if kind == "response.failed":
            raise failure(mapping(wire.response).get("error"), self._source)
        if wire.error and not wire.type.startswith("response."):
            raise wire_error(wire.error, self._source)
        if kind == "error":
            raise wire_error(msgspec.json.decode(data), self._source)

    # ---- where things go -------------------------------------------------------------------------------------

    def _claim(self, wire: _Event) -> _Key:
        """The key of an item that begins."""
        name, index = _name(wire), wire.output_index
        if index is None or (index in self._at and name and name not in self._keys):
            key: _Key = name
        else:
            key = index
        if index is not None:
            self._at[index] = key
        self._keys[name] = key
        return key

    def _key(self, wire: _Event) -> _Key:
        """The key of an item that something has happened to."""
        name, index = _name(wire), wire.output_index
        known = self._keys.get(name) if name else None
        if known is not None:
            return known
        return name if index is None else self._at.get(index, index)

    def _growing(self, wire: _Event, field: str, index: int | None) -> _Growing:
        """The entry of that index; else the open one, for some servers count on with every delta; else a new one."""
        key = self._key(wire)
        return self._entries.get((key, field, index or 0)) or self._open.get((key, field)) or self._begin(wire, field)

    def _begin(self, wire: _Event, field: str) -> _Growing:
        key, index = self._key(wire), (wire.summary_index if field == "summary" else wire.content_index) or 0
        growing = self._entries.get((key, field, index))
        if growing is None:
            growing = self._entries[key, field, index] = _Growing(self._slot())
        self._open[key, field] = growing
        return growing

    def _call(self, key: _Key) -> _Growing:
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Growing(len(self._calls))
        return call

    def _slot(self) -> int:
        self._slots += 1
        return self._slots - 1


def _name(wire: _Event) -> str:
    return text(wire.item_id) or text(mapping(wire.item).get("id"))


def _field(field: str, wire: _Event) -> str:
    return "thoughts" if mapping(wire.part).get("type") == "reasoning_text" else field
