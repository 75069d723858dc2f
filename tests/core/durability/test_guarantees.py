"""What durable runs promise where others are known to fail, one promise a test."""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow.core import AsyncFlow, AsyncNode, Each, Key, Parallel, SharedState, node
from agentflow.core.durability.interrupts import interrupt
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import NodeError

SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteDurability]:
    engine = SqliteDurability(tmp_path / "runs.db")
    yield engine
    await engine.close()


class Doing(Counter[str]):
    """How often each node was run. Those in `broken` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def node(self, name: str, work: Callable[[SharedState], Any] | None = None) -> Any:
        @node(name=name)
        async def do(state: SharedState) -> Any:
            self[name] += 1
            if name in self.broken:
                raise ValueError(f"{name} is broken")
            if work is None:
                state[name] = self[name]
                return None
            found = work(state)
            return await found if asyncio.iscoroutine(found) else found

        return do

    async def fails_then_goes_on(self, flow: AsyncFlow, broken: str, **inputs: object) -> SharedState:
        """The run fails at one node, which is then mended."""
        self.broken = {broken}
        with pytest.raises(NodeError, match=broken):
            await flow.run(inputs, run_id="r")
        self.broken = set()
        return (await flow.run(inputs, run_id="r")).state


@pytest.fixture
def doing() -> Doing:
    return Doing()


async def test_a_join_of_unequal_branches_fires_once(doing: Doing, engine: SqliteDurability) -> None:
    long = doing.node("b") >> doing.node("c") >> doing.node("d")
    flow = AsyncFlow((doing.node("a"), long) >> doing.node("joined") >> doing.node("end"), durability=engine)

    await doing.fails_then_goes_on(flow, "end")

    assert doing == {"a": 1, "b": 1, "c": 1, "d": 1, "joined": 1, "end": 2}


async def test_a_branch_that_is_skipped_cannot_hang_a_join(doing: Doing, engine: SqliteDurability) -> None:
    choose = doing.node("choose", lambda state: "left")
    inner = AsyncFlow(choose, choose.on("left") >> doing.node("l"), choose.on("right") >> doing.node("r"), name="inner")
    flow = AsyncFlow((inner, doing.node("b")) >> doing.node("joined") >> doing.node("end"), durability=engine)

    await doing.fails_then_goes_on(flow, "end")

    assert (doing["l"], doing["r"], doing["joined"]) == (1, 0, 1)


async def test_a_fast_branch_does_not_wait_for_a_slow_sibling(doing: Doing, engine: SqliteDurability) -> None:
    is_ahead = asyncio.Event()

    async def slow(state: SharedState) -> None:
        await is_ahead.wait()

    quick = doing.node("a") >> doing.node("b") >> doing.node("c", lambda state: is_ahead.set())
    flow = AsyncFlow((quick, doing.node("slow", slow)), durability=engine)

    async with asyncio.timeout(30):
        await flow.run(run_id="r")


async def test_what_branches_had_written_before_the_join_is_kept(doing: Doing, engine: SqliteDurability) -> None:
    is_kept = asyncio.Event()

    async def late(state: SharedState) -> None:
        await is_kept.wait()
        if "late" in doing.broken_late:  # type: ignore[attr-defined]
            raise ValueError("late is broken")
        state["late"] = True

    doing.broken_late = {"late"}  # type: ignore[attr-defined]
    early = doing.node("early") >> doing.node("next", lambda state: is_kept.set())
    flow = AsyncFlow((early, doing.node("late", late)), durability=engine)
    with pytest.raises(NodeError, match="late"):
        await flow.run(run_id="r")
    doing.broken_late = set()  # type: ignore[attr-defined]

    state = (await flow.run(run_id="r")).state

    assert (doing["early"], dict(state)) == (1, {"early": 1, "late": True})


async def test_generations_of_a_loop_are_kept_apart(doing: Doing, engine: SqliteDurability) -> None:
    def again(state: SharedState) -> str:
        state["round"] = number = int(str(state.get("round", 0))) + 1
        return "again" if number < 3 else "done"

    start, judge = doing.node("start"), doing.node("judge", again)
    add_a = doing.node("a", lambda state: state.add(SEEN, [f"a{state['start']}"]))
    add_b = doing.node("b", lambda state: state.add(SEEN, [f"b{state['start']}"]))
    flow = AsyncFlow(
        start >> (add_a, add_b) >> judge,
        judge.on("again") >> start,
        judge.on("done") >> doing.node("end"),
        durability=engine,
    )

    state = await doing.fails_then_goes_on(flow, "end")

    assert state[SEEN] == ["a1", "b1", "a2", "b2", "a3", "b3"]
    assert (doing["a"], doing["b"], doing["judge"]) == (3, 3, 3)


async def test_the_second_visit_of_an_each_has_items_of_its_own(doing: Doing, engine: SqliteDurability) -> None:
    searched: list[str] = []

    async def search(item: str) -> str:
        searched.append(item)
        return item.upper()

    def again(state: SharedState) -> str:
        state.add(SEEN, list(state["found"]))  # type: ignore[call-overload]
        state["items"] = ["c", "d"]
        return "again" if len(state[SEEN]) < 4 else "done"

    each, judge = Each(search, over="items", into="found", name="each"), doing.node("judge", again)
    flow = AsyncFlow(each >> judge, judge.on("again") >> each, judge.on("done") >> doing.node("end"), durability=engine)

    state = await doing.fails_then_goes_on(flow, "end", items=["a", "b"])

    assert (state[SEEN], searched) == (["A", "B", "C", "D"], ["a", "b", "c", "d"])


async def test_a_join_that_was_decided_is_never_decided_anew(doing: Doing, engine: SqliteDurability) -> None:
    """Not even where the other branch would win by now."""
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    def racer(name: str) -> Any:
        async def run(state: SharedState) -> None:
            await gates[name].wait()
            state["won"] = name

        return doing.node(name, run)

    race = Parallel(racer("a"), racer("b"), need=1, name="race")
    flow = AsyncFlow(race >> doing.node("end"), durability=engine)
    gates["a"].set()
    doing.broken = {"end"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    gates["a"].clear()
    gates["b"].set()
    doing.broken = set()

    assert (await flow.run(run_id="r")).state["won"] == "a"


async def test_an_exec_that_was_kept_does_not_run_again_because_post_failed(engine: SqliteDurability) -> None:
    paid, fails = [], [True]

    class Pay(AsyncNode[None, str]):
        async def exec(self, item: None) -> str:
            paid.append(1)
            return "receipt"

        async def post(self, state: SharedState, item: None, result: str) -> None:
            if fails:
                fails.clear()
                raise ValueError("post failed")
            state["receipt"] = result

    flow = AsyncFlow(Pay(name="pay"), durability=engine)
    with pytest.raises(NodeError):
        await flow.run(run_id="r")

    assert (await flow.run(run_id="r")).state["receipt"] == "receipt"
    assert len(paid) == 1


async def test_a_cancellation_reaches_nested_flows(doing: Doing, engine: SqliteDurability) -> None:
    is_inside, ended = asyncio.Event(), []

    async def wait(state: SharedState) -> None:
        is_inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("inner")

    inner = AsyncFlow(doing.node("wait", wait) >> doing.node("never"), name="inner")
    flow = AsyncFlow((AsyncFlow(inner, name="middle"), doing.node("a")), durability=engine)
    run = asyncio.create_task(flow.run(run_id="r"))
    await is_inside.wait()

    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert (ended, doing["never"], (await engine.find("r")).status) == (["inner"], 0, "cancelled")


async def test_question_after_question_gets_to_the_end(engine: SqliteDurability) -> None:
    @node
    async def ask(state: SharedState) -> None:
        state["said"] = [await interrupt(f"{number}?", schema=int) for number in range(20)]

    flow = AsyncFlow((ask, AsyncFlow(node(name="also")(lambda state: None), name="inner")), durability=engine)
    result = await flow.run(run_id="r")
    for number in range(20):
        assert [each.prompt for each in result.interrupts] == [f"{number}?"]
        result = await flow.resume("r", number)

    assert result.state["said"] == list(range(20))


async def test_values_are_never_copied_while_a_run_goes_on(doing: Doing, engine: SqliteDurability) -> None:
    value = {"a": [1, 2]}
    inner = AsyncFlow(doing.node("keep", lambda state: state.__setitem__("same", state["value"])), name="inner")
    flow = AsyncFlow((inner, doing.node("b")), durability=engine)

    state = (await flow.run({"value": value}, run_id="r")).state

    assert state["value"] is value
    assert state["same"] is value


async def test_attempts_are_counted_for_each_item_alone(engine: SqliteDurability) -> None:
    tried: Counter[int] = Counter()

    async def search(item: int) -> int:
        tried[item] += 1
        if tried[item] < 3:
            raise ValueError("again")
        return item

    each = Each(search, over="items", into="found", retry=RetryPolicy(3, base_delay=0.0), name="each")
    flow = AsyncFlow(each, durability=engine)

    await flow.run({"items": list(range(10))}, run_id="r")

    assert {record.attempts for record in await engine.records("r") if record.kind == "item"} == {3}
