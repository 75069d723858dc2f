"""Watching a run: back-pressure, order, and that leaving ends it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, Each, ExecutionEvent, Flow, Parallel, SharedState, emit, emit_blocking, node
from agentflow.errors import InputError, NodeError

CAPACITY = 64


@node
async def a(state: SharedState) -> None:
    state["a"] = 1


@node
async def boom(state: SharedState) -> None:
    raise ValueError("boom")


def chatty(count: int, said: list[int]) -> Any:
    async def chat(state: SharedState) -> None:
        for number in range(count):
            await emit("told", {"number": number})
            said.append(number)

    return node(name="chat")(chat)


def forever() -> tuple[Any, list[str]]:
    """A node that never ends by itself, and a log of how it ended."""
    ended: list[str] = []

    async def wait(state: SharedState) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    return node(name="wait")(wait), ended


async def only_this_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_gives_the_events_and_then_the_result():
    async with AsyncFlow(a).stream({"x": 1}, run_id="mine") as events:
        kinds = [event.kind async for event in events]
    assert kinds == ["flow_start", "node_start", "node_success", "flow_success"]
    assert (events.result.status, events.result.run_id, dict(events.result.state)) == ("done", "mine", {"x": 1, "a": 1})


async def test_the_result_is_not_there_before_the_end():
    async with AsyncFlow(a).stream() as events:
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = events.result


async def test_a_failure_is_raised_where_iteration_ends_after_all_events():
    kinds: list[str] = []
    with pytest.raises(NodeError, match="boom"):
        async with AsyncFlow(boom).stream() as events:
            async for event in events:
                kinds.append(event.kind)
    assert kinds == ["flow_start", "node_start", "node_error", "flow_error"]
    assert events.result.status == "failed"
    assert isinstance(events.result.error, NodeError)


async def test_a_failure_after_the_reader_left_stands_in_the_result_alone():
    async with AsyncFlow(boom).stream() as events:
        await asyncio.sleep(0.001)
    assert events.result.status == "failed"


async def test_a_wrong_input_is_refused_at_once():
    with pytest.raises(InputError):
        AsyncFlow(a).stream(["no mapping"])  # type: ignore[arg-type]


# ---- back-pressure


async def test_a_slow_reader_slows_the_run_and_memory_stays_bounded():
    said: list[int] = []
    async with AsyncFlow(chatty(1000, said)).stream() as events:
        read = 0
        async for _ in events:
            read += 1
            for _ in range(20):
                await asyncio.sleep(0)  # the run may do what it can
            assert len(said) <= read + CAPACITY
    assert read == 1004


async def test_many_writers_are_bounded_too_and_no_event_is_lost_or_overtaken():
    said: list[int] = []
    chats = [chatty(50, said).named(f"chat{number}") for number in range(20)]
    async with AsyncFlow(tuple(chats)).stream() as events:
        got: list[ExecutionEvent] = []
        async for event in events:
            got.append(event)
            await asyncio.sleep(0)
            assert len(said) <= len(got) + CAPACITY
    assert [event.sequence for event in got] == list(range(1, len(got) + 1))
    assert sum(event.kind == "told" for event in got) == 1000


async def test_events_of_cancelled_losers_leave_no_gap():
    """Losers are cancelled while their events wait for room; the numbers the reader sees have no holes."""

    @node
    async def quick(state: SharedState) -> None:
        while not full():
            await asyncio.sleep(0)

    losers = [chatty(1000, []).named(f"loser{number}") for number in range(5)]
    stream = AsyncFlow(Parallel(quick, *losers, need=1) >> a).stream()
    full = lambda: len(stream._queue._waiting) == 5  # noqa: E731
    async with stream as events:
        while not full():
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        numbers = [event.sequence async for event in events]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events.result.status == "done"


async def test_a_thread_that_emits_waits_for_the_reader():
    said: list[int] = []

    @node
    def chat(state: SharedState) -> None:
        for number in range(200):
            emit_blocking("told", {"number": number})
            said.append(number)

    async with AsyncFlow(chat).stream() as events:
        read = 0
        async for _ in events:
            read += 1
            assert len(said) <= read + CAPACITY
    assert len(said) == 200


async def test_two_readers_of_one_stream_are_an_error():
    wait, _ = forever()
    async with AsyncFlow(wait).stream() as events:
        for _ in range(2):
            await anext(events)
        first = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks read one stream"):
            await anext(events)
        first.cancel()
        await asyncio.wait([first])


# ---- leaving


async def test_leaving_ends_the_run_and_waits_for_its_cleanup():
    wait, ended = forever()
    async with AsyncFlow((wait, a)).stream() as events:
        async for event in events:
            if event.kind == "node_success":
                break
    assert ended == ["cleaned up"]
    assert (events.result.status, events.result.error, events.result.action) == ("cancelled", None, None)
    assert await only_this_task()


async def test_leaving_at_once_ends_a_run_that_has_not_begun():
    async with AsyncFlow(a).stream({"x": 1}) as events:
        pass
    assert (events.result.status, dict(events.result.state)) == ("cancelled", {"x": 1})
    assert [event async for event in events] == []
    assert await only_this_task()


async def test_leaving_frees_writers_that_wait_for_room():
    said: list[int] = []
    async with AsyncFlow(chatty(10_000, said)).stream() as events:
        await anext(events)
        while len(said) < CAPACITY - 3:
            await asyncio.sleep(0)
    assert await only_this_task()
    assert len(said) < 100


async def test_leaving_with_an_error_of_the_readers_own_ends_the_run():
    wait, ended = forever()
    with pytest.raises(ZeroDivisionError):
        async with AsyncFlow(wait).stream() as events:
            async for event in events:
                if event.kind == "node_start":
                    raise ZeroDivisionError
    assert ended == ["cleaned up"]
    assert await only_this_task()


async def test_a_reader_that_is_cancelled_ends_the_run():
    wait, ended = forever()

    async def read() -> None:
        async with AsyncFlow(wait).stream() as events:
            async for _ in events:
                pass

    reader = asyncio.create_task(read())
    for _ in range(10):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert ended == ["cleaned up"]
    assert await only_this_task()


def test_leaving_waits_for_a_long_cleanup_even_when_cancelled_meanwhile():
    clock = VirtualClock()
    ended: list[float] = []

    @node
    async def slow_to_end(state: SharedState) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(clock.monotonic())

    async def read() -> None:
        async with AsyncFlow((slow_to_end, a), clock=clock).stream():
            await asyncio.sleep(1)

    async def main() -> None:
        reader = asyncio.create_task(read())
        await asyncio.sleep(3)  # at 1 the stream is left; the node cleans up until 11, unless it is hurried
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert ended == [3]
        assert await only_this_task()

    clock.run(main())


def test_a_node_that_swallows_its_cancellation_cannot_keep_the_run_alive():
    """The flow would go on for ninety-nine more rounds; leaving takes effect after the node."""
    clock = VirtualClock()
    visits: list[str] = []

    @node
    async def deaf(state: SharedState) -> str:
        visits.append("begun")
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            visits.append("deaf")
        return "again" if len(visits) < 100 else "enough"

    async def main() -> None:
        async with AsyncFlow((deaf, a), deaf.on("again") >> deaf, clock=clock).stream() as events:
            await asyncio.sleep(7)
        assert events.result.status == "cancelled"
        assert await only_this_task()

    clock.run(main())
    assert (visits, clock.monotonic()) == (["begun", "begun", "deaf"], 7)


async def test_a_left_stream_cannot_be_entered_again():
    stream = AsyncFlow(a).stream()
    async with stream:
        pass
    with pytest.raises(RuntimeError, match="has been left"):
        async with stream:
            pass


async def test_a_stream_closed_before_it_began_starts_nothing():
    stream = AsyncFlow(a).stream()
    await stream.aclose()
    assert [event async for event in stream] == []
    assert stream.result.status == "cancelled"


async def test_a_bare_break_ends_the_run_soon():
    wait, ended = forever()
    async for event in AsyncFlow(wait).stream():
        if event.kind == "node_start":
            break
    for _ in range(10):
        await asyncio.sleep(0)
    assert ended == ["cleaned up"]
    assert await only_this_task()


async def test_a_forgotten_stream_keeps_nothing_alive():
    class Big:
        """Stands for what a run holds."""

    big = Big()
    seen = weakref.ref(big)
    stream = AsyncFlow(chatty(1000, [])).stream({"big": big})
    await anext(stream)
    del big, stream
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    assert seen() is None


async def test_a_late_thread_says_nothing_after_the_end_and_is_not_held_up():
    begun, finish, finished = threading.Event(), threading.Event(), threading.Event()

    @node
    def slow(state: SharedState) -> None:
        begun.set()
        finish.wait(10)
        for _ in range(1000):
            emit_blocking("late")
        finished.set()

    @node
    async def quick(state: SharedState) -> None:
        await asyncio.to_thread(begun.wait, 10)

    async with AsyncFlow(Parallel(slow, quick, need=1)).stream() as events:
        got = []
        async for event in events:
            got.append(event.kind)
            if event.kind == "flow_success":
                finish.set()
                assert await asyncio.to_thread(finished.wait, 10)
    assert got[-1] == "flow_success"
    assert "late" not in got


# ---- without await


def test_a_sync_flow_streams_to_a_plain_loop():
    with Flow(a).stream() as events:
        kinds = [event.kind for event in events]
    assert kinds == ["flow_start", "node_start", "node_success", "flow_success"]
    assert events.result.status == "done"


def test_a_sync_stream_raises_the_failure_where_iteration_ends():
    with pytest.raises(NodeError), Flow(boom).stream() as events:
        for _ in events:
            pass


def test_leaving_a_sync_stream_ends_the_run():
    wait, ended = forever()
    with Flow(wait).stream() as events:
        for event in events:
            if event.kind == "node_start":
                break
    assert ended == ["cleaned up"]
    assert events.result.status == "cancelled"


async def test_items_of_an_each_appear_as_they_happen():
    async def item(number: int) -> int:
        await emit("told", {"number": number})
        return number

    async with AsyncFlow(Each(item, over="xs", into="ys")).stream({"xs": [1, 2, 3]}) as events:
        told = [event.data["number"] async for event in events if event.kind == "told"]
    assert told == [1, 2, 3]
