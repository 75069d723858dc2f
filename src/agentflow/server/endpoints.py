"""The paths of the API, each a few lines: read the question, ask the house's own client, write the answer.

POST /v1/chat/completions · /v1/completions · /v1/embeddings      GET /v1/models · /v1/models/{id} · /health
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from aiohttp import web

from agentflow.core.robustness.adaptive_limit import Fixed
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.llm.client import Call, LLMClient
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Json
from agentflow.llm.messages import Response
from agentflow.server.answering import REQUEST_ID, told
from agentflow.server.sending import send_events, sent_json
from agentflow.server.wire import answers
from agentflow.server.wire.chat_chunks import ChatChunks, fewer
from agentflow.server.wire.chat_request import ChatQuestion, read_chat
from agentflow.server.wire.completion_chunks import CompletionChunks
from agentflow.server.wire.completion_request import CompletionQuestion, read_completion
from agentflow.server.wire.embedding_request import read_embedding
from agentflow.server.wire.refusal import Refusal

__all__ = ["Endpoints"]

_MOST_WAITING: Final = 256  # requests beyond those that are being answered; more are sent away


class Endpoints:
    """`models` are the names that are answered to; `at_once` is how many requests are worked on together."""

    def __init__(self, registry: ModelRegistry, models: Mapping[str, str], *, at_once: int | None = None) -> None:
        self._registry = registry
        self._models = models  # name → provider
        self._since = int(registry.clock.time())
        self._line = (
            None
            if at_once is None
            else LoadShedder(name="server", limit=Fixed(at_once), max_queue=_MOST_WAITING, target_wait=None)
        )

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.completions),
            web.post("/v1/embeddings", self.embeddings),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id:.+}", self.model),
            web.get("/health", self.health),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """That the server is there; no model is asked."""
        return sent_json({"status": "ok"})

    async def models(self, request: web.Request) -> web.Response:
        return sent_json(answers.models([self._entry(name) for name in self._models]))

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self._check(name)
        return sent_json(self._entry(name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        question = read_chat(await request.read())
        self._check(question.model)
        async with self._place():
            if question.stream:
                return await self._events(request, self._chat_pieces(question))
            reply = await self._client(question.call).execute()
        found = 1 + len(reply.alternatives)
        if found < question.n:
            raise fewer(found, question.n)
        return sent_json(answers.chat(reply, id=_id("chatcmpl"), created=self._now(), model=question.model))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        question = read_completion(await request.read())
        self._check(question.model)
        async with self._place():
            if question.stream:
                return await self._events(request, self._completion_pieces(question))
            replies = await self._all(question)
        echoes = question.prompts if question.echo else ("",) * len(replies)
        made = answers.completion(replies, echoes, id=_id("cmpl"), created=self._now(), model=question.model)
        return sent_json(made)

    async def embeddings(self, request: web.Request) -> web.Response:
        question = read_embedding(await request.read())
        self._check(question.model)
        async with self._place():
            client = self._client(Call(model=question.model))
            found = await client.embed(question.texts, dimensions=question.dimensions)
        return sent_json(answers.embeddings(found, model=question.model, packed=question.packed))

    # ---- answers in pieces -----------------------------------------------------------------------------------

    async def _events(
        self, request: web.Request, pieces: AsyncGenerator[Mapping[str, object], None]
    ) -> web.StreamResponse:
        id_ = request[REQUEST_ID]
        return await send_events(request, pieces, headers={"x-request-id": id_}, failed=lambda error: told(error, id_))

    async def _chat_pieces(self, question: ChatQuestion) -> AsyncGenerator[Mapping[str, object], None]:
        chunks = ChatChunks(
            id=_id("chatcmpl"), created=self._now(), model=question.model, usage=question.usage, count=question.n
        )
        async with self._client(question.call).execute_streaming() as stream:
            async for chunk in stream:
                for piece in chunks.write(chunk):
                    yield piece
        for piece in chunks.end():
            yield piece

    async def _completion_pieces(self, question: CompletionQuestion) -> AsyncGenerator[Mapping[str, object], None]:
        chunks = CompletionChunks(id=_id("cmpl"), created=self._now(), model=question.model, usage=question.usage)
        for at, call in enumerate(question.calls):
            for piece in chunks.begin(at, question.prompts[at] if question.echo else ""):
                yield piece
            async with self._client(call).execute_streaming() as stream:
                async for chunk in stream:
                    for piece in chunks.write(at, chunk):
                        yield piece
        for piece in chunks.end():
            yield piece

    async def _all(self, question: CompletionQuestion) -> list[Response]:
        """The answers to all prompts, side by side; the first that fails ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._client(call).execute()) for call in question.calls]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    # ---- what all of them need -------------------------------------------------------------------------------

    def _check(self, model: str) -> None:
        """Raises Refusal for a model that is not served, whether or not the registry has it."""
        if model not in self._models:
            message = f"there is no model {model!r} here; GET /v1/models lists those there are"
            raise Refusal(404, message, param="model", code="model_not_found")

    def _place(self) -> AbstractAsyncContextManager[object]:
        """Room to work in, once there is some. Raises LoadShedError."""
        return nullcontext() if self._line is None else self._line.admit()

    def _client(self, call: Call) -> LLMClient:
        return LLMClient(self._registry, call)

    def _entry(self, name: str) -> Json:
        return answers.model(name, created=self._since, owner=self._models[name])

    def _now(self) -> int:
        return int(self._registry.clock.time())


def _id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"
