"""One transaction for all that is saved in one turn of an event loop.

    save ──┐
    save ──┼──▶ [ queue of this loop ] ──▶ one transaction ──▶ every waiter goes on
    save ──┘         at the loop's next turn; while others write, the queue grows

What stands in the queue is written also where its waiter is cancelled. Where a transaction fails, each is tried alone,
so that one record which cannot be written is nobody else's trouble. The order of the queue is the order in the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from agentflow.core.durability.sqlite.failures import Busy
from agentflow.core.durability.sqlite.store import Store

__all__ = ["GroupCommit"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    committed: Callable[[], None] | None
    waiter: asyncio.Future[T]

    def settle(self, result: T) -> None:
        if self.committed is not None:
            self.committed()
        if not self.waiter.done():
            self.waiter.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.waiter.done():
            self.waiter.set_exception(error)


class _Queue:
    """Of one loop. `is_running` while somebody has promised to empty it."""

    __slots__ = ("entries", "is_running", "task")

    def __init__(self) -> None:
        self.entries: list[_Entry[object]] = []
        self.is_running = False
        self.task: asyncio.Task[None] | None = None


class GroupCommit:
    """`look` is called in each transaction: the place to see what others have written about our runs."""

    def __init__(self, store: Store, look: Callable[[sqlite3.Connection], None]) -> None:
        self._store = store
        self._look = look
        self.begin()

    def begin(self) -> None:
        """With nothing to write, as at first."""
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    def submit(
        self, work: Callable[[sqlite3.Connection], T], committed: Callable[[], None] | None = None
    ) -> asyncio.Future[T]:
        """Have `work` done in the next transaction; `committed` is called when it is in the file, before the waiter."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue()
        waiter: asyncio.Future[T] = loop.create_future()
        queue.entries.append(cast("_Entry[object]", _Entry(work, committed, waiter)))
        if not queue.is_running:
            queue.is_running = True
            loop.call_soon(self._flush, loop, queue)
        return waiter

    def flush_now(self) -> None:
        """Write what stands in this loop's queue, if that can be done at once."""
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is not None and queue.task is None:  # a task writes them in their order
            self._attempt(queue)

    def _flush(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        if (self._store.is_quick and self._attempt(queue)) or not queue.entries:
            self._rest(loop, queue)
        else:
            queue.task = loop.create_task(self._insist(loop, queue), name="agentflow durability")

    def _attempt(self, queue: _Queue) -> bool:
        """Whether the queue is empty now. False where others are writing."""
        entries = queue.entries
        if not entries:
            return True
        try:
            results = self._store.attempt(lambda connection: self._write(connection, entries))
        except Busy:
            return False
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for it
            queue.entries = []
            self._failed(entries, error)
        else:
            queue.entries = []
            for entry, result in zip(entries, results, strict=True):
                entry.settle(result)
        return True

    def _write(self, connection: sqlite3.Connection, entries: list[_Entry[object]]) -> list[object]:
        results = [entry.work(connection) for entry in entries]
        self._look(connection)
        return results

    def _failed(self, entries: list[_Entry[object]], error: Exception) -> None:
        if len(entries) == 1:
            entries[0].fail(error)
            return
        for entry in entries:
            try:
                entry.settle(self._store.attempt(entry.work))
            except Exception as its_own:  # noqa: BLE001 - as above
                entry.fail(error if isinstance(its_own, Busy) else its_own)

    async def _insist(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        """Until the queue is empty, waiting for others, or for the disk."""
        try:
            while entries := queue.entries:
                queue.entries = []
                await self._insist_on(entries)
        except asyncio.CancelledError:  # the loop is being closed: one last try
            self._attempt(queue)
            raise
        finally:
            for entry in queue.entries:
                entry.fail(self._store.too_busy())
            queue.entries = []
            queue.task = None
            self._rest(loop, queue)

    async def _insist_on(self, entries: list[_Entry[object]]) -> None:
        try:
            results = await self._store.write(lambda connection: self._write(connection, entries))
        except asyncio.CancelledError:
            self._last_try(entries)
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(entries, error)
        else:
            for entry, result in zip(entries, results, strict=True):
                entry.settle(result)

    def _last_try(self, entries: list[_Entry[object]]) -> None:
        last = _Queue()
        last.entries = entries
        if not self._attempt(last):
            for entry in entries:
                entry.fail(self._store.too_busy())

    def _rest(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        queue.is_running = False
        if not queue.entries and self._queues.get(loop) is queue:
            del self._queues[loop]
