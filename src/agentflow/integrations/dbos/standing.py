"""How a run stands, read from DBOS's row of its workflow.

    PENDING                     running, or lost where the engine that has it is dead
    ENQUEUED                    running: it waits for a worker; waiting, where it lies in no worker's queue (a fork)
    SUCCESS                     its last stretch ended by itself: what it came to stands in the attributes
    CANCELLED                   cancelled: for good where the attributes say so, else as its caller was cancelled
    ERROR                       failed

A parked run is a workflow that has ended, not one that waits: so it holds no task, no memory and no place in the limits
of its queue, however long a person takes. Going on sets it back (`DBOS.rewind_workflow`) with all its steps.

The attributes are ours: {"flow", "queue", "standing", "steps", "cost", "adopted", "cancelled", "graph",
"answer:ID": record}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from agentflow.core.durability.records import Ending, Interrupt, Record, RunInfo, RunSpec, RunStatus
from agentflow.integrations.dbos.wire import ending_from, record_from, spec_from

if TYPE_CHECKING:
    from dbos import WorkflowStatus

__all__ = ["ANSWER", "PARKED", "Standing", "totals_of"]

ANSWER: Final = "answer:"
PARKED: Final = "agentflow-parked"
"""The queue that nobody listens to."""

_WAITING_FOR_A_WORKER: Final = ("ENQUEUED", "DELAYED")


class Standing:
    def __init__(self, row: WorkflowStatus) -> None:
        self.row = row
        self.attributes: Mapping[str, Any] = row.attributes or {}

    @property
    def id(self) -> str:
        return self.row.workflow_id

    @property
    def spec(self) -> RunSpec:
        spec = spec_from(self._input["spec"])
        return replace(spec, graph=self.attributes["graph"]) if self.attributes.get("graph") else spec

    @property
    def seed(self) -> list[Record]:
        """What a fork began with."""
        return [record_from(each) for each in self._input.get("seed", ())]

    @property
    def _input(self) -> Mapping[str, Any]:
        assert self.row.input is not None
        given: Mapping[str, Any] = self.row.input["args"][0]
        return given

    @property
    def queue(self) -> str | None:
        queue: str | None = self.attributes.get("queue")
        return queue

    @property
    def is_executed(self) -> bool:
        return self.row.status == "PENDING"

    @property
    def is_queued(self) -> bool:
        return self.row.status in _WAITING_FOR_A_WORKER and self.row.queue_name != PARKED

    @property
    def is_cancelled_for_good(self) -> bool:
        is_done = self.row.status == "SUCCESS" and self.attributes.get("standing") == "done"
        return bool(self.attributes.get("cancelled")) and not is_done

    def status(self, alive: bool) -> RunStatus:
        """`alive`: the engine that has it, if one has it."""
        if self.is_cancelled_for_good or self.row.status == "CANCELLED":
            return "cancelled"
        if self.is_executed:
            return "running" if alive else "lost"
        if self.row.status in _WAITING_FOR_A_WORKER:
            return "running" if self.is_queued else "waiting"
        if self.row.status == "SUCCESS":
            standing: RunStatus = self.attributes.get("standing", "failed")
            return standing
        return "failed"

    @property
    def ending(self) -> Ending:
        """How its last stretch ended, where the row was loaded with its output."""
        if isinstance(self.row.output, Mapping):
            return ending_from(self.row.output)
        return Ending("failed", error=str(self.row.error) if self.row.error else "the run's output cannot be read")

    @property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """What it waits for; what has been answered already is not among them."""
        if self.row.status != "SUCCESS" or not isinstance(self.row.output, Mapping):
            return ()
        return tuple(one for one in self.ending.interrupts if not self.attributes.get(f"{ANSWER}{one.id}"))

    @property
    def due(self) -> float | None:
        """When the first of what it waits for is due."""
        return min((one.due for one in self.interrupts if one.due is not None), default=None)

    @property
    def answers(self) -> list[Record]:
        """Those that came since it was parked."""
        given = (held for name, held in self.attributes.items() if name.startswith(ANSWER) and held)
        return [record_from(each) for each in given]

    def info(self, alive: bool, records: Iterable[Record] | None = None) -> RunInfo:
        """`records` are counted where they are given: those of a run that goes on change."""
        row = self.row
        told = self.attributes if records is None else totals_of(records)
        status = self.status(alive)
        ending = self.ending if row.status == "SUCCESS" else None
        waits = status == "waiting"
        return RunInfo(
            self.spec,
            status,
            (row.created_at or 0) / 1000,
            (row.updated_at or 0) / 1000,
            action=ending.action if ending else None,
            error=ending.error if ending else _error_of(row),
            owner=row.executor_id if self.is_executed else None,
            due=self.due if waits else None,
            interrupts=self.interrupts if waits else (),
            steps=told.get("steps", 0),
            cost=told.get("cost", 0.0),
        )


def totals_of(records: Iterable[Record]) -> dict[str, Any]:
    """Steps, and US dollars: those of the calls, as steps tell them again; None where one has no price."""
    records = list(records)
    costs = [record.cost for record in records if record.kind == "call"]
    return {
        "steps": sum(record.kind in ("step", "item") for record in records),
        "cost": None if None in costs else float(sum(cost for cost in costs if cost is not None)),
    }


def _error_of(row: WorkflowStatus) -> str | None:
    return str(row.error) if row.status == "ERROR" and row.error else None
