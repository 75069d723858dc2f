"""A kept answer as a stream: at once, or as it once came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, TypeAlias

from agentflow.clock import Clock
from agentflow.llm.messages import StreamChunk
from agentflow.mcp.performance.caching.kept import Piece

__all__ = ["Replay", "replayed"]

Replay: TypeAlias = Literal["instant", "paced"]


async def replayed(pieces: Sequence[Piece], how: Replay, clock: Clock) -> AsyncGenerator[StreamChunk, None]:
    """Paced, each chunk comes as long after the beginning as it did the first time; a reader that is slower than that
    does not wait."""
    begun = clock.monotonic()
    for piece in pieces:
        if how == "paced":
            early = begun + piece.at - clock.monotonic()
            if early > 0:
                await clock.sleep(early)
        yield piece.chunk
