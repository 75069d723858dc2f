"""Answers that nobody waits for are refused in words that say what is waited for."""

from __future__ import annotations

import re

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow import AsyncFlow, interrupt, node, sleep
from agentflow.clock import VirtualClock
from agentflow.core.durability.answering import no_question
from agentflow.core.durability.records import RunInfo, RunSpec
from agentflow.errors import AnswerError


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


def asking(schema: object, engine: MemoryDurability) -> AsyncFlow:
    @node(writes="a")
    async def a() -> object:
        return await interrupt("a?", schema=schema)

    return AsyncFlow(a, durability=engine)


@pytest.mark.parametrize("schema", [bool, str, list[int], ["yes", "no"]])
async def test_the_wrong_key_to_the_only_question_is_named(schema: object, engine: MemoryDurability) -> None:
    flow = asking(schema, engine)
    await flow.run(run_id="r")

    with pytest.raises(AnswerError, match=re.escape("an answer to other: the only question is flow/a#1!wait:1")):
        await flow.resume("r", {"other": True})


@pytest.mark.parametrize("schema", [None, dict[str, int], dict[str, int] | None])
async def test_an_object_is_an_answer_where_one_will_do(schema: object, engine: MemoryDurability) -> None:
    flow = asking(schema, engine)
    await flow.run(run_id="r")

    assert (await flow.resume("r", {"other": 1})).state["a"] == {"other": 1}


async def test_who_answers_a_sleep_hears_until_when_it_is(engine: MemoryDurability) -> None:
    @node(reads=())
    async def nap() -> None:
        await sleep(3600.0, park=True)

    flow = AsyncFlow(nap, durability=engine, clock=VirtualClock())
    await flow.run(run_id="r")

    with pytest.raises(AnswerError, match=r"run r waits for no answer: it sleeps until .*\d\d:\d\d:\d\d$"):
        await flow.resume("r", True)


@pytest.mark.parametrize(
    ("due", "said"),
    [
        (60.0, r"it sleeps until \d\d:\d\d:\d\d$"),
        (864_000.0, r"until 1970-01-1\d \d\d:\d\d:\d\d$"),
        (1e18, "calendar$"),
    ],
)
def test_the_day_is_said_where_it_is_another(due: float, said: str) -> None:
    info = RunInfo(RunSpec("r", "flow"), "waiting", created=0.0, updated=59.0, due=due)
    assert re.search(said, str(no_question(info)))
