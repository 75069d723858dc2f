"""The pool: who gets which resource, how long each lives, and that no slot is ever lost."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.abandoned import Collecting, abandon, for_ever
from tests.support.sweep import sweep

from agentflow import clock as clock_module
from agentflow.clock import VirtualClock
from agentflow.core.robustness import deadline as deadline_module
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.pool_slots import Queued
from agentflow.core.robustness.resource_pool import Lease, PoolSnapshot, ResourcePool
from agentflow.errors import OperationTimeoutError, PoolClosedError, PoolTimeoutError


class Thing:
    """A resource that remembers what became of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = 0
        self.valid = True
        self.loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"Thing({self.number})"


class Workshop:
    """Makes things, in `seconds`, and closes them on the loop that they were made on."""

    def __init__(self, seconds: float = 0.0, closing: float = 0.0) -> None:
        self.seconds = seconds
        self.closing = closing
        self.made: list[Thing] = []
        self.failures: list[BaseException] = []
        self.alive = 0
        self.most = 0

    async def make(self) -> Thing:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        thing = Thing(len(self.made) + 1)
        self.made.append(thing)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return thing

    async def close(self, thing: Thing) -> None:
        assert asyncio.get_running_loop() is thing.loop
        if self.closing:
            await asyncio.sleep(self.closing)
        thing.closed += 1
        self.alive -= 1

    async def validate(self, thing: Thing) -> bool:
        await asyncio.sleep(0)
        return thing.valid


def run(main: Callable[[VirtualClock, Workshop], Coroutine[Any, Any, None]], workshop: Workshop | None = None) -> None:
    """Run it in virtual time, and see that no task is left."""
    clock = VirtualClock()

    async def whole() -> None:
        await main(clock, workshop or Workshop())
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(whole())


def pool_of(workshop: Workshop, clock: VirtualClock, **options: Any) -> ResourcePool[Thing]:
    options = {"close": workshop.close, "clock": clock, **options}
    return ResourcePool(workshop.make, **options)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- lending


def test_the_last_used_is_the_first_to_be_used_again() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        leases = [await pool.acquire() for _ in range(3)]
        for index in (1, 0, 2):
            leases[index].release()
        again = [await pool.acquire() for _ in range(3)]
        assert [lease.resource.number for lease in again] == [3, 1, 2]
        for lease in again:
            lease.release()

    run(main)


def test_the_block_gets_the_resource_and_gives_it_back() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2)
        async with pool.acquire() as thing:
            assert thing is workshop.made[0]
            assert (pool.size, pool.in_use, pool.idle, pool.waiting) == (2, 1, 0, 0)
        assert (pool.in_use, pool.idle) == (0, 1)

    run(main)


def test_a_block_that_raises_gives_its_resource_back_all_the_same() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        with pytest.raises(ValueError, match="no"):
            async with pool.acquire():
                raise ValueError("no")
        assert (pool.in_use, pool.idle, workshop.made[0].closed) == (0, 1, 0)

    run(main)


def test_an_error_of_discard_on_throws_the_resource_away() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, discard_on=(OSError, asyncio.CancelledError))
        with pytest.raises(ConnectionResetError):
            async with pool.acquire():
                raise ConnectionResetError
        with pytest.raises(asyncio.CancelledError):
            with await pool.acquire():
                raise asyncio.CancelledError
        await turns()
        assert [thing.closed for thing in workshop.made] == [1, 1]
        assert (pool.in_use, pool.idle) == (0, 0)

    run(main)


def test_a_lease_is_released_once_however_often_it_is_said() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        first = await pool.acquire()
        assert not first.released
        first.release()
        assert first.released
        second = await pool.acquire()
        first.release()
        first.invalidate()
        assert (pool.in_use, pool.idle, second.resource.closed) == (1, 0, 0)
        second.release()

    run(main)


def test_a_released_lease_has_no_resource_any_more() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        lease = await pool_of(workshop, clock).acquire()
        lease.release()
        with pytest.raises(RuntimeError, match="released"):
            _ = lease.resource

    run(main)


def test_an_invalidated_resource_is_closed_and_its_slot_free() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        waiting = asyncio.create_task(taken(pool))
        await turns()
        lease.invalidate()
        assert (await waiting).number == 2
        assert workshop.made[0].closed == 1

    run(main)


async def taken(pool: ResourcePool[Thing], seconds: float = 0.0, **options: Any) -> Thing:
    async with pool.acquire(**options) as thing:
        await asyncio.sleep(seconds)
        return thing


def test_a_lease_may_be_used_as_a_block() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        with await pool.acquire() as lease:
            assert lease.resource is workshop.made[0]
        assert pool.idle == 1

    run(main)


