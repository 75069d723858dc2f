"""Streams: recorded while they are read, kept when they have ended well, replayed at once or as they came."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.costly import CENT, Costly, asked

from agentflow.clock import VirtualClock
from agentflow.llm.content import Reasoning, Text, ToolCall, content_of
from agentflow.llm.messages import Request, Response, StreamChunk, ToolCallDelta, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.streaming.join import join
from agentflow.mcp.performance.caching import ResponseCache

END = StreamChunk(finish_reason="stop", usage=Usage(3, 2), model="tiny-1", cost=CENT)


def cached(model: Any, **options: Any) -> ResponseCache:
    return ResponseCache(model, **{"ttl": 60.0, **options})


async def read(cache: ResponseCache, request: Request | None = None) -> list[StreamChunk]:
    return [chunk async for chunk in cache.execute_streaming(request or asked())]


def whole(chunks: Sequence[StreamChunk]) -> Response:
    return join(chunks, provider="lab", model="tiny-1")


async def test_a_stream_is_replayed_chunk_by_chunk() -> None:
    """The very same chunks, but that the last one costs nothing."""
    model = Costly()
    cache = cached(model)
    first, second = await read(cache), await read(cache)
    assert second[:-1] == first[:-1]
    assert second[-1] == replace(first[-1], cost=0.0, cache_hit="exact")
    assert len(model.calls) == 1


async def test_a_stream_is_also_a_whole_answer_and_the_other_way_round() -> None:
    model = Costly()
    cache = cached(model)
    streamed = whole(await read(cache))
    answer = await cache.execute(asked())
    assert (answer.text, answer.usage, answer.cost, answer.cache_hit) == (streamed.text, streamed.usage, 0.0, "exact")
    given_ = await cache.execute(asked("Ho"))
    replayed = whole(await read(cache, asked("Ho")))
    assert replayed == replace(given_, cost=0.0, cache_hit="exact")
    assert len(model.calls) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_stream_that_is_left_early_is_not_kept(count: int) -> None:
    """However much of it has been read; and the model's stream is closed when the reader's is."""
    left: list[int] = []

    class Stepping(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            try:
                for number in range(count):
                    yield StreamChunk(f"{number} ")
                await asyncio.Event().wait()
                yield END
            finally:
                left.append(count)

    cache = cached(Stepping())
    stream = cache.execute_streaming(asked())
    for _ in range(count):
        await anext(stream)
    await stream.aclose()
    assert left == [count]
    assert (cache.statistics().kept, cache.statistics().unkept) == (0, {})


async def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    model = Costly()
    model.gate = asyncio.Event()
    cache = cached(model)
    task = asyncio.create_task(read(cache))
    while not model.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (model.cancelled, cache.statistics().kept) == (1, 0)
    model.gate.set()
    assert whole(await read(cache)).cache_hit is None


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([StreamChunk("a"), StreamChunk(finish_reason="length", usage=Usage(1, 1))], "length"),
        ([StreamChunk("a"), StreamChunk(finish_reason="content_filter")], "content_filter"),
        ([StreamChunk(tool_calls=(ToolCallDelta(0, "1", "t", "{}"),)), END], "tool_calls"),
        ([StreamChunk("a"), END, StreamChunk("b", index=1), StreamChunk(finish_reason="length", index=1)], "length"),
        ([END], "empty"),
    ],
)
async def test_a_stream_that_ends_badly_is_not_kept(pieces: list[StreamChunk], reason: str) -> None:
    class Pieces(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            for piece in pieces:
                yield piece

    cache = cached(Pieces())
    await read(cache)
    await asyncio.sleep(0)
    assert cache.statistics().unkept == {reason: 1}


async def test_a_stream_that_ends_without_a_word_of_its_end_is_not_kept() -> None:
    """The connection was closed in the middle, and nobody noticed."""

    class Cut(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk("half an ans")

    cache = cached(Cut())
    await read(cache)
    await asyncio.sleep(0)
    assert cache.statistics().unkept == {"unfinished": 1}


async def test_what_was_begun_anew_is_kept_as_it_became() -> None:
    """A stream that broke and was asked for again: nobody is shown the broken half twice."""

    class Broken(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            for piece in (StreamChunk("brok"), StreamChunk("whole", restart=True), END):
                yield piece

    cache = cached(Broken())
    await read(cache)
    again = await read(cache)
    assert [chunk.content for chunk in again if chunk.content] == ["whole"]
    assert whole(again).cache_hit == "exact"


def test_a_paced_replay_takes_the_time_that_it_once_took() -> None:
    """A slow reader does not wait for what is late already."""
    clock = VirtualClock()

    class Slow(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            for piece in (StreamChunk("a "), StreamChunk("b "), StreamChunk("c "), END):
                await clock.sleep(1.0)
                yield piece

    async def times(cache: ResponseCache, pause: float = 0.0) -> list[float]:
        begun, found = clock.monotonic(), []
        async for _ in cache.execute_streaming(asked()):
            found.append(clock.monotonic() - begun)
            if pause:
                await clock.sleep(pause)
        return found

    async def main() -> None:
        paced, instant = cached(Slow(), clock=clock, replay="paced"), cached(Slow(), clock=clock)
        assert await times(paced) == pytest.approx([1, 2, 3, 4])
        assert await times(paced) == pytest.approx([1, 2, 3, 4])
        assert await times(paced, 1.5) == pytest.approx([1, 2.5, 4, 5.5])
        await times(instant)
        assert await times(instant) == pytest.approx([0, 0, 0, 0])

    clock.run(main())


words = st.text(min_size=1, max_size=4)
parts = st.lists(
    words.map(lambda word: Text(word))
    | words.map(lambda word: Reasoning(word, opaque={"api": {"signature": word}}))
    | st.builds(ToolCall, words, words, st.dictionaries(words, words, max_size=1)),
    min_size=1,
    max_size=3,
).map(content_of)


@settings(max_examples=60)
@given(parts, st.booleans(), st.booleans())
def test_whatever_was_said_comes_back(content: Any, streamed: bool, streaming: bool) -> None:
    """However it came and however it is asked for: reasoning with its signature, calls, several parts."""
    answer = Response(content, "tiny-1", "lab", Usage(1, 1), "stop", "stop", "r", CENT)

    async def main() -> tuple[Response, Response]:
        cache = cached(ScriptedProvider(lambda _: answer, name="lab"), tools="always")
        first = whole(await read(cache)) if streamed else await cache.execute(asked())
        return first, whole(await read(cache)) if streaming else await cache.execute(asked())

    first, second = asyncio.run(main())
    assert second.cache_hit == "exact"
    assert replace(second, cost=None, cache_hit=None) == replace(first, cost=None, cache_hit=None)


async def test_a_stream_counts_by_what_it_takes_in_memory() -> None:
    """A chunk of five letters is an object of hundreds of bytes, and the bound is one of memory."""

    class Wordy(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            for _ in range(200):
                yield StreamChunk("word ")
            yield END

    cache = cached(Wordy())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20):
            await read(cache, asked(str(number)))
        await cache.aclose()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 < cache.statistics().bytes / taken < 2
