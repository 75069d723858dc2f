"""What a streamed call returns: chunks to iterate over, or the whole answer at the end.

stream = StreamingResponse(provider.execute_streaming(request))       nothing is sent yet
async for chunk in stream: print(chunk.content, end="")               each step pulls one chunk
reply = await stream.collect()                                        the same, added up
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, cast

from msgspec.structs import replace

from agentflow.core.robustness.timing import Timing
from agentflow.errors import ProtocolError, StreamInterruptedError
from agentflow.llm.answer import Decoder, text_of, value_of
from agentflow.llm.content import Json
from agentflow.llm.messages import Response, StreamChunk
from agentflow.llm.output.partial import PartialJson
from agentflow.llm.streaming.join import Joiner

if TYPE_CHECKING:  # a default for a type variable: checkers know it, Python 3.11 does not
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["StreamingResponse", "close"]


class StreamingResponse(Generic[T]):
    """The chunks of one answer: an async iterator and an async context manager.

        async with AgentFlow.model("gpt-4o").prompt("Hi").execute_streaming() as stream:
            async for chunk in stream:
                if enough(chunk): break

    It pulls: a slow reader slows the server down, and nothing is read ahead. Leaving `async with`, `aclose()`,
    cancelling the task that waits for a chunk, and forgetting the object each free the connection. A bare `break`
    leaves that to the garbage collector, so prefer `async with` where the loop may be left early.

    The chunks are iterated once; a second `async for` raises RuntimeError. `collect()` may be called before, during
    or after the iteration and gives the whole answer each time. For that its text is kept, up to 16 M characters: what
    never ends may be read, but not collected.

    Where a type was asked for, `partials()` gives the object as it grows, and `value()` the whole of it.
    """

    __slots__ = (
        "_answered",
        "_chunks",
        "_closed",
        "_ended",
        "_failed",
        "_joiner",
        "_output",
        "_run_id",
        "_started",
        "_timing",
    )

    def __init__(
        self,
        chunks: AsyncIterator[StreamChunk],
        *,
        provider: str = "",
        model: str = "",
        output: Decoder[T] | None = None,
        timing: Callable[[], Timing | None] = lambda: None,
        answered: Callable[[], tuple[str, str]] | None = None,
        run_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`chunks` is most often an async generator, which starts its work when the first chunk is asked for.
        `provider` and `model` stand in the collected response where the chunks do not say it. `output` reads the
        answer; without one it is its text. `timing` is asked for the account of its time, once it is whole, and
        `answered` for who answers, provider and model, where that may be another than who was asked, and `run_id` for
        the run that it is part of."""
        self._chunks = chunks
        self._output = output
        self._answered = answered or (lambda: (provider, model))
        self._timing = timing
        self._run_id = run_id
        self._joiner = Joiner()
        self._started = False
        self._ended = False
        self._closed = False
        self._failed = False

    def __aiter__(self) -> StreamingResponse[T]:
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
            if self._failed:
                raise self._interrupted() from None
            self._ended = self._ended or not self._closed
            raise
        except BaseException:
            self._closed = self._failed = True  # what follows is not the end of a whole answer
            raise
        self._joiner.add(chunk)
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
            raise self._interrupted()
        provider, model = self._answered()
        if self._joiner.overflowed:
            raise ProtocolError(
                "the answer is too long to be collected, longer than any model's: read its chunks instead",
                provider=provider or None,
                model=model or None,
            )
        response = self._joiner.response(provider=provider, model=model)
        timing, run_id = self._timing(), self._run_id()
        if timing is None and run_id is None:
            return response
        return replace(response, timing=timing, run_id=run_id)

    async def text(self) -> str:
        """The text of the whole answer; see `collect`."""
        return (await self.collect()).text

    def _interrupted(self) -> StreamInterruptedError:
        provider, model = self._answered()
        return StreamInterruptedError(
            "the stream was closed or failed before its end, so there is no whole answer to collect",
            partial=self._joiner.text,
            provider=provider or None,
            model=model or None,
        )

    async def value(self) -> T:
        """The answer as the type that was asked for; the text, where none was. See `collect`, and raises
        ContentFilterError and OutputError."""
        reply = await self.collect()
        return cast("T", text_of(reply) if self._output is None else value_of(reply, self._output))

    async def partials(self) -> AsyncGenerator[Json, None]:
        """The answer's JSON as far as it has come, whenever there is more of it: unfinished texts and lists included.

        Iterates the stream. A plain type comes as `{"value": …}`, as it was asked for. An answer that did not fit and
        was asked for again begins anew.
        """
        growing, number, last = _Growing(None if self._output is None else self._output.name), 0, None
        async for chunk in self:
            value = growing.feed(chunk)
            if value is None or (chunk.round != number and value == last):  # a whole answer, told again as text
                continue
            number, last = chunk.round, value
            yield value if self._output is None else self._output.partial(value)

    async def aclose(self) -> None:
        """Free the connection. Safe to call twice, and after the end."""
        self._closed = True
        await close(self._chunks)

    async def __aenter__(self) -> StreamingResponse[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Growing:
    """The JSON of the first answer as it comes: from the text, or from the call of the tool that stands for it."""

    __slots__ = ("_call", "_json", "_round", "_tool")

    def __init__(self, tool: str | None) -> None:
        self._tool = tool
        self._call: int | None = None
        self._json = PartialJson(prose=True)
        self._round = 0

    def feed(self, chunk: StreamChunk) -> Json | None:
        """What there is now; None where the chunk adds nothing to it."""
        if chunk.index or chunk.turn is not None:
            return None
        if chunk.round != self._round or chunk.restart:
            self._begin(chunk.round)
        for delta in chunk.tool_calls:
            if delta.name and delta.name == self._tool and self._call is None:  # what was said before is not it
                self._begin(self._round)
                self._call = delta.index
        pieces = [delta.arguments for delta in chunk.tool_calls if delta.index == self._call]
        words = chunk.content if self._call is None else "".join(pieces)
        return self._json.feed(words) if words else None

    def _begin(self, number: int) -> None:
        self._json, self._round, self._call = PartialJson(prose=True), number, None


async def close(chunks: AsyncIterator[StreamChunk]) -> None:
    """Free what a stream holds. An iterator that is no generator may have nothing to free."""
    aclose = getattr(chunks, "aclose", None)  # `isinstance` with a protocol takes 20 µs and more on Python 3.11
    if aclose is not None:
        await aclose()
