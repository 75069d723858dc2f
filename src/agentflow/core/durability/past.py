"""A journal to look at: what a run has done, with nothing more to come."""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.core.durability.records import Record
from agentflow.errors import RunEndedError

__all__ = ["PastJournal"]


class PastJournal:
    """The `Journal` of a run that ends here, or that happens somewhere else."""

    __slots__ = ("_by_id", "_records", "_run_id")

    def __init__(self, run_id: str, records: Sequence[Record]) -> None:
        self._run_id = run_id
        self._records = records
        self._by_id = {record.id: record for record in records}

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def ended(self) -> bool:
        return True

    def find(self, id: str) -> Record | None:
        return self._by_id.get(id)

    def records(self) -> Sequence[Record]:
        return self._records

    async def save(self, record: Record) -> None:
        raise RunEndedError(self._run_id, "done", f"is only looked at here, so {record.id} cannot be added: fork it")
