"""What is known of one run, in the memory of the process that runs it: a journal that may be written to, until its
stretch of the run is over. Saving goes through the engine, and large bodies stay in their files until somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

from agentflow.core.durability.records import Record, RecordKind
from agentflow.core.durability.sqlite.large_bodies import LargeBodies
from agentflow.core.durability.sqlite.record_rows import RecordRow

__all__ = ["RunJournal", "record_of"]


def record_of(row: RecordRow, bodies: LargeBodies) -> Record:
    """Raises DurabilityError where its body is not in its file."""
    body = row.body if row.large is None else bodies.get(row.large)
    return Record(row.id, cast(RecordKind, row.kind), body, *row[3:8])


class RunJournal:
    """`number` is the run's in the file, `generation` the beginning of the store that it belongs to."""

    def __init__(
        self,
        run_id: str,
        rows: Iterable[RecordRow],
        bodies: LargeBodies,
        number: int,
        generation: int,
        save: Callable[[RunJournal, Record], Awaitable[None]],
    ) -> None:
        self._run_id = run_id
        self._rows = {row.id: row for row in rows}
        self._bodies = bodies
        self.number = number
        self.generation = generation
        self.is_over = False
        self.being_saved: dict[str, asyncio.Task[None]] = {}
        """By their ids: those whose bodies are being brought into files, and what was saved behind them."""
        self._save = save

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def ended(self) -> bool:
        return False

    def find(self, id: str, /) -> Record | None:
        row = self._rows.get(id)
        return None if row is None else record_of(row, self._bodies)

    def records(self) -> Sequence[Record]:
        return tuple(record_of(row, self._bodies) for row in list(self._rows.values()))

    async def save(self, record: Record, /) -> None:
        await self._save(self, record)

    def keep(self, row: RecordRow) -> None:
        """It is in the file."""
        self._rows[row.id] = row

    def learn(self, rows: Iterable[RecordRow]) -> None:
        """What others have added: answers."""
        for row in rows:
            self._rows.setdefault(row.id, row)