def test_one_acquire_serves_one_block_at_a_time() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        acquiring = pool.acquire()
        async with acquiring:
            with pytest.raises(RuntimeError, match="in use already"):
                async with acquiring:
                    pass
        async with acquiring:
            assert pool.in_use == 1
        assert (pool.in_use, pool.idle) == (0, 1)

    run(main)


def test_the_decorator_passes_a_resource_as_the_first_argument() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)

        @pool
        async def work(thing: Thing, word: str, *, times: int = 1) -> str:
            """What it does."""
            assert pool.in_use == 1
            return word * times + str(thing.number)

        assert await work("a", times=2) == "aa1"
        assert (work.__name__, work.__doc__) == ("work", "What it does.")
        assert (pool.in_use, pool.idle) == (0, 1)

    run(main)


def test_a_plain_close_function_will_do() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        closed: list[Thing] = []
        async with pool_of(workshop, clock, close=closed.append) as pool:
            await taken(pool)
        assert closed == workshop.made

    run(main)


def test_without_a_close_function_resources_are_let_go() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        async with pool_of(workshop, clock, close=None) as pool:
            await taken(pool)
            (await pool.acquire()).invalidate()
        assert pool.snapshot() == PoolSnapshot("pool", 10, 0, 0, 0, 0, True)

    run(main)


# ---- waiting


def test_whoever_came_first_is_served_first() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2)
        served: list[int] = []

        async def work(number: int) -> None:
            async with pool.acquire():
                served.append(number)
                await asyncio.sleep(1)

        await asyncio.gather(*(work(number) for number in range(20)))
        assert served == list(range(20))
        assert clock.monotonic() == 10
        assert workshop.most == 2

    run(main)


def test_nobody_overtakes_a_waiter_whose_grant_is_on_its_way() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        first = asyncio.create_task(taken(pool, 1))
        await turns()
        lease.release()
        with pytest.raises(PoolTimeoutError):  # asked before the first has woken up
            await pool.acquire(timeout=0)
        await first

    run(main)


def test_a_waiter_that_leaves_is_forgotten() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        first, second = (asyncio.create_task(taken(pool)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        assert pool.waiting == 1
        lease.release()
        assert (await second).number == 1

    run(main)


def test_a_waiter_cancelled_after_its_grant_passes_it_on() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        first, second = (asyncio.create_task(taken(pool)) for _ in range(2))
        await turns()
        lease.release()
        first.cancel()
        assert (await second).number == 1
        assert first.cancelled()
        assert (pool.in_use, pool.idle, len(workshop.made)) == (0, 1, 1)

    run(main)


def test_a_grant_that_nobody_takes_goes_back_to_sleep_with_its_timer() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1, idle_timeout=60)
        lease = await pool.acquire()
        first = asyncio.create_task(taken(pool))
        await turns()
        lease.release()
        first.cancel()
        await asyncio.sleep(61)
        assert (pool.idle, workshop.alive) == (0, 0)

    run(main)


# ---- making


def test_resources_are_made_side_by_side() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=5)
        await asyncio.gather(*(taken(pool) for _ in range(5)))
        assert clock.monotonic() == 2

    run(main, Workshop(seconds=2))


def test_a_factory_that_fails_leaves_the_slot_to_the_next() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        workshop.failures.append(ConnectionRefusedError("not now"))
        pool = pool_of(workshop, clock, size=1)
        first, second = (asyncio.create_task(taken(pool)) for _ in range(2))
        with pytest.raises(ConnectionRefusedError, match="not now"):
            await first
        assert (await second).number == 1
        assert (pool.in_use, pool.idle) == (0, 1)

    run(main, Workshop(seconds=1))


def test_a_factory_that_is_cancelled_leaves_the_slot_to_the_next() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        first, second = (asyncio.create_task(taken(pool)) for _ in range(2))
        await turns()
        assert (pool.in_use, pool.waiting) == (1, 1)
        first.cancel()
        assert (await second).number == 1

    run(main, Workshop(seconds=1))


def test_while_one_is_made_others_come_and_go() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2)
        lease = await pool.acquire()
        workshop.seconds = 100
        slow = asyncio.create_task(taken(pool, timeout=200))
        await turns()
        lease.release()
        start = clock.monotonic()
        for _ in range(10):
            assert (await taken(pool)).number == 1
        assert clock.monotonic() == start
        assert (await slow).number == 2

    run(main)


# ---- time-outs


def test_who_waits_too_long_is_told_so() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1, name="database", acquire_timeout=3)
        async with pool.acquire():
            with pytest.raises(PoolTimeoutError, match=r"database \(1 in use\) took longer than 3 s") as caught:
                await pool.acquire()
            assert clock.monotonic() == 3
            assert (caught.value.pool, caught.value.seconds, caught.value.in_use) == ("database", 3, 1)
            assert isinstance(caught.value, OperationTimeoutError)
            assert not hasattr(caught.value, "__notes__")
            with pytest.raises(PoolTimeoutError, match=r"longer than 0\.5 s"):
                async with pool.acquire(timeout=0.5):
                    pass
            assert clock.monotonic() == 3.5
        assert (pool.in_use, pool.idle, pool.waiting) == (0, 1, 0)

    run(main)


