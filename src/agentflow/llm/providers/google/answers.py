"""Gemini's answers as ours, whole or in the pieces of a stream: pure functions on plain JSON.

    {"candidates": […], "usageMetadata": {…}, …}  ──read_answer──▶  Response
    {…} {…} {…}, an event each  ──GoogleReading.read──▶  StreamChunk, StreamChunk, …  ──end──▶  what was said of it

A stream has no end mark: it is finished once every candidate has said why it ended, or the prompt was blocked. Usage
and metadata come again and again, and the last word wins. Pieces of text are one part, except where a thought signature
came with one: such a part must go back as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.llm.content import Json, Part, Reasoning, Text, ToolCall, content_of
from agentflow.llm.messages import Alternative, Response, StreamChunk, TokenLogprob, ToolCallDelta, Usage
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source, no_answer, too_deep, wire_error
from agentflow.llm.providers.google.arguments import PartialCall
from agentflow.llm.providers.google.parts import NAME, part_from_wire
from agentflow.llm.providers.lenient import count, mapping, mappings, number, text
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["GoogleReading", "read_answer"]

_MESSAGE: Final[msgspec.json.Decoder[dict[str, Json] | list[Json]]] = msgspec.json.Decoder(dict | list)

_FINISH: Final = {
    "STOP": "stop",  # also where functions are called: those are seen in the parts
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "CONTINUATION": "paused",
    "LANGUAGE": "error",
    "OTHER": "error",
    "IMAGE_OTHER": "error",
    "NO_IMAGE": "error",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}
_NOT_YET: Final = "FINISH_REASON_UNSPECIFIED"  # the enumeration's zero: it has not finished

_MODELLED: Final = frozenset(("candidates", "usageMetadata", "modelVersion", "responseId", "error"))
_MODELLED_CANDIDATE: Final = frozenset(("content", "finishReason", "index", "logprobsResult"))
_SPENT: Final = frozenset(("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"))
_MODELLED_USAGE: Final = _SPENT | {"cachedContentTokenCount", "totalTokenCount", "serviceTier"}
# What a stream tells piece by piece, or again and longer; of everything else it tells the whole each time.
_GROWING: Final = ("citationMetadata", "groundingMetadata", "urlContextMetadata")


# ---- whole ---------------------------------------------------------------------------------------------------


def read_answer(body: bytes, source: Source) -> Response:
    """A whole answer with status 200, or the list of pieces that a stream is without `alt=sse`.

    A prompt that was blocked is an answer without content. Raises ProtocolError where the body is no answer, or what an
    error in it says.
    """
    try:
        wire = decoded(_MESSAGE, body, source)
        return _read_pieces(wire, body, source) if isinstance(wire, list) else _read_whole(wire, body, source)
    except RecursionError:
        raise too_deep(body, source) from None


def _read_whole(wire: Mapping[str, Json], body: bytes, source: Source) -> Response:
    _raise_error(wire, source)
    candidates = _candidates(wire)
    blocked = _blocked(wire)
    if not candidates and not blocked:
        raise no_answer("it has no candidates", body, source)
    first, *others = [_alternative(index, candidate, wire) for index, candidate in candidates] or [_BLOCKED]
    return Response(
        first.content,
        _word(wire, "modelVersion") or source.model,
        source.provider,
        usage=_usage(wire),
        finish_reason=first.finish_reason if candidates else "content_filter",
        raw_finish_reason=first.raw_finish_reason if candidates else blocked,
        request_id=source.request_id,
        opaque={NAME: {**_said(wire), **mapping(first.opaque.get(NAME))}},
        id=_word(wire, "responseId"),
        service_tier=_tier(wire),
        logprobs=first.logprobs,
        alternatives=tuple(others),
    )


_BLOCKED: Final = Alternative("")


def _alternative(index: int, candidate: Mapping[str, Json], wire: Mapping[str, Json]) -> Alternative:
    names = _Names(index, _word(wire, "responseId"))
    found = [part_from_wire(part, names.next) for part in _parts(candidate)]
    content = content_of([part for part in found if part is not None])
    raw = _word(candidate, "finishReason")
    calls = any(isinstance(part, ToolCall) for part in found)
    return Alternative(
        content, _finish(raw, calls), raw, _logprobs(candidate), {NAME: _left(candidate, _MODELLED_CANDIDATE)}
    )


def _read_pieces(pieces: list[Json], body: bytes, source: Source) -> Response:
    reading = GoogleReading(source)
    chunks = [chunk for piece in mappings(pieces) for chunk in reading.read_piece(piece)]
    if not reading.finished:
        raise no_answer("it is a list without a finished answer", body, source)
    return join([*chunks, *reading.end()], provider=source.provider, model=source.model)


# ---- stream --------------------------------------------------------------------------------------------------


class GoogleReading:
    """One stream, event by event."""

    __slots__ = ("_answers", "_blocked", "_id", "_said", "_source", "done", "finished")

    def __init__(self, source: Source) -> None:
        self.finished = False
        self.done = False
        self._source = source
        self._answers: dict[int, _Answer] = {}
        self._said: dict[str, Json] = {}
        self._blocked = False
        self._id: str | None = None

    def read(self, event: ServerSentEvent) -> list[StreamChunk]:
        """The chunks of one event. Raises ProtocolError, or what an error in it says."""
        if event.data == "[DONE]":  # not Google's, but a gateway's
            return []
        try:
            wire = decoded(_MESSAGE, event.data, self._source)
            pieces = mappings(wire) if isinstance(wire, list) else [wire]
            return [chunk for piece in pieces for chunk in self.read_piece(piece)]
        except RecursionError:
            raise too_deep(event.data, self._source) from None

    def read_piece(self, wire: Mapping[str, Json]) -> list[StreamChunk]:
        _raise_error(wire, self._source)
        self._id = _word(wire, "responseId") or self._id
        _lay_over(self._said, _said(wire))
        facts = StreamChunk(
            usage=_usage(wire),
            model=_word(wire, "modelVersion"),
            request_id=self._source.request_id,
            id=self._id,
            service_tier=_tier(wire),
        )
        chunks: list[StreamChunk] = []
        for index, candidate in _candidates(wire):
            answer = self._answers.get(index)
            if answer is None:
                answer = self._answers[index] = _Answer(index, self._source)
            answer.read(candidate, facts, chunks)
        if (blocked := _blocked(wire)) and not self._is_finished():
            self._blocked = True
            chunks.append(_with(facts, finish_reason="content_filter", raw_finish_reason=blocked))
        if not chunks and facts.usage is not None:
            chunks.append(facts)
        self.finished = self._is_finished()
        return chunks

    def _is_finished(self) -> bool:
        if self._blocked:
            return True
        for answer in self._answers.values():
            if answer.raw is None:
                return False
        return bool(self._answers)

    def end(self) -> list[StreamChunk]:
        """What was said of each answer while it came."""
        said = self._said
        chunks: list[StreamChunk] = []
        for index, answer in sorted(self._answers.items()):
            answer.close(chunks)
            own = {**said, **answer.said} if index == 0 else answer.said
            chunks.append(StreamChunk(index=index, opaque={NAME: own}))
        return chunks or [StreamChunk(opaque={NAME: said})]


class _Answer:
    """One candidate of a stream: which part is still growing, and what was said of the whole."""

    __slots__ = ("_calls", "_growing", "_index", "_names", "_partial", "_slot", "_source", "raw", "said")

    def __init__(self, index: int, source: Source) -> None:
        self.raw: str | None = None
        self.said: dict[str, Json] = {}
        self._index = index
        self._source = source
        self._slot = -1
        self._growing: type[Part] | None = None
        self._calls = 0
        self._names = _Names(index, None)
        self._partial: PartialCall | None = None

    def read(self, candidate: Mapping[str, Json], facts: StreamChunk, chunks: list[StreamChunk]) -> None:
        """Add the chunks of this candidate's next piece, each with the facts of its event."""
        self._names.answer = facts.id
        for wire in _parts(candidate):
            self._part(wire, facts, chunks)
        if more := _left(candidate, _MODELLED_CANDIDATE):
            _lay_over(self.said, more)
        if logprobs := _logprobs(candidate):
            chunks.append(_with(facts, index=self._index, logprobs=logprobs))
        raw = _word(candidate, "finishReason")
        if raw is not None and raw != _NOT_YET:
            self.close(chunks)
            self.raw = raw
            finish = _finish(raw, self._calls > 0)
            chunks.append(_with(facts, index=self._index, finish_reason=finish, raw_finish_reason=raw))

    def close(self, chunks: list[StreamChunk]) -> None:
        """Add the arguments of a call that the stream left open."""
        if self._partial is not None:
            delta = ToolCallDelta(self._calls - 1, arguments=self._partial.text())
            chunks.append(StreamChunk(index=self._index, tool_calls=(delta,)))
            self._partial = None

    def _part(self, wire: Mapping[str, Json], facts: StreamChunk, chunks: list[StreamChunk]) -> None:
        call = wire.get("functionCall")
        if isinstance(call, dict) and (self._partial or call.get("partialArgs") or call.get("willContinue")):
            self._piece_of_call(call, wire, facts, chunks)
            return
        part = part_from_wire(wire, self._names.next)
        if isinstance(part, ToolCall):
            delta = ToolCallDelta(self._calls, part.id, part.name, part.raw, part.opaque)
            self._calls += 1
            self._growing = None
            chunks.append(_with(facts, index=self._index, tool_calls=(delta,)))
        elif part is not None:
            chunks.append(self._whole_or_growing(part, facts))

    def _whole_or_growing(self, part: Part, facts: StreamChunk) -> StreamChunk:
        """Words without a signature go on where words of their kind stood; everything else is a part of its own."""
        kind = type(part)
        plain = (isinstance(part, Text) and not part.opaque) or (
            isinstance(part, Reasoning) and part.opaque == _THOUGHT
        )
        goes_on = plain and self._growing is kind
        if not goes_on:
            self._slot += 1
            self._growing = kind if plain else None
        if isinstance(part, Text) and part.text:
            return _with(facts, part.text, index=self._index, slot=self._slot, opaque=part.opaque)
        if isinstance(part, Reasoning) and part.text:
            opaque = {} if goes_on else part.opaque
            return _with(facts, index=self._index, slot=self._slot, reasoning=part.text, opaque=opaque)
        return _with(facts, index=self._index, slot=self._slot, part=part)

    def _piece_of_call(
        self, call: Mapping[str, Json], wire: Mapping[str, Json], facts: StreamChunk, chunks: list[StreamChunk]
    ) -> None:
        """Vertex may send a call's arguments piece by piece; they are put together and handed on as one text."""
        if self._partial is None or _word(call, "name"):
            self.close(chunks)
            chunks.append(_with(facts, index=self._index, tool_calls=(self._begun(call, wire),)))
        elif len(wire) > 1:  # a signature that comes late
            rest: dict[str, Json] = {name: value for name, value in wire.items() if name != "functionCall"}
            delta = ToolCallDelta(self._calls - 1, opaque={NAME: rest})
            chunks.append(_with(facts, index=self._index, tool_calls=(delta,)))
        for piece in mappings(call.get("partialArgs")):
            if self._partial is None or not self._partial.add(piece):
                raise no_answer("an argument out of place", msgspec.json.encode(piece), self._source)
        if call.get("willContinue") is not True:
            self.close(chunks)

    def _begun(self, call: Mapping[str, Json], wire: Mapping[str, Json]) -> ToolCallDelta:
        plain = {name: value for name, value in call.items() if name not in _CONTINUES}
        begun = part_from_wire({**wire, "functionCall": plain}, self._names.next)
        if not isinstance(begun, ToolCall):
            raise no_answer("a function call without a name", msgspec.json.encode(wire), self._source)
        self._partial = PartialCall(begun.arguments)
        self._calls += 1
        self._growing = None
        return ToolCallDelta(self._calls - 1, begun.id, begun.name, opaque=begun.opaque)


