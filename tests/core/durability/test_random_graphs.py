"""A run of any graph, cut off anywhere and gone on with, comes to what it would have come to undisturbed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.memory_durability import MemoryDurability
from tests.support.random_flows import INPUTS, Plan, World, built, carried_on, plans, shown

from agentflow.clock import VirtualClock
from agentflow.core import FlowResult, SharedState
from agentflow.core.durability.history import StepHistory
from agentflow.core.durability.protocol import Body, Durability, Journal
from agentflow.core.durability.records import Ending, Record, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import DurabilityError

MANY = 60


class Crash(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class Accident:
    """What happens with the `at`-th record of a stretch."""

    at: int
    how: str


CUT_OFF = FlowResult(SharedState(), None, "cancelled", None, "r", 0.0)
ACCIDENTS = st.builds(Accident, st.integers(1, 25), st.sampled_from(["before", "after", "cancel", "cancel-after"]))


class Fragile:
    """What an engine's runs save through, until there is an accident."""

    def __init__(self, engine: Durability, accident: Accident | None) -> None:
        self.engine = engine
        self.accident = accident
        self.run: asyncio.Task[FlowResult] | None = None
        self.saved = 0
        self.is_gone = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        async def fragile(journal: Journal) -> Ending:
            return await body(_FragileJournal(journal, self))

        return await self.engine.execute(spec, fragile)

    def befall(self, when: str) -> None:
        if self.accident is None or self.saved != self.accident.at:
            return
        if self.accident.how == when:
            self.is_gone = True
            if isinstance(self.engine, MemoryDurability):
                self.engine.crash()
            raise Crash
        if self.accident.how == {"before": "cancel", "after": "cancel-after"}[when] and self.run is not None:
            self.run.cancel()


class _FragileJournal:
    def __init__(self, journal: Journal, fragile: Fragile) -> None:
        self._journal = journal
        self._fragile = fragile

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
        self._fragile.saved += 1
        self._fragile.befall("before")
        await self._journal.save(record)
        self._fragile.befall("after")


async def lived(plan: Plan, engine: Durability, clock: VirtualClock, accidents: Sequence[Accident]) -> list[object]:
    """What came of a run: its action, its state, its history without what lost a race."""
    world, left = World(clock), list(accidents)

    async def begin() -> FlowResult:
        """As a new process does it, which may not live long."""
        fragile = Fragile(engine, left.pop(0) if left else None)
        flow = built(plan, world, fragile)
        info = [each for each in await engine.runs() if each.run_id == "r"]
        asked = {each.id: f"to {each.id}" for each in info[0].interrupts if each.kind == "question"} if info else {}
        answer = dict(list(asked.items())[:1])
        going = flow.resume("r", answer) if answer else flow.run(INPUTS, run_id="r")
        fragile.run = asyncio.create_task(going)
        try:
            return await fragile.run
        except (Crash, asyncio.CancelledError):
            return CUT_OFF
        except DurabilityError:  # a task that saved after another had crashed
            if not fragile.is_gone:
                raise
            return CUT_OFF

    result = await carried_on(begin, world)
    steps = await built(plan, world, engine).history("r")
    lost = re.compile(rf"(?<!\d)({'|'.join(sorted(world.losers)) or 'x'})(-\w)?#")
    told = sorted(_told(step) for step in steps if not lost.search(step.id))
    return [result.action, {name: shown(value) for name, value in result.state.items()}, told]


def _told(step: StepHistory) -> str:
    facts = [step.action, step.changed, step.removed, step.added, shown(step.result), step.answer, len(step.calls)]
    return f"{step.id} {step.status} {facts} {step.error}"


def outcome(plan: Plan, accidents: Sequence[Accident], file: Path | None) -> list[object]:
    clock = VirtualClock()

    async def live() -> list[object]:
        engine = MemoryDurability(clock) if file is None else SqliteDurability(file, clock=clock)
        try:
            return await lived(plan, engine, clock, accidents)
        finally:
            await engine.close()

    return clock.run(live())


@settings(max_examples=MANY, suppress_health_check=[HealthCheck.too_slow])
@given(plans(), st.lists(ACCIDENTS, min_size=1, max_size=6))
def test_a_run_cut_off_anywhere_comes_to_the_same(plan: Plan, accidents: list[Accident]) -> None:
    assert outcome(plan, accidents, None) == outcome(plan, [], None)


@settings(max_examples=MANY, suppress_health_check=[HealthCheck.too_slow])
@given(plans(), st.lists(ACCIDENTS, min_size=1, max_size=4))
def test_a_run_kept_in_a_file_comes_to_the_same(plan: Plan, accidents: list[Accident]) -> None:
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "runs.db"
        assert outcome(plan, accidents, kept) == outcome(plan, [], None)


@pytest.mark.parametrize("how", ["before", "after", "cancel", "cancel-after"])
def test_an_accident_is_one(how: str) -> None:
    """Else the two above would prove nothing."""
    plan = Plan("seq", (Plan("plain"), Plan("ask"), Plan("class")))
    engine, clock = MemoryDurability(), VirtualClock()
    clock.run(lived(plan, engine, clock, [Accident(2, how)]))

    async def stretches() -> int:
        return sum(record.kind == "stretch" for record in await engine.records("r"))

    assert clock.run(stretches()) == 1 + 1 + 2  # begun, cut off, and two questions
