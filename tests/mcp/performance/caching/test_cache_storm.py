"""Any number of questions, whole or streamed, that come, are cancelled, time out and are left at any moment.

Whatever happens: never two calls for one question at the same time, nobody who stays is left without an answer or an
error, each answer is that to the question, and when all have gone no call is under way and no task is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from agentflow.clock import VirtualClock
from agentflow.errors import ModelTimeoutError, OverloadedError
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Usage
from agentflow.mcp.performance.caching import ResponseCache


class Guest(Struct, frozen=True):
    """One who asks: when, what, and how long he stays."""

    at: int
    prompt: str
    streaming: bool
    leaves: int | None
    timeout: float | None
    read: int | None


class Stormy:
    """A model that takes its time, fails now and then, and notes how many calls of a question are under way."""

    name = "lab"

    def __init__(self, clock: VirtualClock, takes: list[int], fails: list[bool]) -> None:
        self.clock = clock
        self.takes = takes
        self.fails = fails
        self.calls = 0
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def execute(self, request: Request) -> Response:
        with_ = self._begin(request)
        try:
            await self._work(with_, request)
            return Response(f"{request.prompt}!!!", "m", "lab", Usage(1, 1), "stop", cost=0.01)
        finally:
            self.under_way[request.prompt] -= 1

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        number = self._begin(request)
        try:
            yield StreamChunk(request.prompt)
            for _ in range(3):
                await self._work(number, request)
                yield StreamChunk("!")
            yield StreamChunk(finish_reason="stop", usage=Usage(1, 1), cost=0.01)
        finally:
            self.under_way[request.prompt] -= 1

    async def aclose(self) -> None: ...

    def _begin(self, request: Request) -> int:
        self.calls += 1
        self.under_way[request.prompt] += 1
        self.most[request.prompt] = max(self.most[request.prompt], self.under_way[request.prompt])
        return self.calls

    async def _work(self, number: int, request: Request) -> None:
        takes = self.takes[number % len(self.takes)]
        if request.timeout is not None and takes > request.timeout:
            await self.clock.sleep(request.timeout)
            raise ModelTimeoutError("total", request.timeout)
        await self.clock.sleep(takes)
        if self.fails[number % len(self.fails)]:
            raise OverloadedError("later")


guests = st.builds(
    Guest,
    at=st.integers(0, 6),
    prompt=st.sampled_from(["a", "b"]),
    streaming=st.booleans(),
    leaves=st.none() | st.integers(0, 6),
    timeout=st.none() | st.sampled_from([1.0, 3.0, 50.0]),
    read=st.none() | st.integers(0, 4),
)


async def visit(cache: ResponseCache, clock: VirtualClock, guest: Guest) -> str | None:
    """What he was told; None where he left before the end."""
    await clock.sleep(guest.at)
    request = Request("m", (Message("user", guest.prompt),), temperature=0.0, timeout=guest.timeout)
    if not guest.streaming:
        return (await cache.execute(request)).text
    text = []
    async with aclosing(cache.execute_streaming(request)) as stream:
        async for chunk in stream:
            text.append(chunk.content)
            if guest.read is not None and len(text) > guest.read:
                return None
    return "".join(text)


@settings(max_examples=100)
@given(
    st.lists(guests, min_size=1, max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=3),
)
def test_a_storm_leaves_nothing_behind(guests: list[Guest], takes: list[int], fails: list[bool]) -> None:
    clock = VirtualClock()
    model = Stormy(clock, takes, fails)

    async def main() -> list[tuple[Guest, str | BaseException | None]]:
        cache = ResponseCache(model, ttl=3.0, jitter=0.0, stale=2.0, clock=clock)
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(visit(cache, clock, guest)) for guest in guests]
        for guest, task in zip(guests, tasks, strict=True):
            if guest.leaves is not None:
                loop.call_later(guest.at + guest.leaves, task.cancel)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await cache.aclose()
        await clock.sleep(100)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return list(zip(guests, done, strict=True))

    for guest, said in clock.run(main()):
        if isinstance(said, BaseException):
            assert isinstance(said, OverloadedError | ModelTimeoutError | asyncio.CancelledError)
            assert not isinstance(said, asyncio.CancelledError) or guest.leaves is not None
        else:
            assert said in (None, f"{guest.prompt}!!!")
    assert all(count <= 2 for count in model.most.values())  # a fresh one, and one that is asked anew in the background
    assert set(model.under_way.values()) <= {0}
