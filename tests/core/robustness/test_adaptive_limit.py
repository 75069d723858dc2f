"""Limits that learn: when they grow, when they shrink, and where they come to rest."""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed, Gradient2, Limit
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.errors import OverloadedError


def succeed(limit: Limit, times: int, *, now: float = 0.0, seconds: float = 1.0, in_flight: int | None = None) -> None:
    for _ in range(times):
        limit.succeeded(now, seconds, limit.limit if in_flight is None else in_flight)


# ---- Fixed ---------------------------------------------------------------------------------------------------


def test_a_fixed_limit_learns_nothing():
    limit = Fixed(3)
    succeed(limit, 100)
    limit.overloaded(1.0, 0.0, 3)
    assert limit.limit == 3


# ---- AIMD ----------------------------------------------------------------------------------------------------


def test_as_many_successes_as_the_limit_counts_raise_it_by_one():
    limit = AIMD(initial=10, slow_start=False)
    succeed(limit, 9)
    assert limit.limit == 10
    succeed(limit, 1)
    assert limit.limit == 11
    succeed(limit, 10)
    assert limit.limit == 11
    succeed(limit, 1)
    assert limit.limit == 12


def test_a_small_increase_adds_up():
    limit = AIMD(initial=4, increase=0.5, slow_start=False)
    succeed(limit, 4)
    assert limit.limit == 4
    succeed(limit, 4)
    assert limit.limit == 5


def test_until_the_first_sign_of_overload_it_doubles():
    limit = AIMD(initial=10)
    succeed(limit, 10)
    assert limit.limit == 20
    limit.overloaded(1.0, 0.0, 20)
    assert limit.limit == 18
    succeed(limit, 17, now=9.0)
    assert limit.limit == 18
    succeed(limit, 1, now=9.0)
    assert limit.limit == 19


def test_it_does_not_grow_while_fewer_than_half_of_the_places_are_used():
    limit = AIMD(initial=10)
    succeed(limit, 100, in_flight=4)
    assert limit.limit == 10
    succeed(limit, 1, in_flight=5)
    assert limit.limit == 11


def test_overload_takes_a_tenth_and_at_least_one():
    limit = AIMD(initial=100)
    limit.overloaded(1.0, 0.5, 100)
    assert limit.limit == 90
    limit = AIMD(initial=3)
    limit.overloaded(1.0, 0.5, 3)
    assert limit.limit == 2


def test_it_goes_down_once_in_a_window():
    limit = AIMD(initial=100, window=1.0)
    for now in (5.0, 5.25, 5.75):
        limit.overloaded(now, now, 100)
    assert limit.limit == 90
    limit.overloaded(6.0, 5.5, 90)
    assert limit.limit == 81


def test_it_does_not_grow_in_the_window_after_a_decrease():
    limit = AIMD(initial=10)
    limit.overloaded(5.0, 4.0, 10)
    succeed(limit, 100, now=5.5)
    assert limit.limit == 9
    succeed(limit, 9, now=6.0)
    assert limit.limit == 10


def test_calls_that_began_before_the_last_decrease_say_nothing_about_the_new_limit():
    """A hundred calls that time out together after a minute are one sign."""
    limit = AIMD(initial=100)
    limit.overloaded(60.0, 0.0, 100)
    for now in (61.5, 63.0, 90.0):
        limit.overloaded(now, 59.0, 90)
    assert limit.limit == 90


def test_a_limit_that_was_not_in_use_goes_down_to_what_was():
    """Thirty of a thousand places were in use, and that was too much: 900 would be no limit at all."""
    limit = AIMD(initial=1000)
    limit.overloaded(1.0, 0.5, 30)
    assert limit.limit == 27


def test_from_there_it_doubles_until_the_next_sign_of_overload():
    limit = AIMD(initial=1000)
    limit.overloaded(1.0, 0.5, 30)
    succeed(limit, 27, now=9.0, in_flight=27)
    assert limit.limit == 54
    limit.overloaded(10.0, 9.0, 54)
    assert limit.limit == 48
    succeed(limit, 48, now=19.0, in_flight=48)
    assert limit.limit == 49


