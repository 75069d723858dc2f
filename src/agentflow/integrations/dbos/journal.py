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

import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from agentflow.core.durability.records import Record
from agentflow.errors import AgentFlowError, DurabilityError, RunEndedError
from agentflow.integrations.dbos.server import Server
from agentflow.integrations.dbos.wire import record_to

if TYPE_CHECKING:
    from dbos import StepReservation

__all__ = ["DbosJournal", "KeptJournal"]


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


class DbosJournal(KeptJournal):
    """Of a run that this process executes. `workflow` is the context in which DBOS calls its function."""

    def __init__(self, run_id: str, records: Iterable[Record], server: Server, workflow: Context) -> None:
        super().__init__(run_id, records)
        self._server = server
        self._workflow = workflow
        self._lock = threading.Lock()
        self.fenced: Callable[[], None] = lambda: None
        """Called where the run turns out not to be ours any more."""

    def skip_to(self, last_step: int) -> None:
        """Leave out the numbers of the steps that earlier executions took."""
        from dbos import DBOS

        if last_step > 0:
            while self._workflow.run(DBOS.reserve_step).step_id < last_step:
                pass

    @property
    def ended(self) -> bool:
        return False

    def records(self) -> Sequence[Record]:
        with self._lock:
            return tuple(self._records.values())

    async def save(self, record: Record, /) -> None:
        await self.step(f"{record.kind} {record.id}", lambda: record_to(record), record)

    async def step(self, name: str, body: Callable[[], Any], record: Record | None = None) -> None:
        """Have DBOS do and keep a step. Raises DurabilityError, and what `body` raises."""
        reserved, context = self._draw()
        await self._server.run(self._do, reserved, context, name, body, record)

    def _draw(self) -> tuple[StepReservation, Context]:
        from dbos import DBOS

        with self._lock:  # a context runs one thing at a time, and DBOS's counter is a plain number
            reserved = self._workflow.run(DBOS.reserve_step)
            return reserved, self._workflow.copy()

    def _do(
        self, reserved: StepReservation, context: Context, name: str, body: Callable[[], Any], record: Record | None
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
        if isinstance(meant, AgentFlowError) and meant.__class__ is not DurabilityError:
            self.fenced()
        return meant
