"""The engine in memory, which tests of flows use, does what every engine must do."""

from __future__ import annotations

import pytest
from tests.core.durability.engine_contract import Doing, EngineContract, begun, spec, step
from tests.support.memory_durability import MemoryDurability


class TestMemory(EngineContract):
    @pytest.fixture
    def engine(self) -> MemoryDurability:
        return MemoryDurability()


async def test_what_ran_when_its_process_died_is_lost() -> None:
    """Nothing that it saves afterwards is kept, and the run can be resumed."""
    engine, doing = MemoryDurability(), Doing(step("a/x#1"))
    task = await begun(engine, doing)
    engine.crash()
    assert (await engine.find("r1")).status == "lost"
    doing.go.set()
    await task
    assert (await engine.find("r1")).status == "lost"
    again = Doing()
    task = await begun(engine, again, spec())
    again.go.set()
    await task
    assert (await engine.find("r1")).status == "done"
