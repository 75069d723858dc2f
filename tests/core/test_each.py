"""Each: one node, flow or function over the items of a list, in order, some at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import (
    END,
    ITEM,
    AsyncFlow,
    AsyncNode,
    Dataflow,
    Each,
    Flow,
    Key,
    Node,
    Parallel,
    RetryPolicy,
    SharedState,
    node,
)
from agentflow.errors import GraphError, InputError, NodeError, OperationTimeoutError, StateError, StateKeyError

QUERIES, FINDINGS, QUERY = Key[list[str]]("queries"), Key[list[str]]("findings"), Key[str]("query")
NUMBERS, RESULTS = Key[list[int]]("numbers"), Key[list[Any]]("results")
SEEN = Key[list[object]]("seen", reduce=lambda so_far, new: so_far + new, initial=list)


async def shout(query: str) -> str:
    return query.upper()


async def results(each: Each, numbers: object, **more: object) -> Any:
    return (await AsyncFlow(each, name="f").run({"numbers": numbers, **more})).state[RESULTS]


# ---- what an item's work gets, and what is collected


async def test_a_plain_function_gets_the_item_and_returns_the_result() -> None:
    state = (await AsyncFlow(Each(shout, over=QUERIES, into=FINDINGS)).run({"queries": ["a", "b"]})).state
    assert state == {"queries": ["a", "b"], "findings": ["A", "B"]}


@pytest.mark.parametrize("function", [str, lambda n: str(n), "sync", "lambda of async"])
async def test_any_callable_serves(function: Any) -> None:
    def sync(number: int) -> str:
        return str(number)

    async def later(number: int) -> str:
        return str(number)

    work = {"sync": sync, "lambda of async": lambda n: later(n)}.get(function, function)
    assert await results(Each(work, over=NUMBERS, into=RESULTS), [1, 2]) == ["1", "2"]


async def test_a_node_without_prep_gets_the_item_itself() -> None:
    class Double(AsyncNode[int, int]):
        async def exec(self, item: int) -> int:
            return item * 2

    class Triple(Node[int, int]):
        def exec(self, item: int) -> int:
            return item * 3

    assert await results(Each(Double(), over=NUMBERS, into=RESULTS), [1, 2, 3]) == [2, 4, 6]
    assert await results(Each(Triple(), over=NUMBERS, into=RESULTS), [1, 2, 3]) == [3, 6, 9]


async def test_a_node_with_prep_finds_the_item_in_its_own_view() -> None:
    class Look(AsyncNode[object, object]):
        async def prep(self, state: SharedState) -> object:
            return state[ITEM], state["shared"]

        async def exec(self, item: object) -> object:
            return item

    got = await results(Each(Look(), over=NUMBERS, into=RESULTS), [1, 2], shared="all")
    assert got == [(1, "all"), (2, "all")]


async def test_the_item_may_stand_under_a_key_of_ones_own() -> None:
    @node(reads=(QUERY, "suffix"), writes="ignored")
    async def search(query: str, suffix: str) -> str:
        return query + suffix

    flow = AsyncFlow(Each(search, over=QUERIES, into=FINDINGS, item=QUERY))
    assert (await flow.run({"queries": ["a", "b"], "suffix": "!"})).state[FINDINGS] == ["a!", "b!"]


async def test_what_is_collected_is_what_exec_returned_and_not_the_action() -> None:
    class Work(AsyncNode[int, int]):
        async def exec(self, item: int) -> int:
            return item + 1

        async def post(self, state: SharedState, item: int, result: int) -> str:
            return "some action"

    @node(reads="item")
    async def listed(item: int) -> list[int]:
        return [item]

    assert await results(Each(Work(), over=NUMBERS, into=RESULTS), [1, 2]) == [2, 3]
    assert await results(Each(listed, over=NUMBERS, into=RESULTS), [1, 2]) == [[1], [2]]


async def test_a_flow_collects_a_key() -> None:
    @node(reads=ITEM, writes="squared")
    async def square(number: Any) -> int:
        return int(number) ** 2

    @node(reads="squared", writes="answer")
    async def say(number: int) -> str:
        return f"={number}"

    each = Each(AsyncFlow(square >> say >> END, name="inner"), over=NUMBERS, into=RESULTS, collect="answer")
    state = (await AsyncFlow(each).run({"numbers": [2, 3]})).state
    assert state == {"numbers": [2, 3], "results": ["=4", "=9"]}


async def test_a_flow_with_a_state_of_its_own_gives_its_outputs() -> None:
    @node(reads="n", writes="m")
    async def double(n: int) -> int:
        return n * 2

    inner = AsyncFlow(double, name="inner").using(inputs={"n": ITEM}, outputs={"out": "m"})
    assert await results(Each(inner, over=NUMBERS, into=RESULTS, collect="out"), [1, 2]) == [2, 4]


async def test_an_each_within_an_each() -> None:
    async def negate(number: int) -> int:
        return -number

    row = Each(negate, over="row", name="row")
    assert await results(Each(row, over=NUMBERS, into=RESULTS, item="row"), [[1, 2], [], [3]]) == [[-1, -2], [], [-3]]


# ---- writes


async def test_other_writes_of_an_item_are_dropped() -> None:
    class Put(AsyncNode[object, object]):
        async def exec(self, item: object) -> object:
            return item

        async def post(self, state: SharedState, item: object, result: object) -> None:
            state["mine"] = item
            state["shared"] = item

    state = (await AsyncFlow(Each(Put(), over=NUMBERS, into=RESULTS)).run({"numbers": [1, 2], "shared": 0})).state
    assert state == {"numbers": [1, 2], "results": [1, 2], "shared": 0}


async def test_what_items_add_is_merged_in_input_order() -> None:
    class Add(AsyncNode[int, int]):
        async def exec(self, item: int) -> int:
            for _ in range(10 - item):  # the later the item, the sooner it ends
                await asyncio.sleep(0)
            return item

        async def post(self, state: SharedState, item: int, result: int) -> None:
            state.add(SEEN, [item])

    state = (await AsyncFlow(Each(Add(), over=NUMBERS)).run({"numbers": [1, 2, 3], "seen": [0]})).state
    assert state[SEEN] == [0, 1, 2, 3]


async def test_without_into_nothing_is_stored() -> None:
    assert (await AsyncFlow(Each(shout, over=QUERIES)).run({"queries": ["a"]})).state == {"queries": ["a"]}


async def test_an_empty_list_gives_an_empty_list() -> None:
    assert await results(Each(shout, over=NUMBERS, into=RESULTS), []) == []


@pytest.mark.parametrize("items", [(1, 2), range(1, 3), iter([1, 2])])
async def test_anything_in_order_is_a_list(items: object) -> None:
    assert await results(Each(lambda n: n, over=NUMBERS, into=RESULTS), items) == [1, 2]


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}, 5, None])
async def test_what_is_no_list_is_refused_by_its_type(items: object) -> None:
    with pytest.raises(
        NodeError, match=f"goes over 'numbers', which holds a {type(items).__name__}, not a list"
    ) as caught:
        await results(Each(shout, over=NUMBERS, into=RESULTS), items)
    assert (caught.value.node, caught.value.phase) == ("f/each#1", "prep")
    assert isinstance(caught.value.__cause__, StateError)


async def test_a_list_that_is_not_there_is_an_error_of_prep() -> None:
    with pytest.raises(NodeError, match="the state has no 'queries'") as caught:
        await AsyncFlow(Each(shout, over=QUERIES), name="f").run()
    assert (caught.value.node, caught.value.phase) == ("f/each#1", "prep")


# ---- order and concurrency


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 8))
def test_results_stand_in_input_order_and_no_more_than_concurrency_run_at_once(waits: list[int], limit: int) -> None:
    clock = VirtualClock()
    running = most = 0

    async def wait(seconds: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(seconds)
        running -= 1
        return seconds

    flow = AsyncFlow(Each(wait, over=NUMBERS, into=RESULTS, concurrency=limit), clock=clock)
    assert clock.run(flow.run({"numbers": waits})).state[RESULTS] == waits
    assert most == min(limit, len(waits))


def test_a_free_place_is_taken_at_once() -> None:
    clock = VirtualClock()
    flow = AsyncFlow(Each(asyncio.sleep, over=NUMBERS, concurrency=2), clock=clock)

    clock.run(flow.run({"numbers": [10, 1, 1, 1, 1, 1]}))
    assert clock.monotonic() == pytest.approx(10)


async def test_a_thousand_items_that_never_wait_let_others_in() -> None:
    turns = 0

    async def ticker() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(ticker())
    await results(Each(shout, over=NUMBERS, into=RESULTS, concurrency=1), ["x"] * 2000)
    beside.cancel()
    assert turns >= 2000 // 256


# ---- failures


async def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


async def test_a_failure_names_the_item() -> None:
    with pytest.raises(NodeError, match=r"^f/each#1/2 failed in exec: ValueError: 3 is odd") as caught:
        await results(Each(odd_fails, over=NUMBERS, into=RESULTS), [0, 2, 3])
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_failure_in_a_node_names_the_node_of_the_item() -> None:
    class Odd(AsyncNode[int, int]):
        async def post(self, state: SharedState, item: int, result: int) -> None:
            raise ValueError("odd")

    with pytest.raises(NodeError, match=r"^f/each#1/0/odd#1 failed in post"):
        await results(Each(Odd(), over=NUMBERS), [7])
    with pytest.raises(NodeError, match=r"^f/each#1/0/inner#1/odd#1 failed in post"):
        await results(Each(AsyncFlow(Odd(), name="inner"), over=NUMBERS), [7])


async def test_the_first_failure_cancels_the_others_and_nothing_is_written() -> None:
    cancelled: list[int] = []
    state = SharedState({"numbers": [2, 1, 4]})

    async def work(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(NodeError, match="one"):
        await AsyncFlow(Each(work, over=NUMBERS, into=RESULTS)).run(state)
    assert cancelled == [2, 4]
    assert state == {"numbers": [2, 1, 4]}


async def test_collect_puts_the_node_error_at_its_index() -> None:
    got = await results(Each(odd_fails, over=NUMBERS, into=RESULTS, on_error="collect"), [0, 1, 2, 3])

    assert (got[0], got[2]) == (0, 2)
    assert [(type(error), error.node) for error in (got[1], got[3])] == [
        (NodeError, "f/each#1/1"),
        (NodeError, "f/each#1/3"),
    ]
    assert isinstance(got[1].__cause__, ValueError)


async def test_what_a_failed_item_added_is_dropped() -> None:
    class Add(AsyncNode[int, int]):
        async def exec(self, item: int) -> int:
            return item

        async def post(self, state: SharedState, item: int, result: int) -> None:
            state.add(SEEN, [item])
            if item == 2:
                raise ValueError("two")

    state = (await AsyncFlow(Each(Add(), over=NUMBERS, on_error="collect")).run({"numbers": [1, 2, 3]})).state
    assert state[SEEN] == [1, 3]


async def test_whatever_goes_wrong_in_a_flow_is_collected_as_a_node_error_with_its_cause() -> None:
    @node(reads=ITEM)
    async def route(item: Any) -> str:
        return str(item)

    @node
    async def left(state: SharedState) -> None:
        state["x"] = 1

    inner = AsyncFlow(
        route.on("conflict") >> (left, left.named("right")), route.on("fine") >> left.named("only"), name="inner"
    )
    each = Each(inner, over=NUMBERS, into=RESULTS, collect="x", on_error="collect")
    fine, conflict, unknown = await results(each, ["fine", "conflict", "elsewhere"])

    assert fine == 1
    assert [type(error.__cause__).__name__ for error in (conflict, unknown)] == ["StateConflict", "UnknownTransition"]
    assert [error.node for error in (conflict, unknown)] == ["f/each#1/1", "f/each#1/2"]


async def test_a_flow_that_leaves_nothing_to_collect_is_an_error_of_its_item() -> None:
    @node
    async def nothing(state: SharedState) -> None: ...

    each = Each(AsyncFlow(nothing, name="inner"), over=NUMBERS, into=RESULTS, collect="answer")
    with pytest.raises(NodeError, match=r"^f/each#1/0 .*the state has no 'answer'") as caught:
        await results(each, [1])
    assert isinstance(caught.value.__cause__, StateKeyError)


async def test_a_reducer_that_fails_is_an_error_of_post() -> None:
    broken = Key[int]("broken", reduce=lambda a, b: a // 0)

    class Add(AsyncNode[None, None]):
        async def post(self, state: SharedState, item: None, result: None) -> None:
            state.add(broken, 1)

    with pytest.raises(NodeError, match="ZeroDivisionError") as caught:
        await results(Each(Add(), over=NUMBERS), [1, 2])
    assert (caught.value.node, caught.value.phase) == ("f/each#1", "post")


# ---- attempts


def test_an_attempt_counter_belongs_to_the_item() -> None:
    """Parallel items of one node do not share it: each fails twice and succeeds at its third attempt."""
    clock = VirtualClock()
    tries: dict[int, int] = {}

    class Flaky(AsyncNode[int, int]):
        retry = RetryPolicy(max_attempts=3, base_delay=1.0)

        async def exec(self, item: int) -> int:
            tries[item] = tries.get(item, 0) + 1
            if tries[item] < 3:
                raise ValueError("not yet")
            return item

    flow = AsyncFlow(Each(Flaky(), over=NUMBERS, into=RESULTS), clock=clock)
    assert clock.run(flow.run({"numbers": [1, 2, 3, 4]})).state[RESULTS] == [1, 2, 3, 4]
    assert tries == {1: 3, 2: 3, 3: 3, 4: 3}


def test_retry_and_timeout_serve_plain_functions() -> None:
    clock = VirtualClock()
    tries: list[int] = []

    async def slow(number: int) -> int:
        tries.append(number)
        await asyncio.sleep(60)
        return number

    policy = RetryPolicy(max_attempts=2, base_delay=0)
    flow = AsyncFlow(Each(slow, over=NUMBERS, retry=policy, timeout=5, name="slowly"), clock=clock, name="f")
    with pytest.raises(
        NodeError, match=r"^f/slowly#1/0 failed in exec, attempt 2: exec of slowly took longer than 5 s"
    ) as caught:
        clock.run(flow.run({"numbers": [1]}))
    assert tries == [1, 1]
    assert isinstance(caught.value.__cause__, OperationTimeoutError)


# ---- refused when built


def test_what_cannot_be_mapped_is_refused_when_it_is_built() -> None:
    @node
    async def whole(state: SharedState) -> None: ...

    @node(reads="x", writes="y")
    async def fine(x: int) -> int:
        return x

    inner = AsyncFlow(whole, name="inner")
    for message, make in {
        "whole is a whole-lifecycle function": lambda: Each(whole, over="x"),
        "say which key to collect with collect=KEY": lambda: Each(inner, over="x", into="y"),
        "collect= is for flows; of a node": lambda: Each(fine, over="x", collect="y"),
        "collect= is for flows; of a function": lambda: Each(shout, over="x", collect="y"),
        "fine has its own": lambda: Each(fine, over="x", retry=RetryPolicy()),
        "inner has its own": lambda: Each(inner, over="x", timeout=1),
        "not the section": lambda: Each(Parallel(whole), over="x"),
        "not the section dataflow": lambda: Each(Dataflow(fine), over="x"),
        "concurrency is at least 1, not 0": lambda: Each(shout, over="x", concurrency=0),
        'on_error is "raise" or "collect", not': lambda: Each(shout, over="x", on_error="ignore"),  # type: ignore[arg-type]
        "not int 5": lambda: Each(5, over="x"),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(GraphError, match=message):
            make()


async def test_it_declares_what_it_reads_and_writes_so_a_dataflow_can_place_it() -> None:
    @node(writes=NUMBERS)
    async def count() -> list[int]:
        return [1, 2]

    @node(reads=RESULTS, writes="total")
    async def total(found: list[Any]) -> int:
        return sum(found)

    flow = AsyncFlow(Dataflow(total, Each(lambda n: n * 10, over=NUMBERS, into=RESULTS), count))
    assert (await flow.run()).state["total"] == 30


async def test_an_item_that_a_using_flow_lacks_is_an_input_error() -> None:
    @node(reads="n", writes="m")
    async def double(n: int) -> int:
        return n * 2

    inner = AsyncFlow(double, name="inner").using(inputs={"n": "elsewhere"}, outputs={"out": "m"})
    with pytest.raises(InputError, match="f/each#1/0/inner#1 takes 'elsewhere', which the state lacks"):
        await results(Each(inner, over=NUMBERS, into=RESULTS, collect="out"), [1])


@pytest.mark.parametrize(("over", "data"), [([1, 2], {"items": 2}), ([], {"items": 0}), (iter([1, 2]), {})])
def test_the_start_event_of_an_each_says_how_many_items_it_goes_over(over: object, data: dict[str, int]) -> None:
    async def same(item: object) -> object:
        return item

    with Flow(Each(same, over="list", into="out", name="each")).stream({"list": over}) as events:
        starts = [event.data for event in events if event.kind == "node_start" and event.node == "each"]
    assert [dict(start) for start in starts[:1]] == [data]
