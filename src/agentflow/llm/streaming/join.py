"""Chunks added up to an answer.

    StreamChunk, StreamChunk, …  ──Joiner.add──▶  parts in the order of their first piece  ──response()──▶  Response

Texts of one slot are joined, tool-call arguments of one index are joined, opaque data is laid over what is there, and
of everything else the last one wins. A further round (see `StreamChunk.round`) begins a new answer, and its usage
comes on top. A round that is begun anew (`restart`) leaves nothing of what came of it before but what that has cost,
where it said so.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from agentflow.llm.content import Content, Json, Part, Reasoning, Text, ToolCall, content_of, parts_of
from agentflow.llm.messages import Alternative, Message, Response, StreamChunk, TokenLogprob, ToolCallDelta, Usage

__all__ = ["Joiner", "chunks_of", "join", "laid_over", "total"]

_LARGEST: Final = 16 * 1024 * 1024


class Joiner:
    """Adds up the chunks of one stream, at most `limit` characters of text.

    `add` is cheap: pieces are kept as they come and joined once, by `response`, which may be called at any time. Past
    the limit nothing more is kept and `overflowed` is True: no answer of a model is that long.
    """

    __slots__ = ("_answers", "_earlier", "_facts", "_limit", "_round", "_size", "_turns", "overflowed")

    def __init__(self, *, limit: int = _LARGEST) -> None:
        self.overflowed = False
        self._limit = limit
        self._size = 0
        self._answers: dict[int, _Answer] = {}
        self._facts = _Facts()
        self._round = 0
        self._earlier: list[_Facts] = []
        self._turns: list[Message] = []

    def add(self, chunk: StreamChunk) -> None:
        """Take the next chunk."""
        if chunk.round != self._round:
            self._begin(chunk.round)
        elif chunk.restart:
            self._restart()
        if chunk.turn is not None:
            self._turns.append(chunk.turn)
            return
        self._facts.note(chunk)
        self._size += len(chunk.content) + len(chunk.reasoning)
        if chunk.tool_calls:
            self._size += sum([len(delta.arguments) for delta in chunk.tool_calls])
        if self._size > self._limit:
            self.overflowed = True
            self._answers.clear()
            return
        answer = self._answers.get(chunk.index)
        if answer is None:
            answer = self._answers[chunk.index] = _Answer()
        answer.add(chunk)

    @property
    def text(self) -> str:
        """The words of the first answer so far."""
        answer = self._answers.get(0)
        return "" if answer is None else answer.text()

    def response(self, *, provider: str, model: str) -> Response:
        """What the chunks so far add up to. `provider` and `model` stand in where the chunks do not say it."""
        first = self._answers.get(0) or _Answer()
        facts = self._facts
        usage, cost = total([(each.usage, each.cost) for each in (*self._earlier, facts)])
        return Response(
            first.content(),
            facts.model or model,
            facts.provider or provider,
            usage=usage,
            finish_reason=first.finish,
            raw_finish_reason=first.raw,
            request_id=facts.request_id,
            cost=cost,
            opaque=first.opaque,
            id=facts.id,
            service_tier=facts.service_tier,
            logprobs=tuple(first.logprobs),
            alternatives=tuple(
                [
                    Alternative(other.content(), other.finish, other.raw, tuple(other.logprobs), other.opaque)
                    for index, other in sorted(self._answers.items())
                    if index
                ]
            ),
            turns=tuple(self._turns),
            cache_hit=facts.cache_hit,
        )

    def _begin(self, number: int) -> None:
        self._round = number
        self._earlier.append(self._facts)
        self._facts = _Facts()
        self._answers.clear()

    def _restart(self) -> None:
        if self._facts.usage is not None:
            self._earlier.append(self._facts)
        self._facts = _Facts()
        self._answers.clear()
        self._size, self.overflowed = 0, False


def join(chunks: Iterable[StreamChunk], *, provider: str, model: str) -> Response:
    """The response that the chunks of one stream add up to."""
    joiner = Joiner()
    for chunk in chunks:
        joiner.add(chunk)
    return joiner.response(provider=provider, model=model)


def total(bills: Sequence[tuple[Usage | None, float | None]]) -> tuple[Usage | None, float | None]:
    """Several requests' usage and cost as one: usage as far as it is known, the cost only where all of it is."""
    known = [usage for usage, _ in bills if usage is not None]
    costs = [cost for _, cost in bills if cost is not None]
    return sum(known[1:], known[0]) if known else None, sum(costs) if len(costs) == len(bills) else None


def chunks_of(response: Response) -> Iterator[StreamChunk]:
    """A whole answer in chunks, one a part and one for the rest; `join` gives an equal answer back."""
    yield from _parts(response.content, 0)
    for index, other in enumerate(response.alternatives, 1):
        yield from _parts(other.content, index)
        yield StreamChunk(
            finish_reason=other.finish_reason,
            raw_finish_reason=other.raw_finish_reason,
            index=index,
            opaque=other.opaque,
            logprobs=other.logprobs,
        )
    yield StreamChunk(
        finish_reason=response.finish_reason,
        raw_finish_reason=response.raw_finish_reason,
        usage=response.usage,
        model=response.model,
        request_id=response.request_id,
        opaque=response.opaque,
        logprobs=response.logprobs,
        id=response.id,
        service_tier=response.service_tier,
        cost=response.cost,
        provider=response.provider,
        cache_hit=response.cache_hit,
    )


