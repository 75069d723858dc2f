"""The load shedder: who is let in, who waits in which order, who is refused and why, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.abandoned import abandon, for_ever
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.load_shedder import LoadShedder, Ticket
from agentflow.core.robustness.shedding import Priority, risk
from agentflow.errors import (
    LimiterError,
    LoadShedError,
    ModelTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)

CRITICAL, HIGH, NORMAL, LOW = Priority


def run(scenario, *, clock: VirtualClock | None = None, **options) -> LoadShedder:
    """Run `scenario(shedder, clock)` on a virtual clock, and see that everything is free at its end."""
    clock = clock or VirtualClock()
    shedder = LoadShedder(clock=clock, **{"limit": Fixed(1), **options})

    async def main() -> None:
        await scenario(shedder, clock)
        assert (shedder.in_flight, shedder.queued) == (0, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
    return shedder


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Calls that note the order in which they are let in, and hold their place until told."""

    def __init__(self, shedder: LoadShedder) -> None:
        self.shedder = shedder
        self.order: list[str] = []
        self.refused: dict[str, LoadShedError] = {}
        self.tickets: list[Ticket] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(
        self, name: str, priority: Priority = NORMAL, tenant: str | None = None, timeout: float | None = None
    ):
        self.tasks[name] = asyncio.create_task(self._call(name, priority, tenant, timeout))
        await settle()

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    async def serve(self) -> None:
        """End one call after the other until nobody waits."""
        while self.tickets:
            self.tickets.pop(0).drop()
            await settle()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _call(self, name: str, priority: Priority, tenant: str | None, timeout: float | None) -> None:
        try:
            self.tickets.append(await self.shedder.admit(priority, tenant, timeout=timeout))
            self.order.append(name)
        except LoadShedError as error:
            self.refused[name] = error


def teach(shedder: LoadShedder, clock: VirtualClock, seconds: float, times: int = 10) -> None:
    """So many calls that take every place and hold it for so long."""
    for _ in range(times):
        tickets = [shedder.try_admit() for _ in range(shedder.limit)]
        clock.advance(seconds)
        tickets[0].done()
        for ticket in tickets[1:]:
            ticket.drop()


# ---- admission -----------------------------------------------------------------------------------------------


def test_up_to_the_limit_calls_are_let_in_without_waiting():
    shedder = LoadShedder(limit=Fixed(2))
    first, second = shedder.try_admit(), shedder.try_admit(CRITICAL)
    assert first is not None
    assert second is not None
    assert shedder.try_admit(CRITICAL) is None
    assert (shedder.in_flight, shedder.limit) == (2, 2)
    first.done()
    assert shedder.try_admit() is not None


def test_a_ticket_gives_its_place_back_once_however_it_is_ended():
    shedder = LoadShedder(limit=Fixed(5))
    for end in itertools.product(("done", "overloaded", "drop"), repeat=2):
        ticket, other = shedder.try_admit(), shedder.try_admit()
        for way in end:
            getattr(ticket, way)()
        assert shedder.in_flight == 1
        other.drop()


def test_a_call_waits_for_a_place_and_its_ticket_says_how_long():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        first = await shedder.admit()
        assert first.waited == 0.0
        asyncio.get_running_loop().call_later(3.0, first.done)
        second = await shedder.admit()
        assert second.waited == pytest.approx(3.0)
        second.done()

    run(scenario)


def test_nobody_overtakes_a_waiter():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("first")
        await crowd.come("second")
        crowd.tickets.pop().drop()  # the second has been granted its place, and is not running yet
        assert shedder.try_admit(CRITICAL) is None
        await settle()
        await crowd.serve()
        assert crowd.order == ["first", "second"]

    run(scenario)


def test_a_limit_that_grows_lets_waiters_in():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for name in "abcd":
            await crowd.come(name)
        assert len(crowd.order) == 1
        crowd.tickets.pop().done()
        await settle()
        assert (len(crowd.order), shedder.in_flight, shedder.limit) == (3, 2, 2)
        await crowd.serve()

    run(scenario, limit=AIMD(initial=1))


