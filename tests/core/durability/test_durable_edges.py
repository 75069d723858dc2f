"""Where durable runs could go wrong quietly: questions asked beside each other, sections that chose, deeds that count
for nothing, answers that come late, forks in odd places."""

from __future__ import annotations

import asyncio
import gc
import itertools
import operator
import warnings
import weakref
from contextlib import suppress
from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.core import AsyncFlow, AsyncNode, Dataflow, Each, Key, Parallel, SharedState, node
from agentflow.core.durability import interrupt
from agentflow.core.durability.records import Record
from agentflow.core.node import FunctionNode
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import AnswerError, DurabilityError, FlowChangedError, JoinError, NodeError


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


@node
async def ask(state: SharedState) -> None:
    state["answer"] = await interrupt("?")


@node
async def fail(state: SharedState) -> None:
    raise ValueError("no")


# ---- questions -----------------------------------------------------------------------------------------------


async def test_an_answer_is_for_what_was_asked_also_where_questions_come_in_another_order(
    engine: MemoryDurability,
) -> None:
    second_asked, slow = asyncio.Event(), [True]
    got: dict[int, str] = {}

    async def one(number: int) -> None:
        if number == 1 and slow[0]:
            await second_asked.wait()
        second_asked.set()
        got[number] = await interrupt("Publish?", number)

    @node
    async def both(state: SharedState) -> None:
        await asyncio.gather(one(1), one(2))

    flow = AsyncFlow(both, durability=engine)
    result = await flow.run(run_id="r")
    slow[0] = False
    while result.status == "interrupted":
        result = await flow.resume("r", {each.id: f"about {each.payload}" for each in result.interrupts})

    assert got == {1: "about 1", 2: "about 2"}


async def test_a_node_that_keeps_its_question_from_parking_the_run_is_parked_all_the_same(
    engine: MemoryDurability,
) -> None:
    @node(writes="answers")
    async def both() -> list[object]:
        return list(await asyncio.gather(interrupt("a"), interrupt("b"), return_exceptions=True))

    flow = AsyncFlow(both, durability=engine)

    result = await flow.run(run_id="r")
    assert [each.prompt for each in result.interrupts] == ["a", "b"]
    result = await flow.resume("r", {each.id: each.prompt.upper() for each in result.interrupts})

    assert result.state["answers"] == ["A", "B"]


async def test_what_an_exec_returns_that_keeps_its_question_to_itself_is_no_result(engine: MemoryDurability) -> None:
    class Sly(AsyncNode[None, object]):
        async def exec(self, item: None) -> object:
            try:
                return await interrupt("?")
            except BaseException:
                return "nobody answered"

        async def post(self, state: SharedState, item: None, result: object) -> None:
            state["result"] = result

    flow = AsyncFlow(Sly(), durability=engine)
    await flow.run(run_id="r")

    assert (await flow.resume("r", "yes")).state["result"] == "yes"


async def test_a_failure_beside_a_question_in_a_task_group_is_the_nodes_failure(engine: MemoryDurability) -> None:
    @node
    async def both(state: SharedState) -> None:
        async def bad() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("no")

        async with asyncio.TaskGroup() as group:
            group.create_task(bad())
            await asyncio.sleep(0)
            group.create_task(interrupt("?"))

    with pytest.raises(NodeError, match=r"flow/both#1 failed in exec"):
        await AsyncFlow(both, durability=engine).run(run_id="r")

    assert (await engine.find("r")).status == "failed"


@pytest.mark.parametrize("whole", [False, True])
async def test_who_is_tried_again_does_not_ask_again(engine: MemoryDurability, whole: bool) -> None:
    given: list[object] = []
    retry = RetryPolicy(max_attempts=3, base_delay=0.0)

    async def flaky(*_: object) -> None:
        given.append(await interrupt("?"))
        if len(given) < 3:
            raise ConnectionError("down")

    made = node(name="flaky", retry=retry)(flaky) if whole else node(name="flaky", reads="x", retry=retry)(flaky)
    flow = AsyncFlow(made, durability=engine)
    await flow.run({"x": 1}, run_id="r")

    result = await flow.resume("r", "yes")

    assert (result.status, given) == ("done", ["yes"] * 3)


