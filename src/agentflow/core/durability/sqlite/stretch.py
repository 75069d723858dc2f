"""One stretch of a run in this process: from when it was claimed until it ends, parks or is cancelled.

with stretches.enter(run_id) as stretch:        RunHeldError where another task of ours has it
    ending = await stretch.walk(body, journal)  a task of its own, so that it can be cancelled without its caller
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending
from agentflow.errors import RunHeldError

__all__ = ["AskedToEndError", "Stretch", "Stretches"]


class AskedToEndError(Exception):
    """The run was cancelled by request, and its body has ended for that."""


class Stretch:
    """It may be asked to end from any thread."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Ending] | None = None
        self._asked = asyncio.Event()

    def ask_to_end(self) -> None:
        """Somebody has cancelled the run."""
        with suppress(RuntimeError):  # its loop is closed, and the stretch over with it
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            if self._task is not None:
                self._task.cancel()

    async def walk(self, body: Body, journal: Journal) -> Ending:
        """Raises AskedToEndError where that is why it ended, and what `body` raises."""
        if self._asked.is_set():
            raise AskedToEndError
        self._task = self._loop.create_task(_as_coroutine(body, journal), name=f"agentflow run {self.run_id}")
        try:
            return await self._task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._asked.is_set() and caller is not None and not caller.cancelling():
                raise AskedToEndError from None
            raise


async def _as_coroutine(body: Body, journal: Journal) -> Ending:
    return await body(journal)


class Stretches:
    """Those under way in one engine, by the ids of their runs."""

    def __init__(self, process: str) -> None:
        self._process = process
        self.begin()

    def begin(self) -> None:
        """With none, as at first."""
        self._lock = Lock()
        self._under_way: dict[str, Stretch] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._under_way

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def enter(self, run_id: str) -> Iterator[Stretch]:
        stretch = Stretch(run_id)
        with self._lock:
            if run_id in self._under_way:
                raise RunHeldError(run_id, self._process)
            self._under_way[run_id] = stretch
        try:
            yield stretch
        finally:
            with self._lock:
                if self._under_way.get(run_id) is stretch:
                    del self._under_way[run_id]

    def ask_to_end(self, run_id: str) -> None:
        """If it is one of ours."""
        stretch = self._under_way.get(run_id)
        if stretch is not None:
            stretch.ask_to_end()
