"""Runs kept in PostgreSQL by DBOS, and executed on as many machines as listen: agentflow[dbos].

    engine = DbosDurability("postgresql://db/runs")                  runs here, kept there
    engine = DbosDurability("postgresql://db/runs", queue="jobs")    runs wherever a worker listens

                     ┌ execute ──▶ DBOS workflow ──▶ body in this process
    PostgreSQL ◀─────┤
                     └ execute ──▶ queue "jobs"  ──▶ a worker:  engine.serve("article", body_of)
                                                               await engine.work(stop)

A run is a workflow of DBOS of the same id, a record is a step of it. What one process executed is gone on with by
others when it dies; no two execute a run at one time, and one that is wrongly taken for dead can save nothing more.
A record that was saved is never made again; what was under way when a process died is.

Retries stay with the flow: DBOS's own are off. A process has one engine, and all of it may be called from any loop.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending, Record, RunInfo, RunSpec, RunStatus
from agentflow.errors import DurabilityError, RunEndedError
from agentflow.integrations.dbos.address import checked_url
from agentflow.integrations.dbos.bodies import BodyOf, Offer
from agentflow.integrations.dbos.calling import Call
from agentflow.integrations.dbos.journal import DbosJournal
from agentflow.integrations.dbos.limits import QueueLimits
from agentflow.integrations.dbos.opened import Opened, Plan
from agentflow.integrations.dbos.server import Settings
from agentflow.integrations.dbos.watching import pieces_of, records_of
from agentflow.integrations.dbos.wire import spec_from

__all__ = ["DbosDurability"]

_VERSION: Final = "agentflow-1"
"""What DBOS compares before it lets a process execute a run: how runs are kept, not which flows there are."""


class DbosDurability:
    """`queue` names where runs wait for workers; None runs them where `execute` is called. Nothing is opened before it
    is needed.

    `executor_id` is what this process is called in `RunInfo.owner`; something is added that makes it the only one.
    `limits` are those of the queue, for all who use it. `polling` is how often queues are looked into, `beat` how often
    this process looks after its runs, `grace` how long one may be without its session before it counts as dead,
    `patience` how long a call waits for a server that is away: all seconds. `take_overs` is how many processes may die
    with a run before it is left alone.
    """

    def __init__(
        self,
        database_url: str,
        *,
        queue: str | None = None,
        limits: QueueLimits | None = None,
        executor_id: str | None = None,
        application: str = "agentflow",
        application_version: str = _VERSION,
        polling: float = 0.2,
        beat: float = 1.0,
        grace: float = 5.0,
        patience: float = 60.0,
        take_overs: int = 10,
    ) -> None:
        if limits is not None and queue is None:
            raise ValueError("limits are those of a queue: name one")
        name = re.sub(r"[^\w.-]", "-", executor_id or f"{socket.gethostname()}.{os.getpid()}")[:80]
        settings = Settings(checked_url(database_url), application, application_version, name, patience, polling)
        self._plan = Plan(settings, queue, limits, False, beat, grace, take_overs)
        self._opened: Opened | None = None
        self._opening = threading.Lock()
        self._offers: dict[str, Offer] = {}
        self._closes = False
        self._served: dict[str, BodyOf] = {}
        self._at_work: tuple[asyncio.AbstractEventLoop, Context] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has connections, and works if that is what it does."""
        return self._opened is not None

    # ---- the protocol ----------------------------------------------------------------------------------------

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        return await self._call(spec, body, await self._ready(), self._plan.queue)

    async def _call(self, spec: RunSpec, body: Body, opened: Opened, queue: str | None = None) -> Ending:
        offer = Offer(body, asyncio.get_running_loop(), copy_context())
        try:
            return await Call(spec, offer, self._offers, opened, queue).ending()
        finally:
            if self._closes and not self._offers:
                await self._close(0.0)

    async def find(self, run_id: str, /) -> RunInfo:
        opened = await self._ready()
        [info] = await opened.server.run(lambda: opened.runs.infos([opened.runs.known(run_id)]))
        return info

    async def records(self, run_id: str, /) -> Sequence[Record]:
        opened = await self._ready()
        return (await opened.server.run(opened.runs.kept, run_id)).records

    async def answer(self, run_id: str, answers: Mapping[str, str], /) -> None:
        opened = await self._ready()
        await opened.server.run(opened.runs.answer, run_id, answers)

    async def fork(self, spec: RunSpec, update: Record | None, /) -> None:
        opened = await self._ready()
        await opened.server.run(opened.runs.fork, spec, update)

    async def rewrite(self, spec: RunSpec, records: Sequence[Record], /) -> None:
        opened = await self._ready()
        standing = await opened.server.run(opened.runs.known, spec.run_id)
        if standing.status(alive=True) == "done":
            raise RunEndedError(spec.run_id, "done", "is done: fork it")
        parked = Ending("waiting", interrupts=standing.interrupts)

        async def replace_all(journal: Journal) -> Ending:
            assert isinstance(journal, DbosJournal)
            await journal.replace(records)
            return parked

        # In this process, whatever the queue: DBOS adds to a run only while it executes it.
        await self._call(standing.spec, replace_all, opened)
        await opened.server.run(opened.runs.respecify, spec.run_id, spec.graph)

    async def runs(
        self, *, flow: str | None = None, status: RunStatus | None = None, due: float | None = None, limit: int = 100
    ) -> Sequence[RunInfo]:
        """With `due` all runs that wait are looked at."""
        opened = await self._ready()
        if due is None:
            return await opened.server.run(opened.runs.listed, flow, status, limit)
        return await opened.server.run(opened.runs.due, flow, due, limit)

    async def cancel(self, run_id: str, /) -> bool:
        opened = await self._ready()
        whole = (await opened.server.run(opened.runs.known, run_id)).id
        ends = await opened.server.run(opened.runs.cancel, whole)
        if ends and (stretch := opened.keeper.here(whole)) is not None:
            stretch.end("cancelled")
        return ends

    async def delete(self, run_id: str, /) -> None:
        opened = await self._ready()
        await opened.server.run(opened.runs.delete, run_id)

    async def follow(self, run_id: str, /) -> AsyncIterator[Record]:
        opened = await self._ready()
        async for record in records_of(opened.server, opened.runs, run_id, self._plan.settings.polling):
            yield record

    async def close(self) -> None:
        """With callers of `execute` waiting, once the last of them has what it waits for."""
        self._closes = bool(self._offers)
        if not self._closes:
            await self._close(0.0)

    # ---- many machines ---------------------------------------------------------------------------------------

    def serve(self, flow: str, body_of: BodyOf) -> None:
        """Runs of this flow that come from the queue, or from a process that died, are run by what that returns."""
        self._served[flow] = body_of

    async def submit(self, spec: RunSpec) -> None:
        """Put a run into the queue, new or one that is parked, and do not wait for it. Raises RunExistsError."""
        opened = await self._ready()
        await opened.server.run(opened.runs.submit, spec)

    async def work(self, stop: asyncio.Event, *, drain: float = 30.0) -> None:
        """Run what stands in the queue, and what the dead have left, until `stop` is set; then let the runs here end,
        for `drain` seconds, and close. It is to be the first that an engine is used for."""
        with self._opening:
            if self._opened is not None:
                raise DurabilityError("this engine is in use already: a worker needs one of its own")
            self._plan = replace(self._plan, works=True)
        self._at_work = (asyncio.get_running_loop(), copy_context())
        await self._ready()
        try:
            await stop.wait()
        finally:
            await self._close(drain)

    async def schedule(self, name: str, cron: str, spec: RunSpec, *, timezone: str | None = None) -> None:
        """Begin a run like `spec` whenever `cron` says so, by workers: five fields, or six that begin with seconds. Its
        id is the schedule's name and the moment. One of the same name is replaced. `timezone` is UTC if not given."""
        opened = await self._ready()
        await opened.server.run(opened.runs.schedule, name, cron, spec, timezone)

    async def trigger(self, name: str) -> None:
        """Have a schedule begin a run now, too."""
        opened = await self._ready()
        await opened.server.run(opened.runs.trigger, name)

    async def unschedule(self, name: str) -> None:
        opened = await self._ready()
        await opened.server.run(opened.runs.unschedule, name)

    # ---- pieces on their way ---------------------------------------------------------------------------------

    def publish(self, run_id: str, piece: str) -> bool:
        """Let whoever watches this run see a piece of text; from any thread. False where the run is not run here."""
        return self._opened is not None and self._opened.executions.publish(run_id, piece)

    async def stream(self, run_id: str) -> AsyncIterator[str]:
        """The pieces that a run publishes, from its first, until it ends or is parked; from any process."""
        opened = await self._ready()
        async for piece in pieces_of(opened.server, run_id, self._plan.settings.polling):
            yield piece

    # ---- what DBOS calls -------------------------------------------------------------------------------------

    async def run_stretch(self, run_id: str) -> dict[str, Any]:
        return await self._here().executions.run(run_id)

    async def fire(self, moment: datetime, given: dict[str, Any]) -> None:
        opened = self._here()
        template = spec_from(given["spec"])
        spec = replace(template, run_id=f"{given['name']}.{moment:%Y%m%dT%H%M%S.%f}")
        await opened.server.run(opened.runs.enqueue, spec, given["queue"])

    async def wake(self, run_id: str) -> None:
        opened = self._here()
        await opened.server.run(opened.runs.wake, run_id, time.time())

    # ---- opening and closing ---------------------------------------------------------------------------------

    def _here(self) -> Opened:
        if self._opened is None:
            raise DurabilityError("the engine is closed")
        return self._opened

    async def _ready(self) -> Opened:
        if (opened := self._opened) is not None:
            return opened
        return await asyncio.get_running_loop().run_in_executor(None, self._opened_now)

    def _opened_now(self) -> Opened:
        with self._opening:
            if self._opened is None:
                settings = self._plan.settings
                # Unique even where the name given is not: locks, and what DBOS recovers by itself, go by it.
                settings = replace(settings, engine=f"{settings.engine}.{secrets.token_hex(4)}")
                self._opened = Opened.open(replace(self._plan, settings=settings), self, self._offer, self._serves)
            return self._opened

    async def _close(self, drain: float) -> None:
        with self._opening:
            opened, self._opened = self._opened, None
            self._closes = False
        if opened is None:
            return
        await asyncio.get_running_loop().run_in_executor(None, opened.close, drain)
        for offer in list(self._offers.values()):
            offer.fail(DurabilityError("the engine was closed: the run can be resumed"))

    def _serves(self, flow: str) -> bool:
        return flow in self._served

    def _offer(self, spec: RunSpec) -> Offer | None:
        """What runs a run here: whoever waits for it, else the flow of its name."""
        if (offer := self._offers.get(spec.run_id)) is not None:
            return offer
        if (body_of := self._served.get(spec.flow)) is None:
            return None
        loop, context = self._at_work or (self._here().server.loop, copy_context())
        return Offer(body_of(spec), loop, context.copy())
