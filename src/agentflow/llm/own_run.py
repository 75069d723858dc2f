"""A question to what wraps models, asked outside of any flow and watched: told as a run, with a beginning and an end.

    flow_start ─ cache_miss ─ route ─ budget ─ model_start … model_success ─ flow_success
    flow_start ─ cache_hit ─ flow_success                    flow_start ─ budget (refused) ─ flow_error

A model that is asked by itself is a run of one span. Here the spans are those of the models that are asked in the end,
and there may be none, or several: without one around them, nobody could say how it went.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from agentflow.errors import describe
from agentflow.llm.guards import Guards
from agentflow.llm.messages import StreamChunk
from agentflow.llm.streaming.stream import close

__all__ = ["as_run", "chunks_as_run", "is_run"]

T = TypeVar("T")


def is_run(guards: Guards) -> bool:
    """Whether the question is a run of its own that wants to be told as one."""
    scope = guards.scope
    return guards.wrapped and scope is not None and scope.outer is None and not scope.node


async def as_run(guards: Guards, work: Coroutine[object, object, T]) -> T:
    """What the work returns."""
    async with _told(guards):
        return await work


async def chunks_as_run(guards: Guards, chunks: AsyncIterator[StreamChunk]) -> AsyncGenerator[StreamChunk, None]:
    async with _told(guards):
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await close(chunks)


@asynccontextmanager
async def _told(guards: Guards) -> AsyncGenerator[None, None]:
    scope = guards.scope
    assert scope is not None
    await scope.begin("flow_start", {} if guards.tenant is None else {"tenant": guards.tenant})
    try:
        yield
    except Exception as error:
        await scope.end("flow_error", {"error": describe(error), "error_type": type(error).__name__})
        raise
    except BaseException:
        scope.leave("flow_cancelled")
        raise
    await scope.end("flow_success", {"action": None})
