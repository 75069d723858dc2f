"""A run as it happens: an async iterator over its events that owns the run.

    async with flow.stream({"topic": "tides"}) as events:
        async for event in events: ...
    events.result                                   # the FlowResult

    run ──event──▶ [ bounded queue ] ──▶ async for

When the queue is full the run waits, so a slow consumer slows the run down and memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Reader
from agentflow.core.portal import run_blocking

__all__ = ["BlockingEventStream", "EventStream"]

_CAPACITY: Final = 64


class Outcome(Protocol):
    """What a run ends with; `error` is raised where iteration ends."""

    @property
    def error(self) -> BaseException | None: ...


O = TypeVar("O", bound=Outcome)  # noqa: E741 - the outcome


class EventStream(Generic[O]):
    """The events of one run, as they happen. It starts the run when it is entered, or at the first `anext`.

    Leaving `async with` ends the run surely: it is cancelled and waited for. Without `async with`, a `break` leaves the
    end to the garbage collector, which is best effort. A failure of the run is raised where iteration ends.
    """

    # The run holds the queue and never the stream, so that forgetting the stream is noticed (`__del__`).

    def __init__(self, start: Callable[[Reader], Coroutine[Any, Any, O]], cancelled: Callable[[], O]) -> None:
        self._start = start
        self._cancelled = cancelled
        self._queue = _Queue()
        self._task: asyncio.Task[O] | None = None
        self._result: O | None = None
        self._left = False

    @property
    def result(self) -> O:
        """How the run ended. Raises RuntimeError while it still runs."""
        if self._result is None:
            self._result = self._outcome()
        return self._result

    async def __aenter__(self) -> EventStream[O]:
        self._ensure_started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the run if it still runs, and wait until nothing of it is left."""
        self._left = True
        self._queue.close()
        task = self._task
        if task is None or task.done():
            return
        interrupted: asyncio.CancelledError | None = None
        while not task.done():
            task.cancel()
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                interrupted = error
        if task.cancelled():
            self._result = self._cancelled()
        if interrupted is not None:
            raise interrupted

    def __aiter__(self) -> AsyncIterator[ExecutionEvent]:
        return self

    async def __anext__(self) -> ExecutionEvent:
        if self._left:
            raise StopAsyncIteration
        task = self._ensure_started()
        while (event := self._queue.take()) is None:
            if task.done():
                self._raise_failure()
                raise StopAsyncIteration
            await self._queue.change()
        return event

    def _ensure_started(self) -> asyncio.Task[O]:
        if self._left:
            raise RuntimeError("this stream has been left: a run is streamed once, so call stream() again")
        if self._task is None:
            self._task = asyncio.create_task(self._start(self._queue))
            self._task.add_done_callback(self._queue.end)
        return self._task

    def _outcome(self) -> O:
        task = self._task
        if task is not None and task.done():
            return self._cancelled() if task.cancelled() else task.result()
        if self._left and task is None:
            return self._cancelled()
        raise RuntimeError("the run has not ended: read its events to the end, or leave the stream, first")

    def _raise_failure(self) -> None:
        if not self._left and self.result.error is not None:
            raise self.result.error

    def __del__(self) -> None:
        task = self._task
        if task is None or task.done() or task.get_loop().is_closed():
            return
        task.get_loop().call_soon_threadsafe(task.cancel)


class _Queue:
    """Events between a run and its reader, in the order in which they happened.

    A writer that finds it full waits until its event has moved up. If it is cancelled meanwhile the event stays: it has
    happened, and sequence numbers have no gaps. Later writers stand behind it, so the queue cannot grow by that.
    """

    __slots__ = ("_open", "_reader", "_ready", "_waiting")

    def __init__(self) -> None:
        self._ready: deque[ExecutionEvent] = deque()
        self._waiting: deque[tuple[ExecutionEvent, asyncio.Future[None] | None]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._open = True

    async def put(self, event: ExecutionEvent) -> None:
        if not self._open:
            return
        if len(self._ready) < _CAPACITY:
            self._ready.append(event)
            _wake(self._reader)
            return
        room = asyncio.get_running_loop().create_future()
        self._waiting.append((event, room))
        await room

    def leave(self, event: ExecutionEvent) -> None:
        """`put` without waiting, behind those that wait for room: of what may not wait there is little."""
        if not self._open:
            return
        if self._waiting:
            self._waiting.append((event, None))
            return
        self._ready.append(event)
        _wake(self._reader)

    def take(self) -> ExecutionEvent | None:
        if not self._ready:
            return None
        event = self._ready.popleft()
        if self._waiting:
            late, room = self._waiting.popleft()
            self._ready.append(late)
            _wake(room)
        return event

    async def change(self) -> None:
        """Wait until there is an event, or there will be no more."""
        if self._reader is not None:
            raise RuntimeError("two tasks read one stream: each event goes to one reader, so have one read and pass on")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def end(self, run: asyncio.Task[Any]) -> None:
        """The run has ended: what a thread of it says later is dropped."""
        if not run.cancelled():
            run.exception()  # looked at, so that asyncio does not report it as forgotten; `result` raises it
        self._shut()

    def close(self) -> None:
        """Nobody reads any more."""
        self._ready.clear()
        self._shut()

    def _shut(self) -> None:
        self._open = False
        while self._waiting:
            _wake(self._waiting.popleft()[1])
        _wake(self._reader)


class BlockingEventStream(Generic[O]):
    """`EventStream` for code without await: a context manager and a plain iterator."""

    def __init__(self, make: Callable[[], EventStream[O]]) -> None:
        self._stream = make()

    @property
    def result(self) -> O:
        return self._stream.result

    def __enter__(self) -> BlockingEventStream[O]:
        try:
            run_blocking(self._stream.__aenter__)
        except BaseException:  # Ctrl-C: without an entrance there will be no exit
            run_blocking(self._stream.aclose)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_blocking(self._stream.aclose)

    def __iter__(self) -> Iterator[ExecutionEvent]:
        while (event := run_blocking(self._next)) is not None:
            yield event

    async def _next(self) -> ExecutionEvent | None:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            return None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