def test_a_limit_that_shrinks_lets_nobody_in_until_enough_have_left():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for name in "abcdef":
            await crowd.come(name)
        crowd.tickets.pop().overloaded()
        await settle()
        assert (shedder.limit, shedder.in_flight, len(crowd.order)) == (3, 3, 4)
        await crowd.serve()

    run(scenario, limit=AIMD(initial=4))


# ---- the order -----------------------------------------------------------------------------------------------


def test_higher_priorities_go_first():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        for priority in (LOW, NORMAL, CRITICAL, HIGH):
            await crowd.come(priority.name, priority)
        await crowd.serve()
        assert crowd.order == ["holder", "CRITICAL", "HIGH", "NORMAL", "LOW"]

    run(scenario)


def test_tenants_of_one_priority_take_turns_and_nobody_is_one_of_them():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        for name in ("a1", "a2", "a3", "b1", "n1", "n2", "b2"):
            await crowd.come(name, tenant={"a": "ann", "b": "bob", "n": None}[name[0]])
        await crowd.serve()
        assert crowd.order == ["holder", "a1", "b1", "n1", "a2", "b2", "n2", "a3"]

    run(scenario)


def test_a_thousand_calls_of_one_tenant_do_not_starve_the_one_call_of_another():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for number in range(1000):
            crowd.tasks[str(number)] = asyncio.create_task(crowd._call(str(number), NORMAL, "greedy", None))
        await settle()
        await crowd.come("modest", tenant="modest")
        await crowd.serve()
        assert crowd.order.index("modest") <= 2

    run(scenario)


def test_tenants_get_equal_shares_whatever_they_ask_for():
    """Jain's index of what eight tenants got, who have 4 to 32 clients: 1.0 is perfectly fair, 1/8 is all for one."""

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        served: Counter[str] = Counter()

        async def client(tenant: str) -> None:
            while clock.monotonic() < 100.0:
                async with shedder.admit(tenant=tenant):
                    await asyncio.sleep(0.5)
                    served[tenant] += 1

        clients = [client(f"tenant {number}") for number in range(1, 9) for _ in range(number * 4)]
        await asyncio.gather(*clients)
        shares = served.values()
        jain = sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
        assert len(shares) == 8
        assert jain > 0.99

    run(scenario, limit=Fixed(8), target_wait=None)


def test_ten_thousand_calls_all_get_in():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        async def call(number: int) -> None:
            async with shedder.admit(Priority(number % 4), f"tenant {number % 7}", timeout=3600.0):
                await asyncio.sleep(1.0)

        await asyncio.gather(*(call(number) for number in range(10_000)))
        assert clock.monotonic() == pytest.approx(100.0)

    run(scenario, limit=Fixed(100))


# ---- refusals ------------------------------------------------------------------------------------------------


async def refusal(shedder: LoadShedder, *args, **options) -> LoadShedError:
    with pytest.raises(LoadShedError) as caught:
        await shedder.admit(*args, **options)
    return caught.value


def test_a_call_that_may_not_wait_is_refused_where_it_would_have_to():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        ticket = await shedder.admit(timeout=0.0)
        error = await refusal(shedder, timeout=0.0)
        assert (error.guard, error.retry_after) == ("gate", None)
        await refusal(shedder, CRITICAL, timeout=-5.0)
        ticket.drop()

    run(scenario, name="gate")


def test_a_call_whose_time_is_up_in_the_queue_is_refused():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        ticket = await shedder.admit()
        await refusal(shedder, timeout=3.0)
        assert clock.monotonic() == pytest.approx(3.0)
        assert shedder.queued == 0
        ticket.drop()

    run(scenario)


def test_a_call_that_would_come_too_late_is_refused_at_once():
    """Each call holds its place for 2 s: with nobody ahead the next free place is 2 s away, with one ahead 4 s."""

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        teach(shedder, clock, 2.0)
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("waits")
        began = clock.monotonic()
        error = await refusal(shedder, timeout=3.9)
        assert clock.monotonic() == began
        assert error.retry_after == pytest.approx(4.0)
        await crowd.come("in time", timeout=4.1)
        await crowd.come("more important", HIGH, timeout=2.1)
        assert shedder.queued == 3
        await crowd.serve()

    run(scenario)


