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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.portal import run_blocking

__all__ = ["BlockingEventStream", "EventStream", "Sink"]

_CAPACITY: Final = 64

Sink = Callable[[ExecutionEvent], Awaitable[None]]


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

    def __init__(self, start: Callable[[Sink], Awaitable[O]], cancelled: Callable[[], O]) -> None:
        self._start = start
        self._cancelled = cancelled
        self._queue: deque[ExecutionEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._result: O | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def result(self) -> O:
        """How the run ended. Raises RuntimeError while it still runs."""
        if self._result is None:
            raise RuntimeError("the run has not ended: read its events to the end, or leave the stream, first")
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
        self._closed = True
        self._queue.clear()
        _wake_all(self._writers)
        task = self._task
        if task is None or task.done():
            return
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            task.cancel()
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def __aiter__(self) -> AsyncIterator[ExecutionEvent]:
        return self

    async def __anext__(self) -> ExecutionEvent:
        task = self._ensure_started()
        while not self._queue:
            if task.done() or self._closed:
                self._finish()
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._queue.popleft()
        if self._writers and len(self._queue) < _CAPACITY:
            _wake(self._writers.popleft())
        return event

    def _ensure_started(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._run_ended)
        return self._task

    async def _run(self) -> None:
        try:
            self._result = await self._start(self._put)
        except asyncio.CancelledError:
            self._result = self._cancelled()
            raise

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten; _finish raises it
        _wake(self._reader)

    async def _put(self, event: ExecutionEvent) -> None:
        while len(self._queue) >= _CAPACITY and not self._closed:
            room = asyncio.get_running_loop().create_future()
            self._writers.append(room)
            try:
                await room
            except asyncio.CancelledError:
                if room.done() and not room.cancelled() and self._writers:
                    _wake(self._writers.popleft())  # the place that was meant for us goes to the next
                raise
        if not self._closed:
            self._queue.append(event)
            _wake(self._reader)

    def _finish(self) -> None:
        """Raise the run's failure, once."""
        task = self._task
        if task is not None and task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception() or RuntimeError()
        if self._result is not None and self._result.error is not None and not self._closed:
            raise self._result.error

    def __del__(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)


class BlockingEventStream(Generic[O]):
    """`EventStream` for code without await: a context manager and a plain iterator."""

    def __init__(self, make: Callable[[], EventStream[O]]) -> None:
        self._stream = make()

    @property
    def result(self) -> O:
        return self._stream.result

    def __enter__(self) -> BlockingEventStream[O]:
        run_blocking(self._stream.__aenter__)
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


def _wake_all(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        _wake(waiters.popleft())
