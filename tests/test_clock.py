"""Time and randomness as arguments: the machine's clock, and the one that jumps."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agentflow.clock import Clock, SystemClock, VirtualClock

WEEK = 7 * 24 * 3600.0


def test_a_week_of_sleep_takes_no_time() -> None:
    clock = VirtualClock()
    started = time.monotonic()

    async def main() -> float:
        await clock.sleep(WEEK)
        await asyncio.sleep(WEEK)
        return clock.monotonic()

    assert clock.run(main()) == pytest.approx(2 * WEEK)
    assert time.monotonic() - started < 5


def test_wall_time_moves_with_monotonic_time() -> None:
    clock = VirtualClock(start=1000.0)
    clock.run(clock.sleep(5))

    assert clock.time() == pytest.approx(1005.0)
    assert clock.monotonic() == pytest.approx(5.0)


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = VirtualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(sleeper("slow", 30), sleeper("fast", 1), sleeper("middle", 2))

    clock.run(main())
    assert woken == [("fast", 1.0), ("middle", 2.0), ("slow", 30.0)]


def test_a_time_out_beneath_it_follows() -> None:
    clock = VirtualClock()

    async def main() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(61)

    with pytest.raises(TimeoutError):
        clock.run(main())
    assert clock.monotonic() == pytest.approx(60)


def test_time_stands_still_while_there_is_work() -> None:
    clock = VirtualClock()

    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return clock.monotonic()

    assert clock.run(main()) == 0.0


def test_a_thread_at_work_is_never_overtaken_by_a_timer() -> None:
    clock = VirtualClock()
    order: list[str] = []
    timer_is_set = threading.Event()

    def work() -> None:
        timer_is_set.wait(10)
        order.append("thread")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, order.append, "timer")
        loop.call_later(0.002, lambda: None)
        waiting = loop.run_in_executor(None, work)
        loop.call_soon(timer_is_set.set)
        await waiting
        await clock.sleep(1)

    clock.run(main())
    assert order == ["thread", "timer"]


def test_advance_lets_time_pass_without_waiting() -> None:
    clock = VirtualClock()
    fired: list[float] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(10, lambda: fired.append(clock.monotonic()))
        clock.advance(100)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    clock.run(main())
    assert fired == [100.0]


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        VirtualClock().advance(-1)


def test_one_seed_gives_one_sequence_of_chance() -> None:
    first, second, other = VirtualClock(seed=7), VirtualClock(seed=7), VirtualClock(seed=8)
    numbers = [first.random() for _ in range(20)]

    assert numbers == [second.random() for _ in range(20)]
    assert numbers != [other.random() for _ in range(20)]
    assert all(0 <= number < 1 for number in numbers)


def test_a_failure_of_the_coroutine_comes_out() -> None:
    async def main() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        VirtualClock().run(main())


def test_a_clock_goes_on_where_its_last_run_ended() -> None:
    clock = VirtualClock()
    clock.run(clock.sleep(3))
    clock.run(clock.sleep(4))

    assert clock.monotonic() == pytest.approx(7)


async def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    before, wall = time.monotonic(), time.time()

    await clock.sleep(0)

    assert before <= clock.monotonic() <= time.monotonic()
    assert wall - 1 <= clock.time() <= time.time() + 1
    assert 0 <= clock.random() < 1