def test_without_slow_start_it_climbs_by_one():
    limit = AIMD(initial=1000, slow_start=False)
    limit.overloaded(1.0, 0.5, 30)
    succeed(limit, 27, now=9.0, in_flight=27)
    assert limit.limit == 28


def test_what_befalls_a_few_calls_leaves_room_for_ten():
    """One call alone that times out says little of how many there may be."""
    limit = AIMD(initial=1000)
    limit.overloaded(1.0, 0.5, 1)
    assert limit.limit == 9


def test_it_stays_between_its_bounds():
    limit = AIMD(initial=2, minimum=2, maximum=4)
    limit.overloaded(1.0, 1.0, 2)
    assert limit.limit == 2
    succeed(limit, 100, now=9.0)
    assert limit.limit == 4


# ---- Gradient2 -----------------------------------------------------------------------------------------------


def windows(
    limit: Gradient2, number: int, seconds: float, *, start: float = 0.0, in_flight: int | None = None
) -> float:
    """Windows of 16 samples over a second each; returns when they are over."""
    now = start
    for _ in range(number):
        for sample in range(17):
            limit.succeeded(now + sample / 16, seconds, limit.limit if in_flight is None else in_flight)
        now += 2.0
    return now


def test_a_steady_latency_lets_the_limit_grow_by_a_part_of_the_queue():
    limit = Gradient2(initial=20, queue=4, smoothing=0.5)
    windows(limit, 1, 0.1)
    assert limit.limit == 22


def test_a_higher_latency_lets_it_shrink():
    limit = Gradient2(initial=100)
    now = windows(limit, 20, 0.1)
    before = limit.limit
    windows(limit, 5, 0.4, start=now)
    assert limit.limit < before * 0.8


def test_the_tolerance_forgives_half_as_much_again():
    limit = Gradient2(initial=50, probe=0)
    now = windows(limit, 20, 0.1)
    before = limit.limit
    windows(limit, 5, 0.14, start=now)
    assert limit.limit > before


def test_a_window_needs_ten_samples_and_a_second():
    limit = Gradient2(smoothing=1.0)
    succeed(limit, 50, now=5.0, seconds=0.1)
    assert limit.limit == 20
    succeed(limit, 1, now=6.0, seconds=0.1)
    assert limit.limit == 24
    succeed(limit, 9, now=50.0, seconds=0.1)
    succeed(limit, 1, now=50.5, seconds=0.1)
    assert limit.limit == 24


def test_one_window_never_takes_more_than_a_tenth():
    limit = Gradient2(initial=100)
    now = windows(limit, 5, 0.1)
    before = limit.limit
    windows(limit, 1, 1000.0, start=now + 5000.0)
    assert limit.limit >= before * 0.9


def test_gradient2_does_not_grow_while_fewer_than_half_of_the_places_are_used():
    limit = Gradient2(initial=20)
    windows(limit, 50, 0.1, in_flight=9)
    assert limit.limit == 20


def test_overload_counts_for_gradient2_as_well():
    limit = Gradient2(initial=100)
    for now in (5.0, 5.5):
        limit.overloaded(now, now, 100)
    assert limit.limit == 90
    limit.overloaded(9.0, 1.0, 90)
    assert limit.limit == 90


def test_after_a_time_under_load_one_window_runs_at_half_the_limit():
    limit = Gradient2(initial=20, probe=3, smoothing=0.25)
    now = windows(limit, 3, 0.1)
    assert limit.limit == 11  # half of 23
    succeed(limit, 100, now=now, seconds=9.0)
    succeed(limit, 100, now=now + 5.0, seconds=9.0)
    assert limit.limit == 11  # these began before
    succeed(limit, 29, now=now + 5.0, seconds=0.1)
    succeed(limit, 1, now=now + 6.0, seconds=0.1)
    assert limit.limit == 23