def test_without_evidence_nobody_is_refused_for_the_wait_to_be_expected():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        teach(shedder, clock, 100.0, times=9)
        assert shedder.snapshot().held is None
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("waits", timeout=0.5)
        assert shedder.queued == 1
        await crowd.serve()

    run(scenario)


def test_a_night_of_sleep_does_not_ruin_the_expectation():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        teach(shedder, clock, 1.0)
        teach(shedder, clock, 8 * 3600.0, times=1)
        assert shedder.snapshot().held < 2.0

    run(scenario)


def test_a_modest_tenant_need_not_expect_the_wait_of_a_greedy_one():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        teach(shedder, clock, 1.0)
        crowd = Crowd(shedder)
        for number in range(20):
            await crowd.come(f"greedy {number}", tenant="greedy")
        await refusal(shedder, tenant="greedy", timeout=10.0)
        await crowd.come("modest", tenant="modest", timeout=10.0)
        assert not crowd.refused
        await crowd.serve()

    run(scenario)


def test_a_full_queue_refuses_the_newcomer():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for name in "abc":
            await crowd.come(name)
        await refusal(shedder)
        await refusal(shedder, LOW)
        assert shedder.queued == 2
        await crowd.serve()
        assert crowd.order == ["a", "b", "c"]

    run(scenario, max_queue=2)


def test_without_a_queue_nobody_waits():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        async with shedder.admit():
            await refusal(shedder, CRITICAL)

    run(scenario, max_queue=0)


def test_the_youngest_least_important_call_of_the_greediest_tenant_makes_room():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        for name in ("a1", "b1", "a2", "c1"):
            await crowd.come(name, LOW, tenant=name[0])
        await crowd.come("normal")
        await crowd.come("important", HIGH)
        assert list(crowd.refused) == ["a2"]
        await crowd.serve()
        assert crowd.order == ["holder", "important", "normal", "a1", "b1", "c1"]

    run(scenario, max_queue=5)


def test_among_equals_a_tenant_with_fewer_waiting_displaces_one_with_more():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        for name in ("a1", "a2", "a3"):
            await crowd.come(name, tenant="a")
        await crowd.come("b1", tenant="b")
        await crowd.come("b2", tenant="b")  # two each would not be fairer than two and one
        assert list(crowd.refused) == ["a3", "b2"]
        await crowd.serve()

    run(scenario, max_queue=3)


# ---- chance --------------------------------------------------------------------------------------------------


def test_the_probability_rises_with_the_wait_and_falls_with_the_priority():
    assert [risk(10.0, 5.0, priority) for priority in Priority] == [0.0, 0.0, 0.0, 0.5]
    assert [risk(25.0, 5.0, priority) for priority in Priority] == pytest.approx([0.0, 0.2, 0.6, 0.8])
    assert [risk(1e6, 5.0, priority) for priority in Priority] == [0.0, 0.9, 0.9, 0.9]
    assert [risk(0.0, 5.0, priority) for priority in Priority] == [0.0] * 4


@pytest.mark.parametrize(("priority", "expected"), [(CRITICAL, 0.0), (HIGH, 0.2), (NORMAL, 0.6), (LOW, 0.8)])
def test_a_slow_queue_refuses_newcomers_by_chance(priority, expected):
    """The head has waited five times the target."""

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("head", priority)
        clock.advance(25.0)
        for number in range(200):
            await crowd.come(str(number), priority)
        assert len(crowd.refused) / 200 == pytest.approx(expected, abs=0.1)
        for task in crowd.tasks.values():
            task.cancel()
        await crowd.serve()

    run(scenario, target_wait=5.0)


def test_a_refusal_says_when_to_come_back():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        teach(shedder, clock, 2.0)
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("head", LOW)
        clock.advance(1000.0)
        for number in range(50):
            await crowd.come(str(number), LOW)
        assert len(crowd.refused) > 30
        assert crowd.refused[max(crowd.refused)].retry_after >= 4.0
        await crowd.serve()

    run(scenario)


