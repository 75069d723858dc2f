"""A run's journal in memory, and a step in it: what is kept there is found by the next stretch.

journal = MemoryJournal()
with step_of(journal):
    await model.execute()            asked, and kept
with step_of(journal):
    await model.execute()            found
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from agentflow.clock import Clock, SystemClock
from agentflow.core.durability.records import Record
from agentflow.core.durability.step import DurableStep, current_step

__all__ = ["MemoryJournal", "step_of"]

_CLOCK = SystemClock()


class MemoryJournal:
    """Keeps records in a list. `before` is awaited before each of them is kept: it may wait, or raise."""

    def __init__(self, records: Iterable[Record] = (), run_id: str = "run-1") -> None:
        self._run_id = run_id
        self._records = {record.id: record for record in records}
        self.before: Callable[[Record], Awaitable[None]] | None = None

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def ended(self) -> bool:
        return False

    def find(self, id: str, /) -> Record | None:
        return self._records.get(id)

    def records(self) -> Sequence[Record]:
        return list(self._records.values())

    async def save(self, record: Record, /) -> None:
        if self.before is not None:
            await self.before(record)
        self._records[record.id] = record


@contextmanager
def step_of(journal: MemoryJournal, path: str = "flow/ask#1", clock: Clock = _CLOCK) -> Iterator[DurableStep]:
    """What runs in here is one visit of that step."""
    step = DurableStep(journal, path, clock)
    token = current_step.set(step)
    try:
        yield step
    finally:
        current_step.reset(token)
