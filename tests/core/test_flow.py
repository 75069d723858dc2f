"""A flow as it runs: the walk, loops and their limit, step ids, results and failures, batches."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core import (
    END,
    AsyncFlow,
    AsyncNode,
    Dataflow,
    Each,
    ExecutionEvent,
    Flow,
    FlowResult,
    Key,
    Parallel,
    RetryPolicy,
    SharedState,
    emit,
    node,
)
from agentflow.errors import FlowError, InputError, NodeError, StepLimitError, UnknownTransition

N = Key[int]("n")


@node
async def count(state: SharedState) -> str:
    state[N] = state.get(N, 0) + 1
    return "again" if state[N] < state["until"] else "enough"  # type: ignore[operator]


@node
async def mark(state: SharedState) -> None:
    state["marked"] = True


class Boom(AsyncNode[None, None]):
    """Fails at every attempt."""

    async def exec(self, item: None) -> None:
        raise ValueError("boom")


# ---- the walk


async def test_the_result_holds_state_action_status_and_id():
    result = await AsyncFlow(mark >> count).run({"until": 1}, run_id="my-run")
    assert (result.action, result.status, result.error, result.run_id, result.interrupts) == (
        "enough",
        "done",
        None,
        "my-run",
        (),
    )
    assert dict(result.state) == {"until": 1, "marked": True, "n": 1}


def test_duration_is_measured_on_the_flows_clock():
    clock = VirtualClock()

    @node
    async def wait(state: SharedState) -> None:
        await asyncio.sleep(12.5)

    assert clock.run(AsyncFlow(wait, clock=clock).run()).duration == 12.5


async def test_run_ids_are_unique_and_sort_by_start():
    flow = AsyncFlow(mark)
    ids = [(await flow.run()).run_id for _ in range(50)]
    assert len(set(ids)) == 50
    assert [name[:11] for name in ids] == sorted(name[:11] for name in ids)


async def test_a_given_mapping_is_not_changed_and_a_given_state_is_used_as_it_is():
    values: dict[str, object] = {}
    state = SharedState()
    assert (await AsyncFlow(mark).run(values)).state is not state
    assert (await AsyncFlow(mark).run(state)).state is state
    assert (values, dict(state)) == ({}, {"marked": True})


async def test_a_node_that_returns_none_has_said_default():
    result = await AsyncFlow(mark).run()
    assert result.action == "default"


async def test_an_action_without_an_edge_names_the_known_ones():
    @node
    async def odd(state: SharedState) -> str:
        return "sideways"

    with pytest.raises(UnknownTransition) as caught:
        await AsyncFlow(odd >> mark, odd.on("up") >> END).run()
    assert (caught.value.node, caught.value.action, caught.value.known) == ("flow/odd#1", "sideways", ("default", "up"))


@pytest.mark.parametrize("action", [7, ["a", "list"], END])
async def test_an_action_that_is_no_text_is_an_error_of_the_node(action):
    @node
    async def odd(state: SharedState) -> Any:
        return action

    with pytest.raises(NodeError, match="as its action"):
        await AsyncFlow(odd >> mark).run()


async def test_a_node_without_edges_ends_the_flow_with_any_action():
    @node
    async def last(state: SharedState) -> str:
        return "whatever"

    assert (await AsyncFlow(last).run()).action == "whatever"


# ---- loops


async def test_a_loop_runs_until_its_node_says_enough():
    result = await AsyncFlow(count.on("again") >> count, count.on("enough") >> mark).run({"until": 1000})
    assert (result.state[N], result.state["marked"]) == (1000, True)


async def test_max_steps_bounds_a_loop_and_says_where():
    flow = AsyncFlow(count.on("again") >> count, count.on("enough") >> END, max_steps=20)
    assert (await flow.run({"until": 20})).state[N] == 20
    state = SharedState({"until": 21})
    with pytest.raises(StepLimitError, match="max_steps is 20") as caught:
        await flow.run(state)
    assert (caught.value.max_steps, caught.value.node, state[N]) == (20, "count", 20)


async def test_max_steps_is_100_000_by_default_and_counts_branches_together():
    assert AsyncFlow(mark).max_steps == 100_000
    with pytest.raises(StepLimitError):
        await AsyncFlow((mark, mark.named("b"), mark.named("c")), max_steps=3).run()  # the section is a step, too


async def test_every_visit_of_a_nested_flow_has_its_own_steps():
    inner = AsyncFlow(count.on("again") >> count, count.on("enough") >> END, name="inner", max_steps=5)

    @node
    async def reset(state: SharedState) -> str:
        state[N] = 0
        state["visits"] = state.get("visits", 0) + 1  # type: ignore[operator]
        return "go" if state["visits"] < 4 else "stop"  # type: ignore[operator]

    flow = AsyncFlow(reset.on("go") >> inner, inner.on("enough") >> reset, reset.on("stop") >> END)
    assert (await flow.run({"until": 5})).state["visits"] == 4


# ---- early exit


async def test_end_in_a_nested_flow_completes_only_that_flow():
    @node
    async def leave(state: SharedState) -> str:
        return "leave"

    inner = AsyncFlow(leave >> mark, leave.on("leave") >> END, name="inner")
    after = mark.named("after")
    result = await AsyncFlow(inner.on("leave") >> after >> END).run()
    assert (result.state.get("marked"), result.action) == (True, "default")


async def test_end_in_a_flow_completes_it_with_the_action_that_led_there():
    result = await AsyncFlow(count.on("enough") >> END, count.on("again") >> mark).run({"until": 0})
    assert ("marked" in result.state, result.action) == (False, "enough")


# ---- step ids


def nested_loop() -> AsyncFlow:
    """Visits inner twice; each maps over items with a flow; a section stands in between."""

    @node
    async def write(state: SharedState) -> None:
        await emit("told")

    @node
    async def again(state: SharedState) -> str | None:
        state[N] = state.get(N, 0) + 1
        return "again" if state[N] < 2 else None

    per_item = AsyncFlow(write, name="per_item")
    each = Each(per_item, over="items", name="each")
    inner = AsyncFlow(mark >> (each, mark.named("beside")), name="inner")
    return AsyncFlow(inner >> again, again.on("again") >> inner, again >> END, name="article")


async def paths_of(flow: AsyncFlow, **values: object) -> list[tuple[str, str]]:
    async with flow.stream(values) as events:
        return [(event.kind, event.path) async for event in events]


async def test_a_step_id_names_every_level_with_visit_and_item():
    told = [path for kind, path in await paths_of(nested_loop(), items="x y".split()) if kind == "told"]
    assert told == [
        "article/inner#1/each#1/0/per_item#1/write#1",
        "article/inner#1/each#1/1/per_item#1/write#1",
        "article/inner#2/each#1/0/per_item#1/write#1",
        "article/inner#2/each#1/1/per_item#1/write#1",
    ]


async def test_a_replay_gives_the_same_ids():
    flow = nested_loop()
    assert sorted(await paths_of(flow, items=[1, 2, 3])) == sorted(await paths_of(flow, items=[1, 2, 3]))


async def test_the_path_of_a_failing_item_stands_in_its_error():
    async def refuse(item: int) -> None:
        raise ValueError(item)

    inner = AsyncFlow(Each(refuse, over="items", name="each"), name="inner")
    with pytest.raises(NodeError) as caught:
        await AsyncFlow(mark >> inner, name="flow").run({"items": [4]})
    assert caught.value.node == "flow/inner#1/each#1/0"


# ---- failure


async def test_run_raises_a_node_error_that_chains_the_cause():
    with pytest.raises(NodeError) as caught:
        await AsyncFlow(Boom(name="b")).run()
    error = caught.value
    assert (error.node, error.phase, error.attempt, type(error.__cause__)) == ("flow/b#1", "exec", 1, ValueError)


async def test_an_error_names_the_last_attempt():
    with pytest.raises(NodeError, match="attempt 3") as caught:
        await AsyncFlow(Boom(retry=RetryPolicy(max_attempts=3, base_delay=0))).run()
    assert caught.value.attempt == 3


async def test_a_stray_cancellation_from_user_code_is_that_nodes_failure():
    @node
    async def awaits_something_cancelled(state: SharedState) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(NodeError, match="something it awaited was cancelled"):
        await AsyncFlow((awaits_something_cancelled, mark)).run()


async def test_a_stray_cancellation_is_retried_like_any_failure():
    attempts: list[int] = []

    async def flaky() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise asyncio.CancelledError
        return "done"

    flow = AsyncFlow(node(writes="x", retry=RetryPolicy(max_attempts=3, base_delay=0))(flaky))
    assert (await flow.run()).state["x"] == "done"


async def test_a_bare_timeout_of_user_code_is_no_time_out_of_ours():
    @node(writes="x", timeout=5.0)
    async def slow() -> None:
        raise TimeoutError("theirs")

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(slow).run()
    assert type(caught.value.__cause__) is TimeoutError


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("shape", ["alone", "parallel", "each", "dataflow", "nested", "collected"])
def test_system_exit_and_ctrl_c_pass_through_every_shape(stop, shape):
    """No section collects them, no retry repeats them, no fallback answers them."""
    seen: list[str] = []

    async def body() -> None:
        seen.append("ran")
        raise stop(3)

    leave = node(name="leave", writes="x", retry=RetryPolicy(max_attempts=3, base_delay=0))(body)

    async def item(_: int) -> None:
        await body()

    flow = {
        "alone": AsyncFlow(leave),
        "parallel": AsyncFlow((leave, mark)),
        "each": AsyncFlow(Each(item, over="items", on_error="collect")),
        "dataflow": AsyncFlow(Dataflow(leave)),
        "nested": AsyncFlow(AsyncFlow((leave, mark), name="inner") >> mark.named("after")),
        "collected": AsyncFlow(Parallel(leave, mark, on_error="collect")),
    }[shape]
    with pytest.raises(stop):
        asyncio.run(flow.run({"items": [1]}))
    assert seen == ["ran"]


def test_a_thread_that_calls_sys_exit_ends_the_program_too():
    @node
    def leave(state: SharedState) -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        asyncio.run(AsyncFlow((leave, mark)).run())


# ---- the input


@dataclass
class Article:
    """What the flow below takes."""

    topic: str
    words: int = 100


async def test_a_schema_checks_the_input_and_fills_in_defaults():
    flow = AsyncFlow(mark, inputs=Article)
    assert (await flow.run({"topic": "tides"})).state["words"] == 100
    with pytest.raises(InputError, match="topic"):
        await flow.run({"words": 3})


async def test_a_wrong_kind_of_input_is_an_input_error_and_leaves_nothing_set():
    from agentflow.core.run import current_run

    with pytest.raises(InputError, match="not list"):
        await AsyncFlow(mark).run(["tides"])  # type: ignore[arg-type]
    assert current_run.get() is None


# ---- turns of the event loop


async def steps_between_turns(flow: AsyncFlow, ticks: list[int], **values: object) -> int:
    """Run `flow`, whose nodes append to `ticks`; the most they did while the event loop stood still."""
    most = seen = 0

    async def watch() -> None:
        nonlocal most, seen
        while True:
            most, seen = max(most, len(ticks) - seen), len(ticks)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await flow.run(values)
    most = max(most, len(ticks) - seen)
    watcher.cancel()
    await asyncio.wait([watcher])
    return most


def ticking(ticks: list[int], limit: int, name: str = "tick") -> Any:
    async def tick(state: SharedState) -> str:
        ticks.append(1)
        return "again" if len(ticks) % limit else "enough"

    return node(name=name)(tick)


async def test_a_walker_yields_to_the_loop_every_256_steps():
    ticks: list[int] = []
    tick = ticking(ticks, 5000)
    most = await steps_between_turns(AsyncFlow(tick.on("again") >> tick, tick.on("enough") >> END), ticks)
    assert len(ticks) == 5000
    assert most <= 256


async def test_many_short_nested_flows_yield_like_a_long_one():
    ticks: list[int] = []
    tick = ticking(ticks, 200)
    inner = AsyncFlow(tick.on("again") >> tick, tick.on("enough") >> END, name="inner")
    outer_node = ticking([], 50, "outer")
    flow = AsyncFlow(inner.on("enough") >> outer_node, outer_node.on("again") >> inner, outer_node.on("enough") >> END)
    most = await steps_between_turns(flow, ticks)
    assert len(ticks) == 200 * 50
    assert most <= 512


@pytest.mark.parametrize("concurrency", [1, 4, 64, 1000])
async def test_an_each_of_functions_that_never_wait_yields_too(concurrency):
    ticks: list[int] = []

    async def tick(item: int) -> None:
        ticks.append(item)

    flow = AsyncFlow(Each(tick, over="items", concurrency=concurrency))
    most = await steps_between_turns(flow, ticks, items=range(5000))
    assert sorted(ticks) == list(range(5000))
    assert most <= max(256, concurrency)


# ---- many runs


async def test_ten_thousand_runs_at_once_in_one_process():
    @node
    async def wait(state: SharedState) -> None:
        await gate.wait()
        state["out"] = state["in"]

    gate = asyncio.Event()
    flow = AsyncFlow((wait, mark))
    runs = [asyncio.create_task(flow.run({"in": number})) for number in range(10_000)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*runs)
    assert [result.state["out"] for result in results] == list(range(10_000))


async def test_one_node_serves_many_flows_and_runs_at_once():
    first, second = AsyncFlow(mark >> count), AsyncFlow(count.on("enough") >> mark, count.on("again") >> count)
    results = await asyncio.gather(*(flow.run({"until": 3}) for flow in (first, second) for _ in range(20)))
    assert {result.state[N] for result in results} == {1, 3}


def batch_flow(clock: VirtualClock, running: list[int]) -> AsyncFlow:
    @node
    async def work(state: SharedState) -> None:
        running.append(running[-1] + 1)
        await asyncio.sleep(1)
        running.append(running[-1] - 1)
        if state["x"] == "bad":
            raise ValueError("bad")

    return AsyncFlow(work, clock=clock)


def test_a_batch_keeps_the_order_and_the_bound():
    clock, running = VirtualClock(), [0]
    results = clock.run(batch_flow(clock, running).run_batch([{"x": n} for n in range(10)], concurrency=4))
    assert [result.state["x"] for result in results] == list(range(10))
    assert (max(running), clock.monotonic()) == (4, 3)


def test_a_batch_has_an_outcome_for_every_input():
    clock = VirtualClock()
    inputs: list[Any] = [{"x": 1}, {"x": "bad"}, "no mapping", {"x": 2}]
    results = clock.run(batch_flow(clock, [0]).run_batch(inputs))
    assert [result.status for result in results] == ["done", "failed", "failed", "done"]
    assert isinstance(results[1].error, NodeError)
    assert isinstance(results[2].error, InputError)
    assert results[0].error is None


def test_a_batch_that_raises_cancels_the_others_at_the_first_failure():
    clock, running = VirtualClock(), [0]

    async def main() -> None:
        with pytest.raises(NodeError, match="bad"):
            inputs = [{"x": n} for n in range(5)] + [{"x": "bad"}] + [{"x": n} for n in range(100)]
            await batch_flow(clock, running).run_batch(inputs, concurrency=3, on_error="raise")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
    assert clock.monotonic() == 2


async def test_a_batch_takes_its_inputs_as_it_goes():
    taken: list[int] = []

    def endless() -> Any:
        for number in range(1_000_000):
            taken.append(number)
            yield {"x": "bad" if number == 5 else number}

    @node
    async def check(state: SharedState) -> None:
        if state["x"] == "bad":
            raise ValueError

    with pytest.raises(FlowError):
        await AsyncFlow(check).run_batch(endless(), concurrency=2, on_error="raise")
    assert len(taken) < 20


async def test_an_empty_batch_has_no_results():
    assert await AsyncFlow(mark).run_batch([]) == []


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"on_error": "ignore"}])
async def test_a_batch_refuses_impossible_options(options):
    with pytest.raises(ValueError):
        await AsyncFlow(mark).run_batch([{}], **options)


def test_a_sync_flow_batches_too():
    results = Flow(mark).run_batch([{"x": 1}, {"x": 2}])
    assert [result.state["x"] for result in results] == [1, 2]


# ---- the process as a whole

WHOLE = """
import asyncio
from agentflow.core import *

