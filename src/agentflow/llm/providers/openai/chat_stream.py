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
from msgspec.structs import replace

from agentflow.llm.content import Json, Raw, Text
from agentflow.llm.messages import StreamChunk
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.lenient import mappings, text
from agentflow.llm.providers.openai.chat_answers import (
    KNOWN_FIELDS,
    REASONING_FIELDS,
    REFUSAL,
    drawn,
    finish_reason,
    listed_text,
    logprobs_of,
    opaque_of,
)
from agentflow.llm.providers.openai.chat_calls import ToolCalls
from agentflow.llm.providers.openai.chat_pieces import Details, Thought, Voice, details_text
from agentflow.llm.providers.openai.chat_wire import (
    EVENT,
    OBJECT,
    WireAnswer,
    WireChoice,
    answer_facts,
    choice_facts,
    cost_of,
    usage_of,
    wire_of,
)
from agentflow.llm.providers.openai.dialects import Dialect
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["ChatReading"]

_THOUGHTS: Final = 0  # the slots of what is not the answer's own text
_REFUSED: Final = 1
_LISTED: Final = 2
_LISTED_THOUGHTS: Final = 3
_SPOKEN: Final = 4
_NOTHING: Final[Mapping[str, Json]] = {}
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)  # no JSON, a number of 5,000 digits, too deep


