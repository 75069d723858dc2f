"""A deadline that is made once and waited under several times: how much is left, what is late, and who is cancelled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.deadline import _alarm_of as alarm_of
from agentflow.errors import OperationTimeoutError


def running(test: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    """Run it in virtual time, and see that no deadline is left."""
    clock = VirtualClock()

    async def main() -> None:
        await asyncio.sleep(100)  # the clock's zero means nothing
        await test(clock)
        alarm = alarm_of(asyncio.get_running_loop())
        assert (alarm._waiting, alarm._inside) == ({}, {})

    clock.run(main())


def now() -> float:
    return asyncio.get_running_loop().time() - 100


# ---- what is left


def test_it_knows_how_much_is_left() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0)
        assert deadline.remaining == 5.0
        await asyncio.sleep(3)
        assert deadline.remaining == 2.0
        assert (deadline.allows(1.9), deadline.allows(2.0)) == (True, False)
        clock.advance(9)
        assert deadline.remaining == 0.0
        deadline.close()
        assert deadline.remaining == math.inf

    running(test)


def test_without_a_limit_nothing_is_ever_late() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(None)
        deadline.extend(5.0)
        with deadline:
            await asyncio.sleep(10**6)
        deadline.check()
        assert deadline.remaining == math.inf
        assert deadline.allows(10**9)

    running(test)


# ---- what is late


def test_whoever_waits_under_it_is_cancelled_in_time_and_told_what_took_too_long() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0, "search")
        for _ in range(2):  # what is late stays late
            with pytest.raises(OperationTimeoutError, match="search took longer than 5 s"):
                with deadline:
                    await asyncio.sleep(100)
            assert now() == 5.0
            with pytest.raises(OperationTimeoutError):
                deadline.check()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        deadline.close()

    running(test)


def test_a_check_is_late_at_the_very_moment_even_before_the_alarm_rings() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0)
        clock.advance(4.9)
        deadline.check()
        clock.advance(0.1)
        with pytest.raises(OperationTimeoutError):
            deadline.check()
        deadline.close()

    running(test)


def test_it_may_fail_with_something_else() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0, "search")
        deadline.fails_with(lambda operation, seconds: LookupError(f"{operation} {seconds:g}"))
        with pytest.raises(LookupError, match=r"^search 5$"):
            with deadline:
                await asyncio.sleep(100)
        deadline.close()

    running(test)


def test_what_is_closed_cancels_nobody() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0)
        deadline.close()
        deadline.close()
        with deadline:
            await asyncio.sleep(100)
        deadline.check()

    running(test)


# ---- other times


def test_it_may_be_moved_to_and_fro() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0)
        deadline.extend(2.0)
        assert deadline.remaining == 7.0
        deadline.end_at(104.0)
        assert deadline.remaining == 4.0
        with pytest.raises(OperationTimeoutError):
            with deadline:
                await asyncio.sleep(100)
        assert now() == 4.0
        deadline.end_at(None)
        assert deadline.remaining == math.inf

    running(test)


def test_who_is_given_no_end_any_more_is_not_cancelled_at_the_old_one() -> None:
    async def test(clock: VirtualClock) -> None:
        for stop in (lambda each: each.end_at(None), lambda each: each.restart(None)):
            deadline = Deadline(5.0)
            stop(deadline)
            with deadline:
                await asyncio.sleep(10)

    running(test)


def test_begun_anew_it_is_late_no_more() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0, "search")
        with pytest.raises(OperationTimeoutError):
            with deadline:
                await asyncio.sleep(100)
        deadline.restart(3.0)
        assert deadline.remaining == 3.0
        with pytest.raises(OperationTimeoutError, match="search took longer than 3 s"):
            with deadline:
                await asyncio.sleep(100)
        assert now() == 8.0
        deadline.extend(2.0)
        deadline.check()
        assert deadline.remaining == 2.0
        deadline.close()

    running(test)


def test_beside_it_another_task_has_the_same_limit() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0, "search", failure=lambda operation, seconds: LookupError(operation, seconds))
        await asyncio.sleep(2)
        twin = deadline.beside()
        assert twin.remaining == deadline.remaining == 3.0
        deadline.close()
        with pytest.raises(LookupError) as caught:
            with twin:
                await asyncio.sleep(100)
        assert caught.value.args == ("search", 5.0)
        assert now() == 5.0
        twin.close()
        assert Deadline(None).beside().remaining == math.inf

    running(test)


# ---- one within another


@pytest.mark.parametrize(("outer", "inner", "words"), [(5.0, 3.0, "inner"), (3.0, 5.0, "outer")])
def test_the_nearer_of_two_ends_the_wait(outer: float, inner: float, words: str) -> None:
    async def test(clock: VirtualClock) -> None:
        around, within = Deadline(outer, "outer"), Deadline(inner, "inner")
        with pytest.raises(OperationTimeoutError, match=f"{words} took longer than 3 s"):
            with around:
                with within:
                    await asyncio.sleep(100)
        assert now() == 3.0
        around.close()
        within.close()

    running(test)


def test_after_the_inner_one_the_task_waits_under_the_outer_one_again() -> None:
    async def test(clock: VirtualClock) -> None:
        around, within = Deadline(5.0, "outer"), Deadline(50.0, "inner")
        alarm, task = around._alarm, asyncio.current_task()
        assert task is not None
        with around:
            assert alarm.ends(task, 105.0)
            with within:
                assert not alarm.ends(task, 105.0)
            assert alarm.ends(task, 105.0)
            assert not alarm.ends(task, 104.9)
        assert not alarm.ends(task, 105.0)
        for each in (around, within):
            each.close()

    running(test)


def test_the_callers_own_cancellation_wins() -> None:
    async def test(clock: VirtualClock) -> None:
        deadline = Deadline(5.0)

        async def wait() -> None:
            with deadline:
                await asyncio.sleep(100)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        clock.advance(5.0)
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline.close()

    running(test)


def test_many_at_once_end_each_at_its_own_time() -> None:
    async def test(clock: VirtualClock) -> None:
        ends: list[float] = []

        async def wait(seconds: float) -> None:
            deadline = Deadline(seconds)
            try:
                with deadline:
                    await asyncio.sleep(1000)
            except OperationTimeoutError:
                ends.append(now())
            finally:
                deadline.close()

        await asyncio.gather(*(wait(float(seconds)) for seconds in (7, 3, 9, 3, 5)))
        assert ends == pytest.approx([3.0, 3.0, 5.0, 7.0, 9.0], abs=1e-3)

    running(test)
