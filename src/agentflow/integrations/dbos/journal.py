"""What is known of one run, on DBOS: every record is a step of the run's workflow.

    save(Record("article/write#1", "step", …))  ──▶  DBOS step 7, named "step article/write#1", its output the record

DBOS itself replays by order: the n-th step of an execution is the n-th of the one before. A flow whose branches finish
in another order after a crash has no such order. So nothing is replayed by DBOS here: when an execution begins, all
steps of the workflow are read once and found by their records' ids from then on, and the workflow's counter is moved
past the last of them, so that whatever is saved now is a new step. Of two steps with one id the later counts.

The number of a step is drawn when `save` is called, before anything waits. So of two records of one id the one saved
later has the higher number, however the threads that write them overtake each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

from agentflow.core.durability.records import Record
from agentflow.errors import DurabilityError, RunEndedError, RunHeldError
from agentflow.integrations.dbos.server import Server
from agentflow.integrations.dbos.wire import record_to

if TYPE_CHECKING:
    from dbos import StepReservation

__all__ = ["REPLACED", "DbosJournal", "KeptJournal"]

REPLACED: Final = "replaced"
"""The name of a step in whose place in the order nothing earlier counts: its records do."""


class KeptJournal:
    """Of a run that is over: what was kept can be read, and nothing is added."""

    def __init__(self, run_id: str, records: Iterable[Record]) -> None:
        self._run_id = run_id
        self._records = {record.id: record for record in records}

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def ended(self) -> bool:
        return True

    def find(self, id: str, /) -> Record | None:
        return self._records.get(id)

    def records(self) -> Sequence[Record]:
        return tuple(self._records.values())

    async def save(self, record: Record, /) -> None:
        raise RunEndedError(self._run_id, "done", f"is over: {record.id} cannot be added to it")


class DbosJournal:
    """Of a run that this process executes. `workflow` is the context in which DBOS calls its function."""

    def __init__(self, run_id: str, records: Iterable[Record], server: Server, workflow: Context) -> None:
        self._run_id = run_id
        self._records = {record.id: record for record in records}
        self._places = {id: place - len(self._records) for place, id in enumerate(self._records)}
        self._server = server
        self._workflow = workflow
        self._lock = threading.Lock()
        self._under_way: set[Future[None]] = set()
        self._is_over = False
        self.fenced: Callable[[], None] = lambda: None
        """Called where the run turns out not to be ours any more."""

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def ended(self) -> bool:
        return False

    def find(self, id: str, /) -> Record | None:
        return self._records.get(id)

    def records(self) -> Sequence[Record]:
        with self._lock:
            return sorted(self._records.values(), key=lambda record: self._places[record.id])

    async def save(self, record: Record, /) -> None:
        await self.step(f"{record.kind} {record.id}", lambda: record_to(record), record)

    async def replace(self, records: Sequence[Record]) -> None:
        """Put others in the place of all there are."""
        await self.step(REPLACED, lambda: [record_to(record) for record in records])

    async def step(self, name: str, body: Callable[[], object], record: Record | None = None) -> None:
        """Have DBOS do and keep a step, also where the caller is cancelled meanwhile. Raises DurabilityError, and what
        `body` raises."""
        with self._lock:
            if self._is_over:
                text = f"this stretch of run {self._run_id} is over, so nothing can be added to it"
                raise DurabilityError(text, run_id=self._run_id)
            task = self._drawn(name, body, record)
            future = self._server.submit(task)
            self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        await self._server.answer(asyncio.shield(asyncio.wrap_future(future)))

    async def close(self) -> None:
        """Take nothing more, and wait for what is on its way."""
        with self._lock:
            self._is_over = True
            left = list(self._under_way)
        for future in left:
            with suppress(Exception):  # whoever saved it has heard
                await asyncio.wrap_future(future)

    def skip_to(self, last_step: int) -> None:
        """Leave out the numbers of the steps that earlier executions took."""
        from dbos import DBOS

        if last_step > 0:
            while self._workflow.run(DBOS.reserve_step).step_id < last_step:
                pass

    def _drawn(self, name: str, body: Callable[[], object], record: Record | None) -> Callable[[], None]:
        """What a thread is to do, at a number that is ours from now on. Called under the lock: a context runs one thing
        at a time, and DBOS's counter is a plain number."""
        from dbos import DBOS

        reserved = self._workflow.run(DBOS.reserve_step)
        if record is not None:
            self._places.setdefault(record.id, reserved.step_id)
        return partial(self._do, reserved, self._workflow.copy(), name, body, record)

    def _do(
        self, reserved: StepReservation, context: Context, name: str, body: Callable[[], object], record: Record | None
    ) -> None:
        try:
            context.run(lambda: reserved.run({"name": name}, body))
        except BaseException as error:
            raise self._meant(error) from error
        if record is not None:
            with self._lock:
                self._records[record.id] = record

    def _meant(self, error: BaseException) -> BaseException:
        meant = self._server.explained(error, self._run_id)
        if isinstance(meant, RunEndedError | RunHeldError):
            self.fenced()
        return meant
