"""A provider on a virtual clock whose latencies are known beforehand, and that may stall.

    server = KnownLatencies(clock, stall=(20.0, 25.0))
    server.moments(number=7, at=19.9)        when each piece of that answer comes, if it is asked at 19.9 s

The number of a question is its prompt. While the server stalls nothing moves: what would come then comes at the end of
the stall, and what follows it after its usual gap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

from agentflow.clock import VirtualClock
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.streaming.join import join
from agentflow.mcp.optimization.benchmark import Case, Dataset

__all__ = ["KnownLatencies", "numbered"]


def numbered(count: int) -> Dataset:
    """Questions 0, 1, 2, …"""
    return Dataset(tuple([Case.of(str(number)) for number in range(count)]))


class KnownLatencies:
    name = "known"

    def __init__(
        self,
        clock: VirtualClock,
        *,
        seed: int = 0,
        stall: tuple[float, float] = (0.0, 0.0),
        tokens: int = 8,
        slower: float = 1.0,
        failing: dict[int, Exception] | None = None,
        price: float | None = None,
        words: str = "tide",
    ) -> None:
        self.clock, self.seed, self.stall, self.tokens = clock, seed, stall, tokens
        self.slower, self.failing, self.price, self.words = slower, failing or {}, price, words
        self.asked: list[tuple[int, float]] = []

    def moments(self, number: int, at: float) -> list[float]:
        """Log-normal times to the first token and between tokens, drawn by the question's number."""
        dice = Random(f"{self.seed}/{number}")
        draws = [dice.lognormvariate(-2.0, 0.5), *(dice.lognormvariate(-4.0, 0.4) for _ in range(self.tokens - 1))]
        found = []
        for draw in draws:
            at += draw * self.slower
            at = self.stall[1] if self.stall[0] <= at < self.stall[1] else at
            found.append(at)
        return found

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        number, at = int(request.prompt), self.clock.monotonic()
        self.asked.append((number, at))
        moments = self.moments(number, at)
        if number in self.failing:
            await self.clock.sleep(moments[0] - at)
            raise self.failing[number]
        for moment in moments:
            await self.clock.sleep(moment - self.clock.monotonic())
            yield StreamChunk(f"{self.words} ")
        yield StreamChunk(finish_reason="stop", usage=Usage(3, self.tokens), cost=self.price)

    async def execute(self, request: Request) -> Response:
        return join([chunk async for chunk in self.execute_streaming(request)], provider=self.name, model=request.model)

    async def aclose(self) -> None:
        pass