def test_a_queue_that_was_empty_has_no_wait():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("head", LOW)
        clock.advance(1e6)
        assert shedder.snapshot().waits[LOW] == pytest.approx(1e6)
        await crowd.serve()
        assert set(shedder.snapshot().waits.values()) == {0.0}

    run(scenario)


def test_a_modest_tenant_is_not_refused_for_the_queue_of_a_greedy_one():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for number in range(100):
            await crowd.come(f"greedy {number}", LOW, tenant="greedy")
        clock.advance(20.0)
        for number in range(40):
            await crowd.come(f"modest {number}", LOW, tenant=f"modest {number}")
            await crowd.leave(f"modest {number}")
        assert not crowd.refused
        await crowd.serve()

    run(scenario, target_wait=5.0)


def test_without_a_target_everybody_may_wait_for_ever():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("head", LOW)
        clock.advance(1e6)
        for number in range(50):
            await crowd.come(str(number), LOW)
        assert not crowd.refused
        await crowd.serve()

    run(scenario, target_wait=None)


def test_a_late_event_loop_refuses_low_and_normal_calls_even_where_there_is_room():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        tickets = [shedder.try_admit(LOW)]  # and the measuring begins
        clock.advance(2.0)
        assert shedder.try_admit(LOW) is None
        assert shedder.try_admit(NORMAL) is None
        tickets.append(shedder.try_admit(HIGH))
        outcomes: Counter[Priority] = Counter()
        for priority in Priority:
            for _ in range(100):
                try:
                    (await shedder.admit(priority)).drop()
                except LoadShedError:
                    outcomes[priority] += 1
        assert outcomes[CRITICAL] == outcomes[HIGH] == 0
        assert 70 < outcomes[NORMAL] <= outcomes[LOW] + 10 < 110
        for ticket in tickets:
            ticket.drop()

    run(scenario, limit=Fixed(10), max_lag=0.1)


async def admit_one(shedder: LoadShedder, clock: VirtualClock) -> None:
    async with shedder.admit():
        pass


def test_without_max_lag_no_timer_is_started():
    shedder = run(admit_one)
    assert shedder._lag is None


# ---- how a call ends -----------------------------------------------------------------------------------------


class Noted:
    """A limit that notes what it is told."""

    def __init__(self) -> None:
        self.limit = 5
        self.told: list[tuple[str, float]] = []

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        self.told.append(("done", seconds))

    def overloaded(self, now: float, began: float, in_flight: int) -> None:
        self.told.append(("overloaded", began))


def facts(kind: type[Exception]) -> Exception:
    return kind("no", provider="p", model="m")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, [("done", 2.0)]),
        (facts(OverloadedError), [("overloaded", 0.0)]),
        (facts(RateLimitError), [("overloaded", 0.0)]),
        (ModelTimeoutError("first byte", 2.0), [("overloaded", 0.0)]),
        (facts(QuotaExceededError), []),
        (LimiterError("limiter", "too long"), []),
        (LoadShedError("inner", "too much"), []),
        (facts(ServerError), []),
        (ValueError("mine"), []),
        (asyncio.CancelledError(), []),
    ],
)
def test_what_a_block_says_by_how_it_ends(error, told):
    limit = Noted()

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        with suppress(BaseException):
            async with shedder.admit():
                await asyncio.sleep(2.0)
                if error is not None:
                    raise error

    run(scenario, limit=limit)
    assert limit.told == told


def test_a_call_may_tell_of_overload_and_go_on():
    """A retry keeps its place, and each of its attempts is news: the limit has gone down since the one before."""
    clock = VirtualClock()
    shedder = LoadShedder(limit=AIMD(initial=10), clock=clock)
    ticket = shedder.try_admit()
    ticket.strained()
    clock.advance(5.0)
    ticket.strained()
    assert (shedder.limit, shedder.in_flight) == (8, 1)
    ticket.drop()
    ticket.strained()
    assert (shedder.limit, shedder.in_flight) == (8, 0)


def test_a_block_may_end_its_ticket_itself_with_the_time_to_the_first_token():
    limit = Noted()

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        async with shedder.admit() as ticket:
            ticket.done(seconds=0.25)
            await asyncio.sleep(60.0)

    run(scenario, limit=limit)
    assert limit.told == [("done", 0.25)]


