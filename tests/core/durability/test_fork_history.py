"""Looking back at a run, going off from the middle of it, and going on with it when its flow has changed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.clock import VirtualClock
from agentflow.core import END, AsyncFlow, Each, Parallel, SharedState, node
from agentflow.core.durability import interrupt
from agentflow.core.durability.changes import changes
from agentflow.core.node import FunctionNode
from agentflow.core.outline import whole_outline
from agentflow.errors import DurabilityError, FlowChangedError, NodeError


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


class Steps:
    """Nodes that write their name and how often they ran; those in `broken` fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, action: str | None = None) -> FunctionNode[..., Any]:
        async def work(state: SharedState) -> str | None:
            self.ran.append(name)
            if name in self.broken:
                raise ValueError(f"{name} is broken")
            state[name] = f"{name} of {state.get('topic', 'nothing')}"
            return action

        return node(name=name)(work)


# ---- history


async def test_each_step_says_what_it_wrote_and_what_it_led_to(engine: MemoryDurability) -> None:
    step = Steps()
    judge = step("judge", "fine")
    flow = AsyncFlow(step("write") >> judge, judge.on("fine") >> END, durability=engine)
    await flow.run(run_id="r")

    write, judged = await flow.history("r")

    assert (write.id, write.node, write.status, write.action) == ("flow/write#1", "write", "done", None)
    assert (write.changed, judged.action) == ({"write": "write of nothing"}, "fine")


async def test_items_questions_and_collected_failures_are_part_of_it(engine: MemoryDurability) -> None:
    async def ask(item: int) -> object:
        if item == 1:
            raise ValueError("no")
        return await interrupt("?") if item == 2 else item

    flow = AsyncFlow(Each(ask, over="items", on_error="collect", name="each"), durability=engine)
    await flow.run({"items": [0, 1, 2]}, run_id="r")
    before = {step.id: step for step in await flow.history("r")}
    await flow.resume("r", "two")
    after = {step.id: step for step in await flow.history("r")}

    assert before["flow/each#1/0"].result == 0
    assert (before["flow/each#1/1"].status, str(before["flow/each#1/1"].error)) == (
        "failed",
        "flow/each#1/1 failed in exec: ValueError: no",
    )
    assert before["flow/each#1/2!wait:1"].status == "waiting"
    question = after["flow/each#1/2!wait:1"]
    assert (question.status, question.answer, after["flow/each#1/2"].result) == ("answered", "two", "two")


# ---- fork


async def test_a_fork_has_done_what_came_before_and_goes_on_from_there(engine: MemoryDurability) -> None:
    step = Steps()
    flow = AsyncFlow(step("a") >> step("b") >> step("c"), durability=engine)
    await flow.run({"topic": "tides"}, run_id="r")
    step.ran.clear()

    forked = await flow.fork("r", at="b", update={"topic": "moons"}, new_run_id="f")

    assert step.ran == ["b", "c"]
    assert dict(forked.state) == {
        "topic": "moons",
        "a": "a of tides",
        "b": "b of moons",
        "c": "c of moons",
    }
    assert (await flow.resume("r")).state["c"] == "c of tides"
    spec = (await engine.find("f")).spec
    assert (spec.forked_from, spec.forked_at) == ("r", "flow/b#1")


async def test_a_fork_can_be_resumed_and_forked_again(engine: MemoryDurability) -> None:
    step = Steps()
    flow = AsyncFlow(step("a") >> step("b") >> step("c"), durability=engine)
    await flow.run(run_id="r")
    step.broken = {"c"}
    with pytest.raises(NodeError):
        await flow.fork("r", at="flow/b#1", update={"topic": "x"}, new_run_id="f")
    step.broken = set()
    step.ran.clear()

    assert (await flow.resume("f")).state["b"] == "b of x"
    again = await flow.fork("f", at="c", new_run_id="g")

    assert step.ran == ["c", "c"]
    assert dict(again.state) == {"topic": "x", "a": "a of nothing", "b": "b of x", "c": "c of x"}


async def test_a_fork_may_begin_at_a_visit_a_section_or_a_nested_flow(engine: MemoryDurability) -> None:
    step = Steps()

    @node
    async def twice(state: SharedState) -> str:
        state["n"] = n = int(str(state.get("n", 0))) + 1
        return "again" if n < 2 else "on"

    inner = AsyncFlow(step("x") >> step("y"), name="inner")
    flow = AsyncFlow(
        step("a") >> twice,
        twice.on("again") >> END,
        twice.on("on") >> END,
        name="loop",
        durability=engine,
    )
    wide = AsyncFlow(step("s") >> Parallel(step("p"), step("q"), name="both") >> inner, name="wide", durability=engine)
    await flow.run(run_id="loop")
    await wide.run(run_id="r")
    step.ran.clear()

    await wide.fork("r", at="inner")
    assert step.ran == ["x", "y"]
    step.ran.clear()
    await wide.fork("r", at="y")
    assert step.ran == ["y"]


