"""A run's body at work on the event loop that it belongs to, seen from the loop that DBOS's workflows run on.

offered = Offer(body, loop, context)     a caller of `execute`, or a flow that this process serves
stretch = Stretch(offered)
ending  = await stretch.run(journal)     on the engine's loop; the body runs on the offer's
stretch.end("cancelled")                 from any thread: the body is cancelled, and this is why
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending, RunSpec
from agentflow.errors import DurabilityError

__all__ = ["BodyOf", "Offer", "Stretch", "Why"]

BodyOf: TypeAlias = Callable[[RunSpec], Body]
"""What runs a run of a flow that is served."""

Why: TypeAlias = Literal["caller", "cancelled", "fenced"]
"""Its caller was cancelled; somebody has cancelled the run; another process has taken it over."""


@dataclass(slots=True, eq=False)
class Offer:
    """A body that is ready to run, and what became of that. `over` has nothing in it but that it is over."""

    body: Body
    loop: asyncio.AbstractEventLoop
    context: Context
    stretch: Stretch | None = None
    ending: Ending | None = None
    error: BaseException | None = None
    over: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Nothing will come of it any more."""
        self.error = error
        self.finish()


class Stretch:
    """One execution of a run."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._task: asyncio.Task[Ending] | None = None
        self.why: Why | None = None
        self._future: concurrent.futures.Future[Ending] = concurrent.futures.Future()
        offer.stretch = self

    async def run(self, journal: Journal) -> Ending:
        """Raises what the body raises, and asyncio.CancelledError where it was ended. May be called again."""
        self._future = concurrent.futures.Future()
        try:
            self._offer.loop.call_soon_threadsafe(self._begin, journal)
        except RuntimeError:
            raise DurabilityError(
                "the event loop of this run's body is closed: resume it", run_id=journal.run_id
            ) from None
        return await asyncio.wrap_future(self._future)

    def _begin(self, journal: Journal) -> None:
        self._task = self._offer.loop.create_task(_ending_of(self._offer.body(journal)), context=self._offer.context)
        self._task.add_done_callback(self._finished)
        if self.why is not None:
            self._task.cancel()

    def _finished(self, task: asyncio.Task[Ending]) -> None:
        if self._future.done():  # the engine was closed meanwhile
            return
        if task.cancelled():
            self._future.cancel()
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())

    def end(self, why: Why) -> None:
        """The first reason counts."""
        if self.why is None:
            self.why = why
            try:
                self._offer.loop.call_soon_threadsafe(self._cancel)
            except RuntimeError:  # its loop is gone, and so is the body
                self._future.cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _ending_of(body: Awaitable[Ending]) -> Ending:
    return await body