class _Answer:
    """One of the answers of a stream, as far as it has come."""

    __slots__ = (
        *("calls", "details", "empty", "facts", "field", "finished", "kept", "listed", "refused", "said", "thought"),
        *("voice", "words"),
    )

    def __init__(self, dialect: Dialect, number: int) -> None:
        self.calls = ToolCalls(dialect.name, number)
        self.field = dialect.reasoning_field  # where thoughts go back, as far as the chunks have said
        self.finished = False
        self.refused = False
        self.said = False  # anything at all
        self.words = False
        self.thought = False
        self.empty: set[str] = set()  # fields that came, but without a word
        self.details = Details()
        self.listed: Thought | None = None
        self.voice: Voice | None = None
        self.kept: dict[str, Any] = {}
        self.facts: dict[str, Json] = {}

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
            wire = EVENT.decode(data)
        except _UNREADABLE as error:
            return self._unread(event, error)
        choices = wire.choices
        if choices and len(choices) == 1 and wire.usage is None and wire.error is None:
            choice = choices[0]
            delta = choice.delta
            if (
                delta is not None
                and len(delta) == 1
                and type(words := delta.get("content")) is str
                and words
                and not choice.index
                and choice.finish_reason is None
                and choice.logprobs is None
                and choice.error is None
                and event.event != "error"
            ):
                self._first.words = True
                return (
                    StreamChunk(
                        words, "", None, None, None, wire.model, self._source.request_id,
                        (), 0, None, None, _NOTHING, (), wire.id, wire.service_tier,
                    ),
                )  # fmt: skip
        return self._rest(wire, event)

    def end(self) -> Iterable[StreamChunk]:
        return self._done() if not self.done else ()

    # ---- the long way ----------------------------------------------------------------------------------------

    def _unread(self, event: ServerSentEvent, error: Exception) -> Iterable[StreamChunk]:
        """Blank data is no event, the end mark may stand between blanks, and an odd field is passed over."""
        mark = event.data.strip()
        if mark == "[DONE]":
            return self._done()
        if not mark:
            return ()
        try:
            wire = wire_of(OBJECT.decode(mark))
        except _UNREADABLE:
            raise no_answer(str(error), event.data.encode("utf-8", "replace"), self._source) from None
        return self._rest(wire, event)

    def _rest(self, wire: WireAnswer, event: ServerSentEvent) -> list[StreamChunk]:
        choices = wire.choices or []
        if error := wire.failure:
            raise wire_error(error, self._source)
        if event.event == "error" or (wire.choices is None and wire.message is not None):
            raise wire_error(_again(event.data), self._source)
        chunks: list[StreamChunk] = []
        for choice in choices:
            chunks += self._choice(choice, wire)
        if not chunks or wire.usage is not None or any(choice.finish_reason for choice in choices):
            self._note_facts(event.data)
        usage = usage_of(wire.counted)
        if usage is None:
            return chunks
        last = chunks.pop() if chunks else self._chunk(wire)
        cost = cost_of(wire.counted) if self._dialect.cost else None
        return [*chunks, replace(last, usage=usage, cost=cost)]

    def _choice(self, choice: WireChoice, wire: WireAnswer) -> list[StreamChunk]:
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
        words = text(content)
        answer.words = answer.words or bool(words)
        calls = answer.calls.read(delta.get("tool_calls"), wire.id or "")
        if delta.get("function_call") is not None:
            calls += answer.calls.function(delta["function_call"], wire.id or "")
        for name, value in delta.items():
            if value == "":
                answer.empty.add(name)
            elif value and name not in KNOWN_FIELDS:
                _gather(answer.kept, name, value)
        self._spoken(delta, answer, index, wire, chunks)
        self._said_no(delta, answer, index, wire, chunks)
        chunks += [replace(self._chunk(wire), index=index, part=part) for part in drawn(delta.get("images"), self._api)]
        logprobs = logprobs_of(choice.logprobs) if choice.logprobs is not None else ()
        raw = choice.finish_reason or None
        if raw is not None:
            answer.finished = True
            self.finished = all(other.finished for other in self._answers.values())
        if words or calls or raw or logprobs:
            reason = finish_reason(raw, refused=answer.refused, calls=bool(answer.calls)) if raw else None
            chunks.append(
                StreamChunk(
                    words, "", reason, raw, None, wire.model, self._source.request_id,
                    calls, index, None, None, _NOTHING, logprobs, wire.id, wire.service_tier,
                )
            )  # fmt: skip
        answer.said = answer.said or bool(chunks or answer.kept)
        return chunks

    def _thoughts(
        self, delta: Mapping[str, Any], answer: _Answer, index: int, wire: WireAnswer, chunks: list[StreamChunk]
    ) -> None:
        field = next((name for name in REASONING_FIELDS if delta.get(name)), None)
        details = delta.get("reasoning_details")
        if field is None and not details:
            return
        words = details_text(details) if field is None else text(delta[field])
        answer.thought = answer.thought or bool(words)
        answer.details.add(details)
        mark: Mapping[str, Json] = _NOTHING
        if field != answer.field and (words or not answer.thought):
            answer.field = field
            mark = {self._api: {"field": field}}
        elif not words and not answer.thought:
            mark = {self._api: {}}  # opens the part in its place
        if words or mark:
            chunks.append(
                StreamChunk(
                    "", words, None, None, None, wire.model, self._source.request_id,
                    (), index, _THOUGHTS, None, mark, (), wire.id, wire.service_tier,
                )
            )  # fmt: skip

    def _listed(
        self, content: list[Any], answer: _Answer, index: int, wire: WireAnswer, chunks: list[StreamChunk]
    ) -> None:
        """Content that comes as parts (Mistral): words and thoughts in their own slots, the rest as it is."""
        blank = replace(self._chunk(wire), index=index)
        for item in mappings(content):
            if item.get("type") == "thinking":
                chunks.append(self._listed_thought(item, answer, blank))
            elif part := listed_text(item, self._api):
                answer.words = answer.words or bool(part.text)
                chunks.append(replace(blank, content=part.text, slot=_LISTED, opaque=part.opaque))
            else:
                chunks.append(replace(blank, part=Raw(self._api, item)))

    def _listed_thought(self, item: Mapping[str, Any], answer: _Answer, blank: StreamChunk) -> StreamChunk:
        mark: Mapping[str, Json] = _NOTHING
        if answer.listed is None:
            answer.listed, mark = Thought(), {self._api: {"type": "thinking"}}  # opens the part in its place
        return replace(blank, reasoning=answer.listed.add(item), slot=_LISTED_THOUGHTS, opaque=mark)

    def _spoken(
        self, delta: Mapping[str, Any], answer: _Answer, index: int, wire: WireAnswer, chunks: list[StreamChunk]
    ) -> None:
        audio = delta.get("audio")
        if not audio or not isinstance(audio, dict):
            return
        if answer.voice is None:
            answer.voice = Voice(self._api)
        if words := answer.voice.hear(audio):
            chunks.append(replace(self._chunk(wire), content=words, index=index, slot=_SPOKEN))

    def _said_no(
        self, delta: Mapping[str, Any], answer: _Answer, index: int, wire: WireAnswer, chunks: list[StreamChunk]
    ) -> None:
        refusal = text(delta.get("refusal"))
        if refusal:
            mark: Mapping[str, Json] = _NOTHING if answer.refused else {self._api: REFUSAL}
            answer.refused = True
            chunks.append(replace(self._chunk(wire), content=refusal, index=index, slot=_REFUSED, opaque=mark))

    # ---- the end ---------------------------------------------------------------------------------------------

    def _done(self) -> list[StreamChunk]:
        """What was gathered on the way. Raises ProtocolError where that is nothing at all."""
        answers = sorted(self._answers.items())
        if answers and not any(answer.said or answer.words or answer.voice for _, answer in answers):
            raise no_answer("the stream ends without an answer", b"[DONE]", self._source)
        self.done = self.finished = True
        self._answers.clear()
        return [chunk for index, answer in answers for chunk in self._last(index, answer)]

    def _last(self, index: int, answer: _Answer) -> Iterable[StreamChunk]:
        if answer.details:
            own: Json = {"reasoning_details": answer.details.whole()}
            yield StreamChunk(index=index, slot=_THOUGHTS, opaque={self._api: own})
        if answer.listed is not None:
            yield StreamChunk(index=index, slot=_LISTED_THOUGHTS, opaque={self._api: answer.listed.own()})
        if answer.voice is not None:
            yield from self._fallen_silent(index, answer, answer.voice)
        opaque = opaque_of(self._dialect, answer.left(), answer.facts)
        refused = "content_filter" if answer.refused and not answer.finished else None
        if opaque or refused:
            yield StreamChunk(finish_reason=refused, index=index, opaque=opaque)

    def _fallen_silent(self, index: int, answer: _Answer, voice: Voice) -> Iterable[StreamChunk]:
        """What the words are a transcript of, and how they sound."""
        if voice.facts:
            answer.facts["audio"] = voice.facts
        if voice.mark and voice.spoke:
            yield StreamChunk(index=index, slot=_SPOKEN, opaque=voice.mark)
        elif voice.mark:
            yield StreamChunk(index=index, part=Text("", opaque=voice.mark))
        if sound := voice.sound():
            yield StreamChunk(index=index, part=sound)

    def _note_facts(self, data: str) -> None:
        """What an event says beside the answer: seldom, so it is worth reading twice."""
        raw = _again(data)
        self._first.facts.update(answer_facts(raw))
        for choice, facts in zip(mappings(raw.get("choices")), choice_facts(raw), strict=True):
            index = choice.get("index")
            answer = self._answers.get(index if isinstance(index, int) else 0)
            if answer is not None:
                answer.facts.update(facts)

    def _chunk(self, wire: WireAnswer) -> StreamChunk:
        return StreamChunk(
            model=wire.model, request_id=self._source.request_id, id=wire.id, service_tier=wire.service_tier
        )

    @property
    def _api(self) -> str:
        return self._dialect.name


def _again(data: str) -> dict[str, Any]:
    """All of an event that was understood as far as it is modelled; nothing where the rest cannot be read."""
    try:
        return OBJECT.decode(data)
    except _UNREADABLE:
        return {}


def _gather(into: dict[str, Any], name: str, value: Any) -> None:
    """Add what is not modelled to what came of it before: mappings are laid over each other, lists appended."""
    old = into.get(name)
    if isinstance(old, dict) and isinstance(value, dict):
        for field, inner in value.items():
            _gather(old, field, inner)
    elif isinstance(old, list) and isinstance(value, list):
        old.extend(value)
    else:
        into[name] = value