async def test_a_step_that_is_not_there_is_an_error_that_lists_some(engine: MemoryDurability) -> None:
    step = Steps()
    flow = AsyncFlow(step("a") >> step("b"), durability=engine)
    await flow.run(run_id="r")

    with pytest.raises(DurabilityError, match=r"has no step 'z': its steps are .*flow/a#1, flow/b#1"):
        await flow.fork("r", at="z")


# ---- changed flows


async def test_a_flow_that_has_changed_is_refused_with_what_changed(engine: MemoryDurability) -> None:
    step = Steps()
    old = AsyncFlow(step("a") >> step("b") >> step("c"), durability=engine)
    step.broken = {"c"}
    with pytest.raises(NodeError):
        await old.run(run_id="r")
    new = AsyncFlow(step("a") >> step("review") >> step("c"), durability=engine)

    with pytest.raises(FlowChangedError) as caught:
        await new.resume("r")

    assert caught.value.changes == (
        "b is gone",
        "review is new",
        "a ─default─▶ b is gone",
        "a ─default─▶ review is new",
    )
    assert "migrate=" in str(caught.value)


async def test_a_mended_node_is_no_change(engine: MemoryDurability) -> None:
    step = Steps()
    step.broken = {"b"}
    with pytest.raises(NodeError):
        await AsyncFlow(step("a") >> step("b"), durability=engine).run(run_id="r")
    mended = Steps()

    result = await AsyncFlow(mended("a") >> mended("b"), durability=engine).resume("r")

    assert (result.status, mended.ran) == ("done", ["b"])


async def test_a_migration_says_what_the_steps_are_called_now(engine: MemoryDurability) -> None:
    step = Steps()
    inner = AsyncFlow(step("x") >> step("y"), name="inner")
    step.broken = {"last"}
    with pytest.raises(NodeError):
        await AsyncFlow(step("a") >> inner >> step("last"), durability=engine).run(run_id="r")
    now = Steps()
    renamed = AsyncFlow(now("draft") >> now("y"), name="writing")
    flow = AsyncFlow(now("a") >> renamed >> now("last"), durability=engine)

    result = await flow.resume("r", migrate={"inner": "writing", "inner/x": "draft"})

    assert now.ran == ["last"]
    assert result.state["x"] == "x of nothing"
    assert (await flow.resume("r")).status == "done"


async def test_a_migration_may_forget_a_step(engine: MemoryDurability) -> None:
    step = Steps()
    step.broken = {"c"}
    with pytest.raises(NodeError):
        await AsyncFlow(step("a") >> step("b") >> step("c"), durability=engine).run(run_id="r")
    now = Steps()

    result = await AsyncFlow(now("a") >> now("c"), durability=engine).resume("r", migrate={"b": None})

    assert now.ran == ["c"]
    assert "b" not in result.state


async def test_forking_a_run_whose_flow_has_changed_is_refused(engine: MemoryDurability) -> None:
    step = Steps()
    await AsyncFlow(step("a") >> step("b"), durability=engine).run(run_id="r")

    with pytest.raises(FlowChangedError):
        await AsyncFlow(step("a") >> step("c"), durability=engine).fork("r", at="a")


def test_every_kind_of_change_is_told() -> None:
    step = Steps()
    a, b = step("a"), step("b")
    before = AsyncFlow(a >> b)
    assert changes(whole_outline(before.graph), whole_outline(before.graph)) == []

    def told(*statements: Any) -> list[str]:
        return changes(whole_outline(before.graph), whole_outline(AsyncFlow(*statements).graph))

    assert told(b >> a) == [
        "the start at a is gone",
        "a ─default─▶ b is gone",
        "the start at b is new",
        "b ─default─▶ a is new",
    ]
    assert told(a >> b, b.on("again") >> a) == ["b ─again─▶ a is new"]
    assert told(a >> AsyncFlow(step("x"), name="b"))[:2] == ["b/x is new", "b was a plain node, and is a flow"]


# ---- in whose time


def test_how_long_a_step_took_is_told() -> None:
    clock = VirtualClock()
    engine = MemoryDurability(clock=clock)

    @node
    async def wait(state: SharedState) -> None:
        await clock.sleep(3.0)

    flow = AsyncFlow(wait, clock=clock, durability=engine)

    async def main() -> float:
        await flow.run(run_id="r")
        [step] = await flow.history("r")
        return step.seconds

    assert clock.run(main()) == pytest.approx(3.0)