async def test_an_answer_to_an_earlier_question_is_none_to_the_next(engine: MemoryDurability) -> None:
    @node
    async def twice(state: SharedState) -> None:
        state["a"] = await interrupt("a")
        state["b"] = await interrupt("b")

    flow = AsyncFlow(twice, durability=engine)
    first = (await flow.run(run_id="r")).interrupts[0].id
    await flow.resume("r", {first: 1})

    with pytest.raises(AnswerError, match="does not wait"):
        await flow.resume("r", {first: 1})


async def test_a_question_of_a_branch_that_has_lost_is_over(engine: MemoryDurability) -> None:
    section = Parallel(ask, ask.named("other"), need=1)
    flow = AsyncFlow(section >> ask.named("last"), durability=engine)
    lost, won = (await flow.run(run_id="r")).interrupts
    await flow.resume("r", {won.id: "won"})

    with pytest.raises(AnswerError, match="does not wait for an answer to flow/ask#1!wait:1"):
        await flow.resume("r", {lost.id: "late"})

    assert (await flow.resume("r", "last")).status == "done"


async def test_an_earlier_answer_that_did_not_fit_is_no_reason_to_refuse_another(engine: MemoryDurability) -> None:
    def asks(name: str) -> FunctionNode[..., Any]:
        async def work() -> int:
            return await interrupt(name, schema=int)

        return node(name=name, writes=name)(work)

    flow = AsyncFlow((asks("a"), asks("b")), durability=engine)
    a, b = (await flow.run(run_id="r")).interrupts
    with pytest.raises(AnswerError):
        await flow.resume("r", {a.id: b"one"})

    result = await flow.resume("r", {b.id: 2})

    assert [(each.prompt, each.problem is None) for each in result.interrupts] == [("a", False)]


# ---- beginning and going on ----------------------------------------------------------------------------------


async def test_a_run_that_is_begun_again_by_a_flow_that_has_changed_is_refused(engine: MemoryDurability) -> None:
    @node
    async def earlier(state: SharedState) -> None:
        """New."""

    await AsyncFlow(ask, durability=engine).run(run_id="r")

    with pytest.raises(FlowChangedError, match="earlier is new"):
        await AsyncFlow(earlier >> ask, durability=engine).run(run_id="r")

    assert (await AsyncFlow(ask, durability=engine).run(run_id="r")).status == "interrupted"


async def test_what_a_branch_changed_and_wrote_is_no_change_in_place(engine: MemoryDurability) -> None:
    @node
    async def honest(state: SharedState) -> None:
        log = state["log"]
        assert isinstance(log, list)
        log.append("x")
        state["log"] = log

    @node
    async def other(state: SharedState) -> None:
        """It does nothing."""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await AsyncFlow((honest, other), durability=engine).run({"log": []}, run_id="r")


# ---- what is not kept ----------------------------------------------------------------------------------------


async def test_of_an_each_that_is_not_durable_no_failure_is_kept_either(engine: MemoryDurability) -> None:
    broken = [1]

    async def work(item: int) -> int:
        if item in broken:
            raise ValueError("no")
        return item

    each = Each(work, over="items", into="out", durable=False, on_error="collect")
    flow = AsyncFlow(each >> ask, durability=engine)
    await flow.run({"items": [0, 1]}, run_id="r")
    broken.clear()

    assert (await flow.resume("r", True)).state["out"] == [0, 1]


# ---- sections ------------------------------------------------------------------------------------------------


async def test_a_section_that_can_be_joined_no_more_asks_nobody(engine: MemoryDurability) -> None:
    asked = asyncio.Event()

    @node
    async def question(state: SharedState) -> None:
        asked.set()
        await interrupt("?")

    @node
    async def late(state: SharedState) -> None:
        await asked.wait()
        raise ValueError("no")

    section = Parallel(question, late, late.named("later"), need=2, on_error="collect")

    with pytest.raises(JoinError):
        await AsyncFlow(section, durability=engine).run(run_id="r")