_THOUGHT: Final = {NAME: {"thought": True}}
_CONTINUES: Final = ("partialArgs", "willContinue")


# ---- what both share -----------------------------------------------------------------------------------------


class _Names:
    """Ids for function calls that have none: the same for the same answer, other ones for another."""

    __slots__ = ("_count", "_index", "answer")

    def __init__(self, index: int, answer: str | None) -> None:
        self.answer = answer
        self._index = index
        self._count = 0

    def next(self) -> str:
        place = f"{self._index}-{self._count}" if self._index else f"{self._count}"
        self._count += 1
        return f"{self.answer or 'call'}-{place}"


def _raise_error(wire: Mapping[str, Json], source: Source) -> None:
    if wire.get("error"):
        raise wire_error(wire["error"], source)


def _candidates(wire: Mapping[str, Json]) -> list[tuple[int, Mapping[str, Json]]]:
    """The candidates with their indexes, in that order; where a candidate has none it is its place."""
    found: list[tuple[int, Mapping[str, Json]]] = []
    for place, candidate in enumerate(mappings(wire.get("candidates"))):
        index = candidate.get("index")
        found.append((index if type(index) is int and index >= 0 else place, candidate))
    return found if len(found) < 2 else sorted(found, key=lambda item: item[0])


def _parts(candidate: Mapping[str, Json]) -> list[dict[str, Json]]:
    return mappings(mapping(candidate.get("content")).get("parts"))


