"""StreamingResponse: what it gives, and that nothing is left open however it is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest

from agentflow.errors import ServerError, StreamInterruptedError
from agentflow.llm.messages import StreamChunk, Usage
from agentflow.llm.streaming.stream import StreamingResponse


class Source:
    """An answer whose connection can be looked at."""

    def __init__(self, *chunks: StreamChunk | Exception, hang: bool = False) -> None:
        self.chunks = chunks
        self.hang = hang
        self.pulled = 0
        self.open = False

    async def __call__(self) -> AsyncGenerator[StreamChunk, None]:
        self.open = True
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                self.pulled += 1
                yield chunk
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.open = False


HELLO = (StreamChunk("Hel"), StreamChunk("lo", reasoning="hm"))
LAST = StreamChunk(finish_reason="stop", raw_finish_reason="eos", usage=Usage(3, 2), model="m-1", request_id="r-1")


async def test_chunks_arrive_in_order() -> None:
    assert [chunk.content async for chunk in StreamingResponse(Source(*HELLO)())] == ["Hel", "lo"]


async def test_collect_adds_the_chunks_up() -> None:
    early = StreamChunk(usage=Usage(1, 1))
    reply = await StreamingResponse(Source(early, *HELLO, LAST)(), provider="p", model="asked").collect()
    assert (reply.text, reply.reasoning, reply.provider, reply.model) == ("Hello", "hm", "p", "m-1")
    assert reply.usage == Usage(3, 2), "the last usage wins, they are not added"
    assert (reply.finish_reason, reply.raw_finish_reason, reply.request_id) == ("stop", "eos", "r-1")


async def test_collect_names_the_model_that_was_asked_where_the_chunks_do_not() -> None:
    assert (await StreamingResponse(Source(*HELLO)(), model="asked").collect()).model == "asked"


async def test_text_is_the_whole_text() -> None:
    assert await StreamingResponse(Source(*HELLO)()).text() == "Hello"


async def test_collect_after_iterating_still_gives_the_whole_answer() -> None:
    stream = StreamingResponse(Source(*HELLO, LAST)())
    async for _ in stream:
        pass
    assert (await stream.collect()).text == "Hello"
    assert (await stream.collect()).usage == Usage(3, 2)


async def test_collect_in_the_middle_includes_what_was_read() -> None:
    stream = StreamingResponse(Source(*HELLO)())
    assert (await anext(stream)).content == "Hel"
    assert await stream.text() == "Hello"


async def test_iterating_twice_is_a_clear_error() -> None:
    stream = StreamingResponse(Source(*HELLO)())
    assert len([chunk async for chunk in stream]) == 2
    with pytest.raises(RuntimeError, match=r"iterated once.*collect\(\)"):
        aiter(stream)


async def test_iterating_after_collect_is_the_same_error() -> None:
    stream = StreamingResponse(Source(*HELLO)())
    await stream.collect()
    with pytest.raises(RuntimeError, match="iterated once"):
        aiter(stream)


async def test_nothing_happens_before_the_first_chunk_is_asked_for() -> None:
    source = Source(*HELLO)
    stream = StreamingResponse(source())
    assert not source.open
    await stream.aclose()
    assert source.pulled == 0


async def test_it_pulls_one_chunk_at_a_time() -> None:
    source = Source(*HELLO)
    async with StreamingResponse(source()) as stream:
        await anext(stream)
        assert source.pulled == 1


async def test_leaving_async_with_closes_the_source() -> None:
    source = Source(*HELLO, hang=True)
    async with StreamingResponse(source()) as stream:
        async for _ in stream:
            assert source.open
            break
    assert not source.open


async def test_cancelling_the_reader_closes_the_source() -> None:
    source = Source(*HELLO, hang=True)
    task = asyncio.create_task(StreamingResponse(source()).collect())
    while source.pulled < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not source.open


async def test_forgetting_the_stream_closes_the_source() -> None:
    source = Source(*HELLO, hang=True)
    stream = StreamingResponse(source())
    await anext(stream)
    del stream
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not source.open


async def test_aclose_twice_and_after_the_end_is_safe() -> None:
    stream = StreamingResponse(Source(*HELLO)())
    await stream.collect()
    await stream.aclose()
    await stream.aclose()
    assert await stream.text() == "Hello"


async def test_a_closed_stream_has_no_whole_answer() -> None:
    stream = StreamingResponse(Source(*HELLO)(), provider="p")
    await anext(stream)
    await stream.aclose()
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.collect()
    assert (caught.value.partial, caught.value.provider) == ("Hel", "p")


async def test_a_failing_stream_raises_its_error_and_later_has_no_whole_answer() -> None:
    stream = StreamingResponse(Source(HELLO[0], ServerError("broken"))())
    with pytest.raises(ServerError):
        await stream.collect()
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.collect()
    assert caught.value.partial == "Hel"


async def test_any_async_iterator_will_do() -> None:
    class Two:
        left = 2

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> StreamChunk:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return StreamChunk("x")

    async with StreamingResponse(Two()) as stream:
        assert await stream.text() == "xx"
