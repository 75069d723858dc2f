"""The course of a job: one loop that takes each part a step further when it is due, and watches the deadline.

    while a request is open:   cancelled? → deadline? → send → watch → ask directly → sleep until the next is due

It holds a lock for as long as it goes, so two processes never drive one job. It keeps nothing that the file does not
have: it may be left at any point, by whatever means, and another one goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

from agentflow.core.file_lock import FileLock
from agentflow.errors import BatchError, BatchHeldError, BatchRequestError, ModelError
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.direct import ask_directly
from agentflow.mcp.performance.batching.jobs.forecast import chance_of, escape_of
from agentflow.mcp.performance.batching.jobs.outcomes import error_text
from agentflow.mcp.performance.batching.jobs.policy import Escape
from agentflow.mcp.performance.batching.jobs.rows import PartRow, Settling
from agentflow.mcp.performance.batching.jobs.sending import send
from agentflow.mcp.performance.batching.jobs.states import FINAL, Event, State
from agentflow.mcp.performance.batching.jobs.watching import watch

__all__ = ["Course", "hold"]

_UNSENT: Final = (State.PLANNED, State.UPLOADING, State.UPLOADED)
_SENDING: Final = (*_UNSENT, State.SUBMITTING)
_SHORTEST: Final = 0.05  # seconds of sleep
_TURNS: Final = 20  # of the event loop, in which results that were left by a bare `break` let go of the job


async def hold(store: Path, job: str) -> FileLock:
    """The lock of a job, taken. Raises BatchHeldError where somebody else has it."""
    name = hashlib.sha256(job.encode()).hexdigest()[:12]
    lock = FileLock(store.with_name(f"{store.name}.{name}.lock"))
    for _ in range(_TURNS):
        while lock.take():
            if lock.stands():
                return lock
            lock.give_up()  # whoever had it was just giving it up, and its file is gone
        await asyncio.sleep(0)
    raise BatchHeldError(job)


def let_go(lock: FileLock) -> None:
    with suppress(OSError):
        lock.path.unlink()
    lock.give_up()


class Course:
    """One stretch of work on a job. `until_sent` stops once no part waits to be sent, `once` after one round;
    `to_the_end` goes on until the provider has let go of every part, also where all requests are settled already."""

    def __init__(self, desk: Desk, *, until_sent: bool = False, to_the_end: bool = False, once: bool = False) -> None:
        self._desk = desk
        self._once = once
        self._until_sent = until_sent
        self._to_the_end = to_the_end

    async def run(self) -> AsyncGenerator[int, None]:
        """Yields whenever requests were settled: how many. Raises BatchHeldError, and the ModelError that lets nothing
        be sent."""
        desk = self._desk
        lock = await hold(desk.store.path, desk.id)
        try:
            while not self._is_over():
                for part in self._due():
                    async with aclosing(self._step(part)) as news:
                        async for settled in news:
                            yield settled
                await self._decide()
                async with aclosing(self._directly()) as news:
                    async for settled in news:
                        yield settled
                if self._once or self._is_over():
                    return
                await self._sleep()
        finally:
            let_go(lock)

    def _is_over(self) -> bool:
        desk = self._desk
        living = [part for part in desk.store.parts(desk.id) if part.state not in FINAL]
        if self._until_sent and not self._once and not any(part.state in _SENDING for part in living):
            return True
        if desk.store.counts(desk.id).open:
            return False
        return not (self._to_the_end and living)

    def _due(self) -> list[PartRow]:
        desk = self._desk
        now = desk.now()
        return [part for part in desk.store.parts(desk.id) if part.state not in FINAL and part.due <= now]

    # ---- a step ----------------------------------------------------------------------------------------------

    async def _step(self, part: PartRow) -> AsyncGenerator[int, None]:
        desk = self._desk
        part = desk.store.part(part.id)
        if part.state in _UNSENT and await self._gives_up(part):
            return
        if part.state in _SENDING:
            before = desk.store.counts(desk.id).open
            await send(desk, part)
            yield before - desk.store.counts(desk.id).open
            return
        if part.state is State.SUBMITTED and (reason := self._reason_to_cancel()):
            part = await self._cancel(part, reason)
        async with aclosing(watch(desk, part)) as news:
            async for settled in news:
                yield settled

    async def _drop(
        self, part: PartRow, reason: str, *, settled: Sequence[Settling] = (), again: Sequence[int] = ()
    ) -> None:
        desk = self._desk
        await desk.settle(part)
        desk.store.finish(part, Event.DROP, at=desk.now(), reason=reason, settled=settled, again=again, counted=False)

    async def _gives_up(self, part: PartRow) -> bool:
        """Whether a part that was not sent never will be: the job is called off, or there is no time for it."""
        desk, job = self._desk, self._desk.job
        if job.cancelled is not None:
            error = BatchRequestError("cancelled", "the job was cancelled before this was sent", job=desk.id)
            rows = desk.store.requests(desk.id, part=part.id, states=("open",))
            settled = [Settling(row.seq, "cancelled", error=error_text(error)) for row in rows]
            await self._drop(part, "the job is cancelled", settled=settled)
            await desk.told(part, desk.store.part(part.id), "the job is cancelled")
            return True
        rows = desk.store.requests(desk.id, part=part.id, states=("open", "asking"))
        likely = _chance(desk, part)
        reason = ""
        if not rows:
            reason = "all of it was answered another way"
        elif job.direct is not None:
            reason = "what is left is asked directly"
        elif likely is not None and likely < desk.policy.least_chance:
            reason = f"the chance that it is done in time is {likely:.0%}"
        if not reason:
            return False
        again = [row.seq for row in rows]
        await self._drop(part, reason, again=again)
        if rows and job.direct is None:
            desk.store.go_direct(desk.id, desk.now(), reason)
        await desk.told(part, desk.store.part(part.id), reason, chance=likely)
        return True

    # ---- the deadline ----------------------------------------------------------------------------------------

    def _reason_to_cancel(self) -> str | None:
        desk = self._desk
        if desk.job.cancelled is not None:
            return "the job is cancelled"
        escape = _escape(desk)
        if escape is not None and desk.now() >= escape.cancel:
            return "the deadline is near"
        return None

    async def _cancel(self, part: PartRow, reason: str) -> PartRow:
        desk = self._desk
        part = await desk.move(part, Event.CANCEL, reason)
        with suppress(ModelError):  # it is asked for again whenever the batch is asked after
            await desk.endpoint.cancel(part.batch or "")
        return part

    async def _decide(self) -> None:
        """Call batches off, and stop waiting for them, when the deadline says so."""
        desk, job = self._desk, self._desk.job
        reason = self._reason_to_cancel()
        if reason is None:
            return
        for part in desk.store.parts(desk.id):
            if part.state in _UNSENT:
                await self._gives_up_for(part, reason)
            elif part.state is State.SUBMITTED:
                part = await self._cancel(part, reason)
                desk.store.note(part, due=desk.now() + desk.policy.poll_first, asked=0)
        escape = _escape(desk)
        if job.cancelled is not None:
            self._call_off_the_rest()
        elif job.direct is None and escape is not None:
            living = any(part.state not in FINAL for part in desk.store.parts(desk.id))
            if desk.now() >= escape.direct or not living:
                risky = _risky(desk)
                told = f"{reason}: what is left is asked directly"
                if risky:
                    told += "; batches that may hold it have not ended, so it may be billed twice"
                desk.store.go_direct(desk.id, desk.now(), told)
                await self._tell_risk(told)

    def _call_off_the_rest(self) -> None:
        """What stands in no part; a part that lives tells itself what has become of its requests."""
        desk = self._desk
        loose = desk.store.requests(desk.id, states=("open", "asking"), loose=True)
        rows = [row for row in loose if row.part is None]
        error = BatchRequestError("cancelled", "the job was cancelled before this was answered", job=desk.id)
        desk.store.settle(desk.id, [Settling(row.seq, "cancelled", error=error_text(error)) for row in rows])

    async def _gives_up_for(self, part: PartRow, reason: str) -> None:
        desk = self._desk
        if desk.job.cancelled is not None:
            await self._gives_up(part)
            return
        rows = desk.store.requests(desk.id, part=part.id, states=("open", "asking"))
        again = [row.seq for row in rows]
        await self._drop(part, reason, again=again)
        await desk.told(part, desk.store.part(part.id), reason)

    async def _tell_risk(self, reason: str) -> None:
        desk = self._desk
        for part in desk.store.parts(desk.id):
            if part.state not in FINAL:
                await desk.told(part, part, reason)

    # ---- asked directly --------------------------------------------------------------------------------------

    async def _directly(self) -> AsyncGenerator[int, None]:
        """Ask what stands in no part any more, once there is no time for another; and all that is open, when the last
        moment for it has come."""
        desk, job = self._desk, self._desk.job
        if self._until_sent or job.cancelled is not None:
            return
        all_of_it = job.direct is not None and _is_last_moment(desk)
        rows = desk.store.requests(desk.id, states=("open", "asking"), loose=not all_of_it)
        if not rows:
            return
        async with aclosing(ask_directly(desk, rows, _risky(desk))) as news:
            async for settled in news:
                yield settled

    # ---- sleep -----------------------------------------------------------------------------------------------

    async def _sleep(self) -> None:
        desk = self._desk
        now = desk.now()
        times = [part.due for part in desk.store.parts(desk.id) if part.state not in FINAL]
        escape = _escape(desk)
        if escape is not None:
            times += [time for time in (escape.cancel, escape.direct) if time > now]
        if not times:
            raise BatchError(f"batch job {desk.id} has open requests that stand in no part", job=desk.id)
        await desk.clock.sleep(max(_SHORTEST, min(times) - now))


def _risky(desk: Desk) -> frozenset[str]:
    """The parts that the provider has, or may have, and has not let go of."""
    unsure = (State.SUBMITTING, State.SUBMITTED, State.CANCELLING, State.ENDED)
    return frozenset([part.id for part in desk.store.parts(desk.id) if part.state in unsure])


def _is_last_moment(desk: Desk) -> bool:
    escape = _escape(desk)
    return escape is None or desk.now() >= escape.direct


def _escape(desk: Desk) -> Escape | None:
    return escape_of(desk.store, desk.job)


def _chance(desk: Desk, part: PartRow) -> float | None:
    return chance_of(desk.store, desk.job, part, desk.now(), desk.endpoint.limits.window)