# ---- forks ---------------------------------------------------------------------------------------------------


async def test_a_fork_may_change_what_a_node_of_a_dataflow_reads(engine: MemoryDurability) -> None:
    one = node(name="one", writes="x")(lambda: 1)
    two = node(name="two", reads="x", writes="y")(lambda x: x + 1)
    flow = AsyncFlow(Dataflow(one, two), durability=engine)
    await flow.run(run_id="r")

    assert (await flow.fork("r", at="two", update={"x": 10})).state["y"] == 11


async def test_a_fork_may_change_what_an_item_finds(engine: MemoryDurability) -> None:
    seen: list[object] = []

    class Look(AsyncNode[object, object]):
        async def prep(self, state: SharedState) -> object:
            return state["mood"], state["item"]

        async def exec(self, found: object) -> object:
            seen.append(found)
            return found

    flow = AsyncFlow(Each(Look(), over="items", into="out", concurrency=1), durability=engine)
    await flow.run({"items": [0, 1], "mood": "bad"}, run_id="r")
    seen.clear()

    await flow.fork("r", at="each#1/1/look", update={"mood": "good"})

    assert seen == [("good", 1)]


async def test_an_item_of_a_function_finds_nothing_that_a_fork_could_change(engine: MemoryDurability) -> None:
    flow = AsyncFlow(Each(lambda item: item, over="items", into="out"), durability=engine)
    await flow.run({"items": [0, 1]}, run_id="r")

    with pytest.raises(DurabilityError, match="sees no state"):
        await flow.fork("r", at="each#1/1", update={"x": 1})


# ---- migrations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_question_may_be_answered_while_its_node_gets_another_name(
    engine: MemoryDurability, by_id: bool
) -> None:
    async def work(item: int) -> int:
        done.append(item)
        return item

    done: list[int] = []
    flow = AsyncFlow(Each(work, over="items", into="out") >> (ask, node(name="two", writes="two")(lambda: 2)))
    [question] = (await flow.run({"items": [1, 2]}, run_id="r", durability=engine)).interrupts
    every = Each(work, over="items", into="out", name="every")
    changed = AsyncFlow(every >> (ask.named("query"), node(name="two", writes="two")(lambda: 2)))

    result = await changed.resume(
        "r", {question.id: "yes"} if by_id else "yes", migrate={"each": "every", "ask": "query"}, durability=engine
    )

    assert (result.status, result.state["answer"], done) == ("done", "yes", [1, 2])


# ---- undoing -------------------------------------------------------------------------------------------------


async def test_a_run_that_is_being_undone_stays_so_when_what_had_failed_is_well_again(
    engine: MemoryDurability,
) -> None:
    undone: list[object] = []
    broken = [True]

    async def undo(item: object, result: object) -> None:
        undone.append(await interrupt("Undo it?"))

    @node(durable=False)
    async def moody(state: SharedState) -> None:
        if broken:
            raise ValueError("no")

    flow = AsyncFlow(node(name="book", writes="b", compensate=undo)(lambda: 1) >> moody, durability=engine)
    result = await flow.run(run_id="r")
    assert [each.prompt for each in result.interrupts] == ["Undo it?"]
    broken.clear()

    with pytest.raises(NodeError, match="flow/moody#1 failed in exec: ValueError: no"):
        await flow.resume("r", "yes")

    assert undone == ["yes"]


# ---- what is left behind -------------------------------------------------------------------------------------


class Large:
    """Something that is to go with whoever holds it."""


@pytest.mark.parametrize("kind", ["failed", "undone", "parked", "items parked"])
async def test_a_run_that_has_ended_keeps_nothing_alive(engine: MemoryDurability, kind: str) -> None:
    held: list[weakref.ref[Large]] = []

    async def work(_: object) -> None:
        large = Large()
        held.append(weakref.ref(large))
        if kind in ("failed", "undone"):
            raise ValueError("no")
        await interrupt("?")

    async def undo(item: object, result: object) -> None:
        """Nothing to do."""

    one = node(name="one")(work)
    book = node(name="book", writes="b", compensate=undo)(lambda: 1)
    shapes = {"undone": book >> one, "items parked": Each(work, over="items")}
    flow = AsyncFlow(shapes.get(kind, one), durability=engine)  # type: ignore[arg-type]
    gc.collect()
    gc.disable()
    try:
        with suppress(NodeError):
            await flow.run({"items": [1, 2]}, run_id="r")
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