def test_the_time_out_counts_the_making_too() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, acquire_timeout=3)
        with pytest.raises(PoolTimeoutError, match=r"\(0 in use\)"):
            await pool.acquire()
        assert clock.monotonic() == 3
        assert pool.in_use == 0

    run(main, Workshop(seconds=5))


def test_an_infinite_timeout_waits_for_ever() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        await asyncio.gather(taken(pool, 100_000), taken(pool, timeout=float("inf")))
        assert clock.monotonic() == 100_000

    run(main)


def test_timeout_0_takes_what_needs_no_waiting() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        assert (await taken(pool)).number == 1
        with await pool.acquire(timeout=0):
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0)
        assert clock.monotonic() == 0

    run(main)


def test_the_callers_own_cancellation_is_not_a_time_out() -> None:
    """Not even where both come in the same turn."""

    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        decisions: list[Decision] = []
        pool = pool_of(workshop, clock, size=1, listener=decisions.append)
        async with pool.acquire():
            waiting = asyncio.create_task(taken(pool, timeout=1))
            await turns()
            clock.advance(1)
            asyncio.get_running_loop().call_soon(waiting.cancel)
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        assert [decision.kind for decision in decisions] == ["pool_created"]
        assert (pool.in_use, pool.idle, pool.waiting) == (0, 1, 0)

    run(main)


def test_with_trace_leaks_a_time_out_says_where_each_lease_was_acquired() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2, trace_leaks=True)

        async def forgetful() -> Lease[Thing]:
            return await pool.acquire()

        lease = await forgetful()
        await asyncio.sleep(2)
        async with pool.acquire():
            with pytest.raises(PoolTimeoutError) as caught:
                await pool.acquire(timeout=1)
        older, newer = caught.value.__notes__
        assert "held for 3.000 s" in older
        assert "held for 1.000 s" in newer
        assert "in forgetful\n    return await pool.acquire()" in older
        assert "resource_pool.py" not in older.replace(__file__, "")
        assert "async with pool.acquire():" in newer
        lease.release()
        with await pool.acquire(), await pool.acquire():
            with pytest.raises(PoolTimeoutError) as caught:
                await pool.acquire(timeout=1)
        assert not any("forgetful" in note for note in caught.value.__notes__)

    run(main)


def test_of_many_leases_the_ten_oldest_are_shown() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=12, trace_leaks=True)
        leases = [await pool.acquire() for _ in range(12)]
        with pytest.raises(PoolTimeoutError) as caught:
            await pool.acquire(timeout=1)
        assert len(caught.value.__notes__) == 11
        assert caught.value.__notes__[-1] == "2 more are held for less long"
        for lease in leases:
            lease.release()

    run(main)


def test_the_time_to_wait_for_the_end_is_not_negative() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        with pytest.raises(ValueError, match=r"^timeout .* not -1"):
            await pool_of(workshop, clock).aclose(timeout=-1)

    run(main)


def test_who_stops_waiting_for_the_end_is_forgotten() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        lease = await pool.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pool.aclose(timeout=None)
        assert not pool._desk.slots.drains
        lease.release()

    run(main)


# ---- validation


def test_what_was_idle_for_long_is_validated_before_it_is_lent() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        asked: list[int] = []

        def validate(thing: Thing) -> bool:
            asked.append(thing.number)
            return thing.valid

        await asyncio.sleep(1000)  # the clock's zero means nothing
        pool = pool_of(workshop, clock, validate=validate, validate_after=5)
        await taken(pool)
        await asyncio.sleep(4.9)
        await taken(pool)
        assert asked == []
        await asyncio.sleep(5)
        assert (await taken(pool)).number == 1
        assert asked == [1]
        assert (pool.in_use, pool.idle) == (0, 1)

    run(main)


@pytest.mark.parametrize("how", ["says no", "raises", "hangs"])
def test_what_fails_its_validation_is_closed_and_another_one_made(how: str) -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        async def validate(thing: Thing) -> bool:
            await asyncio.sleep(1000 if how == "hangs" else 0)
            if how == "raises":
                raise ConnectionResetError
            return False

        why: list[object] = []
        pool = pool_of(
            workshop, clock, validate=validate, size=1, listener=lambda decision: why.append(decision.data.get("why"))
        )
        await taken(pool)
        await asyncio.sleep(5)
        assert (await taken(pool)).number == 2
        await turns()
        assert clock.monotonic() == (10 if how == "hangs" else 5)
        assert (workshop.made[0].closed, pool.in_use, pool.idle) == (1, 0, 1)
        assert "invalid" in why

    run(main)


