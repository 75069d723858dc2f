"""Questions to people in the middle of a run, and sleeps that outlive their process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, AsyncNode, Dataflow, Each, Flow, FlowResult, Node, Parallel, SharedState, node
from agentflow.core.durability import interrupt, interrupt_blocking, sleep
from agentflow.core.durability.bodies import answer_body
from agentflow.core.durability.records import Record
from agentflow.core.node import FunctionNode
from agentflow.errors import (
    AnswerError,
    ConfigurationError,
    InterruptTimeoutError,
    NodeError,
    RunEndedError,
)

T = TypeVar("T")
WEEK = 7 * 86_400.0


@dataclass(frozen=True)
class Verdict:
    publish: bool
    note: str = ""


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


def asking(name: str, **options: Any) -> FunctionNode[..., Any]:
    """A node that asks, and writes what it was answered."""

    async def ask() -> object:
        return await interrupt(f"{name}?", **options)

    return node(name=name, writes=name)(ask)


async def test_a_run_is_parked_until_somebody_answers(engine: MemoryDurability) -> None:
    flow = AsyncFlow(asking("publish", payload={"draft": "…"}, schema=bool), durability=engine)

    parked = await flow.run(run_id="r")
    [question] = parked.interrupts
    assert (parked.status, parked.error) == ("interrupted", None)
    assert (question.prompt, question.payload, question.schema) == ("publish?", {"draft": "…"}, {"type": "boolean"})
    assert (await engine.find("r")).status == "waiting"

    result = await flow.resume("r", True)
    assert (result.status, result.state["publish"]) == ("done", True)


async def test_a_parked_run_holds_no_task(engine: MemoryDurability) -> None:
    before = asyncio.all_tasks()

    await AsyncFlow(asking("a"), durability=engine).run(run_id="r")

    assert asyncio.all_tasks() == before


async def test_resuming_without_an_answer_parks_it_again(engine: MemoryDurability) -> None:
    flow = AsyncFlow(asking("a"), durability=engine)
    first = await flow.run(run_id="r")

    again = await flow.resume("r")

    assert (again.status, again.interrupts) == ("interrupted", first.interrupts)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [("yes", 'must be true or false, not "yes"'), (1, "must be true or false, not 1"), (None, "true or false")],
)
async def test_an_answer_that_does_not_fit_is_refused_and_nothing_happens(
    engine: MemoryDurability, answer: object, problem: str
) -> None:
    flow = AsyncFlow(asking("a", schema=bool), durability=engine)
    await flow.run(run_id="r")

    with pytest.raises(AnswerError, match=problem) as caught:
        await flow.resume("r", answer)

    assert (caught.value.run_id, caught.value.interrupt) == ("r", "flow/a#1!wait:1")
    assert (await flow.resume("r", False)).state["a"] is False


async def test_an_answer_comes_as_the_type_that_was_asked_for(engine: MemoryDurability) -> None:
    @node
    async def review(state: SharedState) -> None:
        verdict = await interrupt("Publish?", schema=Verdict)
        assert isinstance(verdict, Verdict)
        state["note"] = verdict.note

    flow = AsyncFlow(review, durability=engine)
    await flow.run(run_id="r")

    result = await flow.resume("r", {"publish": True, "note": "fine"})

    assert result.state["note"] == "fine"


async def test_an_answer_that_the_node_itself_refuses_is_asked_for_again(engine: MemoryDurability) -> None:
    """Another process, without the types, has let it through."""
    flow = AsyncFlow(asking("a", schema=int), durability=engine)
    await flow.run(run_id="r")
    await engine.answer("r", {"flow/a#1!wait:1": '{"value":"seven"}'})

    parked = await flow.resume("r")
    [question] = parked.interrupts
    assert question.id == "flow/a#1!wait:2"
    assert question.problem is not None
    assert "whole number" in question.problem

    assert (await flow.resume("r", 7)).state["a"] == 7


async def test_branches_may_ask_at_the_same_time_and_others_finish_first(engine: MemoryDurability) -> None:
    done: list[str] = []

    @node(writes="work")
    async def work() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        done.append("work")
        return "done"

    flow = AsyncFlow((asking("a"), work, asking("b")), durability=engine)

    parked = await flow.run(run_id="r")
    assert done == ["work"]
    assert [each.prompt for each in parked.interrupts] == ["a?", "b?"]

    with pytest.raises(AnswerError, match="waits for 2 answers"):
        await flow.resume("r", "yes")
    first = await flow.resume("r", {"flow/b#1!wait:1": "B"})
    assert [each.prompt for each in first.interrupts] == ["a?"]
    result = await flow.resume("r", "A")

    assert dict(result.state) == {"a": "A", "b": "B", "work": "done"}
    assert done == ["work"]


async def test_items_may_ask_each_for_itself(engine: MemoryDurability) -> None:
    done: list[int] = []

    async def check(item: int) -> object:
        if item % 2:
            return await interrupt(f"{item}?")
        done.append(item)
        return item

    flow = AsyncFlow(Each(check, over="items", into="got", concurrency=1), durability=engine)

    parked = await flow.run({"items": [0, 1, 2, 3]}, run_id="r")
    assert [each.prompt for each in parked.interrupts] == ["1?", "3?"]
    result = await flow.resume("r", {each.id: each.prompt for each in parked.interrupts})

    assert result.state["got"] == [0, "1?", 2, "3?"]
    assert done == [0, 2]


async def test_a_branch_that_is_not_needed_does_not_park_the_run(engine: MemoryDurability) -> None:
    @node(writes="fast")
    async def fast() -> str:
        return "fast"

    flow = AsyncFlow(Parallel(asking("a"), fast, need=1), durability=engine)

    result = await flow.run(run_id="r")

    assert (result.status, dict(result.state)) == ("done", {"fast": "fast"})


async def test_what_reads_what_is_asked_for_waits_with_it(engine: MemoryDurability) -> None:
    @node(reads="a", writes="b")
    async def after(a: str) -> str:
        return a.upper()

    @node(writes="c")
    async def apart() -> str:
        return "c"

    flow = AsyncFlow(Dataflow(asking("a"), after, apart), durability=engine)

    assert (await flow.run(run_id="r")).status == "interrupted"
    assert dict((await flow.resume("r", "x")).state) == {"a": "x", "b": "X", "c": "c"}


async def test_a_failure_beside_a_question_is_a_failure(engine: MemoryDurability) -> None:
    @node
    async def broken(state: SharedState) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(NodeError, match="no"):
        await AsyncFlow((asking("a"), broken), durability=engine).run(run_id="r")


async def test_a_node_runs_again_from_its_top_and_asks_its_questions_in_order(engine: MemoryDurability) -> None:
    tops: list[int] = []

    @node
    async def talk(state: SharedState) -> None:
        tops.append(1)
        name = await interrupt("Name?", schema=str)
        state["hello"] = name, await interrupt(f"{name}, how old?", schema=int)

    flow = AsyncFlow(talk, durability=engine)
    await flow.run(run_id="r")
    [second] = (await flow.resume("r", "Ada")).interrupts
    result = await flow.resume("r", 36)

    assert second.prompt == "Ada, how old?"
    assert result.state["hello"] == ("Ada", 36)
    assert len(tops) == 3


async def test_an_exec_that_has_returned_does_not_run_again_for_a_question_in_post(engine: MemoryDurability) -> None:
    ran: list[str] = []

    class Write(AsyncNode[None, str]):
        async def exec(self, item: None) -> str:
            ran.append("exec")
            return "draft"

        async def post(self, state: SharedState, item: None, result: str) -> str:
            state["draft"] = result
            return "yes" if await interrupt("Publish?", result, schema=bool) else "no"

    flow = AsyncFlow(Write(), durability=engine)
    await flow.run(run_id="r")
    result = await flow.resume("r", True)

    assert (ran, result.action) == (["exec"], "yes")


async def test_a_task_group_of_a_nodes_own_may_ask(engine: MemoryDurability) -> None:
    @node
    async def both(state: SharedState) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(interrupt(name)) for name in ("a", "b")]
        state["got"] = [task.result() for task in tasks]

    flow = AsyncFlow(both, durability=engine)
    parked = await flow.run(run_id="r")
    assert [each.prompt for each in parked.interrupts] == ["a", "b"]

    result = await flow.resume("r", {each.id: each.prompt.upper() for each in parked.interrupts})
    assert result.state["got"] == ["A", "B"]


def test_sync_nodes_ask_from_their_threads(tmp_path: Any) -> None:
    from agentflow.core.durability import SqliteDurability

    class Review(Node[None, object]):
        def exec(self, item: None) -> object:
            return interrupt_blocking("Publish?", schema=["yes", "no"])

        def post(self, state: SharedState, item: None, result: object) -> None:
            state["publish"] = result

    flow = Flow(Review(), durability=SqliteDurability(tmp_path / "runs.db"))

    assert flow.run(run_id="r").status == "interrupted"
    assert flow.resume("r", "no").state["publish"] == "no"


async def test_in_a_run_that_is_not_kept_there_is_nobody_to_ask() -> None:
    with pytest.raises(NodeError, match="durability=") as caught:
        await AsyncFlow(asking("a")).run()

    assert isinstance(caught.value.__cause__, ConfigurationError)


async def test_a_parked_run_that_is_cancelled_takes_no_answer(engine: MemoryDurability) -> None:
    flow = AsyncFlow(asking("a"), durability=engine)
    await flow.run(run_id="r")

    assert await flow.cancel("r")

    with pytest.raises((RunEndedError, AnswerError)):
        await flow.resume("r", "x")


async def test_a_run_that_waits_for_nobody_takes_no_answer(engine: MemoryDurability) -> None:
    @node
    async def plain(state: SharedState) -> None: ...

    flow = AsyncFlow(plain, durability=engine)
    await flow.run(run_id="r")

    with pytest.raises(AnswerError, match="waits for no answer"):
        await flow.resume("r", "x")


async def test_a_question_within_a_run_that_is_started_in_a_durable_step_parks_the_outer_run(
    engine: MemoryDurability,
) -> None:
    inner = AsyncFlow(asking("a"), name="inner")

    @node
    async def outer(state: SharedState) -> None:
        result: FlowResult = await inner.run()
        state["got"] = result.state["a"]

    flow = AsyncFlow(outer, durability=engine)

    assert (await flow.run(run_id="r")).status == "interrupted"
    assert (await flow.resume("r", "x")).state["got"] == "x"


# ---- time ----------------------------------------------------------------------------------------------------


class Timed:
    """A virtual clock, and an engine that goes by it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.engine = MemoryDurability(clock=self.clock)

    def flow(self, *statements: Any) -> AsyncFlow:
        return AsyncFlow(*statements, durability=self.engine, clock=self.clock)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.clock.run(main)


