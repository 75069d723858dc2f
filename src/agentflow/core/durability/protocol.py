"""What keeps runs: an engine, and the journal that it gives to each run it lets run.

    Durability.execute(spec, body)  ──▶  claims the run for this process, body(journal)  ──▶  keeps how it ended
    Journal.find(id), .save(record)      what has happened already; what has happened now

A run that goes on is walked from its start: what stands in the journal is taken from there, and the rest happens. So an
engine keeps records and hands them back; it knows nothing of flows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from agentflow.core.durability.records import Ending, Record, RunInfo, RunSpec, RunStatus

__all__ = ["Body", "Durability", "Journal"]


class Journal(Protocol):
    """What is known of one run. It belongs to the process that runs it."""

    @property
    def run_id(self) -> str: ...

    @property
    def ended(self) -> bool:
        """Whether the run has ended for good: it can be walked once more, and `save` raises RunEndedError."""
        ...

    def find(self, id: str, /) -> Record | None: ...

    def records(self) -> Sequence[Record]:
        """All of them, in the order in which they were first saved."""
        ...

    async def save(self, record: Record, /) -> None:
        """Keep it. When this returns it survives the death of the process. Of an answer the first stands, which
        somebody may have given meanwhile: `find` has it then. Raises DurabilityError where it cannot be kept. Safe to
        call from several tasks and loops."""
        ...


Body: TypeAlias = Callable[[Journal], Awaitable[Ending]]
"""Runs a run, as far as it goes. Called again for the same run it goes on."""


@runtime_checkable
class Durability(Protocol):
    """An engine. All of it may be called from any event loop, and raises DurabilityError where its store fails."""

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        """Begin the run, or go on with the one of that id, and return how it ended, or that it is parked.

        A run that has ended already is not begun again: `body` gets its journal, finds everything in it, and changes
        nothing. A cancellation of the caller ends the body and is kept as "cancelled", which may be resumed.
        Raises RunHeldError where another process has it.
        """
        ...

    async def find(self, run_id: str, /) -> RunInfo:
        """Raises UnknownRunError. The beginning of an id will do where it is the only one."""
        ...

    async def records(self, run_id: str, /) -> Sequence[Record]:
        """In the order in which they were first saved."""
        ...

    async def answer(self, run_id: str, answers: Mapping[str, str], /) -> None:
        """Keep answers, JSON texts by the id of the interrupt: all or none. The first answer counts: raises AnswerError
        for an interrupt that does not wait. It does not go on with the run."""
        ...

    async def fork(self, spec: RunSpec, update: Record | None, /) -> None:
        """Make a new run of what `spec.forked_from` had kept before its record `spec.forked_at`, and of `update`."""
        ...

    async def rewrite(self, spec: RunSpec, records: Sequence[Record], /) -> None:
        """Put other records in the place of all that a run has, and another graph. Raises RunHeldError."""
        ...

    async def runs(
        self, *, flow: str | None = None, status: RunStatus | None = None, due: float | None = None, limit: int = 100
    ) -> Sequence[RunInfo]:
        """The newest first. With `due` those that wait for nothing later than that wall time, the earliest first."""
        ...

    async def cancel(self, run_id: str, /) -> bool:
        """End it, wherever it runs, and for good. False where it had ended already. A run in another process ends as
        soon as that one hears of it."""
        ...

    async def delete(self, run_id: str, /) -> None:
        """Forget a run that nobody runs. Raises RunHeldError, UnknownRunError."""
        ...

    def follow(self, run_id: str, /) -> AsyncIterator[Record]:
        """The run's records, those there are and those to come, until it ends or is parked."""
        ...

    async def close(self) -> None:
        """Give back what it holds. Runs that are under way are not ended by this."""
        ...