def test_what_was_being_validated_when_its_caller_left_is_closed() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, validate=workshop.validate, size=1)
        await taken(pool)
        await asyncio.sleep(5)
        leaving = asyncio.create_task(taken(pool))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await taken(pool)).number == 2
        assert (workshop.made[0].closed, leaving.cancelled()) == (1, True)

    run(main)


def test_a_waiter_gets_what_was_just_used_without_validation() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, validate=lambda _: False, size=1)
        first, second = await asyncio.gather(taken(pool, 10), taken(pool, 10))
        assert first is second

    run(main)


# ---- age


def test_what_is_idle_for_long_is_closed_by_a_timer() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, idle_timeout=60)
        await asyncio.gather(taken(pool), taken(pool, 30))
        await asyncio.sleep(29.9)
        assert pool.idle == 2
        await asyncio.sleep(0.2)
        assert (pool.idle, workshop.made[0].closed) == (1, 1)
        await asyncio.sleep(30)
        assert (pool.idle, workshop.made[1].closed) == (0, 1)

    run(main)


def test_what_is_used_now_and_then_stays() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, idle_timeout=60, max_lifetime=None)
        for _ in range(100):
            assert (await taken(pool)).number == 1
            await asyncio.sleep(59)

    run(main)


def test_after_a_suspended_night_nothing_old_is_lent() -> None:
    """The clock has jumped, and the timer has not run yet."""

    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2)
        await asyncio.gather(taken(pool, 1), taken(pool, 1))
        clock.advance(8 * 3600)
        assert (await taken(pool)).number == 3
        await turns()
        assert [thing.closed for thing in workshop.made] == [1, 1, 0]

    run(main)


def test_a_lifetime_ends_when_the_resource_comes_back() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, max_lifetime=100, lifetime_jitter=0, idle_timeout=None)
        await taken(pool, 99)
        assert (await taken(pool, 1)).closed == 0
        await turns()
        assert (workshop.made[0].closed, pool.idle) == (1, 0)

    run(main)


def test_a_lifetime_ends_while_idle() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, max_lifetime=100, lifetime_jitter=0, idle_timeout=None)
        await taken(pool)
        await asyncio.sleep(100.1)
        assert (workshop.made[0].closed, pool.idle) == (1, 0)

    run(main)


def test_lifetimes_are_shortened_by_chance_so_that_not_all_end_at_once() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        ended: list[float] = []
        pool = pool_of(
            workshop, clock, size=50, max_lifetime=100, lifetime_jitter=0.2, idle_timeout=None,
            close=lambda thing: ended.append(clock.monotonic()),
        )  # fmt: skip
        await asyncio.gather(*(taken(pool, 1) for _ in range(50)))
        await asyncio.sleep(200)
        assert len(ended) == 50
        assert 80 <= min(ended) < 85
        assert 95 < max(ended) <= 100.01
        assert len(set(ended)) > 40

    run(main)


@pytest.mark.parametrize("count", [1, 3])
def test_at_the_very_moment_of_its_end_nothing_is_lent(count: int) -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, idle_timeout=60)
        await asyncio.gather(*(taken(pool, 1) for _ in range(count)))
        clock.advance(60)
        assert (await taken(pool)).number == count + 1
        await turns()
        assert (workshop.alive, pool.in_use, pool.idle) == (1, 0, 1)

    run(main)


def test_where_the_last_used_is_too_old_the_one_before_it_is_lent() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2, max_lifetime=100, lifetime_jitter=0, idle_timeout=None)
        old = await pool.acquire()
        await asyncio.sleep(50)
        await taken(pool)
        old.release()
        clock.advance(50)
        with await pool.acquire() as young, await pool.acquire() as new:
            assert (young.resource.number, new.resource.number) == (2, 3)
        await turns()
        assert (workshop.made[0].closed, pool.in_use, pool.idle) == (1, 0, 2)

    run(main)


def test_without_limits_there_is_no_timer() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, idle_timeout=None, max_lifetime=None)
        await taken(pool)
        assert timers() == 0
        await asyncio.sleep(10**7)
        assert pool.idle == 1

    run(main)


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


def test_there_is_one_timer_for_all_that_is_idle_and_closing_cancels_it() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=10)
        await asyncio.gather(*(taken(pool) for _ in range(10)))
        assert pool.idle == 10
        assert timers() == 1
        await pool.aclose()
        assert timers() == 0

    run(main)


# ---- leases that are forgotten


def test_a_forgotten_lease_gives_its_slot_back_and_warns() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        waiting = asyncio.create_task(taken(pool))
        await turns()
        with pytest.warns(ResourceWarning, match="never released; trace_leaks=True tells where"):
            del lease
        assert (await waiting).number == 2
        assert workshop.made[0].closed == 1

    run(main)


