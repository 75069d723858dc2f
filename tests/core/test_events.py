"""What a run says of itself: which events, in which order, with which facts."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core import (
    AsyncFlow,
    AsyncNode,
    Each,
    ExecutionEvent,
    Flow,
    RetryPolicy,
    SharedState,
    emit,
    emit_blocking,
    node,
    observed,
)
from agentflow.errors import AgentFlowError


def watch(flow: AsyncFlow, clock: VirtualClock | None = None, **values: object) -> list[ExecutionEvent]:
    """All events of a run on a virtual clock, whether it fails or not."""
    got: list[ExecutionEvent] = []

    async def main() -> None:
        async with flow.stream(values, run_id="run", tenant="acme") as events:
            try:
                async for event in events:
                    got.append(event)
            except AgentFlowError:
                pass

    (clock or VirtualClock()).run(main())
    return got


class Slow(AsyncNode[None, None]):
    """Takes two seconds."""

    async def exec(self, item: None) -> None:
        await asyncio.sleep(2)


class Flaky(AsyncNode[None, None]):
    """Fails at every attempt."""

    retry = RetryPolicy(max_attempts=3, base_delay=4, jitter="none")

    async def exec(self, item: None) -> None:
        raise ValueError("no luck")


def test_kinds_and_paths_of_a_nested_flow_stand_in_order():
    inner = AsyncFlow(Slow(name="x"), name="inner")
    got = [(event.kind, event.path, event.node, event.visit) for event in watch(AsyncFlow(inner, name="flow"))]
    assert got == [
        ("flow_start", "flow", "flow", 1),
        ("flow_start", "flow/inner#1", "inner", 1),
        ("node_start", "flow/inner#1/x#1", "x", 1),
        ("node_success", "flow/inner#1/x#1", "x", 1),
        ("flow_success", "flow/inner#1", "inner", 1),
        ("flow_success", "flow", "flow", 1),
    ]


def test_visits_count_up_in_a_loop():
    @node
    async def again(state: SharedState) -> str | None:
        state["n"] = int(str(state.get("n", 0))) + 1
        return "again" if state["n"] < 3 else None  # type: ignore[operator]

    slow = Slow()
    flow = AsyncFlow(slow >> again, again.on("again") >> slow, again >> Slow(name="last"))
    visits = [event.visit for event in watch(flow) if event.kind == "node_start" and event.node == "slow"]
    assert visits == [1, 2, 3]


def test_sequence_counts_from_one_without_gaps_across_branches_items_and_flows():
    async def item(number: int) -> None:
        await emit("told")
        await asyncio.sleep(number)

    inner = AsyncFlow(Each(item, over="xs"), name="inner")
    got = watch(AsyncFlow((inner, Slow(name="s"), Slow(name="t")) >> Slow(name="u")), xs=[3, 1, 2])
    assert [event.sequence for event in got] == list(range(1, len(got) + 1))
    assert Counter(event.kind for event in got)["told"] == 3


def test_time_is_wall_time_and_duration_is_monotonic_seconds_since_the_start():
    clock = VirtualClock(start=1000.0)
    got = watch(AsyncFlow(Slow(name="a") >> Slow(name="b"), clock=clock), clock)
    assert [(event.kind, event.time, event.duration) for event in got] == [
        ("flow_start", 1000.0, None),
        ("node_start", 1000.0, None),
        ("node_success", 1002.0, 2.0),
        ("node_start", 1002.0, None),
        ("node_success", 1004.0, 2.0),
        ("flow_success", 1004.0, 4.0),
    ]


def test_retries_say_why_and_how_long_they_wait():
    clock = VirtualClock()
    got = watch(AsyncFlow(Flaky(), clock=clock), clock)
    retries = [event for event in got if event.kind == "retry"]
    assert [(event.attempt, event.data["delay"], event.time - 1_700_000_000) for event in retries] == [
        (1, 4.0, 0.0),
        (2, 8.0, 4.0),
    ]
    assert retries[0].data["error_type"] == "ValueError"
    assert "no luck" in str(retries[0].data["error"])


def test_a_failure_is_told_by_the_node_and_by_every_flow_around_it():
    clock = VirtualClock()
    flow = AsyncFlow(AsyncFlow(Flaky(name="x"), name="inner"), name="flow", clock=clock)
    errors = [event for event in watch(flow, clock) if event.kind.endswith("error")]
    assert [(event.kind, event.path, event.duration) for event in errors] == [
        ("node_error", "flow/inner#1/x#1", 12.0),
        ("flow_error", "flow/inner#1", 12.0),
        ("flow_error", "flow", 12.0),
    ]
    assert errors[0].attempt == 3
    assert all(event.data["error_type"] == "ValueError" for event in errors)


def test_each_tells_of_itself_and_of_each_item():
    async def item(number: int) -> None:
        await asyncio.sleep(number)

    got = watch(AsyncFlow(Each(item, over="xs", name="each"), name="flow"), xs=[2, 1])
    ended = [(event.path, event.visit, event.node) for event in got if event.kind == "node_success"]
    assert ended == [("flow/each#1/1", 1, "each"), ("flow/each#1/0", 0, "each"), ("flow/each#1", 1, "each")]


def test_the_start_of_a_run_names_its_tenant_and_its_end_the_action():
    got = watch(AsyncFlow(Slow()))
    assert got[0].data["tenant"] == "acme"
    assert got[-1].data["action"] == "default"
    assert {event.run_id for event in got} == {"run"}


def test_emit_adds_an_event_of_the_nodes_own_where_it_stands():
    @node
    async def chat(state: SharedState) -> None:
        await emit("told", {"what": "tides"})

    (told,) = [event for event in watch(AsyncFlow(chat, name="flow")) if event.kind == "told"]
    assert (told.path, told.node, told.visit, told.data) == ("flow/chat#1", "chat", 1, {"what": "tides"})


def test_parallel_branches_each_emit_under_their_own_path():
    def chat(name: str) -> Any:
        async def body(state: SharedState) -> None:
            for _ in range(3):
                await emit("told", {"by": name})
                await asyncio.sleep(1)

        return node(name=name)(body)

    got = watch(AsyncFlow((chat("a"), chat("b")), name="flow"))
    assert all(event.path == f"flow/{event.data['by']}#1" for event in got if event.kind == "told")


def test_emit_reaches_the_watcher_from_a_task_the_node_started():
    @node
    async def chat(state: SharedState) -> None:
        await asyncio.gather(emit("told"), emit("told"))

    assert [event.kind for event in watch(AsyncFlow(chat))].count("told") == 2


def test_emit_blocking_reaches_the_watcher_from_a_thread():
    @node
    def chat(state: SharedState) -> None:
        assert threading.current_thread() is not threading.main_thread()
        emit_blocking("told", {"what": "tides"})

    (told,) = [event for event in watch(AsyncFlow(chat, name="flow")) if event.kind == "told"]
    assert (told.path, told.data) == ("flow/chat#1", {"what": "tides"})


def test_a_sync_flow_called_from_a_sync_node_emits_into_the_outer_run():
    @node
    async def chat(state: SharedState) -> None:
        await emit("told")

    @node
    def outer(state: SharedState) -> None:
        Flow(chat, name="separate").run()

    (told,) = [event for event in watch(AsyncFlow(outer, name="flow")) if event.kind == "told"]
    assert told.path == "flow/outer#1"


@pytest.mark.parametrize("watched", [True, False])
def test_emit_blocking_refuses_to_block_the_event_loop_watched_or_not(watched):
    @node
    async def wrong(state: SharedState) -> None:
        with pytest.raises(RuntimeError, match="block the event loop"):
            emit_blocking("told")
        state["refused"] = True

    flow = AsyncFlow(wrong)
    if watched:
        assert [event.kind for event in watch(flow)][-1] == "flow_success"
    else:
        assert asyncio.run(flow.run()).state["refused"]


def test_observed_says_whether_anybody_watches():
    seen: list[bool] = []

    @node
    async def look(state: SharedState) -> None:
        seen.append(observed())

    watch(AsyncFlow(look))
    asyncio.run(AsyncFlow(look).run())
    assert (seen, observed()) == ([True, False], False)


async def test_emit_does_nothing_where_nobody_watches():
    await emit("told")
    await asyncio.to_thread(emit_blocking, "told")


def test_a_thread_that_outlives_its_event_loop_speaks_to_nobody_and_is_not_held_up():
    begun, late, spoke = threading.Event(), threading.Event(), threading.Event()

    @node
    def slow(state: SharedState) -> None:
        begun.set()
        late.wait(10)
        emit_blocking("told")
        spoke.set()

    async def main() -> None:
        async with AsyncFlow(slow).stream():
            assert await asyncio.to_thread(begun.wait, 10)

    asyncio.run(main())
    late.set()
    assert spoke.wait(10)
