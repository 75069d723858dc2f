"""How late a loop is, and that measuring it keeps no loop busy."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.loop_lag import LoopLag


def hang(clock: VirtualClock, seconds: float) -> None:
    """The loop does nothing else for so long."""
    clock.advance(seconds)


def test_a_loop_that_is_not_late_has_no_lag():
    clock, lag = VirtualClock(), LoopLag()

    async def main() -> None:
        assert lag.seconds() == 0.0
        await asyncio.sleep(3)
        assert lag.seconds() == pytest.approx(0.0, abs=1e-6)

    clock.run(main())


def test_a_loop_that_hangs_for_a_second_is_late_by_about_that():
    clock, lag = VirtualClock(), LoopLag()

    async def main() -> None:
        lag.seconds()
        await asyncio.sleep(1.05)
        hang(clock, 1.0)
        await asyncio.sleep(0)
        assert 0.6 < lag.seconds() < 1.0

    clock.run(main())


def test_one_short_pause_counts_for_little():
    clock, lag = VirtualClock(), LoopLag()

    async def main() -> None:
        lag.seconds()
        await asyncio.sleep(1.05)
        hang(clock, 0.15)
        await asyncio.sleep(0)
        assert 0.0 < lag.seconds() < 0.05

    clock.run(main())


def test_lag_is_seen_before_the_late_timer_has_run():
    clock, lag = VirtualClock(), LoopLag()

    async def main() -> None:
        lag.seconds()
        await asyncio.sleep(0.05)
        hang(clock, 1.0)
        assert lag.seconds() > 0.5

    clock.run(main())


def test_it_is_forgotten_within_seconds_even_after_a_night_of_sleep():
    clock, lag = VirtualClock(), LoopLag()

    async def main() -> None:
        lag.seconds()
        hang(clock, 8 * 3600.0)
        assert lag.seconds() <= 10.0
        await asyncio.sleep(4.0)
        assert lag.seconds() < 0.01

    clock.run(main())


def test_without_a_running_loop_there_is_none():
    lag = LoopLag()
    assert lag.seconds() == 0.0
    assert lag.measuring == 0


def test_the_timer_stops_when_nobody_asks_and_starts_again_when_somebody_does():
    clock, lag = VirtualClock(), LoopLag(idle=2.0)

    async def main() -> None:
        lag.seconds()
        await asyncio.sleep(1.9)
        assert lag.measuring == 1
        await asyncio.sleep(0.3)
        assert lag.measuring == 0
        lag.seconds()
        assert lag.measuring == 1

    clock.run(main())


def test_asking_keeps_it_going():
    clock, lag = VirtualClock(), LoopLag(idle=1.0)

    async def main() -> None:
        for _ in range(10):
            lag.seconds()
            assert lag.measuring == 1
            await asyncio.sleep(0.5)

    clock.run(main())


def test_each_loop_has_its_own_lag():
    lag, others = LoopLag(), []

    def other() -> None:
        async def ask() -> float:
            return lag.seconds()

        others.append(asyncio.run(ask()))

    clock = VirtualClock()

    async def main() -> None:
        lag.seconds()
        hang(clock, 1.0)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert lag.seconds() > 0.5

    clock.run(main())
    assert others == [0.0]


def test_loops_that_have_ended_are_forgotten():
    lag = LoopLag()

    async def ask() -> None:
        lag.seconds()
        assert lag.measuring == 1

    for _ in range(3):
        VirtualClock().run(ask())
        assert lag.measuring == 0
    assert len(lag._probes) == 1


@pytest.mark.parametrize("options", [{"interval": 0.0}, {"interval": float("nan")}, {"idle": -1.0}, {"idle": math.inf}])
def test_wrong_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        LoopLag(**options)