def test_with_trace_leaks_the_warning_says_where_it_was_acquired() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, trace_leaks=True)
        forget = await pool.acquire()
        with pytest.warns(ResourceWarning, match=r"acquired here:\n(?s:.*)forget = await pool.acquire\(\)"):
            del forget
        assert pool.in_use == 0

    run(main)


def test_a_lease_forgotten_on_a_loop_that_has_ended_serves_a_waiter_of_another() -> None:
    workshop, pools, kept = Workshop(), [], []

    async def forget() -> None:
        pools.append(ResourcePool(workshop.make, size=1, acquire_timeout=5))
        kept.append(await pools[0].acquire())

    async def wait() -> int:
        waiting = asyncio.create_task(taken(pools[0]))
        await turns()
        with pytest.warns(ResourceWarning, match="never released"):
            kept.clear()
        return (await waiting).number

    asyncio.run(forget())
    assert asyncio.run(wait()) == 2


def test_a_lease_collected_in_the_midst_of_the_pools_own_lock_does_not_hang() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2)
        lease = await pool.acquire()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            with pool._desk.turn:
                del lease
        assert (pool.in_use, pool.idle) == (0, 0)

    run(main)


@pytest.mark.timeout(10)
def test_a_block_that_the_collector_closes_in_the_midst_of_a_decision_does_not_hang() -> None:
    clock, workshop = Collecting(), Workshop()

    async def main() -> None:
        pool = pool_of(workshop, clock, size=2)

        async def forgotten() -> None:
            async with pool.acquire():
                await for_ever()

        (await pool.acquire()).release()
        abandon(forgotten())
        assert (pool.in_use, pool.idle) == (1, 0)
        clock.when = pool._desk.turn.lock.locked
        with pool._desk.turn:
            clock.monotonic()
        clock.when = None
        assert clock.collected
        assert (pool.in_use, pool.idle) == (0, 1)
        await pool.aclose()

    clock.run(main())


@pytest.mark.parametrize("way", ["release", "invalidate", "withdraw"])
@pytest.mark.timeout(10)
def test_what_is_given_back_in_the_midst_of_a_decision_goes_to_who_waits(way: str) -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=1)
        lease = await pool.acquire()
        leaving = pool._desk.take_now()
        assert isinstance(leaving, Queued)
        waiting = asyncio.create_task(taken(pool))
        await turns()
        with pool._desk.turn:
            if way == "withdraw":
                pool._desk._withdraw(leaving)
            else:
                getattr(lease, way)()
            assert lease.released is (way != "withdraw")
        if way == "withdraw":
            lease.release()
        else:
            pool._desk._withdraw(leaving)
        assert (await waiting).number == (2 if way == "invalidate" else 1)
        assert (pool.in_use, pool.waiting) == (0, 0)

    run(main)


# ---- the end of the pool


def test_closing_closes_what_is_idle_and_refuses_newcomers_and_waiters() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock, size=2, name="database")
        lease = await pool.acquire()
        await taken(pool)
        held = await pool.acquire()
        waiting = asyncio.create_task(taken(pool))
        await turns()
        held.release()
        lease.release()
        await waiting
        assert pool.idle == 2
        last = await pool.acquire()
        other = await pool.acquire()
        waiting = asyncio.create_task(taken(pool))
        await turns()
        closing = asyncio.create_task(pool.aclose())
        await turns()
        with pytest.raises(PoolClosedError, match="database: the pool is closed"):
            await waiting
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        other.release()
        last.release()
        assert await closing == 0
        assert [thing.closed for thing in workshop.made] == [1, 1]
        assert pool.snapshot() == PoolSnapshot("database", 2, 0, 0, 0, 0, True)

    run(main, Workshop(closing=1))


def test_closing_waits_for_what_is_lent_up_to_a_bound_and_says_how_many_are_out() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        leases = [await pool.acquire() for _ in range(3)]
        await taken(pool)
        asyncio.get_running_loop().call_later(4, leases[0].release)
        assert await pool.aclose(timeout=10) == 2
        assert clock.monotonic() == 10
        assert [thing.closed for thing in workshop.made] == [1, 0, 0, 1]
        leases[1].release()
        leases[2].invalidate()
        await turns()
        assert [thing.closed for thing in workshop.made] == [1, 1, 1, 1]
        assert await pool.aclose() == 0

    run(main)


def test_closing_may_be_said_twice_also_at_once() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        lease = await pool.acquire()
        asyncio.get_running_loop().call_later(4, lease.release)
        assert await asyncio.gather(pool.aclose(), pool.aclose(timeout=None), pool.aclose(timeout=1)) == [0, 0, 1]
        assert clock.monotonic() == 4
        assert await pool.aclose() == 0
        assert workshop.made[0].closed == 1

    run(main)


