"""An engine that keeps runs in memory: the whole protocol of `Durability`, for tests of what is built upon it.

engine = MemoryDurability()
await AsyncFlow(…, durability=engine).run(state, run_id="r")
engine.before = fail_at(7)          awaited before each record is kept: it may wait, or raise
engine.crash()                      whatever runs is gone, as if its process had died: it is found as lost

It serves one event loop. Nothing is copied, nothing is encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentflow.clock import Clock, SystemClock
from agentflow.core.durability.protocol import Body
from agentflow.core.durability.records import Ending, Interrupt, Record, RunInfo, RunSpec, RunStatus
from agentflow.errors import (
    AnswerError,
    DurabilityError,
    RunEndedError,
    RunExistsError,
    RunHeldError,
    UnknownRunError,
)

__all__ = ["MemoryDurability"]

_OWNER = "this process"


@dataclass(eq=False)
class _Run:
    spec: RunSpec
    created: float
    updated: float
    status: RunStatus = "running"
    records: dict[str, Record] = field(default_factory=dict)
    action: str | None = None
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    final: bool = False
    asked: bool = False
    task: asyncio.Task[Ending] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[Record] = field(default_factory=list)

    def keep(self, record: Record) -> None:
        self.records[record.id] = record
        self.told.append(record)
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def waits_for(self, interrupt: str) -> bool:
        record = self.records.get(interrupt)
        return record is not None and record.kind == "wait" and f"{interrupt}!answer" not in self.records


class _Journal:
    def __init__(self, engine: MemoryDurability, run: _Run, *, ended: bool) -> None:
        self._engine = engine
        self._run = run
        self._ended = ended
        self.is_over = False

    @property
    def run_id(self) -> str:
        return self._run.spec.run_id

    @property
    def ended(self) -> bool:
        return self._ended

    def find(self, id: str, /) -> Record | None:
        return self._run.records.get(id)

    def records(self) -> Sequence[Record]:
        return list(self._run.records.values())

    async def save(self, record: Record, /) -> None:
        if self._ended:
            raise RunEndedError(self.run_id, "done", "is done")
        await self._engine.before(record)
        if self.is_over:
            raise DurabilityError(f"this stretch of run {self.run_id} is over", run_id=self.run_id)
        if record.kind != "answer" or record.id not in self._run.records:
            self._run.keep(record)


async def _at_once(record: Record) -> None:
    """Nothing stands in the way."""


class MemoryDurability:
    """`before` is awaited before each record is kept."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._runs: dict[str, _Run] = {}
        self._journals: dict[str, _Journal] = {}
        self.before: Callable[[Record], Awaitable[None]] = _at_once

    def crash(self) -> None:
        """The process that runs them has died: nothing that they save now is kept, nor how they end."""
        for journal in self._journals.values():
            journal.is_over = True
        self._journals.clear()

    # ---- running ---------------------------------------------------------------------------------------------

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        run = self._claimed(spec)
        journal = _Journal(self, run, ended=run.status == "done")
        if journal.ended:
            return await body(journal)
        self._journals[spec.run_id] = journal
        run.status, run.error, run.action, run.asked = "running", None, None, False
        try:
            while True:
                ending = await self._walk(run, body, journal)
                if any(f"{each.id}!answer" in run.records for each in ending.interrupts):
                    continue
                if run.asked and ending.status != "done":
                    raise self._ended(run)
                self._end(run, journal, ending.status, ending)
                return ending
        except RunEndedError:
            self._end(run, journal, "cancelled", None)
            raise
        except Exception as error:
            self._end(run, journal, "failed", Ending("failed", error=f"{type(error).__name__}: {error}"))
            raise
        except BaseException:
            self._end(run, journal, "cancelled", None)
            raise

    def _claimed(self, spec: RunSpec) -> _Run:
        now = self._clock.time()
        run = self._runs.setdefault(spec.run_id, _Run(spec, now, now))
        if (run.spec.flow, run.spec.inputs) != (spec.flow, spec.inputs):
            raise RunExistsError(f"run {spec.run_id} began with something else", run_id=spec.run_id)
        self._refuse_held(run)
        if run.final and run.status == "cancelled":
            raise self._ended(run)
        return run

    async def _walk(self, run: _Run, body: Body, journal: _Journal) -> Ending:
        async def walk() -> Ending:
            return await body(journal)

        run.task = asyncio.create_task(walk())
        try:
            return await run.task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if run.asked and caller is not None and not caller.cancelling():
                raise self._ended(run) from None
            raise

    def _end(self, run: _Run, journal: _Journal, status: RunStatus, ending: Ending | None) -> None:
        if self._journals.get(run.spec.run_id) is not journal:
            return  # it has crashed
        del self._journals[run.spec.run_id]
        journal.is_over = True
        run.status, run.updated = status, self._clock.time()
        run.final = status == "done" or run.asked
        run.interrupts = () if ending is None else ending.interrupts
        run.action, run.error = (None, None) if ending is None else (ending.action, ending.error)
        run.tell()

    def _ended(self, run: _Run) -> RunEndedError:
        return RunEndedError(run.spec.run_id, "cancelled", "was cancelled for good")

    def _refuse_held(self, run: _Run) -> None:
        if run.spec.run_id in self._journals:
            raise RunHeldError(run.spec.run_id, _OWNER)

    # ---- what there is ---------------------------------------------------------------------------------------

    def _run(self, run_id: str) -> _Run:
        if run_id in self._runs:
            return self._runs[run_id]
        found = [id for id in self._runs if run_id and id.startswith(run_id)]
        if len(found) != 1:
            raise UnknownRunError(run_id, found, path="memory")
        return self._runs[found[0]]

    async def find(self, run_id: str, /) -> RunInfo:
        return self._info(self._run(run_id))

    def _info(self, run: _Run) -> RunInfo:
        runs = run.spec.run_id in self._journals
        pending = tuple(each for each in run.interrupts if f"{each.id}!answer" not in run.records)
        costs = [record.cost for record in run.records.values() if record.kind == "call"]
        known = [cost for cost in costs if cost is not None]
        return RunInfo(
            spec=run.spec,
            status="lost" if run.status == "running" and not runs else run.status,
            created=run.created,
            updated=max([run.updated, *(record.at for record in run.records.values())]),
            action=run.action,
            error=run.error,
            owner=_OWNER if runs else None,
            due=min((each.due for each in pending if each.due is not None), default=None),
            interrupts=pending,
            steps=sum(record.kind in ("step", "item") for record in run.records.values()),
            cost=sum(known) if len(known) == len(costs) else None,
        )

    async def records(self, run_id: str, /) -> Sequence[Record]:
        return list(self._run(run_id).records.values())

    async def runs(
        self, *, flow: str | None = None, status: RunStatus | None = None, due: float | None = None, limit: int = 100
    ) -> Sequence[RunInfo]:
        infos = [self._info(run) for run in reversed(self._runs.values())]
        found = [info for info in infos if flow in (None, info.spec.flow) and status in (None, info.status)]
        if due is not None:
            wakes = {info.run_id: self._wake(self._runs[info.run_id]) for info in found}
            found = [info for info in found if wakes[info.run_id] <= due]
            found.sort(key=lambda info: wakes[info.run_id])
        return found[:limit]

    def _wake(self, run: _Run) -> float:
        """When there is something to go on with."""
        answers = [run.records[id].at for each in run.interrupts if (id := f"{each.id}!answer") in run.records]
        moments = [*answers, *(each.due for each in run.interrupts if each.due is not None)]
        return min(moments, default=float("inf")) if run.status == "waiting" else float("inf")

    async def follow(self, run_id: str, /) -> AsyncIterator[Record]:
        run, seen = self._run(run_id), 0
        while True:
            goes_on, changed = run.spec.run_id in self._journals, run.changed
            for record in run.told[seen:]:
                seen += 1
                yield record
            if not goes_on:
                return
            if changed is run.changed:
                await changed.wait()

    # ---- changing it -----------------------------------------------------------------------------------------

    async def answer(self, run_id: str, answers: Mapping[str, str], /) -> None:
        run = self._run(run_id)
        for interrupt in answers:
            if run.final or not run.waits_for(interrupt):
                raise AnswerError(f"nobody waits for {interrupt}", run_id=run_id, interrupt=interrupt)
        for interrupt, text in answers.items():
            run.keep(Record(f"{interrupt}!answer", "answer", text, self._clock.time()))

    async def fork(self, spec: RunSpec, update: Record | None, /) -> None:
        source = self._run(spec.forked_from or "")
        kept = list(source.records.values())
        if spec.forked_at is not None:
            if spec.forked_at not in source.records:
                raise DurabilityError(f"run {spec.forked_from} has no record {spec.forked_at}", run_id=spec.forked_from)
            kept = kept[: list(source.records).index(spec.forked_at)]
        if spec.run_id in self._runs:
            raise RunExistsError(f"there is a run {spec.run_id} already", run_id=spec.run_id)
        now = self._clock.time()
        run = self._runs[spec.run_id] = _Run(spec, now, now, "waiting")
        self._put(run, [*kept, *([update] if update is not None else [])])

    async def rewrite(self, spec: RunSpec, records: Sequence[Record], /) -> None:
        run = self._run(spec.run_id)
        self._refuse_held(run)
        run.spec = replace(run.spec, flow=spec.flow, inputs=spec.inputs, graph=spec.graph, source=spec.source)
        self._put(run, records)

    def _put(self, run: _Run, records: Iterable[Record]) -> None:
        run.records, run.told = {}, []
        for record in records:
            run.keep(record)

    async def cancel(self, run_id: str, /) -> bool:
        run = self._run(run_id)
        if run.final or run.status == "failed":
            return False
        run.asked = True
        if run.spec.run_id in self._journals:
            if run.task is not None:
                run.task.cancel()
        else:
            run.status, run.final = "cancelled", True
        return True

    async def delete(self, run_id: str, /) -> None:
        run = self._run(run_id)
        self._refuse_held(run)
        del self._runs[run.spec.run_id]

    async def close(self) -> None:
        """It holds nothing."""