def test_the_latency_at_half_the_limit_is_the_usual_one():
    limit = Gradient2(initial=20, probe=3, smoothing=0.25)
    now = windows(limit, 3, 0.9)
    windows(limit, 2, 0.1, start=now + 3 * 0.9)  # thirty samples
    assert limit.limit == 23
    assert limit._usual == pytest.approx(0.1)


@pytest.mark.parametrize(("long_window", "usual"), [(1, 1.4), (9, 1.08), (99, 1.008)])
def test_the_usual_latency_is_a_mean_over_the_long_window(long_window, usual):
    """Exponential: each window counts for 2 / (n + 1)."""
    limit = Gradient2(probe=0, long_window=long_window)
    windows(limit, 1, 1.4, start=windows(limit, 20, 1.0))
    assert limit._usual == pytest.approx(usual)


@pytest.mark.parametrize(("latest", "left"), [(0.3, 0.9), (0.5, 1.0)])
def test_the_usual_latency_falls_by_a_tenth_with_each_window_that_needed_less_than_half_of_it(latest, left):
    limit = Gradient2(probe=0, long_window=10**6)
    now = windows(limit, 10, 0.8)
    now = windows(limit, 1, latest, start=now)
    assert limit._usual == pytest.approx(0.8 * left, rel=1e-3)
    windows(limit, 1, latest, start=now)
    assert limit._usual == pytest.approx(0.8 * left * left, rel=1e-3)


@pytest.mark.parametrize(("at_half", "soon"), [(0.1, True), (0.89, False)])
def test_after_a_surprise_it_looks_again_soon(at_half, soon):
    limit = Gradient2(initial=20, probe=50)
    now = windows(limit, 10, 0.9)
    assert limit._probing
    now = windows(limit, 2, at_half, start=now + 3 * 0.9)
    assert not limit._probing
    windows(limit, 10, 0.9, start=now)
    assert limit._probing == soon


def test_nonsense_for_a_latency_is_left_out():
    limit = Gradient2()
    for seconds in (0.0, -1.0, math.nan, math.inf):
        succeed(limit, 50, seconds=seconds)
        succeed(limit, 50, now=9.0, seconds=seconds)
    assert limit.limit == 20


# ---- all -----------------------------------------------------------------------------------------------------

events = st.lists(
    st.tuples(
        st.floats(0.0, 5000.0),
        st.sampled_from(["ok", "over"]),
        st.floats(0.0, 100.0),
        st.integers(0, 300),
        st.integers(1, 40),
    ),
    max_size=60,
)


@given(events)
def test_no_history_takes_a_limit_out_of_its_bounds(history):
    limits = AIMD(initial=5, minimum=2, maximum=50), Gradient2(initial=5, minimum=2, maximum=50, probe=2)
    now = 0.0
    for passed, kind, seconds, in_flight, times in history:
        now += passed
        for limit in limits:
            for _ in range(times):
                before = limit.limit
                if kind == "ok":
                    limit.succeeded(now, seconds, in_flight)
                else:
                    limit.overloaded(now, now - seconds, in_flight)
                    assert limit.limit <= before
                assert 2 <= limit.limit <= 50
                assert isinstance(limit.limit, int)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Fixed(0), "limit"),
        (lambda: AIMD(minimum=0), "minimum"),
        (lambda: AIMD(initial=2000), "initial"),
        (lambda: AIMD(decrease=1.0), "decrease"),
        (lambda: AIMD(increase=0.0), "increase"),
        (lambda: AIMD(window=math.nan), "window"),
        (lambda: Gradient2(maximum=10), "maximum"),
        (lambda: Gradient2(tolerance=0.9), "tolerance"),
        (lambda: Gradient2(smoothing=0.0), "smoothing"),
        (lambda: Gradient2(long_window=0), "long_window"),
        (lambda: Gradient2(queue=0), "queue"),
        (lambda: Gradient2(window=0), "window"),
        (lambda: Gradient2(probe=-1), "probe"),
    ],
)
def test_wrong_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=rf"^(minimum ≤ )?(initial ≤ )?{name}\b"):
        make()