def test_what_is_being_made_when_the_pool_closes_is_closed_and_nobody_gets_it() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        making = asyncio.create_task(taken(pool))
        await turns()
        assert await pool.aclose() == 0
        with pytest.raises(PoolClosedError):
            await making
        assert (workshop.made[0].closed, clock.monotonic()) == (1, 2)

    run(main, Workshop(seconds=2))


def test_a_failure_to_make_one_ends_the_waiting_for_the_end() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        workshop.failures.append(OSError("no"))
        pool = pool_of(workshop, clock)
        making = asyncio.create_task(taken(pool))
        await turns()
        assert await pool.aclose() == 0
        assert clock.monotonic() == 2
        assert pool._desk.slots.drains == set()
        with pytest.raises(OSError, match="no"):
            await making

    run(main, Workshop(seconds=2))


def test_a_close_that_hangs_is_given_ten_seconds() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        decisions: list[Decision] = []
        pool = pool_of(workshop, clock, listener=decisions.append)
        (await pool.acquire()).invalidate()
        assert await pool.aclose(timeout=None) == 0
        assert clock.monotonic() == 10
        assert isinstance(decisions[-1].data["error"], OperationTimeoutError)

    run(main, Workshop(closing=1000))


def test_a_close_that_fails_harms_nobody() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        decisions: list[Decision] = []

        def close(thing: Thing) -> None:
            raise OSError("broken pipe")

        async with pool_of(workshop, clock, close=close, listener=decisions.append) as pool:
            await taken(pool)
        assert decisions[-1].kind == "pool_closed_resource"
        assert str(decisions[-1].data["error"]) == "broken pipe"

    run(main)


def test_a_resource_is_not_closed_under_the_deadline_of_whoever_gave_it_back() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        pool = pool_of(workshop, clock)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                lease = await pool.acquire()
                try:
                    await asyncio.sleep(5)
                finally:
                    lease.invalidate()
        await pool.aclose()
        assert workshop.made[0].closed == 1

    run(main, Workshop(closing=3))


# ---- several event loops


def test_two_loops_in_two_threads_share_one_pool_and_no_resource() -> None:
    workshop = Workshop()
    pool = ResourcePool(workshop.make, size=3, close=workshop.close, max_lifetime=None, acquire_timeout=60)
    held: set[Thing] = set()
    wrong: list[str] = []
    served = [0, 0]

    async def work(side: int) -> None:
        for _ in range(40):
            async with pool.acquire() as thing:
                if thing.loop is not asyncio.get_running_loop() or thing in held or len(held) >= 3:
                    wrong.append(f"{thing} of another, or too many")
                held.add(thing)
                await asyncio.sleep(0)
                held.discard(thing)
                served[side] += 1

    async def crowd(side: int) -> None:
        await asyncio.gather(*(work(side) for _ in range(5)))

    threads = [threading.Thread(target=lambda side=side: asyncio.run(crowd(side))) for side in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert served == [200, 200]
    assert pool.snapshot().in_use == 0
    assert asyncio.run(pool.aclose(timeout=0)) == 0


def test_for_a_waiter_of_another_loop_the_longest_idle_is_closed_on_its_own() -> None:
    workshop, why = Workshop(), []
    pool = ResourcePool(
        workshop.make,
        size=2,
        close=workshop.close,
        listener=lambda decision: why.append(decision.data.get("why")),
    )

    async def here() -> None:
        a, b = await pool.acquire(), await pool.acquire()
        b.release()
        a.release()
        assert (await asyncio.to_thread(asyncio.run, there())) == 3
        await turns()
        assert [thing.closed for thing in workshop.made[:2]] == [0, 1]
        assert await pool.aclose() == 0

    async def there() -> int:
        return (await taken(pool)).number

    asyncio.run(here())
    assert why.count("other_loop") == 1


def test_the_resources_of_a_loop_that_has_ended_are_let_go() -> None:
    workshop, why = Workshop(), []
    pool = ResourcePool(
        workshop.make,
        size=2,
        close=workshop.close,
        listener=lambda decision: why.append(decision.data.get("why")),
    )

    async def twice() -> list[int]:
        return [thing.number for thing in await asyncio.gather(taken(pool), taken(pool))]

    assert asyncio.run(twice()) == [1, 2]
    assert asyncio.run(twice()) == [3, 4]
    assert why.count("loop_ended") == 2
    assert (pool.idle, pool.in_use) == (2, 0)


def test_a_lease_may_be_released_by_another_thread() -> None:
    async def main() -> None:
        workshop = Workshop()
        pool = ResourcePool(workshop.make, size=1, close=workshop.close)
        lease = await pool.acquire()
        waiting = asyncio.create_task(taken(pool))
        await turns()
        await asyncio.to_thread(lease.release)
        assert (await waiting).number == 1
        lease = await pool.acquire()
        await asyncio.to_thread(lease.invalidate)
        assert await pool.aclose() == 0
        assert workshop.made[0].closed == 1

    asyncio.run(main())


def test_a_waiter_whose_loop_ended_is_passed_over() -> None:
    async def make() -> object:
        return object()

    pool = ResourcePool(make, size=1)
    gone = asyncio.new_event_loop()
    waiting: Coroutine[Any, Any, Any] = pool.acquire()._take()

    async def hold() -> None:
        lease = await pool.acquire()
        await asyncio.to_thread(leave_waiting)
        assert pool.waiting == 1
        lease.release()
        assert (pool.idle, pool.waiting, pool.in_use) == (1, 0, 0)

    def leave_waiting() -> None:
        async def step() -> None:
            waiting.send(None)

        gone.run_until_complete(step())
        gone.close()

    asyncio.run(hold())
    waiting.close()
    assert (pool.in_use, pool.waiting) == (0, 0)


# ---- what is told


def test_each_decision_is_told() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        told: list[tuple[str, str, dict[str, object]]] = []
        pool = pool_of(
            workshop, clock, size=1, name="database", idle_timeout=60, trace_leaks=True,
            listener=lambda decision: told.append((decision.kind, decision.guard, dict(decision.data))),
        )  # fmt: skip
        lease = await pool.acquire()
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=1)
        waiting = asyncio.create_task(taken(pool))
        await asyncio.sleep(3)
        lease.release()
        await waiting
        await asyncio.sleep(61)
        (await pool.acquire()).invalidate()
        await pool.aclose()
        assert told == [
            ("pool_created", "database", {"seconds": 2}),
            ("pool_timeout", "database", {"seconds": 1, "in_use": 1}),
            ("pool_wait", "database", {"seconds": 3}),
            ("pool_closed_resource", "database", {"why": "idle"}),
            ("pool_created", "database", {"seconds": 2}),
            ("pool_closed_resource", "database", {"why": "invalidated"}),
        ]

    run(main, Workshop(seconds=2))


