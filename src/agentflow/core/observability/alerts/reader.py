"""Reads the metrics in a thread: a flood of labels takes a while, and a source of one's own may wait for something.

    reader = Reader(metrics, evaluator.read)
    readings = await reader.read()          # OperationTimeoutError where the source does not come back
    await reader.aclose()

A source that never comes back keeps two threads, and no more: after that nobody asks it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, Protocol, TypeAlias, runtime_checkable

from agentflow.core.observability.alerts.evaluator import Readings
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.threads import call_in_thread
from agentflow.errors import OperationTimeoutError

__all__ = ["Measured", "Reader", "Source"]

_PATIENCE: Final = 10.0  # seconds that a source may take
_MOST: Final = 2  # readings at once: one that was given up, and one more


@runtime_checkable
class Measured(Protocol):
    """Something that metrics can be had of, such as a MetricsCollector."""

    def snapshot(self) -> MetricsSnapshot: ...


Source: TypeAlias = Measured | Callable[[], MetricsSnapshot]


class Reader:
    """`look` makes of a snapshot what is wanted of it."""

    __slots__ = ("_look", "_source", "_under_way")

    def __init__(self, source: Source, look: Callable[[MetricsSnapshot], Readings]) -> None:
        self._source = source
        self._look = look
        self._under_way: set[asyncio.Task[Readings]] = set()

    def read_now(self) -> Readings:
        """In this thread, for as long as it takes."""
        return self._look(self._source.snapshot() if isinstance(self._source, Measured) else self._source())

    async def read(self) -> Readings:
        loop = asyncio.get_running_loop()
        self._under_way = {each for each in self._under_way if not each.done() and each.get_loop() is loop}
        if len(self._under_way) < _MOST:
            reading = loop.create_task(call_in_thread(self.read_now), context=Context())
            reading.add_done_callback(_have_seen)
            self._under_way.add(reading)
            await asyncio.wait([reading], timeout=_PATIENCE)
            if reading.done():
                return reading.result()
        raise OperationTimeoutError("reading the metrics", _PATIENCE)

    async def aclose(self) -> None:
        """Wait for nothing any more. What is of another event loop, or was before a fork, has ended with that."""
        loop = asyncio.get_running_loop()
        left = [each for each in self._under_way if not each.done() and each.get_loop() is loop]
        for each in left:
            each.cancel()
        if left:
            await asyncio.wait(left)


def _have_seen(reading: asyncio.Task[Readings]) -> None:
    """Nobody may be left who would look at its error."""
    if not reading.cancelled():
        reading.exception()