def test_as_a_decorator_it_admits_each_call_and_keeps_the_function():
    clock = VirtualClock()
    shedder = LoadShedder(limit=Fixed(1), clock=clock)

    @shedder
    async def double(number: int) -> int:
        """Twice."""
        assert shedder.in_flight == 1
        await asyncio.sleep(1.0)
        return number * 2

    async def main() -> list[int]:
        return await asyncio.gather(double(1), double(2))

    assert clock.run(main()) == [2, 4]
    assert clock.monotonic() == pytest.approx(2.0)
    assert (double.__name__, double.__doc__) == ("double", "Twice.")


# ---- cancellation --------------------------------------------------------------------------------------------


def test_a_waiter_that_is_cancelled_leaves_the_queue():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for name in "abc":
            await crowd.come(name)
        await crowd.leave("b")
        assert shedder.queued == 1
        await crowd.serve()
        assert crowd.order == ["a", "c"]

    run(scenario)


def test_a_waiter_that_is_cancelled_after_its_grant_passes_it_on_and_says_nothing():
    limit = Noted()
    limit.limit = 1

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        for name in "abc":
            await crowd.come(name)
        crowd.tickets.pop().drop()
        crowd.tasks["b"].cancel()
        await settle()
        assert crowd.order == ["a", "c"]
        await crowd.serve()

    run(scenario, limit=limit)
    assert limit.told == []


@pytest.mark.parametrize("way", ["await", "block", "decorator", "timeout", "displaced"])
def test_cancelled_at_any_wait_it_gives_everything_back_and_others_are_served(way):
    now: list[LoadShedder] = []
    served: list[str] = []

    async def operation(clock: VirtualClock) -> None:
        shedder = LoadShedder(limit=Fixed(1), clock=clock, max_queue=2, listener=lambda decision: None)
        now[:] = [shedder]
        served.clear()

        async def other(priority: Priority) -> None:
            async with shedder.admit(priority):
                await asyncio.sleep(1.0)
            served.append(priority.name)

        others = [asyncio.create_task(other(priority)) for priority in (NORMAL, LOW)]
        try:
            await asyncio.sleep(0)
            if way == "displaced":
                others.append(asyncio.get_running_loop().create_task(other(HIGH)))
            await mine(shedder)
        finally:
            while not all(each.done() for each in others):
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(others)

    async def mine(shedder: LoadShedder) -> None:
        if way in ("await", "displaced"):
            ticket = await shedder.admit(LOW)
            ticket.done()
        elif way == "block":
            async with shedder.admit(HIGH):
                await asyncio.sleep(0.5)
        elif way == "timeout":
            await shedder.admit(timeout=0.5)
        else:
            await shedder(asyncio.sleep)(0.5)

    def check() -> None:
        (shedder,) = now
        assert (shedder.in_flight, shedder.queued) == (0, 0)
        assert shedder.try_admit() is not None
        assert "NORMAL" in served

    async def guarded(clock: VirtualClock) -> None:
        try:
            await operation(clock)
        except LoadShedError:
            assert way in ("timeout", "displaced")

    assert sweep(guarded, check) >= 2


# ---- the garbage collector -----------------------------------------------------------------------------------


class Collecting(Fixed):
    """The shedder asks it under its lock, and the garbage collector runs meanwhile."""

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        gc.collect()


@pytest.mark.timeout(10)
def test_a_ticket_that_the_collector_drops_in_the_midst_of_a_decision_does_not_hang():
    async def forgotten(shedder: LoadShedder) -> None:
        async with shedder.admit():
            await for_ever()

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        abandon(forgotten(shedder))
        first = await shedder.admit()
        served = [asyncio.create_task(shedder.admit()._admit()) for _ in range(2)]
        await settle()
        assert (shedder.in_flight, shedder.queued) == (2, 2)
        first.done()
        await settle()
        assert (shedder.in_flight, shedder.queued) == (2, 0)
        for task in served:
            (await task).drop()

    run(scenario, limit=Collecting(2))