def test_a_listener_that_raises_changes_nothing() -> None:
    async def main(clock: VirtualClock, workshop: Workshop) -> None:
        def listener(decision: Decision) -> None:
            raise ValueError(decision)

        async with pool_of(workshop, clock, size=1, listener=listener) as pool:
            await asyncio.gather(taken(pool, 1), taken(pool, 1))
            with await pool.acquire():
                with pytest.raises(PoolTimeoutError):
                    await pool.acquire(timeout=1)
        assert (pool.in_use, workshop.alive) == (0, 0)

    run(main)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size .* 1 or more, not 0"),
        ({"size": 2.5}, r"size .* not 2\.5"),
        ({"lifetime_jitter": 1.5}, r"lifetime_jitter .* from 0 to 1, not 1\.5"),
        ({"idle_timeout": 0}, "idle_timeout .* more than 0, not 0"),
        ({"max_lifetime": -1}, "max_lifetime .* more than 0, not -1"),
        ({"acquire_timeout": float("nan")}, "acquire_timeout .* 0 or more, not nan"),
        ({"validate_after": -1}, "validate_after .* 0 or more, not -1"),
        ({"validate_timeout": 0}, "validate_timeout .* more than 0, not 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResourcePool(Workshop().make, **options)


def test_a_timeout_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"timeout .* 0 or more, not -1"):
        ResourcePool(Workshop().make).acquire(timeout=-1)


# ---- cancelled anywhere


async def undisturbed(work: Awaitable[object]) -> None:
    """To its end, whoever cancels meanwhile."""
    future = asyncio.ensure_future(work)
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(future)


def test_cancelled_at_any_wait_nothing_is_lost() -> None:
    made: list[tuple[ResourcePool[Thing], Workshop]] = []

    async def operation(clock: VirtualClock) -> None:
        workshop = Workshop(seconds=1, closing=1)
        pool = pool_of(workshop, clock, size=2, validate=workshop.validate, validate_after=0.0, idle_timeout=None,
                       max_lifetime=None)  # fmt: skip
        made.append((pool, workshop))
        others = [asyncio.create_task(taken(pool, 1)) for _ in range(4)]
        try:
            await asyncio.sleep(0.5)
            async with pool.acquire():
                await asyncio.sleep(1)
            (await pool.acquire()).invalidate()
            async with pool.acquire():
                await asyncio.sleep(0)
        finally:
            await undisturbed(asyncio.wait(others))
            assert all(other.exception() is None for other in others), "somebody else was not served"
            await undisturbed(asyncio.sleep(5))

    def check() -> None:
        pool, workshop = made.pop()
        assert (pool.in_use, pool.waiting, pool.snapshot().closing) == (0, 0, 0)
        assert workshop.alive == pool.idle
        assert timers() == 0

    assert sweep(operation, check) >= 6