def test_after_its_time_the_default_is_the_answer() -> None:
    timed = Timed()
    flow = timed.flow(asking("a", timeout=60.0, default="none"))

    async def main() -> None:
        [question] = (await flow.run(run_id="r")).interrupts
        assert question.due == pytest.approx(timed.clock.time() + 60.0)
        await timed.clock.sleep(59.0)
        assert (await flow.resume("r")).status == "interrupted"
        await timed.clock.sleep(2.0)
        assert (await flow.resume("r")).state["a"] == "none"

    timed.run(main())


def test_without_a_default_the_node_hears_that_nobody_answered() -> None:
    timed = Timed()
    flow = timed.flow(asking("a", timeout=60.0))

    async def main() -> None:
        await flow.run(run_id="r")
        await timed.clock.sleep(61.0)
        with pytest.raises(NodeError) as caught:
            await flow.resume("r")
        assert isinstance(caught.value.__cause__, InterruptTimeoutError)

    timed.run(main())


def test_recover_goes_on_with_runs_whose_time_has_come_and_no_others() -> None:
    timed = Timed()
    flow = timed.flow(asking("a", timeout=60.0, default=0))

    async def main() -> None:
        await flow.run(run_id="early")
        await timed.clock.sleep(50.0)
        await flow.run(run_id="late")
        await timed.clock.sleep(20.0)
        [result] = await flow.recover()
        assert (result.run_id, result.status) == ("early", "done")
        assert (await timed.engine.find("late")).status == "waiting"

    timed.run(main())