def _parts(content: Content, index: int) -> Iterator[StreamChunk]:
    for slot, part in enumerate(parts_of(content)):
        if type(part) is Text and part.text and part.cache is None:
            yield StreamChunk(part.text, index=index, slot=slot, opaque=part.opaque)
        elif type(part) is Reasoning and part.text:
            yield StreamChunk(reasoning=part.text, index=index, slot=slot, opaque=part.opaque)
        elif type(part) is ToolCall:
            call = ToolCallDelta(slot, part.id, part.name, part.json, part.opaque)
            yield StreamChunk(index=index, tool_calls=(call,))
        else:
            yield StreamChunk(index=index, slot=slot, part=part)


def laid_over(below: Mapping[str, Json], above: Mapping[str, Json]) -> Mapping[str, Json]:
    """`below` with what `above` adds: mappings are laid over each other, lists appended, of the rest `above` wins."""
    if not below:
        return above
    merged = dict(below)
    for name, new in above.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            merged[name] = laid_over(old, new)
        elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
            merged[name] = [*old, *new]
        else:
            merged[name] = new
    return merged


class _Facts:
    """What is known of the whole call: the last word wins."""

    __slots__ = ("cache_hit", "cost", "id", "model", "provider", "request_id", "service_tier", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.request_id: str | None = None
        self.id: str | None = None
        self.service_tier: str | None = None
        self.cost: float | None = None
        self.provider: str | None = None
        self.cache_hit: str | None = None

    def note(self, chunk: StreamChunk) -> None:
        self.usage = chunk.usage or self.usage
        self.model = chunk.model or self.model
        self.request_id = chunk.request_id or self.request_id
        self.id = chunk.id or self.id
        self.service_tier = chunk.service_tier or self.service_tier
        self.cost = self.cost if chunk.cost is None else chunk.cost
        self.provider = chunk.provider or self.provider
        self.cache_hit = chunk.cache_hit or self.cache_hit


class _Piece:
    """One part that is still growing: text or reasoning by its words, a tool call by its JSON, or a whole part."""

    __slots__ = ("id", "kind", "name", "opaque", "part", "words")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.words: list[str] = []
        self.opaque: Mapping[str, Json] = {}
        self.part: Part | None = None
        self.id = ""
        self.name = ""

    def whole(self) -> Part | None:
        words = "".join(self.words)
        if self.kind == "call":
            return ToolCall.parse(self.id, self.name, words, opaque=self.opaque)
        if self.kind == "reasoning":
            return Reasoning(words, opaque=self.opaque) if words or self.opaque else None
        if self.kind == "text":
            return Text(words, opaque=self.opaque) if words or self.opaque else None
        return self.part


class _Answer:
    """One of the answers of a stream, most often the only one."""

    __slots__ = ("_pieces", "finish", "logprobs", "opaque", "raw")

    def __init__(self) -> None:
        self._pieces: dict[Hashable, _Piece] = {}
        self.finish: str | None = None
        self.raw: str | None = None
        self.logprobs: list[TokenLogprob] = []
        self.opaque: Mapping[str, Json] = {}

    def add(self, chunk: StreamChunk) -> None:
        if chunk.content:
            self._piece(chunk.slot, "text").words.append(chunk.content)
        if chunk.reasoning:
            self._piece(chunk.slot, "reasoning").words.append(chunk.reasoning)
        for delta in chunk.tool_calls:
            self._call(delta)
        if chunk.part is not None:
            whole = ("part", len(self._pieces)) if chunk.slot is None else chunk.slot
            self._piece(whole, "part").part = chunk.part
        if chunk.opaque:
            self._lay_over(chunk)
        if chunk.logprobs:
            self.logprobs.extend(chunk.logprobs)
        self.finish = chunk.finish_reason or self.finish
        self.raw = chunk.raw_finish_reason or self.raw

    def text(self) -> str:
        return "".join([word for piece in self._pieces.values() if piece.kind == "text" for word in piece.words])

    def content(self) -> Content:
        wholes = [piece.whole() for piece in self._pieces.values()]
        return content_of([part for part in wholes if part is not None])

    def _piece(self, slot: Hashable, kind: str) -> _Piece:
        key = kind if slot is None else slot
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._pieces[key] = _Piece(kind)
        return piece

    def _call(self, delta: ToolCallDelta) -> None:
        piece = self._piece(("call", delta.index), "call")
        piece.id = delta.id or piece.id
        piece.name = delta.name or piece.name
        if delta.arguments:
            piece.words.append(delta.arguments)
        if delta.opaque:
            piece.opaque = laid_over(piece.opaque, delta.opaque)

    def _lay_over(self, chunk: StreamChunk) -> None:
        """A chunk with nothing but opaque data opens a reasoning part, where its slot is new: such come in cipher."""
        if chunk.slot is None:
            self.opaque = laid_over(self.opaque, chunk.opaque)
            return
        piece = self._piece(chunk.slot, "text" if chunk.content else "reasoning")
        piece.opaque = laid_over(piece.opaque, chunk.opaque)