def test_unless_told_otherwise_aimd_stops_at_1000_and_gradient2_at_200():
    aimd, gradient = AIMD(increase=5000.0, slow_start=False), Gradient2(queue=5000, smoothing=1.0)
    succeed(aimd, 20)
    windows(gradient, 1, 0.1)
    assert (aimd.limit, gradient.limit) == (1000, 200)


# ---- where they come to rest ---------------------------------------------------------------------------------


class Refusing:
    """A remote server: more than `allowed` calls at once are answered with an error, quickly."""

    def __init__(self, allowed: int, random: Random) -> None:
        self.allowed, self.random = allowed, random
        self.at_work = self.served = self.refused = 0

    async def call(self) -> None:
        if self.at_work >= self.allowed:
            self.refused += 1
            await asyncio.sleep(0.02)
            raise OverloadedError("busy", provider="p", model="m")
        self.at_work += 1
        try:
            await asyncio.sleep(self.random.expovariate(1 / 0.5))
            self.served += 1
        finally:
            self.at_work -= 1


class Working:
    """A local server: `workers` at work, and whoever comes then waits inside (M/M/c)."""

    def __init__(self, workers: int, random: Random) -> None:
        self.random = random
        self.served = 0
        self._places = asyncio.Semaphore(workers)

    async def call(self) -> None:
        async with self._places:
            await asyncio.sleep(self.random.expovariate(1 / 0.4))
            self.served += 1


async def drive(shedder: LoadShedder, server: Refusing | Working, *, clients: int, until: float, clock: VirtualClock):
    """So many clients that always want something; returns the limit at each second."""
    limits: list[int] = []

    async def client() -> None:
        while clock.monotonic() < until:
            try:
                async with shedder.admit():
                    await server.call()
            except OverloadedError:
                await asyncio.sleep(0.1)

    async def watch() -> None:
        while clock.monotonic() < until:
            limits.append(shedder.limit)
            await asyncio.sleep(1.0)

    await asyncio.gather(watch(), *(client() for _ in range(clients)))
    assert shedder.in_flight == shedder.queued == 0
    return limits


@pytest.mark.parametrize(("allowed", "initial"), [(50, 20), (50, 200), (8, 20)])
def test_aimd_finds_what_a_remote_server_allows(allowed, initial):
    clock = VirtualClock()

    async def main() -> None:
        shedder = LoadShedder(limit=AIMD(initial=initial), clock=clock, target_wait=None)
        server = Refusing(allowed, Random(1))
        await drive(shedder, server, clients=allowed * 3, until=40.0, clock=clock)
        server.served = server.refused = 0
        limits = await drive(shedder, server, clients=allowed * 3, until=80.0, clock=clock)
        assert abs(sum(limits) / len(limits) - allowed) <= 0.2 * allowed
        assert max(limits) <= 1.2 * allowed
        assert server.served > 0.8 * 40 * allowed / 0.5
        assert server.refused < 0.05 * server.served

    clock.run(main())


@pytest.mark.parametrize(("workers", "initial"), [(10, 20), (10, 60), (20, 4)])
def test_gradient2_comes_to_rest_near_the_number_of_workers(workers, initial):
    """1.5 times as many and a queue of 4 is what its formula allows; the clients would fill 120."""
    clock = VirtualClock()

    async def main() -> None:
        shedder = LoadShedder(limit=Gradient2(initial=initial), clock=clock, target_wait=None)
        server = Working(workers, Random(2))
        limits = await drive(shedder, server, clients=120, until=300.0, clock=clock)
        late = limits[200:]
        assert workers <= sum(late) / len(late) <= 1.5 * workers + 2 * 4
        assert max(late) <= 2 * workers + 2 * 4
        assert server.served > 0.9 * 300 * workers / 0.4

    clock.run(main())
