"""A model that needs no key, no network and no download: `local/extractive` quotes the sentences that matter.

    Request("extractive", [user: "Summarise in 2 sentences:\\n\\n…"])  →  Response("The moon … Spring tides …")

It is an extractive summariser (see `agentflow.llm.extractive`), not a language model: whatever it is asked, it answers
with sentences of the text it was given, chosen for being central to it and, where the instruction asks about something,
for being about that. It knows nothing that the text does not say.

- The text is the last user turn without its instruction, told apart as `agentflow.llm.extractive.task` describes.
- Length: `sentences`, `words` and `query` as parameters, else what the instruction says, else 3 sentences; `max_tokens`
  is a ceiling on top (4 bytes of UTF-8 are a token). `stop` works as elsewhere; temperature, top_p and seed change
  nothing: the same request always has the same answer.
- The work runs in a thread; a stream has one chunk a sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from agentflow.errors import BadRequestError, NotFoundError
from agentflow.llm.content import Json
from agentflow.llm.extractive.measure import count_tokens
from agentflow.llm.extractive.summary import Budget, Summary, summarise
from agentflow.llm.extractive.task import Task, read_task
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import ProviderSettings

__all__ = ["LocalProvider"]

MODEL = "extractive"
PARAMETERS = ("query", "sentences", "words")


class LocalProvider:
    """Serves the model `extractive` in this process. Holds nothing that needs closing.

    Raises `NotFoundError` for another model, `BadRequestError` for a prompt without text or a parameter out of range.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self._name = settings.name

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, request: Request) -> Response:
        answer = await self._answer(request)
        return Response(
            content=answer.text,
            model=request.model,
            provider=self._name,
            usage=_usage(request, answer),
            finish_reason=_reason(answer),
            raw_finish_reason=_reason(answer),
            cost=0.0,
        )

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        answer = await self._answer(request)
        for piece in answer.pieces:
            yield StreamChunk(content=piece, model=request.model)
            await asyncio.sleep(0)
        reason, usage = _reason(answer), _usage(request, answer)
        yield StreamChunk(finish_reason=reason, raw_finish_reason=reason, usage=usage, model=request.model, cost=0.0)

    async def aclose(self) -> None:
        """Nothing to give back."""

    async def _answer(self, request: Request) -> Summary:
        self._check(request)
        return await asyncio.to_thread(self._work, request)

    def _check(self, request: Request) -> None:
        """Refuse at once what no reading of the text could mend."""
        if request.model != MODEL:
            raise NotFoundError(
                f"there is no model of this name here; use {MODEL!r}", provider=self._name, model=request.model
            )
        unknown = sorted(set(request.params) - set(PARAMETERS))
        if unknown:
            raise self._refuse(f"unknown parameter {unknown[0]!r}; it takes {', '.join(PARAMETERS)}")
        if request.max_tokens is not None and request.max_tokens < 1:
            raise self._refuse(f"max_tokens is {request.max_tokens}; it must be at least 1")

    def _work(self, request: Request) -> Summary:
        system = "\n".join(message.text for message in request.messages if message.role in ("system", "developer"))
        task = self._with_params(read_task(request.prompt, system=system), request.params)
        budget = replace(task.budget, tokens=request.max_tokens)
        answer = summarise(task.text, budget=budget, query=task.query)
        if not answer.pieces:
            raise self._refuse(
                "the prompt holds no text to summarise: put it after the instruction and a blank line, "
                'as in "Summarise in 2 sentences:\\n\\n<text>"'
            )
        return _stopped(answer, request.stop)

    def _with_params(self, task: Task, params: Mapping[str, Json]) -> Task:
        query = params.get("query", task.query)
        if not isinstance(query, str):
            raise self._refuse(f"query is {query!r}; it must be a string")
        sentences, words = self._count(params, "sentences"), self._count(params, "words")
        if sentences is None and words is None:
            return replace(task, query=query)
        return replace(task, query=query, budget=Budget(sentences=sentences, words=words))

    def _count(self, params: Mapping[str, Json], name: str) -> int | None:
        value = params.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._refuse(f"{name} is {value!r}; it must be a whole number, 1 or more")
        return value

    def _refuse(self, message: str) -> BadRequestError:
        return BadRequestError(message, provider=self._name, model=MODEL)


def _usage(request: Request, answer: Summary) -> Usage:
    said = sum(count_tokens(message.text) for message in request.messages)
    return Usage(input_tokens=said, output_tokens=count_tokens(answer.text))


def _reason(answer: Summary) -> str:
    return "length" if answer.cut else "stop"


def _stopped(answer: Summary, stop: tuple[str, ...]) -> Summary:
    """End before the first stop sequence, which may lie across two pieces."""
    ends = [at for at in (answer.text.find(mark) for mark in stop if mark) if at >= 0]
    if not ends:
        return answer
    left = min(ends)
    pieces: list[str] = []
    for piece in answer.pieces:
        pieces.append(piece[:left])
        left -= len(pieces[-1])
    return Summary(tuple(piece for piece in pieces if piece))