@pytest.mark.parametrize("end", ["done", "overloaded", "strained", "drop"])
@pytest.mark.timeout(10)
def test_an_end_in_the_midst_of_a_decision_is_recorded_and_told_after_it(end):
    held, heard = [], []

    class Ending(AIMD):
        def succeeded(self, now, seconds, in_flight):
            super().succeeded(now, seconds, in_flight)
            while held:
                getattr(held.pop(), end)()
                assert not heard

    def listen(decision: Decision) -> None:
        heard.append((decision.data["from"], decision.data["to"]))
        assert shedder.in_flight == (1 if end == "strained" else 0)

    clock = VirtualClock()
    shedder = LoadShedder(limit=Ending(initial=2, decrease=0.5), clock=clock, listener=listen)
    clock.advance(5)
    held.append(shedder.try_admit())
    shedder.try_admit().done()
    assert shedder.in_flight == (1 if end == "strained" else 0)
    lowered = [(3, 1)] if end in ("overloaded", "strained") else []
    assert heard == [(2, 3), *lowered]


# ---- several loops and threads -------------------------------------------------------------------------------


def test_two_event_loops_in_two_threads_share_one_limit():
    shedder = LoadShedder(limit=Fixed(3))
    most, served = [0], Counter()

    def work(name: str) -> None:
        async def call() -> None:
            async with shedder.admit(tenant=name, timeout=30.0):
                most[0] = max(most[0], shedder.in_flight)
                await asyncio.sleep(0)
                served[name] += 1

        async def main() -> None:
            for _ in range(5):
                await asyncio.gather(*(call() for _ in range(60)))

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert served == {"one": 300, "two": 300}
    assert most[0] <= 3
    assert (shedder.in_flight, shedder.queued) == (0, 0)


def test_a_waiter_whose_loop_was_closed_is_passed_over():
    shedder = LoadShedder(limit=Fixed(1))
    ticket = shedder.try_admit()

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        waiting = shedder.admit().__await__()
        # Driven by hand, so that closing the loop does not cancel it.
        asyncio._set_running_loop(loop)
        next(waiting)
        asyncio._set_running_loop(None)
        loop.close()
        waits.append(waiting)

    waits: list[object] = []
    thread = threading.Thread(target=abandon)
    thread.start()
    thread.join()

    async def scenario() -> None:
        crowd = Crowd(shedder)
        await crowd.come("alive")
        assert shedder.queued == 2
        ticket.drop()
        await settle()
        assert crowd.order == ["alive"]
        await crowd.serve()

    asyncio.run(scenario())
    assert (shedder.in_flight, shedder.queued) == (0, 0)
    waits[0].close()
    assert (shedder.in_flight, shedder.queued) == (0, 0)


# ---- the listener --------------------------------------------------------------------------------------------


def test_the_listener_hears_of_waits_and_refusals():
    heard: list[Decision] = []

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        first = await shedder.admit()
        assert heard == []
        asyncio.get_running_loop().call_later(2.0, first.done)
        (await shedder.admit(HIGH, "ann")).drop()
        async with shedder.admit():
            await refusal(shedder, LOW, timeout=1.0)
            await refusal(shedder, timeout=0.0)

    run(scenario, listener=heard.append, name="gate")
    assert {decision.guard for decision in heard} == {"gate"}
    assert [(decision.kind, decision.data.get("reason"), decision.data.get("priority")) for decision in heard] == [
        ("shedder_wait", None, "high"),
        ("shedder_refused", "timeout", "low"),
        ("shedder_refused", "deadline", "normal"),
    ]
    assert heard[0].data == {"seconds": pytest.approx(2.0), "priority": "high", "tenant": "ann"}
    assert heard[1].data["seconds"] == pytest.approx(1.0)


def test_a_snapshot_says_what_it_holds_now():
    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        crowd = Crowd(shedder)
        await crowd.come("holder")
        await crowd.come("waits", LOW)
        now = shedder.snapshot()
        assert (now.limit, now.in_flight) == (1, 1)
        assert now.queued == {each: int(each is LOW) for each in Priority}
        await crowd.serve()

    run(scenario)


