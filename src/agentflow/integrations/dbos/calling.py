"""One call of `execute`: the run begins or goes on, here or with a worker, and the caller waits for how that ends.

             no such run ──▶ begin it            ┐
spec ──▶     over        ──▶ body(what was kept)  ├──▶ wait ──▶ Ending
             else        ──▶ go on with it       ┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from agentflow.core.durability.records import Ending, RunSpec
from agentflow.errors import RunEndedError, RunHeldError
from agentflow.integrations.dbos.bodies import Offer
from agentflow.integrations.dbos.journal import KeptJournal
from agentflow.integrations.dbos.opened import Opened
from agentflow.integrations.dbos.standing import Standing
from agentflow.integrations.dbos.wire import spec_to
from agentflow.integrations.dbos.workflows import workflows

__all__ = ["Call"]

T = TypeVar("T")

_SOON = 0.005  # seconds between two looks at a row that is about to change


class Call:
    """`offers` are those of the process; the call's own stands there while it waits. `queue` is the one that it is run
    from, None for this process."""

    def __init__(
        self, spec: RunSpec, offer: Offer, offers: dict[str, Offer], opened: Opened, queue: str | None
    ) -> None:
        self._spec = spec
        self._run_id = spec.run_id
        self._offer = offer
        self._offers = offers
        self._opened = opened
        self._queue = queue
        self._server = opened.server

    async def ending(self) -> Ending:
        if self._offers.setdefault(self._run_id, self._offer) is not self._offer:
            raise RunHeldError(self._run_id, "another task of this process")
        try:
            over = await self._begin()
            return await self._outcome() if over is None else await self._offer.body(over)
        except asyncio.CancelledError:
            await _in_any_case(self._stop())
            raise
        finally:
            del self._offers[self._run_id]

    async def _begin(self) -> KeptJournal | None:
        """The journal of a run that is over already, else None."""
        runs, queue = self._opened.runs, self._queue
        standing = await self._server.run(runs.look, self._run_id)
        if standing is None:
            begun = await (self._server.on_loop(self._start) if queue is None else self._enqueued(queue))
            if begun:
                return None
            standing = await self._server.run(runs.known, self._run_id)
        runs.checked(self._spec, standing)
        if standing.status(alive=True) == "done":
            return KeptJournal(self._run_id, (await self._server.run(runs.kept, self._run_id)).records)
        await self._server.run(runs.go_on, self._run_id, queue)
        return None

    async def _start(self) -> bool:
        """On the engine's loop. False where the id is taken."""
        from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, error

        attributes = {"flow": self._spec.flow, "queue": None}
        try:
            with (
                SetWorkflowID(self._run_id, workflow_id_reuse_policy="reject"),
                SetWorkflowAttributes(attributes),
            ):
                await DBOS.start_workflow_async(workflows().run, {"spec": spec_to(self._spec)})
        except error.DBOSWorkflowIDInUseError:
            return False
        return True

    async def _enqueued(self, queue: str) -> bool:
        return await self._server.run(self._opened.runs.enqueue, self._spec, queue)

    async def _outcome(self) -> Ending:
        while True:
            over = await self._wait()
            standing = await self._server.run(self._opened.runs.known, self._run_id)
            if standing.is_cancelled_for_good or standing.row.status == "CANCELLED":
                raise RunEndedError(self._run_id, "cancelled", "was cancelled for good: begin another, or fork it")
            if over and (ending := self._ended_here(standing)) is not None:
                return ending
            if not over and not standing.is_executed and not standing.is_queued:
                return standing.ending

    async def _wait(self) -> bool:
        """Whether the run has been executed here. What is here says so itself; what may be elsewhere is looked at."""
        if self._offer.over.done():
            await asyncio.sleep(_SOON)
            return True
        polling = None if self._offer.stretch is not None else max(self._opened.plan.settings.polling, 0.2)
        await asyncio.wait([asyncio.wrap_future(self._offer.over)], timeout=polling)
        return self._offer.over.done()

    def _ended_here(self, standing: Standing) -> Ending | None:
        """None where DBOS is still about to note it."""
        stretch = self._offer.stretch
        if stretch is not None and stretch.why == "fenced":
            raise RunHeldError(self._run_id, standing.row.executor_id or "another process")
        if self._offer.error is None and self._offer.ending is None:
            return None if standing.is_executed else standing.ending
        if standing.is_executed:
            return None
        if self._offer.error is not None and not isinstance(self._offer.error, asyncio.CancelledError):
            raise self._offer.error
        return self._offer.ending

    async def _stop(self) -> None:
        """Its caller was cancelled: end the body, wherever it is."""
        if (stretch := self._offer.stretch) is not None:
            stretch.end("caller")
            await asyncio.wait([asyncio.wrap_future(self._offer.over)])
        await self._server.run(self._opened.runs.stop, self._run_id)


async def _in_any_case(work: Awaitable[T]) -> T:
    """Its result, however often whoever waits for it is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
