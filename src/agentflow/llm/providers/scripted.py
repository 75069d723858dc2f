"""A provider that says what it was told to: the public test double.

provider = ScriptedProvider(["Hello there.", RateLimitError("too fast"), ["in ", "pieces"]])
provider = ScriptedProvider(lambda request: request.prompt.upper())
…
assert provider.requests[0].prompt == "Hi"
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from msgspec.structs import replace

from agentflow.errors import ConfigurationError, ModelError
from agentflow.llm.content import Json, Text, ToolCall, content_of
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.batches.scripted import ScriptedBatches
from agentflow.llm.streaming.join import chunks_of, join

__all__ = ["ScriptedAnswer", "ScriptedProvider"]

Piece: TypeAlias = str | StreamChunk | Exception
ScriptedAnswer: TypeAlias = str | Response | Exception | Sequence[Piece]
Script: TypeAlias = Callable[[Request], ScriptedAnswer | Awaitable[ScriptedAnswer]]
Vector: TypeAlias = Callable[[str], Sequence[float]]


class ScriptedProvider:
    """Answers from a list, one answer a call, or from a function of the request, sync or async.

    An answer is one of:

    - a text; streamed word by word,
    - a `Response`, with tool calls if need be; returned as it stands, its text streamed word by word,
    - an exception; raised,
    - a list of pieces (texts, `StreamChunk`s, exceptions); streamed as they are given, so that an exception among them
      fails in the middle; `execute` joins them.

    `requests` holds every request in the order of arrival, `embedded` every list of texts. Where an answer brings no
    usage, words are counted as tokens. A list that is used up raises ModelError; it is not retryable, because more
    calls find no more answers. `vector` gives the vector of a text; without it, a text's vector counts its letters.
    `schemas` False plays a model that takes no schema for its answer.
    """

    def __init__(
        self,
        answers: Sequence[ScriptedAnswer] | Script,
        *,
        name: str = "scripted",
        vector: Vector | None = None,
        schemas: bool = True,
    ) -> None:
        if isinstance(answers, str):
            raise ConfigurationError("answers is a list of answers or a function, not one text: put it in a list")
        self._answers = answers
        self._name = name
        self._vector = vector or _letters
        self.schemas = schemas
        self.requests: list[Request] = []
        self.embedded: list[tuple[str, ...]] = []
        self._batches = ScriptedBatches(self)

    @classmethod
    def from_settings(cls, settings: ProviderSettings) -> ScriptedProvider:
        """From models.yml: `kind: scripted` with `options: {answers: [text, [piece, piece], {tool_calls: […]}, …]}`.

        A tool call is `{name: weather, arguments: {city: Oslo}}`; a `text` may stand beside the calls.
        """
        answers = settings.options.get("answers")
        where = f"provider {settings.name!r}: answers"
        if isinstance(answers, str) or not isinstance(answers, Sequence):
            raise ConfigurationError(f"{where} is a list of texts, as in options: {{answers: [Hello, Goodbye]}}")
        script: list[ScriptedAnswer] = []
        for number, answer in enumerate(answers, 1):
            if isinstance(answer, Mapping):
                script.append(_calling(answer, f"{where}[{number}]", settings.name))
                continue
            pieces = answer if isinstance(answer, Sequence) and not isinstance(answer, str) else [answer]
            texts = [piece for piece in pieces if isinstance(piece, str)]
            if len(texts) != len(pieces):
                raise ConfigurationError(
                    f"{where}[{number}] is a text, a list of texts or {{tool_calls: […]}}, not {answer!r}"
                )
            script.append(answer if isinstance(answer, str) else texts)
        return cls(script, name=settings.name)

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, request: Request) -> Response:
        answer = await self._next(request)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, Exception):
            raise answer
        return self._joined(request, [answer] if isinstance(answer, str) else answer)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        answer = await self._next(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Response):
            for chunk in _in_words(chunks_of(answer)):
                yield chunk
            return
        said: list[StreamChunk] = []
        for piece in _words(answer) if isinstance(answer, str) else answer:
            if isinstance(piece, Exception):
                raise piece
            said.append(_chunk(piece))
            yield said[-1]
        yield _closing(self._joined(request, said))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The scripted vectors of the texts, cut to `dimensions`."""
        self.embedded.append(request.inputs)
        vectors = tuple([tuple(self._vector(text))[: request.dimensions] for text in request.inputs])
        words = sum(len(text.split()) for text in request.inputs)
        return Embeddings(vectors, request.model, self._name, usage=Usage(words))

    def batches(self) -> ScriptedBatches:
        """Batches that are worked on as they are made."""
        return self._batches

    async def aclose(self) -> None:
        """There is nothing to give back."""

    async def _next(self, request: Request) -> ScriptedAnswer:
        self.requests.append(request)
        if not callable(self._answers):
            return self._listed(request, self._answers)
        answer = self._answers(request)
        return await answer if inspect.isawaitable(answer) else answer

    def _listed(self, request: Request, answers: Sequence[ScriptedAnswer]) -> ScriptedAnswer:
        call = len(self.requests)
        if call > len(answers):
            raise ModelError(
                f"call {call} finds no answer: {len(answers)} were given; give more, or a function that always answers",
                provider=self._name,
                model=request.model,
            )
        return answers[call - 1]

    def _joined(self, request: Request, pieces: Sequence[Piece]) -> Response:
        """The response that pieces add up to; an exception among them is raised."""
        chunks: list[StreamChunk] = []
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            chunks.append(_chunk(piece))
        whole = join(chunks, provider=self._name, model=request.model)
        finish = whole.finish_reason or ("tool_calls" if whole.tool_calls else "stop")
        return replace(
            whole,
            usage=whole.usage or _counted(request, whole.text),
            finish_reason=finish,
            raw_finish_reason=whole.raw_finish_reason or finish,
            request_id=whole.request_id or f"scripted-{len(self.requests)}",
        )


