"""One execution of a run: its journal is read, its body runs, and how that ended is kept.

    DBOS calls "agentflow_run"  ──▶  steps of earlier executions ──▶ journal ──▶ body ──▶ output and attributes

The body comes from whoever waits in `execute`, else from the flow of that name that this process serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from agentflow.core.durability.records import Ending, RunSpec
from agentflow.errors import describe
from agentflow.integrations.dbos.bodies import Offer, Stretch
from agentflow.integrations.dbos.journal import DbosJournal
from agentflow.integrations.dbos.keeper import Keeper
from agentflow.integrations.dbos.pieces import Pieces
from agentflow.integrations.dbos.runs import Kept, Runs
from agentflow.integrations.dbos.server import Server
from agentflow.integrations.dbos.standing import ANSWER, totals_of
from agentflow.integrations.dbos.wire import Json, ending_to

__all__ = ["Executions"]

_STOPPED: Final[Json] = {}
"""What a workflow returns that DBOS is not to keep: its row says already that it is cancelled, or another's."""


class Executions:
    """`offer` finds what can run a run, None where nothing here can."""

    def __init__(self, server: Server, runs: Runs, keeper: Keeper, offer: Callable[[RunSpec], Offer | None]) -> None:
        self._server = server
        self._runs = runs
        self._keeper = keeper
        self._offer = offer
        self._pieces: dict[str, Pieces] = {}

    def publish(self, run_id: str, piece: str) -> bool:
        """False where the run is not executed here."""
        pieces = self._pieces.get(run_id)
        if pieces is not None:
            pieces.add(piece)
        return pieces is not None

    async def run(self, run_id: str) -> Json:
        """Called on the engine's loop, in DBOS's context of the workflow."""
        workflow = copy_context()
        kept = await self._server.run(self._runs.kept, run_id)
        if kept.standing.is_cancelled_for_good:  # while it was taken over, or on its way here
            await self._server.run(self._runs.stop, run_id)
            return _STOPPED
        offer = self._offer(kept.standing.spec)
        if offer is None:
            error = f"the worker that got it does not serve the flow {kept.standing.spec.flow!r}"
            return await self._end(run_id, Ending("failed", error=error), None, kept)
        try:
            return await self._with(offer, kept, DbosJournal(run_id, kept.records, self._server, workflow))
        except BaseException as error:
            offer.error = error
            raise
        finally:
            offer.finish()

    async def _with(self, offer: Offer, kept: Kept, journal: DbosJournal) -> Json:
        run_id = journal.run_id
        journal.skip_to(kept.last_step)
        for answer in kept.standing.answers:
            await journal.save(answer)
        stretch = Stretch(offer)
        journal.fenced = lambda: stretch.end("fenced")
        pieces = self._pieces[run_id] = Pieces(journal, self._server.loop)
        self._keeper.add(run_id, stretch)
        try:
            ending = await self._ended(offer, stretch, journal)
        finally:
            self._keeper.remove(run_id, stretch)
            if self._pieces.get(run_id) is pieces:  # the run may go on here before an earlier stretch hears of its end
                del self._pieces[run_id]
            await pieces.flush()
            await journal.close()
        if ending is not None:
            return await self._end(run_id, ending, journal, kept)
        if stretch.why == "caller":
            await self._server.run(self._runs.stop, run_id)
        return _STOPPED

    async def _ended(self, offer: Offer, stretch: Stretch, journal: DbosJournal) -> Ending | None:
        """None where it was ended from outside."""
        try:
            offer.ending = await self._walked(stretch, journal)
        except asyncio.CancelledError:
            if stretch.why is None:  # the engine is closed
                raise
            return None
        except Exception as error:  # noqa: BLE001 - whatever a body raises is how it failed
            offer.error = error
            return None if stretch.why is not None else Ending("failed", error=describe(error))
        return offer.ending

    async def _walked(self, stretch: Stretch, journal: DbosJournal) -> Ending:
        """Answers may have come while branches that did not wait for them went on: then it goes on, too."""
        while True:
            ending = await stretch.run(journal)
            if ending.status != "waiting":
                return ending
            known = {record.id for record in journal.records()}
            standing = await self._server.run(self._runs.known, journal.run_id)
            answers = [answer for answer in standing.answers if answer.id not in known]
            if not answers:
                return ending
            for answer in answers:
                await journal.save(answer)

    async def _end(self, run_id: str, ending: Ending, journal: DbosJournal | None, kept: Kept) -> Json:
        records = kept.records if journal is None else journal.records()
        told: dict[str, Any] = {
            "standing": ending.status,
            **totals_of(records),
            # They are records by now.
            **{f"{ANSWER}{record.id.removesuffix('!answer')}": None for record in records if record.kind == "answer"},
        }
        await self._server.run(self._runs.end_stretch, run_id, told)
        due = min((one.due for one in ending.interrupts if one.due is not None), default=None)
        if due is not None and kept.standing.queue is not None:
            await self._server.run(self._runs.set_alarm, run_id, due)
        return ending_to(ending)
