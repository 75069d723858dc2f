"""Time limits: whose time is up, who is told so, and that work within work has no more time than what is around it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness import deadline as deadline_module
from agentflow.core.robustness import time_limit as time_limit_module
from agentflow.core.robustness.adaptive_timeout import Adaptive, Latencies
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.timeout import (
    Limit,
    Phase,
    Phases,
    TimeoutManager,
    bounded_by_context,
    current_deadline,
    limit,
    remaining,
    remaining_ms,
)
from agentflow.errors import ConfigurationError, OperationTimeoutError


def run(main: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    """Run it in virtual time, and see that no limit, timer or task is left."""
    clock = VirtualClock()

    async def whole() -> None:
        await main(clock)
        assert current_deadline() is None
        assert timers() == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    clock.run(whole())


def timers() -> int:
    """That are set, and deadlines that wait; the one timer of all deadlines may stay, for the next of them."""
    loop: Any = asyncio.get_running_loop()
    alarm = deadline_module._alarms.get(loop)
    others = [
        handle
        for handle in loop._scheduled
        if not handle.cancelled() and getattr(handle._callback, "__self__", None) is not alarm
    ]
    return len(others) + (len(alarm._waiting) if alarm else 0)


# ---- one limit


def test_what_takes_too_long_is_cancelled_and_told_by_name() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError, match="search took longer than 5 s") as caught:
            with limit(5, "search"):
                await asyncio.sleep(10)
        assert clock.monotonic() == 5
        assert (caught.value.operation, caught.value.seconds) == ("search", 5)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)

    run(main)


def test_what_ends_in_time_is_left_alone() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(5, "search") as block:
            await asyncio.sleep(4)
            assert block.remaining == 1
        await asyncio.sleep(10)
        assert not block.expired
        assert time_limit_module._current.get() is None

    run(main)


def test_none_and_infinity_are_no_limit() -> None:
    async def main(clock: VirtualClock) -> None:
        for seconds in (None, math.inf):
            with limit(seconds) as block:
                assert block.remaining == remaining() == math.inf
                assert current_deadline() is None
                assert remaining_ms() is None
                await asyncio.sleep(10**6)

    run(main)


@pytest.mark.parametrize("seconds", [0, 0.0, -3])
def test_time_that_is_up_at_entry_is_told_before_the_block_runs(seconds: float) -> None:
    async def main(clock: VirtualClock) -> None:
        ran = False
        with pytest.raises(OperationTimeoutError, match="search"):
            with limit(seconds, "search"):
                ran = True
        assert not ran

    run(main)


def test_nan_is_no_limit_that_makes_sense() -> None:
    with pytest.raises(ValueError, match="seconds is a number of seconds or None, not nan"):
        limit(math.nan)


def test_a_limit_needs_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        with limit(5):
            pass


def test_a_limit_serves_one_block() -> None:
    async def main(clock: VirtualClock) -> None:
        block = limit(5, "search")
        with block:
            with pytest.raises(RuntimeError, match="search was used already"):
                block.__enter__()
        with pytest.raises(RuntimeError, match="search was used already"):
            block.__enter__()

    run(main)


def test_an_error_of_the_block_passes_through() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(KeyError):
            with limit(5):
                raise KeyError("x")
        with pytest.raises(TimeoutError) as caught:
            with limit(5):
                raise TimeoutError("another's")
        assert not isinstance(caught.value, OperationTimeoutError)

    run(main)


def test_an_error_raised_while_being_cancelled_is_the_blocks_own() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(KeyError):
            with limit(5):
                try:
                    await asyncio.sleep(10)
                finally:
                    raise KeyError("cleanup")

    run(main)


def test_a_block_that_catches_its_cancellation_goes_on() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(5):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            await asyncio.sleep(1)
        assert clock.monotonic() == 6

    run(main)


# ---- races


def test_a_block_that_does_not_wait_is_not_late_however_long_it_blocked_the_loop() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(3) as block:
            clock.advance(5)
        await asyncio.sleep(0)
        assert not block.expired
        assert block.remaining == 0

    run(main)


def test_after_a_blocked_loop_the_next_wait_is_the_last() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError):
            with limit(3):
                clock.advance(5)
                await asyncio.sleep(100)
        assert clock.monotonic() == 5

    run(main)


@pytest.mark.parametrize("first", ["result", "limit"])
def test_a_result_that_comes_in_the_turn_of_the_expiry_counts_if_it_was_taken_first(first: str) -> None:
    """As with asyncio.timeout: cancelled is who still waits."""

    async def main(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_at(4.999 if first == "result" else 5.0, future.set_result, "here")
        taken = None
        with suppress(OperationTimeoutError):
            with limit(5):
                if first == "limit":
                    clock.advance(5)
                taken = await future
        assert taken == ("here" if first == "result" else None)

    run(main)


@pytest.mark.parametrize("first", ["caller", "limit"])
def test_a_callers_cancellation_wins_over_ours(first: str) -> None:
    async def main(clock: VirtualClock) -> None:
        reached = asyncio.Event()

        async def work() -> None:
            with limit(5, "search"):
                reached.set()
                await asyncio.sleep(100)

        loop = asyncio.get_running_loop()
        if first == "caller":
            loop.call_at(5, lambda: task.cancel())
        task = asyncio.create_task(work())
        await reached.wait()
        if first == "limit":
            loop.call_at(5, lambda: task.cancel())
        await asyncio.wait([task])
        assert task.cancelled()
        assert clock.monotonic() == 5

    run(main)


def test_cancelled_before_its_time_it_is_cancelled() -> None:
    async def main(clock: VirtualClock) -> None:
        async def work() -> None:
            with limit(5, "search"):
                await asyncio.sleep(100)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


# ---- limits in limits


def test_inside_a_nearer_limit_there_is_only_what_is_left() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError) as caught:
            with limit(5, "outer"):
                await asyncio.sleep(2)
                with limit(60, "inner") as inner:
                    assert (inner.remaining, remaining(), remaining_ms(), current_deadline()) == (3, 3, 3000, 5)
                    await asyncio.sleep(100)
        assert (caught.value.operation, caught.value.seconds) == ("outer", 5)
        assert clock.monotonic() == 5
        assert not inner.expired

    run(main)


def test_a_nearer_limit_inside_ends_first() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(60, "outer") as outer:
            with pytest.raises(OperationTimeoutError) as caught:
                with limit(5, "inner") as inner:
                    assert (inner.remaining, outer.remaining) == (5, 60)
                    await asyncio.sleep(100)
            assert (caught.value.operation, clock.monotonic()) == ("inner", 5)
            assert inner.expired
            assert current_deadline() == 60
            await asyncio.sleep(1)

    run(main)


def test_limits_a_millisecond_apart_are_told_apart() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(0.005, "outer"):
            with pytest.raises(OperationTimeoutError, match="inner"):
                with limit(0.004, "inner"):
                    await asyncio.sleep(1)

    run(main)


def test_where_the_time_of_the_outer_is_up_entering_the_inner_raises_for_the_outer() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError) as caught:
            with limit(5, "outer"):
                clock.advance(6)
                with limit(60, "inner"):
                    raise AssertionError("this does not run")
        assert (caught.value.operation, caught.value.seconds) == ("outer", 5)

    run(main)


def test_when_both_are_up_at_once_it_is_the_outers_error() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError, match="outer"):
            with limit(5, "outer"):
                with suppress(OperationTimeoutError):
                    with limit(3, "inner"):
                        clock.advance(10)
                        await asyncio.sleep(100)

    run(main)


def test_inside_no_limit_the_outer_still_counts() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(OperationTimeoutError, match="outer"):
            with limit(5, "outer"):
                with limit(None, "inner") as inner:
                    assert inner.remaining == 5
                    await asyncio.sleep(100)

    run(main)


def test_ten_limits_of_one_name_in_each_other() -> None:
    async def main(clock: VirtualClock) -> None:
        async def down(depth: int) -> None:
            with limit(10 + depth, "same"):
                await (down(depth - 1) if depth else asyncio.sleep(100))

        with pytest.raises(OperationTimeoutError, match="10 s"):
            await down(9)
        assert clock.monotonic() == 10

    run(main)


@given(st.lists(st.one_of(st.none(), st.integers(1, 50).map(float)), min_size=1, max_size=6), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_the_nearest_of_all_ends_the_work(limits: list[float | None], work: int) -> None:
    async def main(clock: VirtualClock) -> None:
        async def down(rest: list[float | None]) -> None:
            if not rest:
                return await asyncio.sleep(work + 0.5)
            with limit(rest[0], str(rest[0])):
                await down(rest[1:])

        nearest = min((each for each in limits if each is not None), default=math.inf)
        if work + 0.5 < nearest:
            return await down(limits)
        with pytest.raises(OperationTimeoutError) as caught:
            await down(limits)
        assert caught.value.operation == str(nearest)
        assert clock.monotonic() == nearest

    run(main)


# ---- tasks, threads, other loops


def test_a_task_started_inside_is_bounded_by_its_own_limits_alone() -> None:
    async def main(clock: VirtualClock) -> None:
        async def child() -> str:
            assert remaining() == 5
            try:
                with limit(60, "inner"):
                    await asyncio.sleep(100)
            except OperationTimeoutError as error:
                return f"{error.operation} {error.seconds:g} at {clock.monotonic():g}"
            return "not bounded"

        async def free() -> float:
            await asyncio.sleep(20)
            return clock.monotonic()

        with suppress(OperationTimeoutError):
            with limit(5, "outer"):
                tasks = asyncio.create_task(child()), asyncio.create_task(free())
                await asyncio.sleep(100)
        assert await tasks[0] == "outer 5 at 5"
        assert await tasks[1] == 20

    run(main)


def test_a_limit_that_was_left_does_not_bind_the_tasks_started_in_it() -> None:
    async def main(clock: VirtualClock) -> None:
        async def background() -> None:
            await asyncio.sleep(1)
            assert remaining() == 59
            with limit(60, "inner") as inner:
                assert inner.remaining == 59
                await asyncio.sleep(30)

        with limit(60, "whole"):
            with limit(5, "outer"):
                task = asyncio.create_task(background())
                await asyncio.sleep(0.5)
            await task

    run(main)


def test_tasks_that_start_each_other_inside_limits_do_not_keep_them_all() -> None:
    async def main(clock: VirtualClock) -> None:
        blocks: list[Limit] = []
        tasks: list[asyncio.Task[None]] = []

        async def generation(number: int) -> None:
            with limit(5) as block:
                blocks.append(block)
                if number < 5:
                    tasks.append(asyncio.create_task(generation(number + 1)))
                await asyncio.sleep(1 + number / 10)

        await generation(0)
        while tasks:
            await tasks.pop(0)
        assert len(blocks) == 6
        assert all(block._outer is None for block in blocks)

    run(main)


def test_inside_a_nearer_limit_there_is_no_second_timer() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(5):
            assert timers() == 1
            for seconds in (60, 5, None, math.inf):
                with limit(seconds):
                    assert timers() == 1
            with limit(4):
                assert timers() == 2
        with limit(None):
            assert timers() == 0

    run(main)


def test_what_is_left_of_a_limit_before_its_block_is_all_of_it() -> None:
    assert limit(5).remaining == 5
    assert limit(-5).remaining == 0
    assert limit(None).remaining == math.inf


def test_around_a_task_group_all_its_tasks_end() -> None:
    async def main(clock: VirtualClock) -> None:
        ended: list[int] = []

        async def work(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(number)

        with pytest.raises(OperationTimeoutError, match="group"):
            with limit(5, "group"):
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(work(number))
        assert (sorted(ended), clock.monotonic()) == ([0, 1, 2], 5)

    run(main)


def test_a_failure_in_a_task_group_is_the_groups_own() -> None:
    async def main(clock: VirtualClock) -> None:
        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError("no")

        with pytest.raises(ExceptionGroup) as caught:
            with limit(5, "group"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.sleep(100)
        assert caught.group_contains(ValueError)

    run(main)


def test_a_limit_in_a_task_of_a_group_fails_that_group() -> None:
    async def main() -> None:
        async def slow() -> None:
            with limit(1, "slow"):
                await asyncio.sleep(100)

        with pytest.raises(ExceptionGroup) as caught:
            with limit(5, "group"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(slow())
        assert caught.group_contains(OperationTimeoutError, match="slow")

    VirtualClock().run(main())  # a TaskGroup of Python 3.11 leaves its own mark in task.cancelling()


def test_inside_asyncio_timeout_each_ends_its_own() -> None:
    async def main(clock: VirtualClock) -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                with limit(5, "ours"):
                    await asyncio.sleep(100)
        assert not isinstance(caught.value, OperationTimeoutError)
        with pytest.raises(OperationTimeoutError):
            async with asyncio.timeout(5):
                with limit(1, "ours"):
                    await asyncio.sleep(100)

    run(main)


def test_a_thread_knows_how_much_time_is_left() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(5):
            await asyncio.sleep(2)
            assert await asyncio.to_thread(remaining_ms) == 3000
            assert await asyncio.to_thread(current_deadline) == 5
            assert await asyncio.to_thread(bounded_by_context, 60.0) == 3

    run(main)


def test_an_event_loop_in_a_thread_counts_by_its_own_clock() -> None:
    async def main(clock: VirtualClock) -> None:
        other = VirtualClock()
        other.advance(1000)

        async def there() -> str:
            assert current_deadline() == 1003
            with pytest.raises(OperationTimeoutError) as caught:
                with limit(60, "inner"):
                    await asyncio.sleep(100)
            assert other.monotonic() == 1003
            return caught.value.operation

        with limit(5, "outer"):
            await asyncio.sleep(2)
            assert await asyncio.to_thread(other.run, there()) == "outer"

    run(main)


def test_a_generator_closed_elsewhere_breaks_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        async def numbers() -> Any:
            with limit(5):
                yield 1
                yield 2

        generator = numbers()
        assert await anext(generator) == 1
        await asyncio.create_task(generator.aclose())
        assert remaining() == math.inf

    run(main)


# ---- for others


def test_the_milliseconds_for_another_process_are_rounded_down() -> None:
    async def main(clock: VirtualClock) -> None:
        with limit(1.9999):
            assert remaining_ms() == 1999
            clock.advance(3)
            assert remaining_ms() == 0

    run(main)


def test_a_limit_of_ones_own_is_bounded_by_what_is_around() -> None:
    async def main(clock: VirtualClock) -> None:
        assert bounded_by_context(None) is None
        assert bounded_by_context(7) == 7
        with limit(5):
            assert bounded_by_context(None) == 5
            assert bounded_by_context(7) == 5
            assert bounded_by_context(3) == 3

    run(main)


# ---- the manager


def test_each_operation_has_its_limit() -> None:
    async def main(clock: VirtualClock) -> None:
        timeouts = TimeoutManager({"search": 5.0, "index": None}, default=30)
        assert [timeouts.seconds(name) for name in ("search", "index", "other")] == [5, None, 30]
        with pytest.raises(OperationTimeoutError, match="search took longer than 5 s"):
            with timeouts.limit("search"):
                await asyncio.sleep(100)
        with timeouts.limit("index"):
            await asyncio.sleep(1000)

    run(main)


def test_an_unknown_operation_without_a_default_is_told_with_its_neighbours() -> None:
    timeouts = TimeoutManager({"search": 5.0, "index": None})
    with pytest.raises(ConfigurationError, match=r"no time-out for 'serach', and no default; did you mean 'search'\?"):
        timeouts.seconds("serach")
    with pytest.raises(ConfigurationError, match=r"there are \['index', 'search'\]"):
        timeouts.limit("xyz")
    with pytest.raises(ConfigurationError, match=r"; did you mean 'search\d' or 'search\d'\?"):
        TimeoutManager({"search1": 5.0, "search2": 5.0}).limit("search")
    with pytest.raises(ConfigurationError, match="xyz"):
        timeouts("xyz")
    with pytest.raises(ConfigurationError, match="xyz"):
        timeouts.observe("xyz", 1.0)


def test_the_decorator_limits_each_call() -> None:
    async def main(clock: VirtualClock) -> None:
        timeouts = TimeoutManager({"search": 5.0})

        @timeouts("search")
        async def search(seconds: float, *, word: str) -> str:
            """Looks for it."""
            await asyncio.sleep(seconds)
            return word

        assert await search(1, word="a") == "a"
        with pytest.raises(OperationTimeoutError, match="search"):
            await search(6, word="a")
        assert (search.__name__, search.__doc__) == ("search", "Looks for it.")

    run(main)


def test_the_phases_of_a_request_have_names() -> None:
    assert set(Phases().timeouts().values()) == {None}
    timeouts = TimeoutManager(Phases(connect=10, idle=60, total=600).timeouts())
    assert [timeouts.seconds(phase) for phase in Phase] == [None, 10, None, 60, 600]
    assert timeouts.seconds("first_byte") is None


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_limit_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="search is a number of seconds, more than 0, or None"):
        TimeoutManager({"search": seconds})
    with pytest.raises(ValueError, match="default is a number of seconds"):
        TimeoutManager(default=seconds)


def test_a_time_out_is_told_and_nothing_else() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[Decision] = []
        timeouts = TimeoutManager({"search": 5.0}, name="web", listener=told.append)
        with timeouts.limit("search"):
            await asyncio.sleep(1)
        with suppress(OperationTimeoutError), limit(2, "outer"), timeouts.limit("search"):
            await asyncio.sleep(100)
        assert told == []
        with suppress(OperationTimeoutError), timeouts.limit("search"):
            await asyncio.sleep(100)
        assert told == [Decision("operation_timeout", "web", {"operation": "search", "seconds": 5.0})]

    run(main)


def test_a_listener_that_raises_changes_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        def listener(decision: Decision) -> None:
            raise KeyError(decision.kind)

        timeouts = TimeoutManager({"search": 5.0}, listener=listener)
        with pytest.raises(OperationTimeoutError):
            with timeouts.limit("search"):
                await asyncio.sleep(100)

    run(main)


# ---- limits that learn


def test_before_there_are_enough_samples_the_configured_limit_stands() -> None:
    timeouts = TimeoutManager({"search": 60.0}, adaptive=Adaptive(percentile=0.5, samples=4))
    for _ in range(3):
        timeouts.observe("search", 2)
        assert timeouts.seconds("search") == 60
    timeouts.observe("search", 2)
    assert timeouts.seconds("search") == 4


def test_the_limit_is_a_multiple_of_the_percentile_within_its_bounds() -> None:
    adaptive = Adaptive(percentile=0.75, factor=3, minimum=2, maximum=40, samples=4)
    for samples, seconds in [([1, 2, 3, 4], 9), ([0.1] * 4, 2), ([20] * 4, 40), ([4, 3, 2, 1], 9), ([1, 1, 1, 9], 3)]:
        timeouts = TimeoutManager({"search": 60.0}, adaptive=adaptive)
        for sample in samples:
            timeouts.observe("search", sample)
        assert timeouts.seconds("search") == seconds


def test_the_learned_limit_never_exceeds_the_configured_one_also_not_by_its_minimum() -> None:
    timeouts = TimeoutManager({"search": 5.0}, adaptive=Adaptive(minimum=10, samples=1))
    timeouts.observe("search", 1000)
    assert timeouts.seconds("search") == 5


def test_no_limit_stays_no_limit() -> None:
    timeouts = TimeoutManager({"search": None}, adaptive=Adaptive(samples=1))
    timeouts.observe("search", 1)
    assert timeouts.seconds("search") is None


def test_successes_and_our_own_time_outs_count_and_nothing_else() -> None:
    async def main(clock: VirtualClock) -> None:
        timeouts = TimeoutManager({"search": 60.0}, adaptive=Adaptive(samples=1), clock=clock)

        async def search(seconds: float) -> None:
            with timeouts.limit("search"):
                await asyncio.sleep(seconds)

        with suppress(OperationTimeoutError), limit(3):
            await search(100)
        with suppress(ValueError), timeouts.limit("search"):
            await asyncio.sleep(3)
            raise ValueError
        task = asyncio.create_task(search(100))
        await asyncio.sleep(3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert timeouts.seconds("search") == 60
        await search(3)
        assert timeouts.seconds("search") == 6
        with suppress(OperationTimeoutError):
            await search(7)
        assert timeouts.seconds("search") == 12

    run(main)


def test_a_provider_that_becomes_ten_times_slower_is_followed_and_not_strangled() -> None:
    async def main(clock: VirtualClock) -> None:
        timeouts = TimeoutManager({"search": 120.0}, adaptive=Adaptive(), clock=clock)
        failed = 0

        async def search(seconds: float) -> None:
            with timeouts.limit("search"):
                await asyncio.sleep(seconds)

        for _ in range(60):
            await search(2)
        assert timeouts.seconds("search") == 4
        for _ in range(60):
            try:
                await search(20)
            except OperationTimeoutError:
                failed += 1
        assert failed == 3  # at 4, 8 and 16 seconds
        assert timeouts.seconds("search") == 40
        for _ in range(60):
            await search(2)
        assert timeouts.seconds("search") == 4

    run(main)


def test_calls_that_time_out_together_let_the_limit_grow_once() -> None:
    async def main(clock: VirtualClock) -> None:
        timeouts = TimeoutManager({"search": 120.0}, adaptive=Adaptive(samples=10), clock=clock)
        for _ in range(10):
            timeouts.observe("search", 1)

        async def search() -> None:
            with timeouts.limit("search"):
                await asyncio.sleep(100)

        await asyncio.gather(*(search() for _ in range(50)), return_exceptions=True)
        assert timeouts.seconds("search") == 4

    run(main)


def test_names_without_end_do_not_fill_the_memory() -> None:
    timeouts = TimeoutManager(default=10, adaptive=Adaptive(samples=1))
    for number in range(3000):
        timeouts.observe(f"search {number}", 1)
    assert len(timeouts._latencies) == 1000
    assert (timeouts.seconds("search 0"), timeouts.seconds("search 2999")) == (10, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 0}, "percentile is a share, more than 0 and at most 1, not 0"),
        ({"percentile": 99}, "percentile .* not 99"),
        ({"factor": 1.0}, r"factor is more than 1, .* not 1\.0"),
        ({"factor": float("inf")}, r"factor is more than 1, .* not inf"),
        ({"minimum": 0}, "minimum .* not 0"),
        ({"minimum": 5, "maximum": 4}, r"maximum .* at least minimum \(5\), not 4"),
        ({"samples": 0}, "samples .* not 0"),
        ({"samples": 1.5}, r"samples .* not 1\.5"),
    ],
)
def test_what_could_not_learn_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(**options)


class LatenciesMachine(RuleBasedStateMachine):
    """Against sorting all samples each time."""

    ADAPTIVE = Adaptive(percentile=0.9, factor=1.5, minimum=1, maximum=100, samples=7)

    def __init__(self) -> None:
        super().__init__()
        self.latencies = Latencies(self.ADAPTIVE)
        self.all: list[float] = []

    @rule(seconds=st.floats(0, 1000))
    def add(self, seconds: float) -> None:
        self.latencies.add(seconds)
        self.all.append(seconds)

    @invariant()
    def agrees(self) -> None:
        last = sorted(self.all[-7:])
        expected = min(100, max(1, 1.5 * last[6])) if len(last) == 7 else None
        assert self.latencies.limit() == expected


LatenciesMachine.TestCase.settings = settings(max_examples=30, deadline=None)
TestLatenciesMachine = LatenciesMachine.TestCase


def test_one_manager_serves_several_threads() -> None:
    timeouts = TimeoutManager({"search": 60.0}, adaptive=Adaptive(samples=20, minimum=0.001))
    errors: list[BaseException] = []

    async def work() -> None:
        for _ in range(200):
            with timeouts.limit("search"):
                await asyncio.sleep(0)

    def main() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=main) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(isinstance(error, OperationTimeoutError) for error in errors)  # on a busy machine
    latencies = timeouts._latencies["search"]
    assert len(latencies._recent) == len(latencies._sorted) == 20


# ---- cancelled anywhere


def test_cancelled_at_any_wait_no_limit_is_left() -> None:
    timeouts = TimeoutManager({"search": 10.0}, adaptive=Adaptive(samples=3))

    async def operation(clock: VirtualClock) -> None:
        with limit(100, "whole"):
            with timeouts.limit("search"):
                await asyncio.sleep(1)
                with suppress(OperationTimeoutError):
                    with limit(2, "short"):
                        await asyncio.sleep(5)
                await asyncio.sleep(0)
            async with asyncio.TaskGroup() as group:
                group.create_task(inner())
                await asyncio.sleep(1)

    async def inner() -> None:
        with limit(50):
            await asyncio.sleep(2)

    def check() -> None:
        assert remaining() == math.inf
        assert timers() == 0

    assert sweep(operation, check) >= 4
