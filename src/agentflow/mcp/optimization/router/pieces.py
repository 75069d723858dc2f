"""A stream on its way through a router: what was spent before is added to what it says, and who answers is marked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from msgspec.structs import replace

from agentflow.llm.messages import StreamChunk
from agentflow.llm.streaming.stream import close
from agentflow.mcp.optimization.router.candidate import Pool
from agentflow.mcp.optimization.router.cascade import Spent
from agentflow.mcp.optimization.router.sessions import marked_chunk

__all__ = ["Pieces"]


class Pieces:
    """The chunks of one answer of a candidate. `tokens`, `id` and `request_id` are what they have said so far."""

    __slots__ = ("_before", "_marked", "_model", "_pool", "_router", "_source", "id", "request_id", "tokens")

    def __init__(
        self, source: AsyncIterator[StreamChunk], before: Spent, pool: Pool, *, router: str, model: str
    ) -> None:
        self._source = source
        self._pool = pool
        self._before = before
        self._router = router
        self._model = model
        self._marked = False
        self.tokens: int | None = None
        self.id: str | None = None
        self.request_id: str | None = None

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """As they come; the mark stands on the one that says why the answer ended, or comes last."""
        try:
            async for chunk in self._source:
                yield self._noted(chunk)
        finally:
            await close(self._source)
        if not self._marked:
            yield marked_chunk(StreamChunk(), self._router, self._model)

    def _noted(self, chunk: StreamChunk) -> StreamChunk:
        self.id, self.request_id = chunk.id or self.id, chunk.request_id or self.request_id
        chunk = self._pool.priced_chunk(self._model, chunk)
        if chunk.usage is not None:
            self.tokens = chunk.usage.output_tokens
            if self._before != Spent():
                whole = self._before.and_(chunk.usage, chunk.cost)
                chunk = replace(chunk, usage=whole.usage, cost=whole.cost)
        if chunk.finish_reason is not None and not self._marked and chunk.slot is None and chunk.index == 0:
            self._marked = True
            return marked_chunk(chunk, self._router, self._model)
        return chunk
