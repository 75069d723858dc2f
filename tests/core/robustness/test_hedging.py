"""Hedging: when a second request is sent, who wins, and that whatever loses has ended."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness import hedge_race
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.hedging import Hedge, Loser
from agentflow.errors import ServerError


class Server:
    """Answers each request after a time of its own, with its number, or fails; knows who runs and who was cancelled."""

    def __init__(self, *requests: float | tuple[float, Exception], deaf: float = 0.0) -> None:
        self.requests = requests
        self.deaf = deaf  # seconds that a cancelled request goes on
        self.sent = 0
        self.running: set[int] = set()
        self.cancelled: list[int] = []

    async def __call__(self) -> int:
        request = self.requests[self.sent]
        self.sent += 1
        number = self.sent
        self.running.add(number)
        seconds, error = request if isinstance(request, tuple) else (request, None)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            if self.deaf:
                await asyncio.sleep(self.deaf)
            raise
        finally:
            self.running.discard(number)
        if error is not None:
            raise error
        return number


def run(clock: VirtualClock, work: Awaitable[Any]) -> Any:
    """Run it, and see that no task is left."""

    async def main() -> Any:
        try:
            return await work
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return clock.run(main())


def hedge(clock: VirtualClock, **options: Any) -> Hedge:
    return Hedge(**{"after": 1.0, "budget": 1.0, "clock": clock, **options})


# ---- who wins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "winner", "end", "sent"),
    [
        ((0.5,), 1, 0.5, 1),
        ((3.0, 5.0), 1, 3.0, 2),
        ((9.0, 0.5), 2, 1.5, 2),
        ((9.0, (0.5, ServerError("2"))), 1, 9.0, 2),
        (((2.0, ServerError("1")), 4.0), 2, 5.0, 2),
    ],
    ids=["fast: no second", "the first", "the second", "the second fails", "the first fails"],
)
def test_the_first_success_wins(requests: Any, winner: int, end: float, sent: int) -> None:
    clock, server = VirtualClock(), Server(*requests)
    assert run(clock, hedge(clock).run(server)) == winner
    assert (clock.monotonic(), server.sent) == (end, sent)
    assert not server.running


def test_the_loser_is_cancelled_and_has_ended_before_the_winner_returns() -> None:
    clock, server = VirtualClock(), Server(9.0, 0.5, deaf=0.25)
    assert run(clock, hedge(clock).run(server)) == 2
    assert (server.cancelled, clock.monotonic()) == ([1], 1.75)


def test_a_loser_that_does_not_heed_its_cancellation_is_left_alone_after_a_second() -> None:
    clock, server = VirtualClock(), Server(9.0, 0.5, deaf=60)
    lost: list[Loser] = []

    async def main() -> None:
        assert await hedge(clock).run(server, on_loser=lost.append) == 2
        assert clock.monotonic() == 2.5
        assert lost == []
        await asyncio.sleep(100)
        assert lost == [Loser(1, 61.5)]

    run(clock, main())


def test_a_failure_before_the_delay_is_raised_at_once() -> None:
    clock, error = VirtualClock(), ServerError("down")
    with pytest.raises(ServerError) as caught:
        run(clock, hedge(clock).run(Server((0.5, error))))
    assert caught.value is error
    assert clock.monotonic() == 0.5
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(("first", "second"), [(2.0, 3.0), (3.0, 0.5)])
def test_where_all_fail_the_first_ones_error_is_raised_with_the_other_as_a_note(first: float, second: float) -> None:
    clock, error = VirtualClock(), ServerError("one")
    with pytest.raises(ServerError) as caught:
        run(clock, hedge(clock).run(Server((first, error), (second, ValueError("two")))))
    assert caught.value is error
    assert error.__notes__ == ["request 2 failed, too: ValueError: two"]


def test_a_stray_cancellation_inside_counts_as_a_failure_of_that_request() -> None:
    clock = VirtualClock()
    calls = 0

    async def work() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(2)
            raise asyncio.CancelledError("stray")
        await asyncio.sleep(3)
        return "second"

    assert run(clock, hedge(clock).run(work)) == "second"


def test_several_hedges_are_sent_one_after_the_other() -> None:
    clock, server = VirtualClock(), Server(9.0, 9.0, 0.5, deaf=0.1)
    assert run(clock, hedge(clock, max_hedges=2, budget=5).run(server)) == 3
    assert sorted(server.cancelled) == [1, 2]
    assert clock.monotonic() == 2.6


def test_no_more_than_max_hedges() -> None:
    clock, server = VirtualClock(), Server(9.0, 9.0, 9.0, 9.0)
    assert run(clock, hedge(clock, max_hedges=2, budget=5).run(server)) == 1
    assert server.sent == 3


def test_context_variables_reach_both() -> None:
    clock = VirtualClock()
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    async def work() -> None:
        seen.append(who.get())
        await asyncio.sleep(3)

    async def main() -> None:
        who.set("me")
        await hedge(clock).run(work)

    run(clock, main())
    assert seen == ["me", "me"]


def test_it_decorates_async_functions() -> None:
    clock = VirtualClock()
    calls: list[int] = []

    @hedge(clock)
    async def double(number: int, *, plus: int) -> int:
        """Twice as much."""
        calls.append(number)
        await asyncio.sleep(9 if len(calls) == 1 else 0)
        return 2 * number + plus

    assert run(clock, double(3, plus=1)) == 7
    assert (calls, double.__name__, double.__doc__) == ([3, 3], "double", "Twice as much.")


# ---- when ----------------------------------------------------------------------------------------------------


def learned(clock: VirtualClock, latencies: list[float], **options: Any) -> Hedge:
    found = Hedge(**{"clock": clock, "budget": 1.0, **options})

    async def main() -> None:
        for seconds in latencies:
            await found.run(partial(asyncio.sleep, seconds))

    clock.run(main())
    return found


def test_while_too_little_is_known_there_is_no_hedge_and_no_task() -> None:
    clock = VirtualClock()
    tasks: set[object] = set()

    async def work() -> None:
        tasks.add(asyncio.current_task())
        await asyncio.sleep(1)

    async def main() -> None:
        found = Hedge(minimum_samples=3, clock=clock)
        for _ in range(3):
            assert found.delay is None
            await found.run(work)
        assert found.delay == 1
        assert tasks == {asyncio.current_task()}

    clock.run(main())


@given(st.lists(st.integers(0, 1000).map(float), min_size=5, max_size=300), st.floats(0.01, 0.99))
def test_the_delay_is_the_percentile_of_the_latest_latencies(latencies: list[float], percentile: float) -> None:
    clock = VirtualClock()
    found = Hedge(percentile=percentile, minimum_samples=5, budget=1e-9, clock=clock)
    for seconds in latencies:
        found._latencies.add(seconds)
    recent = latencies[-200:]
    delay = found.delay
    assert delay in recent
    assert sum(each <= delay for each in recent) >= percentile * len(recent) - 1e-9
    assert sum(each < delay for each in recent) < percentile * len(recent) + 1e-9


def test_failures_and_cancelled_calls_say_nothing_about_latency() -> None:
    clock = VirtualClock()
    found = learned(clock, [1.0] * 20)

    async def main() -> None:
        for _ in range(20):
            with pytest.raises(ServerError):
                await found.run(Server((0.5, ServerError("no"))))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.25):
                    await found.run(Server(99.0, 99.0))

    clock.run(main())
    assert len(found._latencies._recent) == 20


def test_a_hedge_that_wins_counts_as_at_least_so_slow_a_first() -> None:
    """Else the delay would shrink with each hedge that helps."""
    clock = VirtualClock()
    found = hedge(clock, after=2.0, minimum_samples=1)
    run(clock, found.run(Server(99.0, 0.5)))
    assert list(found._latencies._recent) == [2.5]


def test_hedges_are_a_share_of_the_calls() -> None:
    clock = VirtualClock()
    found = hedge(clock, budget=0.1)
    servers = [Server(3.0, 9.0) for _ in range(200)]

    async def main() -> None:
        for server in servers:
            await found.run(server)

    run(clock, main())
    assert 20 <= sum(server.sent - 1 for server in servers) <= 21


def test_not_more_than_ten_are_saved_up() -> None:
    clock = VirtualClock()
    found = hedge(clock, budget=0.1)
    servers = [*(Server(0.5) for _ in range(500)), *(Server(3.0, 9.0) for _ in range(50))]

    async def main() -> None:
        for server in servers[:500]:
            await found.run(server)
        await asyncio.gather(*(found.run(server) for server in servers[500:]))

    run(clock, main())
    assert sum(server.sent - 1 for server in servers) == 10


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"after": -1}, "after"),
        ({"after": float("nan")}, "after"),
        ({"percentile": 95}, "percentile"),
        ({"percentile": 1.0}, "percentile"),
        ({"percentile": 0.0}, "percentile"),
        ({"minimum_samples": 0}, "minimum_samples"),
        ({"minimum_samples": 1000}, "minimum_samples"),
        ({"max_hedges": 0}, "max_hedges"),
        ({"budget": 0}, "budget"),
    ],
)
def test_a_hedge_that_makes_no_sense_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Hedge(**options)


# ---- what is told --------------------------------------------------------------------------------------------


def test_the_losers_cost_can_be_counted_and_the_hook_may_fail() -> None:
    clock, lost = VirtualClock(), list[Loser]()

    def count(loser: Loser) -> None:
        lost.append(loser)
        raise RuntimeError("hook")

    found = hedge(clock, budget=5)
    assert run(clock, found.run(Server(9.0, 0.5), on_loser=count)) == 2
    assert run(clock, found.run(Server(1.5, 9.0), on_loser=count)) == 1
    assert run(clock, found.run(Server(0.5), on_loser=count)) == 1
    assert run(clock, found.run(Server((2.0, ServerError("free")), 9.0), on_loser=count)) == 2
    assert lost == [Loser(1, 1.5), Loser(2, 0.5)]


def test_two_that_succeed_at_once_are_one_winner_and_one_loser() -> None:
    clock, lost = VirtualClock(), list[Loser]()
    assert run(clock, hedge(clock).run(Server(2.0, 1.0), on_loser=lost.append)) in (1, 2)
    assert len(lost) == 1


def test_the_listener_hears_of_hedges_and_winners_and_may_fail() -> None:
    clock, heard = VirtualClock(), list[Decision]()

    def listen(decision: Decision) -> None:
        heard.append(decision)
        raise RuntimeError("listener")

    found = hedge(clock, budget=5, name="ask", listener=listen)
    run(clock, found.run(Server(0.5)))
    run(clock, found.run(Server(9.0, 0.5)))
    assert heard == [
        Decision("hedge", "ask", {"number": 2, "after": 1.0}),
        Decision("hedge_won", "ask", {"number": 2}),
    ]


# ---- streams -------------------------------------------------------------------------------------------------


class Opener:
    """Opens numbered streams, and knows which are open."""

    def __init__(self, server: Server, closing: float = 0.0, error: Exception | None = None) -> None:
        self.server = server
        self.closing = closing
        self.error = error
        self.open: set[int] = set()

    async def __call__(self) -> int:
        try:
            number = await self.server()
        except asyncio.CancelledError:
            if not self.server.deaf:
                raise
            number = self.server.cancelled[-1]  # it had been opened by then
        self.open.add(number)
        return number

    async def close(self, number: int) -> None:
        await asyncio.sleep(self.closing)
        self.open.remove(number)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("closing", [0.0, 0.5])
@pytest.mark.parametrize("deaf", [0.0, 0.25])
def test_a_stream_that_was_opened_just_as_it_lost_is_closed(closing: float, deaf: float) -> None:
    for requests in ((2.0, 1.0), (9.0, 0.5), (1.25, 9.0)):
        clock = VirtualClock()
        opener = Opener(Server(*requests, deaf=deaf), closing)
        winner = run(clock, hedge(clock).run_opened(opener, opener.close))
        assert opener.open == {winner}


def test_a_stream_that_fails_to_close_is_nobodys_failure() -> None:
    clock = VirtualClock()
    opener = Opener(Server(2.0, 1.0), error=ServerError("close"))
    winner = run(clock, hedge(clock).run_opened(opener, opener.close))
    assert opener.open == {winner}


# ---- the caller leaves ---------------------------------------------------------------------------------------


def test_the_callers_cancellation_ends_both_and_waits_for_them() -> None:
    clock, server = VirtualClock(), Server(9.0, 9.0, deaf=0.5)

    async def main() -> None:
        async with asyncio.timeout(3):
            await hedge(clock).run(server)

    with pytest.raises(TimeoutError):
        run(clock, main())
    assert (sorted(server.cancelled), clock.monotonic()) == ([1, 2], 3.5)


def test_a_second_cancellation_does_not_leave_anybody_behind() -> None:
    clock, server = VirtualClock(), Server(9.0, 9.0, deaf=0.5)

    async def main() -> None:
        task = asyncio.ensure_future(hedge(clock).run(server))
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.running

    run(clock, main())


def test_who_leaves_before_anything_was_opened_gets_its_own_cancellation() -> None:
    clock = VirtualClock()
    opener = Opener(Server(9.0, 9.0))

    async def main() -> None:
        async with asyncio.timeout(3):
            await hedge(clock).run_opened(opener, opener.close)

    with pytest.raises(TimeoutError):
        run(clock, main())
    assert not opener.open


def test_who_leaves_while_a_loser_ends_gets_no_answer_any_more() -> None:
    """The second has won; the first goes on for a while, and the caller does not wait for that."""
    clock, server = VirtualClock(), Server(9.0, 0.5, deaf=0.75)

    async def main() -> None:
        task = asyncio.ensure_future(hedge(clock).run(server))
        await asyncio.sleep(1.75)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.running

    run(clock, main())


# ---- what is left behind -------------------------------------------------------------------------------------


def test_one_that_was_left_alone_is_kept_alive_until_it_ends() -> None:
    """An event loop alone does not keep its tasks alive."""
    clock, server = VirtualClock(), Server(9.0, 0.5, deaf=5.0)

    async def main() -> None:
        assert await hedge(clock).run(server) == 2
        assert len(hedge_race._left_alone) == 1
        assert asyncio.all_tasks() == {asyncio.current_task(), *hedge_race._left_alone}
        await asyncio.sleep(5)
        assert not server.running
        assert not hedge_race._left_alone

    clock.run(main())


def test_a_loser_that_failed_is_no_error_that_nobody_looked_at() -> None:
    clock, server, complaints = VirtualClock(), Server((2.0, ServerError("1")), 4.0), []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        assert await hedge(clock).run(server) == 2
        gc.collect()

    run(clock, main())
    assert complaints == []


def test_a_failed_call_leaves_no_cycle() -> None:
    """What it asked for is gone with its error, whenever the collector comes."""
    clock = VirtualClock()

    class Asked:
        async def __call__(self) -> int:
            await asyncio.sleep(0.5)
            raise ServerError("1")

    async def main() -> None:
        asked = Asked()
        seen = weakref.ref(asked)
        with pytest.raises(ServerError):
            await hedge(clock).run(asked)
        del asked
        await asyncio.sleep(1)
        assert seen() is None

    gc.disable()
    try:
        run(clock, main())
    finally:
        gc.enable()


SCRIPTS: list[Callable[[], Server]] = [
    lambda: Server(0.5),
    lambda: Server(3.0, 5.0, deaf=0.25),
    lambda: Server(9.0, 0.5, deaf=0.25),
    lambda: Server(2.0, 1.0),
    lambda: Server((2.0, ServerError("1")), (3.0, ServerError("2"))),
]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("closing", [0.0, 0.5])
def test_cancelled_at_any_wait_nothing_runs_and_nothing_is_open(script: Callable[[], Server], closing: float) -> None:
    opener: Opener
    found: Hedge
    returned: set[int]

    async def operation(clock: VirtualClock) -> None:
        nonlocal opener, found, returned
        opener, found, returned = Opener(script(), closing), hedge(clock), set()
        returned.add(await found.run_opened(opener, opener.close))

    def check() -> None:
        assert not opener.server.running
        assert opener.open <= returned
        assert len(found._latencies._recent) == len(returned)

    assert sweep(operation, check) >= 1


# ---- threads -------------------------------------------------------------------------------------------------


def test_two_event_loops_share_one() -> None:
    found = Hedge(after=0.0, budget=0.5)
    sent: list[int] = []

    async def work() -> None:
        sent.append(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0.0001)

    async def main() -> None:
        for _ in range(100):
            await found.run(work)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 <= len(sent) <= 200 + 100 + 1
    assert len(found._latencies._recent) == 200