def _blocked(wire: Mapping[str, Json]) -> str | None:
    """Why the prompt was not answered at all."""
    return _word(mapping(wire.get("promptFeedback")), "blockReason")


def _finish(raw: str | None, calls: bool) -> str | None:
    if raw is None or raw == _NOT_YET:
        return None
    return "tool_calls" if calls and raw == "STOP" else _FINISH.get(raw, raw)


def _usage(wire: Mapping[str, Json]) -> Usage | None:
    """Thoughts are not among the candidates' tokens, and what tools brought is not among the prompt's."""
    usage = mapping(wire.get("usageMetadata"))
    if usage.keys().isdisjoint(_SPENT):
        return None
    thoughts = count(usage.get("thoughtsTokenCount"))
    return Usage(
        count(usage.get("promptTokenCount")) + count(usage.get("toolUsePromptTokenCount")),
        count(usage.get("candidatesTokenCount")) + thoughts,
        count(usage.get("cachedContentTokenCount")),
        thoughts,
        input_audio_tokens=_sound(usage, "promptTokensDetails") + _sound(usage, "toolUsePromptTokensDetails"),
        output_audio_tokens=_sound(usage, "candidatesTokensDetails"),
    )


def _sound(usage: Mapping[str, Json], name: str) -> int:
    details = mappings(usage.get(name))
    return sum([count(detail.get("tokenCount")) for detail in details if detail.get("modality") == "AUDIO"])