# ---- runs within runs ----------------------------------------------------------------------------------------


async def test_a_durable_run_started_in_a_step_of_another_asks_in_its_own_name(engine: MemoryDurability) -> None:
    @node(durable=False)
    async def unkept(state: SharedState) -> None:
        await interrupt("?")

    other = MemoryDurability()

    @node
    async def outer(state: SharedState) -> None:
        await AsyncFlow(unkept, name="inner", durability=other).run(run_id="inner")

    with pytest.raises(NodeError, match="the run has to be durable, and the node as well"):
        await AsyncFlow(outer, durability=engine).run(run_id="r")

    assert [record.kind for record in await engine.records("r")] == ["stretch"]


# ---- reducers ------------------------------------------------------------------------------------------------


async def test_what_was_added_is_folded_by_the_latest_key_of_its_name_and_reducer(engine: MemoryDurability) -> None:
    def key(mark: str) -> Key[str]:
        return Key[str]("path", reduce=lambda so_far, value: f"{so_far}{mark}{value}")

    keys = [key(mark) for mark in "-.+>/"]

    @node
    async def add(state: SharedState) -> None:
        state.add(keys[-1], "b")

    flow = AsyncFlow(add >> ask, durability=engine)
    await flow.run({"path": "a"}, run_id="r")

    assert (await flow.resume("r", True)).state["path"] == "a/b"


def test_reducers_without_a_name_are_told_apart_by_their_modules() -> None:
    def elsewhere(so_far: int, value: int) -> int:
        return so_far * value

    elsewhere.__module__ = "elsewhere"
    here = Key[int]("total", reduce=lambda so_far, value: so_far + value)

    assert here.reducer.startswith(f"{__name__}:")
    assert Key[int]("total", reduce=elsewhere).reducer.startswith("elsewhere:")
    assert Key[int]("total", reduce=operator.add).reducer == "add"


# ---- cancellation --------------------------------------------------------------------------------------------


class Count(AsyncNode[int, int]):
    """It waits in each of its phases."""

    async def prep(self, state: SharedState) -> int:
        await asyncio.sleep(0)
        count = state.get("count", 0)
        assert isinstance(count, int)
        return count

    async def exec(self, item: int) -> int:
        await asyncio.sleep(0)
        return item + 1

    async def post(self, state: SharedState, item: int, result: int) -> None:
        await asyncio.sleep(0)
        state["count"] = result


async def test_a_run_that_is_cut_off_at_any_moment_goes_on_to_the_same_end() -> None:
    async def work(item: int) -> int:
        await asyncio.sleep(0)
        return item

    async def slowly(record: Record) -> None:
        await asyncio.sleep(0)

    inner = AsyncFlow(node(name="b", reads="n", writes="b")(work), name="inner")
    race = Parallel(node(name="d", reads="n", writes="d")(work), Count(name="late") >> Count(name="later"), need=1)
    flow = AsyncFlow(Count(name="a") >> (Count(name="c"), inner) >> race >> Each(work, over="items", into="out"))
    begun = {"items": [1, 2], "n": 7}

    for moment in itertools.count():
        engine = MemoryDurability()
        engine.before = slowly
        running = asyncio.create_task(flow.run(begun, run_id="r", durability=engine))
        for _ in range(moment):
            await asyncio.sleep(0)
        if running.done():
            assert moment > 20
            return
        running.cancel()
        await asyncio.wait([running])
        assert len(asyncio.all_tasks()) == 1
        result = await flow.run(begun, run_id="r", durability=engine)
        assert dict(result.state) == {**begun, "count": 2, "b": 7, "d": 7, "out": [1, 2]}