def _chunk(piece: str | StreamChunk) -> StreamChunk:
    return piece if isinstance(piece, StreamChunk) else StreamChunk(piece)


def _in_words(chunks: Iterable[StreamChunk]) -> Iterator[StreamChunk]:
    """The same chunks, their text word by word; what else a chunk says comes with its first word."""
    for chunk in chunks:
        first, *rest = _words(chunk.content) or [""]
        yield replace(chunk, content=first)
        for word in rest:
            yield StreamChunk(word, index=chunk.index, slot=chunk.slot)


def _words(text: str) -> list[str]:
    """The words of a text with the space after them; joined they are the text."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def _closing(whole: Response) -> StreamChunk:
    """The last chunk of a stream: no content, but what is known at the end."""
    return StreamChunk(
        finish_reason=whole.finish_reason,
        raw_finish_reason=whole.raw_finish_reason,
        usage=whole.usage,
        model=whole.model,
        request_id=whole.request_id,
    )


def _counted(request: Request, text: str) -> Usage:
    return Usage(sum(len(message.text.split()) for message in request.messages), len(text.split()))


def _letters(text: str) -> list[float]:
    """A vector of 26 counts: texts of the same letters are alike, which is enough for a test to tell them apart."""
    lowered = text.lower()
    return [float(lowered.count(letter)) for letter in string.ascii_lowercase]


def _calling(answer: Mapping[str, Json], where: str, provider: str) -> Response:
    """The answer that models.yml says as a mapping. Raises ConfigurationError."""
    text, calls = answer.get("text", ""), answer.get("tool_calls", ())
    named = isinstance(calls, Sequence) and all(
        isinstance(call, Mapping) and isinstance(call.get("name"), str) and call.keys() <= {"name", "arguments"}
        for call in calls
    )
    if not named or not isinstance(text, str) or not answer.keys() <= {"text", "tool_calls"}:
        raise ConfigurationError(f"{where} is {{text: …, tool_calls: [{{name: …, arguments: {{…}}}}]}}, not {answer!r}")
    made = [
        ToolCall(f"call-{number}", str(call["name"]), cast("Mapping[str, Json]", call.get("arguments") or {}))
        for number, call in enumerate(cast("Sequence[Mapping[str, Json]]", calls), 1)
    ]
    content = content_of([*([Text(text)] if text else []), *made])
    return Response(content, "scripted", provider, finish_reason="tool_calls" if made else "stop")