def _tier(wire: Mapping[str, Json]) -> str | None:
    return _word(mapping(wire.get("usageMetadata")), "serviceTier")


def _logprobs(candidate: Mapping[str, Json]) -> tuple[TokenLogprob, ...]:
    """The chosen tokens, each with its likeliest alternatives where they were asked for."""
    result = mapping(candidate.get("logprobsResult"))
    if not result:
        return ()
    tops = [mappings(top.get("candidates")) for top in mappings(result.get("topCandidates"))]
    return tuple(
        [
            TokenLogprob(*_token(chosen), tuple([_token(top) for top in tops[at]]) if at < len(tops) else ())
            for at, chosen in enumerate(mappings(result.get("chosenCandidates")))
        ]
    )


def _token(wire: Mapping[str, Json]) -> tuple[str, float]:
    return text(wire.get("token")), number(wire.get("logProbability")) or 0.0  # left out where it is 0


def _said(wire: Mapping[str, Json]) -> dict[str, Json]:
    """What the body says beside its answers and is not modelled: block reasons, dates, tokens by modality."""
    left = _left(wire, _MODELLED)
    if more := _left(mapping(wire.get("usageMetadata")), _MODELLED_USAGE):
        left["usageMetadata"] = more
    return left


def _left(wire: Mapping[str, Json], modelled: frozenset[str]) -> dict[str, Json]:
    if wire.keys() <= modelled:
        return {}
    return {name: value for name, value in wire.items() if name not in modelled}


def _lay_over(said: dict[str, Json], more: Mapping[str, Json]) -> None:
    """What a stream says later: the last word wins, except where it is told piece by piece."""
    for name, value in more.items():
        if name in _GROWING and name in said:
            said[name] = _grown(said[name], value)
        elif name == "usageMetadata":
            said[name] = {**mapping(said.get(name)), **mapping(value)}
        else:
            said[name] = value


def _grown(old: Json, new: Json) -> Json:
    """Objects field by field; lists one after the other, unless the new one tells the old one again."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _grown(old[name], value) if name in old else value for name, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return new if new[: len(old)] == old else old + new
    return new


def _with(facts: StreamChunk, content: str = "", **more: object) -> StreamChunk:
    """A chunk with the facts of its event."""
    return StreamChunk(
        content,
        usage=facts.usage,
        model=facts.model,
        request_id=facts.request_id,
        id=facts.id,
        service_tier=facts.service_tier,
        **more,  # type: ignore[arg-type]
    )


def _word(wire: Mapping[str, Json], name: str) -> str | None:
    """A text that says something."""
    return text(wire.get(name)) or None
