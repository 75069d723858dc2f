"""What a streamed call returns: chunks to iterate over, or the whole answer at the end.

stream = StreamingResponse(provider.execute_streaming(request))       nothing is sent yet
async for chunk in stream: print(chunk.content, end="")               each step pulls one chunk
reply = await stream.collect()                                        the same, added up
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from agentflow.errors import StreamInterruptedError
from agentflow.llm.messages import Response, StreamChunk, Usage

__all__ = ["StreamingResponse", "close", "join"]


class StreamingResponse:
    """The chunks of one answer: an async iterator and an async context manager.

        async with AgentFlow.model("gpt-4o").prompt("Hi").execute_streaming() as stream:
            async for chunk in stream:
                if enough(chunk): break

    It pulls: a slow reader slows the server down, and nothing is read ahead. Leaving `async with`, `aclose()`,
    cancelling the task that waits for a chunk, and forgetting the object each free the connection. A bare `break`
    leaves that to the garbage collector, so prefer `async with` where the loop may be left early.

    The chunks are iterated once; a second `async for` raises RuntimeError. `collect()` may be called before, during
    or after the iteration and gives the whole answer each time.
    """

    __slots__ = ("_chunks", "_closed", "_ended", "_model", "_provider", "_seen", "_started")

    def __init__(self, chunks: AsyncIterator[StreamChunk], *, provider: str = "", model: str = "") -> None:
        """`chunks` is most often an async generator, which starts its work when the first chunk is asked for.
        `provider` and `model` stand in the collected response where the chunks do not say it."""
        self._chunks = chunks
        self._provider = provider
        self._model = model
        self._seen: list[StreamChunk] = []
        self._started = False
        self._ended = False
        self._closed = False

    def __aiter__(self) -> StreamingResponse:
        if self._started:
            raise RuntimeError(
                "a StreamingResponse is iterated once: keep the chunks in a list, or call collect(), to use them again"
            )
        self._started = True
        return self

    async def __anext__(self) -> StreamChunk:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._ended = self._ended or not self._closed
            raise
        except BaseException:
            self._closed = True  # what follows is not the end of a whole answer
            raise
        self._seen.append(chunk)
        return chunk

    async def collect(self) -> Response:
        """Read what is left and return the whole answer, including the chunks that were iterated already.

        Raises the stream's own error, or StreamInterruptedError where the stream failed or was closed before.
        """
        self._started = True
        while not self._ended:
            try:
                await self.__anext__()
            except StopAsyncIteration:
                break
        if not self._ended:
            raise StreamInterruptedError(
                "the stream was closed or failed before its end, so there is no whole answer to collect",
                partial="".join([chunk.content for chunk in self._seen]),
                provider=self._provider or None,
                model=self._model or None,
            )
        return join(self._seen, provider=self._provider, model=self._model)

    async def text(self) -> str:
        """The text of the whole answer; see `collect`."""
        return (await self.collect()).text

    async def aclose(self) -> None:
        """Free the connection. Safe to call twice, and after the end."""
        self._closed = True
        await close(self._chunks)

    async def __aenter__(self) -> StreamingResponse:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def close(chunks: AsyncIterator[StreamChunk]) -> None:
    """Free what a stream holds. An iterator that is no generator may have nothing to free."""
    aclose = getattr(chunks, "aclose", None)  # `isinstance` with a protocol takes 20 µs and more on Python 3.11
    if aclose is not None:
        await aclose()


def join(chunks: Sequence[StreamChunk], *, provider: str, model: str) -> Response:
    """The response that the chunks of one answer add up to: texts are joined, of everything else the last one wins."""
    usage: Usage | None = None
    finish = raw = request_id = None
    for chunk in chunks:
        usage = chunk.usage or usage
        finish = chunk.finish_reason or finish
        raw = chunk.raw_finish_reason or raw
        model = chunk.model or model
        request_id = chunk.request_id or request_id
    return Response(
        "".join([chunk.content for chunk in chunks]),
        model,
        provider,
        usage=usage,
        finish_reason=finish,
        raw_finish_reason=raw,
        request_id=request_id,
        reasoning="".join([chunk.reasoning for chunk in chunks]),
    )