@node
async def a(state): state["a"] = 1
@node
def b(state): state["b"] = 2
async def double(x): return 2 * x
def triple(x): return 3 * x

def make(kind):
    return kind(a >> (b, Each(double, over="xs", into="ys")) >> Each(triple, over="xs", into="zs", name="sync"))

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a slow machine is nothing to be told of
    await make(AsyncFlow).run({"xs": [1, 2]})
    async with make(AsyncFlow).stream({"xs": [1, 2]}) as events:
        async for event in events:
            break
    async for event in make(AsyncFlow).stream({"xs": [1]}):
        break
    make(Flow).run({"xs": [1]})

asyncio.run(main())
result = make(Flow).run({"xs": [1, 2, 3]})
with make(Flow).stream({"xs": [1]}) as events:
    for event in events:
        break
for event in make(Flow).stream({"xs": [1]}):
    break
print(result.state["zs"])
"""


def test_a_program_ends_cleanly_and_silently_in_development_mode():
    """-X dev turns on ResourceWarnings and asyncio's debug mode; -W error makes each warning fatal."""
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", WHOLE], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("[3, 6, 9]\n", "", 0)


def test_a_result_is_a_value():
    result = Flow(mark).run()
    assert isinstance(result, FlowResult)
    with pytest.raises(AttributeError):
        result.status = "failed"  # type: ignore[misc]


def test_an_event_is_a_value():
    event = ExecutionEvent("told", "run", "flow", "flow", 1, 1, 0.0)
    with pytest.raises(AttributeError):
        event.kind = "other"  # type: ignore[misc]
