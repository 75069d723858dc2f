"""Answers of Chat Completions, streamed: events in, chunks out.

    data: {"choices": [{"delta": {"content": "Hel"}}]}   ──ChatReading.read──▶   StreamChunk("Hel")
    data: [DONE]                                          ──────────────────▶   what only the end shows

Added up, the chunks are the response that the same answer is when it comes whole. Words go the short way; the rest is
told apart here: several answers at once, refusals, tool calls in pieces, thoughts, sound, and fields nobody announced,
which are gathered and handed on at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentflow.llm.content import Json, Raw
from agentflow.llm.messages import StreamChunk
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.openai.chat_answers import (
    KNOWN_FIELDS,
    REASONING_FIELDS,
    REFUSAL,
    WireUsage,
    answer_facts,
    choice_facts,
    details_text,
    drawn,
    finish_reason,
    logprobs_of,
    opaque_of,
    text_of,
    usage_of,
)
from agentflow.llm.providers.openai.chat_calls import ToolCalls
from agentflow.llm.providers.openai.dialects import Dialect
from agentflow.llm.streaming.join import laid_over
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["ChatReading"]

_THOUGHTS: Final = 0  # the slots of what is not the answer's own text
_REFUSED: Final = 1
_LISTED: Final = 2
_LISTED_THOUGHTS: Final = 3
_NOTHING: Final[Mapping[str, Json]] = {}
_LONG: Final = ("data", "transcript")  # of sound, which comes in pieces
_MERGED: Final = ("text", "summary")  # of reasoning_details


class _Choice(Struct):
    index: int | None = None
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: object = None
    usage: WireUsage | None = None  # Moonshot
    error: object = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    id: str | None = None
    service_tier: str | None = None
    error: object = None
    message: object = None  # an error without an envelope


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_ANY: Final = msgspec.json.Decoder(dict[str, Any])
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)  # no JSON, a number of 5,000 digits, too deep


class _Answer:
    """One of the answers of a stream, as far as it has come."""

    __slots__ = ("calls", "details", "empty", "facts", "field", "finished", "kept", "refused", "thought", "words")

    def __init__(self, dialect: Dialect, number: int) -> None:
        self.calls = ToolCalls(dialect.name, number)
        self.field = dialect.reasoning_field  # where thoughts go back, as far as the chunks have said
        self.finished = False
        self.refused = False
        self.words = False
        self.thought = False
        self.empty: set[str] = set()  # fields that came, but without a word
        self.details: list[dict[str, Json]] = []
        self.kept: Mapping[str, Json] = _NOTHING
        self.facts: dict[str, Json] = {}

    def keep(self, name: str, value: Json) -> None:
        """Add what is not modelled to what came of it before."""
        old = self.kept.get(name)
        if name == "audio" and isinstance(old, Mapping) and isinstance(value, Mapping):
            longer = {field: str(old.get(field, "")) + str(value[field]) for field in _LONG if value.get(field)}
            value = {**value, **longer}
        self.kept = laid_over(self.kept, {name: value})

    def left(self) -> Mapping[str, Json]:
        """What goes back with the turn. A turn of calls alone also says what it said with no words."""
        if not self.calls or not self.empty:
            return self.kept
        silent = {name: "" for name in self.empty if not (self.words if name == "content" else self.thought)}
        return {**self.kept, **silent}


class ChatReading:
    """One stream as it is read."""

    __slots__ = ("_answers", "_dialect", "_first", "_source", "done", "finished")

    def __init__(self, source: Source, dialect: Dialect) -> None:
        self.finished = False
        self.done = False
        self._source = source
        self._dialect = dialect
        self._first = _Answer(dialect, 0)
        self._answers = {0: self._first}

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        """The chunks of one event. Raises ProtocolError where it is none of this API, or what an error in it says."""
        data = event.data
        if data == "[DONE]":
            return self._done()
        try:
            wire = _CHUNK.decode(data)
        except _UNREADABLE as error:
            return self._unread(data, error)
        choices = wire.choices
        if choices and len(choices) == 1 and wire.usage is None and wire.error is None:
            choice = choices[0]
            delta = choice.delta
            if (
                delta is not None
                and len(delta) == 1
                and type(text := delta.get("content")) is str
                and text
                and not choice.index
                and choice.finish_reason is None
                and choice.logprobs is None
                and choice.error is None
                and event.event != "error"
            ):
                self._first.words = True
                return (
                    StreamChunk(
                        text, "", None, None, None, wire.model, self._source.request_id,
                        (), 0, None, None, _NOTHING, (), wire.id, wire.service_tier,
                    ),
                )  # fmt: skip
        return self._rest(wire, event)

    def end(self) -> Iterable[StreamChunk]:
        return self._done() if not self.done else ()

    # ---- the long way ----------------------------------------------------------------------------------------

    def _unread(self, data: str, error: Exception) -> Iterable[StreamChunk]:
        """Blank data is no event, and the end mark may stand between blanks."""
        mark = data.strip()
        if mark == "[DONE]":
            return self._done()
        if not mark:
            return ()
        raise no_answer(str(error), data.encode("utf-8", "replace"), self._source) from None

    def _rest(self, wire: _Chunk, event: ServerSentEvent) -> list[StreamChunk]:
        choices = wire.choices or []
        error = wire.error or next((choice.error for choice in choices if choice.error), None)
        if error:
            raise wire_error(error, self._source)
        if event.event == "error" or (wire.choices is None and wire.message is not None):
            raise wire_error(_again(event.data), self._source)
        chunks: list[StreamChunk] = []
        for choice in choices:
            chunks += self._choice(choice, wire)
        if not chunks or wire.usage is not None or any(choice.finish_reason for choice in choices):
            self._note_facts(event.data)
        usage = wire.usage or next((choice.usage for choice in choices if choice.usage is not None), None)
        if usage is None:
            return chunks
        last = chunks.pop() if chunks else self._chunk(wire)
        cost = usage.cost if self._dialect.cost else None
        return [*chunks, replace(last, usage=usage_of(usage), cost=cost)] if usage_of(usage) else [*chunks, last]

    def _choice(self, choice: _Choice, wire: _Chunk) -> list[StreamChunk]:
        index = choice.index or 0
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Answer(self._dialect, index)
            self.finished = False
        delta = choice.delta or {}
        chunks: list[StreamChunk] = []
        self._thoughts(delta, answer, index, wire, chunks)
        content = delta.get("content")
        if isinstance(content, list):
            self._listed(content, answer, index, wire, chunks)
        text = text_of(content)
        answer.words = answer.words or bool(text)
        calls = answer.calls.read(delta.get("tool_calls"), wire.id or "")
        if delta.get("function_call") is not None:
            calls += answer.calls.function(delta["function_call"], wire.id or "")
        for name, value in delta.items():
            if value == "":
                answer.empty.add(name)
            elif name not in KNOWN_FIELDS and value:
                answer.keep(name, value)
        self._said_no(delta, answer, index, wire, chunks)
        chunks += [replace(self._chunk(wire), index=index, part=part) for part in drawn(delta.get("images"), self._api)]
        logprobs = logprobs_of(choice.logprobs) if choice.logprobs is not None else ()
        raw = choice.finish_reason or None
        if raw is not None:
            answer.finished = True
            self.finished = all(other.finished for other in self._answers.values())
        if text or calls or raw or logprobs:
            reason = finish_reason(raw, refused=answer.refused, calls=bool(answer.calls)) if raw else None
            chunks.append(
                StreamChunk(
                    text, "", reason, raw, None, wire.model, self._source.request_id,
                    calls, index, None, None, _NOTHING, logprobs, wire.id, wire.service_tier,
                )
            )  # fmt: skip
        return chunks

    def _thoughts(
        self, delta: Mapping[str, Any], answer: _Answer, index: int, wire: _Chunk, chunks: list[StreamChunk]
    ) -> None:
        field = next((name for name in REASONING_FIELDS if delta.get(name)), None)
        details = delta.get("reasoning_details")
        if field is None and not details:
            return
        text = details_text(details) if field is None else text_of(delta[field])
        answer.thought = answer.thought or bool(text)
        if isinstance(details, list):
            _merge_details(answer.details, details)
        mark: Mapping[str, Json] = _NOTHING
        if field != answer.field and (text or not answer.thought):
            answer.field = field
            mark = {self._api: {"field": field}}
        elif not text and not answer.thought:
            mark = {self._api: {}}  # opens the part in its place
        if text or mark:
            chunks.append(
                StreamChunk(
                    "", text, None, None, None, wire.model, self._source.request_id,
                    (), index, _THOUGHTS, None, mark, (), wire.id, wire.service_tier,
                )
            )  # fmt: skip

    def _listed(self, content: list[Any], answer: _Answer, index: int, wire: _Chunk, chunks: list[StreamChunk]) -> None:
        """Content that comes as parts (Mistral): words and thoughts in their own slots, the rest as it is."""
        blank = replace(self._chunk(wire), index=index)
        for item in content:
            kind = item.get("type") if isinstance(item, dict) else None
            if kind in ("text", "output_text") and text_of(item.get("text")):
                answer.words = True
                chunks.append(replace(blank, content=item["text"], slot=_LISTED, opaque={self._api: {"type": kind}}))
            elif kind == "thinking":
                text = details_text(item.get("thinking")) or text_of(item.get("thinking"))
                own = {self._api: item}
                chunks.append(replace(blank, reasoning=text, slot=_LISTED_THOUGHTS, opaque=own))
            elif isinstance(item, dict):
                chunks.append(replace(blank, part=Raw(self._api, item)))

    def _said_no(
        self, delta: Mapping[str, Any], answer: _Answer, index: int, wire: _Chunk, chunks: list[StreamChunk]
    ) -> None:
        refusal = text_of(delta.get("refusal"))
        if refusal:
            mark: Mapping[str, Json] = _NOTHING if answer.refused else {self._api: REFUSAL}
            answer.refused = True
            chunks.append(replace(self._chunk(wire), content=refusal, index=index, slot=_REFUSED, opaque=mark))

    # ---- the end ---------------------------------------------------------------------------------------------

    def _done(self) -> list[StreamChunk]:
        """What was gathered on the way."""
        self.done = self.finished = True
        chunks: list[StreamChunk] = []
        for index, answer in sorted(self._answers.items()):
            if answer.details:
                own: Json = {"reasoning_details": answer.details}
                chunks.append(StreamChunk(index=index, slot=_THOUGHTS, opaque={self._api: own}))
            opaque = opaque_of(self._dialect, answer.left(), answer.facts)
            refused = "content_filter" if answer.refused and not answer.finished else None
            if opaque or refused:
                chunks.append(StreamChunk(finish_reason=refused, index=index, opaque=opaque))
        self._answers.clear()
        return chunks

    def _note_facts(self, data: str) -> None:
        """What an event says beside the answer: seldom, so it is worth reading twice."""
        raw = _again(data)
        self._first.facts.update(answer_facts(raw))
        for choice in raw.get("choices") or []:
            answer = self._answers.get(choice.get("index") or 0)
            if answer is not None:
                answer.facts.update(choice_facts(choice))

    def _chunk(self, wire: _Chunk) -> StreamChunk:
        return StreamChunk(
            model=wire.model, request_id=self._source.request_id, id=wire.id, service_tier=wire.service_tier
        )

    @property
    def _api(self) -> str:
        return self._dialect.name


def _again(data: str) -> dict[str, Any]:
    """All of an event that was understood as far as it is modelled; nothing where the rest cannot be read."""
    try:
        return _ANY.decode(data)
    except _UNREADABLE:
        return {}


def _merge_details(known: list[dict[str, Json]], pieces: list[Any]) -> None:
    """Pieces of thoughts (OpenRouter) added to those of the same number and kind; a cipher is always one of its own."""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        whole = next((item for item in reversed(known) if _goes_on(item, piece)), None)
        if whole is None:
            known.append(dict(piece))
            continue
        for name, value in piece.items():
            if name in _MERGED and isinstance(value, str):
                whole[name] = str(whole.get(name) or "") + value
            elif value is not None:
                whole[name] = value


def _goes_on(item: Mapping[str, Json], piece: Mapping[str, Json]) -> bool:
    if piece.get("type") == "reasoning.encrypted" or item.get("type") != piece.get("type"):
        return False
    if item.get("index") != piece.get("index"):
        return False
    return piece.get("id") is None or item.get("id") is None or item["id"] == piece["id"]
