"""Keeps the runs of a command so that they can go on, and keeps no run from running.

    with Keeping(recording.kept_in, wanted=True) as keeping:
        keeping.engine      a LenientDurability in the file of runs, None where nothing is to be kept
    keeping.trouble         why not all of a run is kept, if it is not

Whoever gives a flow an engine wants to hear that it cannot keep a run. Whoever merely types `agentflow run` wants the
run: a file that cannot be used, at its beginning or in the middle, is said afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.core.durability.protocol import Body, Durability, Journal
from agentflow.core.durability.records import Ending, Record, RunInfo, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import AgentFlowError, DurabilityError, RunEndedError, RunExistsError, RunHeldError

__all__ = ["Keeping", "LenientDurability", "is_useless"]

_PATIENCE: Final = 2.0  # seconds that others may be writing to the file
_MEANT: Final = (RunHeldError, RunExistsError, RunEndedError)  # about the run, and not about the file


class Keeping:
    """`file` is None where nothing is kept."""

    def __init__(self, file: str | Path | None, *, wanted: bool = True) -> None:
        self._file = file if wanted else None
        self._opening: str | None = None
        self.engine: LenientDurability | None = None

    @property
    def trouble(self) -> str | None:
        return self._opening or (None if self.engine is None else self.engine.trouble)

    def __enter__(self) -> Keeping:
        if self._file is not None:
            try:
                self.engine = LenientDurability(self._file, patience=_PATIENCE)
            except (AgentFlowError, OSError, ValueError) as error:
                self._opening = str(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.engine is not None:
            asyncio.run(self.engine.close())


def is_useless(engine: Durability) -> bool:
    """Whether nothing of a run is kept because the file cannot be used, and nothing has run yet."""
    return isinstance(engine, LenientDurability) and engine.trouble is not None and not engine.begun


class LenientDurability(SqliteDurability):
    """`begun` says whether a run has been begun or gone on with, `trouble` why not all of it is kept."""

    begun = False
    trouble: str | None = None

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        ended: Ending | None = None

        async def leniently(journal: Journal) -> Ending:
            nonlocal ended
            self.begun = True
            ended = await body(_LenientJournal(journal, self._note))
            return ended

        try:
            return await super().execute(spec, leniently)
        except _MEANT:
            raise
        except DurabilityError as error:
            self._note(error)
            if ended is None:
                raise
            return ended  # how it ended could not be written: it counts as lost

    async def find(self, run_id: str, /) -> RunInfo:
        try:
            return await super().find(run_id)
        except DurabilityError as error:
            self._note(error)
            raise

    def _note(self, error: DurabilityError) -> None:
        self.trouble = self.trouble or str(error)


class _LenientJournal:
    """A step that could not be kept has happened all the same, and happens again where the run goes on. Only a question
    must be kept: nobody could answer it."""

    def __init__(self, journal: Journal, note: Callable[[DurabilityError], None]) -> None:
        self._journal = journal
        self._note = note

    @property
    def run_id(self) -> str:
        return self._journal.run_id

    @property
    def ended(self) -> bool:
        return self._journal.ended

    def find(self, id: str, /) -> Record | None:
        return self._journal.find(id)

    def records(self) -> Sequence[Record]:
        return self._journal.records()

    async def save(self, record: Record, /) -> None:
        try:
            await self._journal.save(record)
        except _MEANT:
            raise
        except DurabilityError as error:
            if record.kind == "wait":
                raise
            self._note(error)