def test_closing_that_is_cancelled_at_any_wait_can_be_said_again() -> None:
    made: list[tuple[ResourcePool[Thing], Workshop]] = []

    async def operation(clock: VirtualClock) -> None:
        workshop = Workshop(seconds=1, closing=1)
        pool = pool_of(workshop, clock, size=2)
        made.append((pool, workshop))
        other = asyncio.create_task(taken(pool, 2))
        try:
            await asyncio.sleep(1.5)
            await pool.aclose()
        finally:
            await undisturbed(other)
            await undisturbed(pool.aclose())

    def check() -> None:
        pool, workshop = made.pop()
        assert pool.snapshot() == PoolSnapshot("pool", 2, 0, 0, 0, 0, True)
        assert workshop.alive == 0
        assert not pool._desk.slots.drains
        assert timers() == 0

    assert sweep(operation, check) >= 2


# ---- against a naive model


class PoolMachine(RuleBasedStateMachine):
    """Every acquirer is a task that holds what it gets until it is told to let go."""

    SIZE = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.runner = asyncio.Runner(loop_factory=lambda: clock_module._VirtualLoop(self.clock))
        self.workshop = Workshop()
        self.pool = pool_of(self.workshop, self.clock, size=self.SIZE, idle_timeout=50, max_lifetime=None)
        self.held: dict[int, Lease[Thing]] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.number = 0
        # The model: who holds which thing, who waits, and what is idle since when.
        self.holding: dict[int, int] = {}
        self.queue: list[int] = []
        self.idle: list[tuple[int, float]] = []
        self.things = 0

    def teardown(self) -> None:
        async def end() -> None:
            for task in self.tasks.values():
                task.cancel()
            for lease in self.held.values():
                lease.release()
            assert await self.pool.aclose() == 0
            assert self.workshop.alive == 0

        self.runner.run(end())
        self.runner.close()

    def step(self, action: Callable[[], object]) -> None:
        async def once() -> None:
            action()
            await turns(10)

        self.runner.run(once())
        self.forget()

    def forget(self) -> None:
        self.idle = [(thing, since) for thing, since in self.idle if since + 50 > self.clock.monotonic()]

    def serve(self) -> None:
        self.forget()
        while self.queue and (self.idle or len(self.holding) + len(self.idle) < self.SIZE):
            if self.idle:
                thing, _ = self.idle.pop()
            else:
                self.things += 1
                thing = self.things
            self.holding[self.queue.pop(0)] = thing

    @rule()
    def acquire(self) -> None:
        self.number += 1
        number = self.number

        async def hold() -> None:
            self.held[number] = await self.pool.acquire(timeout=float("inf"))

        self.queue.append(number)
        self.serve()
        self.step(lambda: self.tasks.update({number: asyncio.get_running_loop().create_task(hold())}))

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), back=st.booleans())
    def give_back(self, data: st.DataObject, back: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.holding)))
        thing = self.holding.pop(number)
        if back:
            self.idle.append((thing, self.clock.monotonic()))
        self.serve()
        lease = self.held.pop(number)
        self.step(lease.release if back else lease.invalidate)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.queue))
        self.queue.remove(number)
        self.step(self.tasks.pop(number).cancel)

    @precondition(lambda self: self.queue and self.holding)
    @rule(data=st.data())
    def leave_with_the_grant_on_its_way(self, data: st.DataObject) -> None:
        """The first waiter is granted what comes back, and cancelled before it wakes up."""
        number = data.draw(st.sampled_from(sorted(self.holding)))
        first = self.queue.pop(0)
        self.idle.append((self.holding.pop(number), self.clock.monotonic()))
        self.serve()
        lease, task = self.held.pop(number), self.tasks.pop(first)

        def both() -> None:
            lease.release()
            task.cancel()

        self.step(both)

    @rule(seconds=st.sampled_from([1.0, 30.0, 49.0, 51.0, 10_000.0]))
    def wait(self, seconds: float) -> None:
        async def pause() -> None:
            await asyncio.sleep(seconds)

        self.runner.run(pause())
        self.step(lambda: None)

    @rule()
    def jump(self) -> None:
        self.clock.advance(60)
        self.step(lambda: None)

    @invariant()
    def agrees(self) -> None:
        assert {number: lease.resource.number for number, lease in self.held.items()} == self.holding
        assert (self.pool.in_use, self.pool.waiting) == (len(self.holding), len(self.queue))
        assert self.pool.idle == len(self.idle)
        assert self.workshop.alive == len(self.idle) + len(self.holding) <= self.SIZE


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPoolMachine = PoolMachine.TestCase