def test_changes_of_the_limit_are_told_sparsely():
    heard: list[Decision] = []
    clock = VirtualClock()
    shedder = LoadShedder(limit=AIMD(initial=8), clock=clock, listener=heard.append)
    for _ in range(3):
        tickets = [shedder.try_admit() for _ in range(shedder.limit)]
        for ticket in tickets:
            ticket.done()
    for _ in range(2):
        tickets = [shedder.try_admit() for _ in range(shedder.limit)]
        tickets.pop().overloaded()
        for ticket in tickets:
            ticket.drop()
        clock.advance(5.0)
    assert {decision.kind for decision in heard} == {"shedder_limit"}
    assert [tuple(decision.data.values()) for decision in heard] == [
        (8, 10, "growth"),
        (10, 13, "growth"),
        (13, 17, "growth"),
        (21, 18, "overload"),
        (18, 16, "overload"),
    ]


def test_a_listener_that_raises_changes_nothing():
    def listener(decision: Decision) -> None:
        raise RuntimeError(decision.kind)

    async def scenario(shedder: LoadShedder, clock: VirtualClock) -> None:
        first = await shedder.admit()
        asyncio.get_running_loop().call_later(2.0, first.overloaded)
        await refusal(shedder, timeout=1.0)
        (await shedder.admit()).done()

    run(scenario, limit=AIMD(initial=1), listener=listener)


# ---- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"max_queue": -1}, {"target_wait": 0.0}, {"target_wait": float("inf")}, {"max_lag": float("nan")}],
)
def test_wrong_arguments_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LoadShedder(**options)


def test_each_shedder_has_a_limit_of_its_own():
    first, second = LoadShedder(), LoadShedder()
    first.try_admit().overloaded()
    assert (first.limit, second.limit) == (18, 20)


# ---- against a naive model -----------------------------------------------------------------------------------


class Naive:
    """What the shedder ought to do, in lists: who is in, who waits, whose turn it is."""

    def __init__(self, limit: int, max_queue: int) -> None:
        self.limit, self.max_queue = limit, max_queue
        self.inside: list[str] = []
        self.waiting: list[tuple[str, Priority, str]] = []
        self.turns: dict[Priority, list[str]] = {priority: [] for priority in Priority}

    def come(self, name: str, priority: Priority, tenant: str) -> tuple[bool, str | None]:
        """Whether it was taken in, and who was displaced."""
        if len(self.inside) < self.limit:
            self.inside.append(name)
            return True, None
        displaced = None
        if len(self.waiting) >= self.max_queue:
            displaced = self.loser(priority, tenant)
            if displaced is None:
                return False, None
            self.leave(displaced)
        self.waiting.append((name, priority, tenant))
        if tenant not in self.turns[priority]:
            self.turns[priority].append(tenant)
        return True, displaced

    def loser(self, priority: Priority, tenant: str) -> str | None:
        lowest = max((waiter[1] for waiter in self.waiting), default=CRITICAL)
        counts = Counter(waiter[2] for waiter in self.waiting if waiter[1] == lowest)
        most = max(counts.values(), default=0)
        if lowest < priority or (lowest == priority and most <= counts[tenant] + 1):
            return None
        # Among tenants with as many, the one that came to have so many last: the model takes any.
        return next(
            (
                [waiter[0] for waiter in self.waiting if waiter[1:] == (lowest, each)][-1]
                for each, count in counts.items()
                if count == most and self.favourite in (None, each)
            ),
            None,
        )

    favourite: str | None = None

    def leave(self, name: str) -> None:
        if name in self.inside:
            self.inside.remove(name)
        _, priority, tenant = next((w for w in self.waiting if w[0] == name), (name, None, None))
        self.waiting = [waiter for waiter in self.waiting if waiter[0] != name]
        if priority is not None and not any(waiter[1:] == (priority, tenant) for waiter in self.waiting):
            self.turns[priority].remove(tenant)
        self.fill()

    def fill(self) -> None:
        while self.waiting and len(self.inside) < self.limit:
            priority = min(waiter[1] for waiter in self.waiting)
            tenant = self.turns[priority].pop(0)
            mine = [waiter for waiter in self.waiting if waiter[1:] == (priority, tenant)]
            self.waiting.remove(mine[0])
            self.inside.append(mine[0][0])
            if len(mine) > 1:
                self.turns[priority].append(tenant)


