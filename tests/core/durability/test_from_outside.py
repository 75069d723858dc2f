"""What is done to a run by those who have not got its flow: it is answered, and called off."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.core import AsyncFlow, ExecutionEvent, node
from agentflow.core.durability import interrupt
from agentflow.core.durability.answering import answered
from agentflow.core.durability.conduct import called_off
from agentflow.core.durability.sqlite.interrupts import interrupts_from
from agentflow.core.observability import observe
from agentflow.errors import AnswerError


class Seen:
    inline = True

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.kinds.append(event.kind)


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


@pytest.fixture
def flow(engine: MemoryDurability) -> AsyncFlow:
    @node(writes="said")
    async def ask() -> Any:
        return await interrupt("Well?", schema=bool)

    return AsyncFlow(ask, durability=engine)


async def test_an_answer_is_kept_for_whoever_goes_on_with_the_run(flow: AsyncFlow, engine: MemoryDurability) -> None:
    await flow.run(run_id="r")
    await answered(engine, "r", True)
    assert (await engine.find("r")).status == "waiting"
    assert (await flow.resume("r")).state["said"] is True


async def test_an_answer_that_does_not_fit_is_not_kept(flow: AsyncFlow, engine: MemoryDurability) -> None:
    await flow.run(run_id="r")
    with pytest.raises(AnswerError, match="answer"):
        await answered(engine, "r", "perhaps")
    assert (await flow.resume("r", answer=False)).state["said"] is False


async def test_all_who_watch_hear_that_a_parked_run_was_called_off(flow: AsyncFlow, engine: MemoryDurability) -> None:
    await flow.run(run_id="r")
    seen = Seen()
    with observe(seen):
        assert await called_off(engine, await engine.find("r"))
        assert not await called_off(engine, await engine.find("r"))
    assert seen.kinds == ["cancel"]
    assert (await engine.find("r")).status == "cancelled"


async def test_what_cannot_be_stored_is_told_where_that_is_put_up_with(engine: MemoryDurability) -> None:
    @node(writes="connection")
    async def connect() -> object:
        return object()

    flow = AsyncFlow(connect, durability=engine)
    flow.strict = False
    seen = Seen()
    with observe(seen):
        await flow.run(run_id="r")
    assert "not_kept" in seen.kinds


def test_what_was_asked_can_be_looked_at_where_its_types_are_unknown() -> None:
    """Whoever answers from a shell has not loaded the classes of the flow."""
    [question] = interrupts_from(
        '[{"id": "f/a#1!wait:1", "path": "f/a#1", "prompt": "Well?", "payload": "{\\"$:Nowhere\\": {\\"a\\": 1}}"}]'
    )
    assert question.payload == {"$:Nowhere": {"a": 1}}
