"""SQLite as an engine does what every engine must do, in both ways of waiting for the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import EngineContract

from agentflow.core.durability.protocol import Durability, Journal
from agentflow.core.durability.records import Ending, Interrupt, Record, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability


class TestNormal(EngineContract):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Durability]:
        engine = SqliteDurability(tmp_path / "runs.db")
        yield engine
        await engine.close()


class TestFull(EngineContract):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Durability]:
        engine = SqliteDurability(tmp_path / "runs.db", sync="full")
        yield engine
        await engine.close()


async def test_of_an_answer_and_the_end_of_its_time_the_first_stands(tmp_path: Path) -> None:
    """Another process answers while this one finds that nobody has."""
    here, there = SqliteDurability(tmp_path / "runs.db"), SqliteDurability(tmp_path / "runs.db")
    question = Interrupt("flow/a#1!wait:1", "flow/a#1", "a?")
    wait = Record(
        question.id, "wait", '{"question":{"prompt":"a?","schema":null,"due":1,"kind":"question"},"payload":1}', 1.0
    )
    found: list[Record | None] = []

    async def park(journal: Journal) -> Ending:
        await journal.save(wait)
        return Ending("waiting", interrupts=(question,))

    async def late(journal: Journal) -> Ending:
        await there.answer("r", {question.id: '{"value":1}'})
        await journal.save(Record(f"{question.id}!answer", "answer", '{"expired":true}', 2.0))
        found.append(journal.find(f"{question.id}!answer"))
        return Ending("done")

    await here.execute(RunSpec("r", "flow"), park)
    await here.execute(RunSpec("r", "flow"), late)

    assert [record and record.body for record in found] == ['{"value":1}']
    await here.close()
    await there.close()
