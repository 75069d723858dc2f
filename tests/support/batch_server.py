"""A server that answers many at once, in a time that depends on how many: what a batcher is measured against.

server = BatchServer(clock, base=0.010, each=0.001)        10 ms a batch, and 1 ms for each request in it
server.batches                                             what came in, batch by batch
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from agentflow.clock import Clock
from agentflow.errors import BadRequestError
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage

__all__ = ["BatchServer"]


class BatchServer:
    """`devices` batches are worked on at the same time, others wait. A prompt or a text that is `bad` spoils its whole
    batch, unless `tells` is set: then it is told for that one request. Texts of `x7` are seven x's long."""

    name = "server"

    def __init__(
        self,
        clock: Clock,
        *,
        base: float = 0.010,
        each: float = 0.001,
        devices: int = 1,
        bad: Callable[[str], bool] = lambda text: text.startswith("bad"),
        tells: bool = False,
        error: Callable[[], Exception] = lambda: BadRequestError("no", status=400),
    ) -> None:
        self.clock = clock
        self.base = base
        self.each = each
        self.batches: list[list[str]] = []
        self.began: list[float] = []
        self.at_once = 0
        self.most_at_once = 0
        self.cancelled = 0
        self.closed = 0
        self._devices = asyncio.Semaphore(devices)
        self._bad = bad
        self._tells = tells
        self._error = error

    async def execute(self, request: Request) -> Response:
        [answer] = await self.execute_many([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execute_many(self, requests: Sequence[Request]) -> Sequence[Response | Exception]:
        await self._work([request.prompt for request in requests])
        return [
            self._error()
            if self._bad(request.prompt)
            else Response(f"re {request.prompt}", request.model, self.name, usage=Usage(1, 1))
            for request in requests
        ]

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        await self._work(list(request.inputs))
        vectors = tuple((float(len(text)), float(sum(text.encode()))) for text in request.inputs)
        tokens = sum(len(text) for text in request.inputs)
        return Embeddings(vectors, request.model, self.name, usage=Usage(tokens), cost=tokens / 1000)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(f"re {request.prompt}")

    async def aclose(self) -> None:
        self.closed += 1

    async def _work(self, texts: list[str]) -> None:
        self.batches.append(texts)
        self.began.append(self.clock.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async with self._devices:
                await self.clock.sleep(self.base + self.each * len(texts))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if not self._tells and any(map(self._bad, texts)):
            raise self._error()
