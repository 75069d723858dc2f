"""A provider whose answers cost something, and that can be held up: for tests of what saves calls.

model = Costly()                      answers "answer 1 to Hi", "answer 2 to …"; each costs a cent
model.gate = asyncio.Event()          nobody is answered before it is set
model.fail = [RateLimitError("…")]    what the next calls raise
asked("Hi")                           a request at temperature 0
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from msgspec.structs import replace

from agentflow.llm.messages import EmbeddingRequest, Embeddings, Message, Request, Response, StreamChunk, Usage

__all__ = ["CENT", "Costly", "asked"]

CENT = 0.01


def asked(prompt: str = "Hi", *, metadata: Mapping[str, str] | None = None, **fields: Any) -> Request:
    fields = {"temperature": 0.0, **fields}
    return Request("tiny-1", (Message("user", prompt),), metadata=metadata or {}, **fields)


class Costly:
    """`calls` are the requests as they came, `cancelled` how many were given up, `closed` how often it was closed."""

    def __init__(self, *, cost: float | None = CENT, finish: str | None = "stop", name: str = "lab") -> None:
        self.name = name
        self.cost = cost
        self.finish = finish
        self.calls: list[Request] = []
        self.texts: list[tuple[str, ...]] = []
        self.fail: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.closed = 0

    async def execute(self, request: Request) -> Response:
        number = await self._called(request)
        text = f"answer {number} to {request.prompt}"
        return Response(text, request.model, self.name, Usage(10, 5), self.finish, self.finish, f"r{number}", self.cost)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        """Words, one at a time; the gate stands before the second."""
        self.calls.append(request)
        number = len(self.calls)
        try:
            yield StreamChunk("answer ")
            await self._wait()
            for word in (f"{number} ", "to ", request.prompt):
                yield StreamChunk(word)
            yield StreamChunk(finish_reason=self.finish, usage=Usage(10, 5), model=request.model, cost=self.cost)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.texts.append(request.inputs)
        vectors = tuple([(float(len(text)), 0.1 + 0.2, float(request.dimensions or 0)) for text in request.inputs])
        return Embeddings(vectors, request.model, self.name, Usage(len(request.inputs)), cost=self.cost)

    async def count_tokens(self, request: Request) -> int:
        return len(request.prompt)

    async def aclose(self) -> None:
        self.closed += 1

    async def _called(self, request: Request) -> int:
        self.calls.append(request)
        number = len(self.calls)
        try:
            await self._wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number

    async def _wait(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.fail:
            raise self.fail.pop(0)


def with_metadata(request: Request, **metadata: str) -> Request:
    return replace(request, metadata=metadata)
