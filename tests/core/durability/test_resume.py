"""What a durable run keeps, and what it does not do twice when it goes on."""

from __future__ import annotations

import asyncio
import operator
from pathlib import Path
from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.clock import VirtualClock
from agentflow.core import END, AsyncFlow, AsyncNode, Each, Flow, Key, Limits, Node, Parallel, SharedState, node
from agentflow.core.durability import SqliteDurability
from agentflow.core.node import FunctionNode
from agentflow.core.robustness import idempotency_key
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import (
    DurabilityError,
    InputError,
    NodeError,
    RunExistsError,
    RunHeldError,
    SerializationError,
    UnknownRunError,
)

SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)


class Calls(list[str]):
    """What was done, in order; what stands in `broken` fails."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def did(self, name: str) -> None:
        self.append(name)
        if name in self.broken:
            raise ValueError(f"{name} is broken")

    def step(self, name: str, **options: Any) -> FunctionNode[..., Any]:
        async def work() -> str:
            self.did(name)
            return name

        return node(name=name, writes=name, **options)(work)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def engine() -> MemoryDurability:
    return MemoryDurability()


async def test_a_run_that_failed_goes_on_where_it_failed(calls: Calls, engine: MemoryDurability) -> None:
    flow = AsyncFlow(calls.step("a") >> calls.step("b") >> calls.step("c"), durability=engine)
    calls.broken = {"b"}
    with pytest.raises(NodeError, match="b is broken"):
        await flow.run(run_id="r")

    calls.broken = set()
    result = await flow.resume("r")

    assert calls == ["a", "b", "b", "c"]
    assert (result.status, dict(result.state)) == ("done", {"a": "a", "b": "b", "c": "c"})


async def test_a_run_begun_again_under_its_id_gives_its_result_and_does_nothing(
    calls: Calls, engine: MemoryDurability
) -> None:
    flow = AsyncFlow(calls.step("a") >> calls.step("b"), durability=engine)
    first = await flow.run({"x": 1}, run_id="r")

    again = await flow.run({"x": 1}, run_id="r")

    assert calls == ["a", "b"]
    assert (again.status, again.action, dict(again.state)) == ("done", first.action, dict(first.state))


async def test_an_id_that_belongs_to_a_run_with_another_input_is_refused(engine: MemoryDurability) -> None:
    flow = AsyncFlow(Calls().step("a"), durability=engine)
    await flow.run({"x": 1}, run_id="r")

    with pytest.raises(RunExistsError):
        await flow.run({"x": 2}, run_id="r")


async def test_what_exec_returned_is_kept_before_post_runs(calls: Calls, engine: MemoryDurability) -> None:
    class Write(AsyncNode[str, str]):
        async def prep(self, state: SharedState) -> str:
            calls.did("prep")
            return "tides"

        async def exec(self, topic: str) -> str:
            calls.did("exec")
            return topic.upper()

        async def post(self, state: SharedState, topic: str, draft: str) -> None:
            state["wrong"] = calls.count("post")
            calls.did("post")
            state["draft"] = (topic, draft)

    flow = AsyncFlow(Write(), durability=engine)
    calls.broken = {"post"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    calls.broken = set()

    result = await flow.resume("r")

    assert calls == ["prep", "exec", "post", "prep", "post"]
    assert dict(result.state) == {"wrong": 1, "draft": ("tides", "TIDES")}


async def test_a_step_that_failed_has_written_nothing(engine: MemoryDurability) -> None:
    @node
    async def half(state: SharedState) -> None:
        state["half"] = True
        raise ValueError("no")

    flow = AsyncFlow(half, durability=engine)
    with pytest.raises(NodeError):
        await flow.run(run_id="r")

    assert await flow.history("r") == []


async def test_a_node_that_is_not_durable_runs_again_whenever_the_run_goes_on(
    calls: Calls, engine: MemoryDurability
) -> None:
    flow = AsyncFlow(calls.step("a", durable=False) >> calls.step("b") >> calls.step("c"), durability=engine)
    calls.broken = {"c"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    calls.broken = set()

    await flow.resume("r")

    assert calls == ["a", "b", "c", "a", "c"]
    assert [step.node for step in await flow.history("r")] == ["b", "c"]


async def test_visits_of_a_loop_are_steps_of_their_own(engine: MemoryDurability) -> None:
    done: list[int] = []

    @node(reads="n", writes="n")
    async def count(n: int) -> int:
        done.append(n)
        if n == 3 and done.count(3) == 1:
            raise ValueError("once")
        return n + 1

    @node
    async def enough(state: SharedState) -> str:
        return "again" if state["n"] != 5 else "enough"

    flow = AsyncFlow(count >> enough, enough.on("again") >> count, enough.on("enough") >> END, durability=engine)
    with pytest.raises(NodeError):
        await flow.run({"n": 0}, run_id="r")
    result = await flow.resume("r")

    assert done == [0, 1, 2, 3, 3, 4]
    assert result.state["n"] == 5


async def test_items_that_are_done_are_not_done_again(engine: MemoryDurability) -> None:
    done: list[int] = []

    async def square(item: int) -> int:
        done.append(item)
        if item == 7 and done.count(7) == 1:
            raise ValueError("once")
        return item * item

    flow = AsyncFlow(Each(square, over="items", into="squares", concurrency=1), durability=engine)
    with pytest.raises(NodeError):
        await flow.run({"items": list(range(10))}, run_id="r")
    result = await flow.resume("r")

    assert done == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9]
    assert result.state["squares"] == [n * n for n in range(10)]


async def test_the_failure_of_an_item_that_was_collected_stays_a_failure(
    calls: Calls, engine: MemoryDurability
) -> None:
    async def ask(item: int) -> int:
        calls.did(str(item))
        return item

    last = calls.step("last")
    flow = AsyncFlow(Each(ask, over="items", into="got", on_error="collect") >> last, durability=engine)
    calls.broken = {"1", "last"}
    with pytest.raises(NodeError):
        await flow.run({"items": [0, 1, 2]}, run_id="r")
    calls.broken = set()
    result = await flow.resume("r")

    first, failure, third = result.state["got"]  # type: ignore[misc]  # an object, to a type checker
    assert (first, third, str(failure)) == (0, 2, "flow/each#1/1 failed in exec: ValueError: 1 is broken")
    assert calls == ["0", "1", "2", "last", "last"]


async def test_contributions_of_branches_are_folded_once_each(calls: Calls, engine: MemoryDurability) -> None:
    def adding(name: str) -> FunctionNode[..., Any]:
        async def work(state: SharedState) -> None:
            calls.did(name)
            state.add(SEEN, [name])

        return node(name=name)(work)

    flow = AsyncFlow((adding("a"), adding("b") >> adding("c")) >> calls.step("last"), durability=engine)
    calls.broken = {"c"}
    with pytest.raises(NodeError):
        await flow.run({"seen": ["before"]}, run_id="r")
    calls.broken = {"last"}
    with pytest.raises(NodeError):
        await flow.resume("r")
    calls.broken = set()
    result = await flow.resume("r")

    assert result.state[SEEN] == ["before", "a", "b", "c"]
    assert sorted(calls) == sorted(["a", "b", "c", "c", "last", "last"])


async def test_who_won_a_race_has_won_it_for_good(calls: Calls, engine: MemoryDurability) -> None:
    slow, gate = asyncio.Event(), asyncio.Event()

    @node(writes="fast")
    async def fast() -> str:
        if calls.count("fast"):
            await gate.wait()  # the second time it would lose
        calls.did("fast")
        return "fast"

    @node(writes="late")
    async def late() -> str:
        calls.did("late")
        await slow.wait()
        return "late"

    flow = AsyncFlow(Parallel(fast, late, need=1) >> calls.step("last"), durability=engine)
    calls.broken = {"last"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    calls.broken = set()
    slow.set()

    result = await flow.resume("r")

    assert dict(result.state) == {"fast": "fast", "last": "last"}
    assert calls.count("fast") == 1


async def test_nested_flows_go_on_inside(calls: Calls, engine: MemoryDurability) -> None:
    inner = AsyncFlow(calls.step("a") >> calls.step("b"), name="inner").using(outputs={"got": "b"})
    flow = AsyncFlow(inner >> calls.step("c"), durability=engine)
    calls.broken = {"b"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    calls.broken = set()

    result = await flow.resume("r")

    assert calls == ["a", "b", "b", "c"]
    assert dict(result.state) == {"got": "b", "c": "c"}


async def test_deletions_are_kept(engine: MemoryDurability) -> None:
    @node
    async def forget(state: SharedState) -> None:
        del state["secret"]

    broken = Calls()
    flow = AsyncFlow(forget >> broken.step("last"), durability=engine)
    broken.broken = {"last"}
    with pytest.raises(NodeError):
        await flow.run({"secret": 1}, run_id="r")
    broken.broken = set()

    assert "secret" not in (await flow.resume("r")).state


def test_sync_flows_and_sync_nodes_are_kept_as_well(calls: Calls, tmp_path: Path) -> None:
    class Write(Node[None, str]):
        def exec(self, item: None) -> str:
            calls.did("exec")
            return "draft"

        def post(self, state: SharedState, item: None, result: str) -> None:
            calls.did("post")
            state["draft"] = result

    flow = Flow(Write(), durability=SqliteDurability(tmp_path / "runs.db"))
    calls.broken = {"post"}
    with pytest.raises(NodeError):
        flow.run(run_id="r")
    calls.broken = set()

    assert flow.resume("r").state["draft"] == "draft"
    assert calls == ["exec", "post", "post"]
    assert [step.id for step in flow.history("r")] == ["flow/write#1"]
    assert not flow.cancel("r")
    assert flow.recover() == []


async def test_a_value_that_cannot_be_stored_fails_the_step_that_wrote_it(engine: MemoryDurability) -> None:
    @node(writes="connection")
    async def connect() -> object:
        return object()

    with pytest.raises(NodeError, match=r"flow/connect#1 failed in post: .*connection: a value of type object"):
        await AsyncFlow(connect, durability=engine).run(run_id="r")


async def test_an_input_that_cannot_be_stored_is_refused_before_anything_runs(
    calls: Calls, engine: MemoryDurability
) -> None:
    flow = AsyncFlow(calls.step("a"), durability=engine)

    with pytest.raises(SerializationError, match="input"):
        await flow.run({"x": object()})

    assert calls == []


async def test_without_strict_a_step_that_cannot_be_stored_is_done_again(
    calls: Calls, engine: MemoryDurability
) -> None:
    @node(writes="connection")
    async def connect() -> object:
        calls.did("connect")
        return object()

    flow = AsyncFlow(connect >> calls.step("a") >> calls.step("b"), durability=engine)
    flow.strict = False
    calls.broken = {"b"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    calls.broken = set()
    await flow.resume("r")

    assert calls == ["connect", "a", "b", "connect", "b"]


async def test_a_run_of_another_flow_is_refused(calls: Calls, engine: MemoryDurability) -> None:
    await AsyncFlow(calls.step("a"), name="one", durability=engine).run(run_id="r")

    with pytest.raises(DurabilityError, match="one of the flow 'one', not of 'two'"):
        await AsyncFlow(calls.step("a"), name="two", durability=engine).resume("r")


async def test_a_run_that_nobody_knows_is_an_error(engine: MemoryDurability) -> None:
    with pytest.raises(UnknownRunError):
        await AsyncFlow(Calls().step("a"), durability=engine).resume("r")


async def test_without_an_engine_there_is_nothing_to_resume() -> None:
    with pytest.raises(DurabilityError, match="durability=SqliteDurability"):
        await AsyncFlow(Calls().step("a")).resume("r")


async def test_two_cannot_run_one_run(engine: MemoryDurability) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    @node
    async def wait(state: SharedState) -> None:
        begun.set()
        await gate.wait()

    flow = AsyncFlow(wait, durability=engine)
    first = asyncio.create_task(flow.run(run_id="r"))
    await begun.wait()

    with pytest.raises(RunHeldError):
        await flow.resume("r")
    gate.set()
    assert (await first).status == "done"


async def test_a_failed_input_check_is_the_runs_failure(engine: MemoryDurability) -> None:
    class Wanted:
        def validate(self, values: Any, *, partial: bool = False) -> Any:
            raise InputError("no", field="x")

    with pytest.raises(InputError):
        await AsyncFlow(Calls().step("a"), inputs=Wanted(), durability=engine).run(run_id="r")

    assert (await engine.find("r")).status == "failed"


async def test_what_recorded_calls_have_cost_counts_when_the_run_goes_on(engine: MemoryDurability) -> None:
    spent: list[float] = []

    @node
    async def look(state: SharedState) -> None:
        from agentflow.core.durability.step import current_step
        from agentflow.core.run import current_run

        step, run = current_step.get(), current_run.get()
        assert step is not None
        assert run is not None
        assert run.ledger is not None
        spent.append(run.ledger.dollars)
        call = step.call("f00d")
        if call.found is None:
            await call.save("{}", cost=0.25, tokens=10)
            raise ValueError("after it was paid for")

    flow = AsyncFlow(look, durability=engine)
    with pytest.raises(NodeError):
        await flow.run(run_id="r", limits=Limits(dollars=1.0))
    await flow.resume("r")
    [step] = await flow.history("r")

    assert spent == [0.0, 0.25]
    assert (step.cost, step.tokens, len(step.calls)) == (0.25, 10, 1)


async def test_a_step_has_one_idempotency_key_in_all_its_attempts_and_stretches(engine: MemoryDurability) -> None:
    keys: list[str | None] = []

    class Pay(AsyncNode[None, None]):
        retry = RetryPolicy(max_attempts=2, base_delay=0.0)

        async def exec(self, item: None) -> None:
            keys.append(idempotency_key())
            if len(keys) < 4:
                raise ConnectionError("down")

    pay = Pay(name="pay")
    flow = AsyncFlow(pay >> pay.named("again"), durability=engine)
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    await flow.resume("r")

    assert len(keys) == 5
    assert len(set(keys[:4])) == 1
    assert keys[4] not in (keys[0], None)


async def test_attempts_are_kept(engine: MemoryDurability) -> None:
    tried: list[int] = []

    @node(writes="x", retry=RetryPolicy(max_attempts=3, base_delay=0.0))
    async def flaky() -> int:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError("down")
        return 1

    flow = AsyncFlow(flaky, durability=engine)
    await flow.run(run_id="r")

    assert [step.attempts for step in await flow.history("r")] == [3]


async def test_runs_whose_process_died_are_found_again(calls: Calls, engine: MemoryDurability) -> None:
    gate = asyncio.Event()

    @node
    async def wait(state: SharedState) -> None:
        calls.did("wait")
        await gate.wait()

    flow = AsyncFlow(calls.step("a") >> wait, durability=engine)
    running = [asyncio.create_task(flow.run(run_id=name)) for name in ("r1", "r2")]
    while calls.count("wait") < 2:
        await asyncio.sleep(0)
    engine.crash()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    gate.set()

    results = await flow.recover()

    assert sorted((result.run_id, result.status) for result in results) == [("r1", "done"), ("r2", "done")]
    assert (calls.count("a"), calls.count("wait")) == (2, 4)


def test_a_run_that_is_cancelled_by_its_caller_can_go_on(calls: Calls) -> None:
    clock = VirtualClock()
    engine = MemoryDurability()

    @node
    async def wait(state: SharedState) -> None:
        calls.did("wait")
        await clock.sleep(10.0 if calls.count("wait") == 1 else 0.0)

    flow = AsyncFlow(calls.step("a") >> wait, durability=engine, clock=clock)

    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await flow.run(run_id="r")
        assert (await engine.find("r")).status == "cancelled"
        return (await flow.resume("r")).status

    assert clock.run(main()) == "done"
    assert calls == ["a", "wait", "wait"]


async def test_a_run_of_a_batch_that_cannot_be_kept_fails_alone(calls: Calls, engine: MemoryDurability) -> None:
    flow = AsyncFlow(calls.step("a"), durability=engine)

    good, bad = await flow.run_batch([{"x": 1}, {"x": object()}])

    assert (good.status, bad.status) == ("done", "failed")
    assert isinstance(bad.error, SerializationError)
    assert (await engine.find(good.run_id)).status == "done"


async def test_a_stream_is_kept_and_can_be_gone_on_with(calls: Calls, engine: MemoryDurability) -> None:
    flow = AsyncFlow(calls.step("a") >> calls.step("b"), durability=engine)
    calls.broken = {"b"}
    with pytest.raises(NodeError):
        async with flow.stream(run_id="r") as events:
            async for _ in events:
                pass
    calls.broken = set()

    async with flow.stream(run_id="r") as events:
        told = [(event.kind, event.path) async for event in events]

    assert [path for kind, path in told if kind == "node_start"] == ["flow/b#1"]
    assert ("resume", "flow") in told
    assert (events.result.status, calls) == ("done", ["a", "b", "b"])


async def test_what_is_changed_in_place_is_told_because_it_would_be_lost(engine: MemoryDurability) -> None:
    @node(writes="log")
    async def begin() -> list[str]:
        return ["began"]

    @node
    async def sly(state: SharedState) -> None:
        log = state["log"]
        assert isinstance(log, list)
        log.append("unseen")

    @node
    async def honest(state: SharedState) -> None:
        state.modify("items", lambda items: [*items, 4])  # type: ignore[misc]

    flow = AsyncFlow(begin >> sly >> honest, durability=engine)

    with pytest.warns(RuntimeWarning, match=r"run r of flow: the value of 'log' was changed in place"):
        await flow.run({"items": [1, 2, 3]}, run_id="r")


async def test_a_fork_is_a_run_of_its_own_from_its_first_stretch_on(calls: Calls, engine: MemoryDurability) -> None:
    flow = AsyncFlow(calls.step("a") >> calls.step("b"), durability=engine)
    await flow.run(run_id="r")
    kinds: list[str] = []

    class Watch:
        inline = True

        def observe(self, event: Any) -> None:
            kinds.append(event.kind)
            assert event.sequence < 100

    await flow.fork("r", at="b", new_run_id="f", observers=[Watch()])

    assert kinds[:2] == ["flow_start", "fork"]


async def test_a_run_that_is_done_gives_its_result_also_where_something_could_not_be_kept(
    calls: Calls, engine: MemoryDurability
) -> None:
    @node(writes="connection")
    async def connect() -> object:
        calls.did("connect")
        return object()

    flow = AsyncFlow(calls.step("a") >> connect, durability=engine)
    flow.strict = False
    await flow.run(run_id="r")

    again = await flow.resume("r")

    assert (again.status, set(again.state)) == ("done", {"a", "connection"})
    assert calls == ["a", "connect", "connect"]