class ShedderMachine(RuleBasedStateMachine):
    """The shedder does what the naive model does, whoever comes, ends, or is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limit = Fixed(2)
        self.shedder = LoadShedder(limit=self.limit, max_queue=4, target_wait=None, clock=VirtualClock())
        self.model = Naive(2, 4)
        self.tasks: dict[str, asyncio.Task[Ticket]] = {}
        self.names = itertools.count()

    def turn(self) -> None:
        async def turns() -> None:
            await settle()

        self.loop.run_until_complete(turns())

    def names_of(self, state: str) -> list[str]:
        return self.model.inside if state == "inside" else [waiter[0] for waiter in self.model.waiting]

    async def admit(self, priority: Priority, tenant: str) -> Ticket:
        return await self.shedder.admit(priority, tenant)

    @rule(priority=st.sampled_from(Priority), tenant=st.sampled_from("abc"))
    def come(self, priority: Priority, tenant: str) -> None:
        name = str(next(self.names))
        self.tasks[name] = self.loop.create_task(self.admit(priority, tenant))
        self.turn()
        gone = [other for other, task in self.tasks.items() if task.done() and task.exception() and other != name]
        self.model.favourite = next((w[2] for w in self.model.waiting if w[0] in gone), None)
        taken, displaced = self.model.come(name, priority, tenant)
        assert taken == (not (self.tasks[name].done() and self.tasks[name].exception()))
        assert gone == ([] if displaced is None else [displaced])
        for other in [*gone, *([] if taken else [name])]:
            assert isinstance(self.tasks.pop(other).exception(), LoadShedError)

    @precondition(lambda self: self.model.inside)
    @rule(data=st.data(), way=st.sampled_from(["done", "overloaded", "drop"]))
    def end(self, data, way: str) -> None:
        name = data.draw(st.sampled_from(self.model.inside))
        ticket = self.tasks.pop(name).result()
        getattr(ticket, way)()
        ticket.done()
        self.model.leave(name)
        self.turn()

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        name = data.draw(st.sampled_from(self.names_of("waiting")))
        self.tasks.pop(name).cancel()
        self.turn()
        self.model.leave(name)

    @precondition(lambda self: self.model.inside and self.model.waiting)
    @rule(data=st.data(), first=st.booleans())
    def end_and_cancel_at_once(self, data, first: bool) -> None:
        """The grant and the cancellation meet on the way."""
        inside = data.draw(st.sampled_from(self.model.inside))
        waiting = data.draw(st.sampled_from(self.names_of("waiting")))
        steps = [lambda: self.tasks.pop(inside).result().done(), lambda: self.tasks.pop(waiting).cancel()]

        async def both() -> None:
            for step in steps if first else reversed(steps):
                step()
            await settle()

        self.loop.run_until_complete(both())
        self.model.leave(inside)  # it was granted before its cancellation reached it, or it left: either way it is gone
        self.model.leave(waiting)

    @rule(limit=st.integers(1, 4))
    def change_the_limit(self, limit: int) -> None:
        self.limit.limit = self.model.limit = limit
        if self.model.inside:
            self.end_one_and_refill()

    def end_one_and_refill(self) -> None:
        name = self.model.inside[0]
        self.tasks.pop(name).result().drop()
        self.model.leave(name)
        self.turn()

    @invariant()
    def agrees(self) -> None:
        assert self.shedder.in_flight == len(self.model.inside)
        assert self.shedder.queued == len(self.model.waiting)
        done = {name for name, task in self.tasks.items() if task.done()}
        assert done == set(self.model.inside)

    def teardown(self) -> None:
        while self.model.inside:
            self.end_one_and_refill()
        assert (self.shedder.in_flight, self.shedder.queued) == (0, 0)
        self.loop.close()


TestShedderMachine = ShedderMachine.TestCase
TestShedderMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