def test_a_run_parked_for_a_week_goes_on() -> None:
    timed = Timed()

    @node(writes="slept")
    async def wait() -> bool:
        await sleep(WEEK, park=True)
        return True

    flow = timed.flow(wait)

    async def main() -> None:
        parked = await flow.run(run_id="r")
        assert [each.kind for each in parked.interrupts] == ["timer"]
        assert (await flow.resume("r")).status == "interrupted"
        await timed.clock.sleep(WEEK)
        assert (await flow.resume("r")).state["slept"] is True

    timed.run(main())


def test_a_sleep_that_is_cut_off_goes_on_for_the_rest_of_its_time() -> None:
    timed = Timed()

    @node
    async def wait(state: SharedState) -> None:
        await sleep(100.0)

    flow = timed.flow(wait)

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(70.0):
                await flow.run(run_id="r")
        began = timed.clock.monotonic()
        await flow.resume("r")
        return timed.clock.monotonic() - began

    assert timed.run(main()) == pytest.approx(30.0, abs=0.1)


def test_outside_of_a_durable_run_a_sleep_is_a_sleep() -> None:
    clock = VirtualClock()

    async def main() -> float:
        await sleep(5.0)
        with pytest.raises(ConfigurationError, match="park=True"):
            await sleep(5.0, park=True)
        return clock.monotonic()

    assert clock.run(main()) == pytest.approx(5.0)


def test_who_answers_at_the_very_end_of_the_time_is_heard() -> None:
    """Before it could be kept that nobody had answered."""
    timed = Timed()
    flow = timed.flow(asking("a", timeout=60.0, default="none"))

    async def quicker(record: Record) -> None:
        if record.kind == "answer" and "expired" in record.body:
            await timed.engine.answer("r", {"flow/a#1!wait:1": answer_body("just in time")})

    async def main() -> None:
        await flow.run(run_id="r")
        await timed.clock.sleep(61.0)
        timed.engine.before = quicker
        assert (await flow.resume("r")).state["a"] == "just in time"

    timed.run(main())
