"""One timer for several event loops: it rings where it was set, is touched by its own thread alone, and never rings
for another. A loop that does not run at the moment stands for one that runs in another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.alarm import Alarm

NOW = 50.0


@pytest.fixture
def there() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of another thread."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop, work: Callable[[], object] = lambda: None) -> None:
    """Let the loop do what it was asked to do, and `work` on it."""

    async def main() -> None:
        work()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


# ---- on the loop that waits


def test_it_rings_at_its_time() -> None:
    clock, heard = VirtualClock(), []

    async def main() -> None:
        alarm = Alarm(lambda ring: heard.append(clock.monotonic()))
        alarm.set(asyncio.get_running_loop(), 103.0, 100.0)
        await asyncio.sleep(2.5)
        assert heard == []
        await asyncio.sleep(1)
        assert heard == [3.0]

    clock.run(main())


def test_what_is_late_rings_at_once() -> None:
    clock, heard = VirtualClock(), []

    async def main() -> None:
        Alarm(lambda ring: heard.append(clock.monotonic())).set(asyncio.get_running_loop(), 90.0, 100.0)
        await asyncio.sleep(1)

    clock.run(main())
    assert heard == [0.0]


@pytest.mark.parametrize("later", [10.0, 11.0])
def test_an_earlier_one_stays(there: asyncio.AbstractEventLoop, later: float) -> None:
    alarm = Alarm(lambda ring: None)

    def work() -> None:
        alarm.set(there, 10.0, 0.0)
        timer = alarm.timer
        alarm.set(there, later, 0.0)
        assert alarm.timer is timer

    turn(there, work)


def test_a_later_one_gives_way(there: asyncio.AbstractEventLoop) -> None:
    alarm = Alarm(lambda ring: None)

    def work() -> None:
        alarm.set(there, 10.0, 0.0)
        timer = alarm.timer
        alarm.set(there, 9.0, 0.0)
        assert timer is not None
        assert timer.cancelled()
        assert alarm.timer is not None
        assert not alarm.timer.cancelled()

    turn(there, work)


def test_a_cleared_one_never_rings_and_its_timer_is_gone_at_once(there: asyncio.AbstractEventLoop) -> None:
    heard: list[int] = []
    alarm = Alarm(heard.append)

    def work() -> None:
        alarm.set(there, 0.0, 0.0)
        timer = alarm.timer
        alarm.clear()
        assert timer is not None
        assert timer.cancelled()
        assert alarm.timer is None

    turn(there, work)
    turn(there)
    assert heard == []


def test_nothing_is_to_be_cleared_where_nothing_is_set() -> None:
    alarm = Alarm(lambda ring: None)
    alarm.clear()
    assert alarm.timer is None


# ---- rings and who they belong to


def test_after_it_has_rung_the_next_may_be_set_for_later(there: asyncio.AbstractEventLoop) -> None:
    heard: list[int] = []
    alarm = Alarm(heard.append)
    turn(there, lambda: alarm.set(there, NOW, NOW))
    turn(there)
    alarm.rung(heard[-1])
    assert alarm.timer is None
    turn(there, lambda: alarm.set(there, NOW + 9, NOW))
    assert alarm.timer is not None


def test_one_that_rings_late_does_not_pass_for_the_next(there: asyncio.AbstractEventLoop) -> None:
    """It was cleared as it rang: whoever set the next still waits for that one."""
    heard: list[int] = []
    alarm = Alarm(heard.append)
    for _ in range(3):
        turn(there, lambda: alarm.set(there, NOW, NOW))
        turn(there)
        alarm.clear()
    turn(there, lambda: alarm.set(there, NOW + 9, NOW))
    timer = alarm.timer
    for late in heard:
        alarm.rung(late)
    assert len(heard) == 3
    assert alarm.timer is timer is not None


# ---- from another thread


def test_from_another_thread_the_loop_is_asked_to_look_at_once_and_once_only(there: asyncio.AbstractEventLoop) -> None:
    heard: list[int] = []
    alarm = Alarm(heard.append)
    alarm.set(there, NOW + 9, NOW)
    alarm.set(there, NOW + 8, NOW)
    assert alarm.timer is None, "a timer belongs to the thread of its loop"
    turn(there)
    assert len(heard) == 1
    alarm.rung(heard[0])
    turn(there, lambda: alarm.set(there, NOW + 9, NOW))
    assert alarm.timer is not None


def test_from_another_thread_a_timer_is_cancelled_by_its_own(there: asyncio.AbstractEventLoop) -> None:
    alarm = Alarm(lambda ring: None)
    turn(there, lambda: alarm.set(there, NOW + 9, NOW))
    timer = alarm.timer
    assert timer is not None
    alarm.clear()
    assert not timer.cancelled()
    turn(there)
    assert timer.cancelled()


def test_where_the_first_in_the_queue_waits_on_another_loop_the_alarm_moves_there(
    there: asyncio.AbstractEventLoop,
) -> None:
    heard: list[int] = []
    alarm = Alarm(heard.append)
    here = asyncio.new_event_loop()
    turn(here, lambda: alarm.set(here, NOW + 1, NOW))
    timer = alarm.timer
    turn(here, lambda: alarm.set(there, NOW + 9, NOW))
    here.close()
    assert timer is not None
    assert timer.cancelled()
    turn(there)
    assert len(heard) == 1


def test_a_loop_that_is_gone_is_no_trouble(there: asyncio.AbstractEventLoop) -> None:
    heard: list[int] = []
    alarm = Alarm(heard.append)
    turn(there, lambda: alarm.set(there, NOW + 9, NOW))
    there.close()
    alarm.clear()
    alarm.set(there, NOW + 9, NOW)
    alarm.clear()
    assert heard == []
