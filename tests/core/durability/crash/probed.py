"""An engine that can die around all that it keeps, and a walk that can die around all that it commits.

ProbedDurability(file)      points before and after each `save` and each `answer`; what a stretch found is in the diary
probe_the_walk()            points before and after each visit, and each join of a section
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.core.durability.crash.points import note, point

from agentflow.core.durability.keeping import DurableRun
from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending, Record, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.core.run import Frame, Step
from agentflow.core.state import SharedState

__all__ = ["Probed", "ProbedDurability", "probe_the_walk"]


class _ProbedJournal:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

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
        which = record.id if record.kind != "stretch" else "!stretch"  # each life has one of its own
        point(f"before save {record.kind} {which}")
        await self._journal.save(record)
        note(f"saved {record.kind} {record.id}")
        point(f"after save {record.kind} {which}")


class Probed:
    """Stands before an engine among the bases of a class."""

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        async def probed(journal: Journal) -> Ending:
            for record in journal.records():
                note(f"had {record.kind} {record.id}")
            return await body(_ProbedJournal(journal))

        return await super().execute(spec, probed)  # type: ignore[misc,no-any-return]  # the engine is behind it

    async def answer(self, run_id: str, answers: Mapping[str, str], /) -> None:
        point(f"before answer {' '.join(answers)}")
        await super().answer(run_id, answers)  # type: ignore[misc]
        point(f"after answer {' '.join(answers)}")


class ProbedDurability(Probed, SqliteDurability):
    """The engine in a file."""


def probe_the_walk() -> None:
    visit, join = DurableRun.visit, SharedState.join

    async def probed_visit(self: DurableRun, step: Step, state: SharedState, frame: Frame, number: int) -> str | None:
        path = f"{frame.path}/{step.name}#{number}"
        point(f"before visit {path}")
        action = await visit(self, step, state, frame, number)
        point(f"after commit {path}")
        return action

    def probed_join(self: SharedState, branches: Iterable[tuple[str, SharedState]]) -> None:
        named = list(branches)
        point(f"before join {' '.join(name for name, _ in named)}")
        join(self, named)
        point(f"after join {' '.join(name for name, _ in named)}")

    DurableRun.visit, SharedState.join = probed_visit, probed_join  # type: ignore[method-assign]
