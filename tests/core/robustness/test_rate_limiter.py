"""The rate limiter: all or nothing, in the order of coming, settled to the token, and nothing lost by who leaves."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.buckets import ServerLimits
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.rate_limiter import RateLimiter, Reservation
from agentflow.errors import LimiterError, RateLimitError, RejectedError

CLOSE = 1e-3


def limited(test: Callable[[RateLimiter, VirtualClock], Any], **options: Any) -> None:
    """Run a test in virtual time with a limiter, and see that it has let go of everything at the end."""
    clock = VirtualClock()
    limiter = RateLimiter(clock=clock, **options)

    async def main() -> None:
        await test(limiter, clock)
        assert_free(limiter)

    clock.run(main())


def assert_free(limiter: RateLimiter) -> None:
    assert (limiter.in_use, limiter.waiting, limiter._allowance.needed) == (0, 0, (0, 0, 0, 0))
    assert limiter._allowance.alarm.timer is None
    left = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert not left


async def use(limiter: RateLimiter, *, hold: float = 0.0, **need: Any) -> float:
    """One call; returns when it was let through."""
    async with limiter.reserve(**need):
        passed = asyncio.get_running_loop().time()
        if hold:
            await asyncio.sleep(hold)
        return passed


# ---- taking


def test_requests_pass_until_the_bucket_is_empty_and_then_at_the_rate() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        times = await asyncio.gather(*(use(limiter) for _ in range(65)))
        assert times[:60] == [0.0] * 60
        assert times[60:] == pytest.approx([1, 2, 3, 4, 5], abs=CLOSE)

    limited(test, requests_per_minute=60)


def test_tokens_is_a_short_word_for_input_tokens() -> None:
    limiter = RateLimiter(input_tokens_per_minute=100, output_tokens_per_minute=100, tokens_per_minute=1000)

    async def main() -> None:
        async with limiter.reserve(tokens=30, input_tokens=20, output_tokens=5):
            left = limiter.available()
            assert (left.input_tokens, left.output_tokens, left.tokens) == pytest.approx((50, 95, 945), abs=0.1)

    asyncio.run(main())


def test_either_all_is_taken_or_nothing() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        first = await limiter.reserve(input_tokens=50, output_tokens=10)
        assert limiter.try_reserve(input_tokens=61) is None
        assert limiter.try_reserve(input_tokens=10, output_tokens=11) is None
        second = await limiter.reserve(input_tokens=10)
        assert limiter.try_reserve() is None  # no slot
        left = limiter.available()
        assert (left.requests, left.tokens, left.output_tokens, left.slots) == (58, 50, 10, 0)
        assert limiter.in_use == 2
        first.cancel()
        second.cancel()
        assert limiter.available().tokens == 120

    limited(test, requests_per_minute=60, tokens_per_minute=120, output_tokens_per_minute=20, concurrency=2)


def test_without_limits_all_pass() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = [limiter.try_reserve(requests=1000, input_tokens=10**9) for _ in range(100)]
        assert limiter.in_use == 100
        left = limiter.available()
        assert (left.requests, left.tokens, left.slots, left.held) == (math.inf, math.inf, math.inf, 0)
        for each in held:
            assert each is not None
            each.release()

    limited(test)


def test_a_jump_of_the_clock_fills_the_bucket_and_no_more() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        clock.advance(8 * 3600)
        times = await asyncio.gather(*(use(limiter) for _ in range(61)))
        assert times[-2:] == pytest.approx([28800, 28801], abs=CLOSE)

    limited(test, requests_per_minute=60)


# ---- the order


def test_small_requests_do_not_overtake_a_large_one() -> None:
    """Where the smallest is served first (aiolimiter 1.2), a large one waits for all the small ones that ever come."""

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, tokens=60)
        large = asyncio.create_task(use(limiter, tokens=30))
        await asyncio.sleep(0)
        small = [asyncio.create_task(use(limiter, tokens=1)) for _ in range(40)]
        await asyncio.sleep(10)
        assert limiter.try_reserve(input_tokens=1) is None  # though ten are there
        assert limiter.waiting == 41
        assert await large == pytest.approx(30, abs=CLOSE)
        assert [await each for each in small] == pytest.approx([30 + n for n in range(1, 41)], abs=CLOSE)

    limited(test, tokens_per_minute=60)


def test_slots_go_in_the_order_of_coming() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        times = await asyncio.gather(*(use(limiter, hold=5) for _ in range(6)))
        assert times == [0, 0, 5, 5, 10, 10]

    limited(test, concurrency=2)


def test_a_waiter_for_a_slot_takes_no_tokens_meanwhile() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        first = await limiter.reserve(tokens=10)
        second = asyncio.create_task(use(limiter, tokens=40))
        await asyncio.sleep(1)
        assert limiter.available().tokens == pytest.approx(51)
        first.settle(input_tokens=10)
        assert await second == pytest.approx(1)

    limited(test, tokens_per_minute=60, concurrency=1)


def test_one_timer_serves_all_waiters() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        tasks = [asyncio.create_task(use(limiter)) for _ in range(50)]
        await asyncio.sleep(0)
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert len([timer for timer in timers if not timer.cancelled()]) == 1
        await asyncio.gather(*tasks)

    limited(test, requests_per_minute=60)


def test_ten_thousand_waiters_are_served_in_order_and_in_linear_time() -> None:
    def seconds(count: int) -> float:
        spent = time.process_time()

        async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
            await use(limiter, requests=60)
            order: list[int] = []

            async def one(number: int) -> None:
                async with limiter.reserve():
                    order.append(number)

            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(one(number))
            assert order == list(range(count))
            assert clock.monotonic() == pytest.approx(count, rel=1e-3)

        limited(test, requests_per_minute=60)
        return time.process_time() - spent

    few = seconds(1000)
    assert seconds(10_000) < 40 * few + 0.5


def test_ten_thousand_that_leave_cost_linear_time_too() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        tasks = [asyncio.create_task(use(limiter)) for _ in range(10_000)]
        await asyncio.sleep(0)
        assert limiter.waiting == 10_000
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    spent = time.process_time()
    limited(test, requests_per_minute=60)
    assert time.process_time() - spent < 5


# ---- settling


def test_what_was_too_much_is_given_back_and_serves_who_waits() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        first = await limiter.reserve(input_tokens=20, output_tokens=40)
        second = asyncio.create_task(use(limiter, tokens=30))
        await asyncio.sleep(1)
        first.settle(input_tokens=20, output_tokens=10)
        assert await second == 1

    limited(test, tokens_per_minute=60)


def test_what_was_too_little_is_a_debt_that_later_ones_wait_out() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        first = await limiter.reserve(input_tokens=60)
        first.settle(input_tokens=60, output_tokens=30)
        assert limiter.available().tokens == pytest.approx(-30)
        assert await use(limiter, tokens=10) == pytest.approx(40, abs=CLOSE)

    limited(test, tokens_per_minute=60)


@pytest.mark.parametrize(
    ("reserved", "settled", "left"),
    [
        ((30, 20), {}, (50, 70, 80)),
        ((30, 20), {"output_tokens": 5}, (65, 70, 95)),
        ((30, 20), {"input_tokens": 5}, (75, 95, 80)),
        ((30, 20), {"tokens": 40}, (60, 70, 90)),
        ((30, 20), {"tokens": 60}, (40, 70, 70)),
        ((30, 20), {"tokens": 10}, (90, 90, 100)),
        ((50, 0), {"tokens": 40}, (60, 60, 100)),
        ((50, 0), {"tokens": 60}, (40, 40, 100)),
        ((30, 20), {"input_tokens": -5, "output_tokens": -5}, (100, 100, 100)),
        ((30, 20), {"input_tokens": -5}, (80, 100, 80)),
        ((30, 20), {"output_tokens": -5}, (70, 70, 100)),
    ],
)
def test_settled_is_what_it_took_and_otherwise_what_was_reserved(
    reserved: tuple[int, int], settled: dict[str, int], left: tuple[float, ...]
) -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve(input_tokens=reserved[0], output_tokens=reserved[1])
        held.settle(**settled)
        now = limiter.available()
        assert (now.tokens, now.input_tokens, now.output_tokens) == pytest.approx(left)
        assert now.requests == pytest.approx(9)

    limits = {"tokens_per_minute": 100, "input_tokens_per_minute": 100, "output_tokens_per_minute": 100}
    limited(test, requests_per_minute=10, **limits)


ENDS: list[Callable[[Reservation], None]] = [
    lambda held: held.settle(tokens=5),
    lambda held: held.cancel(),
    lambda held: held.release(),
]


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("then", range(3))
def test_only_the_first_end_counts(first: int, then: int) -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve(tokens=20)
        ENDS[first](held)
        left = limiter.available()
        ENDS[then](held)
        assert limiter.available() == left
        assert left.tokens == pytest.approx([95, 100, 80][first])
        assert left.requests == pytest.approx([9, 10, 9][first])
        assert left.slots == 1

    limited(test, requests_per_minute=10, tokens_per_minute=100, concurrency=1)


# ---- the block and the decorator


class Boom(Exception):
    pass


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
@pytest.mark.parametrize(("said", "left"), [("nothing", 80), ("settle", 95), ("cancel", 100)])
def test_however_a_block_ends_it_counts_as_reserved_unless_it_said_more(how: str, said: str, left: float) -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        async def call() -> None:
            async with limiter.reserve(tokens=20) as held:
                if said == "settle":
                    held.settle(tokens=5)
                elif said == "cancel":
                    held.cancel()
                if how == "raises":
                    raise Boom
                if how == "is cancelled":
                    await asyncio.sleep(10)

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert limiter.available().tokens == pytest.approx(left)

    limited(test, tokens_per_minute=100)


def test_a_decorated_function_is_one_request_a_call_and_keeps_its_face() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        @limiter
        async def double(number: int, *, fail: bool = False) -> int:
            """Twice."""
            assert limiter.in_use == 1
            if fail:
                raise Boom
            return 2 * number

        assert double.__name__ == "double"
        assert double.__doc__ == "Twice."
        assert await double(2) == 4
        with pytest.raises(Boom):
            await double(2, fail=True)
        assert limiter.available().requests == pytest.approx(58)

    limited(test, requests_per_minute=60)


# ---- refusing


def test_more_than_a_full_bucket_is_refused_at_once_and_for_ever() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        words = r"^mine: 501 output tokens at once are more than output_tokens_per_minute × burst = 500$"
        with pytest.raises(LimiterError, match=words) as caught:
            await limiter.reserve(output_tokens=501)
        assert caught.value.retryable is False
        assert caught.value.retry_after is None
        assert caught.value.guard == "mine"
        with pytest.raises(LimiterError, match=words):
            limiter.try_reserve(output_tokens=501)
        await use(limiter, output_tokens=500)
        with pytest.raises(LimiterError, match=words):  # in front of a queue, too
            limiter.try_reserve(output_tokens=501)

    limited(test, name="mine", output_tokens_per_minute=1000, burst=0.5)


def test_a_wait_that_would_be_too_long_is_refused_at_once_and_says_when() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        others = [asyncio.create_task(use(limiter, requests=5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimiterError, match=r"the wait would be 12 s, longer than 11\.9 s") as caught:
            await limiter.reserve(requests=2, timeout=11.9)
        assert clock.monotonic() == 0
        assert caught.value.retry_after == pytest.approx(12)
        assert caught.value.retryable
        assert isinstance(caught.value, RejectedError)
        assert isinstance(caught.value, RateLimitError)
        assert await use(limiter, requests=2, timeout=12.0) == pytest.approx(12, abs=CLOSE)
        await asyncio.gather(*others)

    limited(test, requests_per_minute=60)


def test_a_slot_that_does_not_come_free_in_time_is_given_up() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve()
        with pytest.raises(LimiterError, match="still not its turn after 3 s") as caught:
            await limiter.reserve(timeout=3)
        assert clock.monotonic() == 3
        assert caught.value.retry_after is None
        with pytest.raises(LimiterError):
            await limiter.reserve(timeout=0)
        held.release()

    limited(test, concurrency=1)


def test_a_wait_that_a_debt_made_longer_ends_after_its_timeout() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        first = await limiter.reserve(tokens=60)
        second = asyncio.create_task(use(limiter, tokens=10, timeout=12))
        third = asyncio.create_task(use(limiter, tokens=5))
        await asyncio.sleep(5)
        first.settle(tokens=90)
        with pytest.raises(LimiterError, match="12 s"):
            await second
        assert clock.monotonic() == 12
        assert await third == pytest.approx(35, abs=CLOSE)

    limited(test, tokens_per_minute=60)


def test_what_comes_free_at_the_last_moment_is_in_time() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        assert await use(limiter, requests=7, timeout=7) == pytest.approx(7, abs=CLOSE)

    limited(test, requests_per_minute=60)


def test_on_limit_raise_never_waits() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve(requests=50)
        with pytest.raises(LimiterError, match="must not") as caught:
            await limiter.reserve(requests=15)
        assert caught.value.retry_after == pytest.approx(5)
        await use(limiter, requests=5)
        other = await limiter.reserve()
        with pytest.raises(LimiterError) as caught:
            await limiter.reserve()
        assert caught.value.retry_after is None  # a slot: nobody knows
        held.release()
        other.release()
        assert clock.monotonic() == 0

    limited(test, requests_per_minute=60, concurrency=2, on_limit="raise")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute × burst is 1 or more"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"input_tokens_per_minute": math.nan}, "input_tokens_per_minute"),
        ({"output_tokens_per_minute": math.inf}, "output_tokens_per_minute"),
        ({"requests_per_minute": 5, "burst": 0.1}, "not 5 × 0.1"),
        ({"burst": 0}, "burst .* above 0 and finite, not 0"),
        ({"burst": math.nan}, "burst"),
        ({"concurrency": 0}, "concurrency is at least 1, .* not 0"),
        ({"on_limit": "drop"}, "on_limit .* not 'drop'"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RateLimiter(**options)


@pytest.mark.parametrize(
    "options", [{"requests": -1}, {"input_tokens": -1}, {"output_tokens": -1}, {"timeout": -1}, {"timeout": math.nan}]
)
def test_amounts_and_times_are_not_negative(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"0 or more.*, not"):
        RateLimiter().reserve(**options)


def test_a_negative_amount_is_told_with_all_of_them() -> None:
    with pytest.raises(ValueError, match=r"not 1 requests, -3 \+ 4 tokens$"):
        RateLimiter().reserve(tokens=-3, output_tokens=4)


# ---- the server's word


def test_less_is_granted_where_the_server_has_less_left() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        limiter.observe(ServerLimits(requests_remaining=2, tokens_remaining=10, tokens_reset=30))
        times = await asyncio.gather(*(use(limiter, tokens=5) for _ in range(4)))
        assert times == pytest.approx([0, 0, 30, 30], abs=CLOSE)

    limited(test, requests_per_minute=60)


def test_a_better_word_wakes_who_waits() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        limiter.observe(ServerLimits(tokens_remaining=0, tokens_reset=30))
        task = asyncio.create_task(use(limiter, tokens=5))
        await asyncio.sleep(3)
        limiter.observe(ServerLimits(tokens_remaining=100, tokens_reset=30))
        assert await task == 3

    limited(test)


def test_a_drain_holds_all_and_lets_calls_under_way_go_on() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve()
        limiter.drain(30)
        assert limiter.available().held == 30
        assert limiter.try_reserve() is None
        tasks = [asyncio.create_task(use(limiter)) for _ in range(3)]
        await asyncio.sleep(10)
        held.settle()
        with pytest.raises(LimiterError) as caught:
            await limiter.reserve(timeout=10)
        assert caught.value.retry_after == pytest.approx(23)
        assert [await task for task in tasks] == pytest.approx([30, 31, 32], abs=CLOSE)

    limited(test, requests_per_minute=60)


def test_a_drain_holds_those_who_wait_already() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        task = asyncio.create_task(use(limiter))
        await asyncio.sleep(0.5)
        limiter.drain(20)
        assert await task == pytest.approx(20.5, abs=CLOSE)

    limited(test, requests_per_minute=60)


def test_without_limits_a_crowd_starts_slowly_after_a_drain() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        limiter.drain(5)
        times = await asyncio.gather(*(use(limiter) for _ in range(8)))
        assert times == pytest.approx([5 + 0.5 * math.log2(n) for n in range(1, 9)], abs=CLOSE)

    limited(test)


def test_after_a_drain_without_limits_ten_thousand_are_served_in_order_and_in_bounded_time() -> None:
    spent = time.process_time()

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        limiter.drain(5)
        order: list[tuple[int, float]] = []

        async def one(number: int) -> None:
            async with limiter.reserve(tokens=number % 7):
                order.append((number, clock.monotonic()))

        async with asyncio.TaskGroup() as group:
            for number in range(10_000):
                group.create_task(one(number))
            await asyncio.sleep(5 + 1)
            for number in range(10_000, 10_100):  # who comes later waits behind them
                group.create_task(one(number))
        assert [number for number, _ in order] == list(range(10_100))
        assert order[-1][1] == pytest.approx(5 + 0.5 * math.log2(10_100), abs=CLOSE)

    limited(test)
    assert time.process_time() - spent < 10


def test_calls_that_are_refused_again_and_again_are_all_served_in_the_end() -> None:
    """A server that answers 429 for a minute, with a word of when to come back that is always too early."""

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        refused = 0

        async def one() -> None:
            nonlocal refused
            while True:
                reservation = await limiter.reserve()
                await asyncio.sleep(0.1)
                reservation.release()
                if clock.monotonic() >= 60:
                    return
                refused += 1
                limiter.drain(2)

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(one())
        assert clock.monotonic() < 60 + 2 + 0.5 * math.log2(1000) + 1
        assert refused < 1000 + 30 * 3  # all at first, and then a few for each time that the server has named

    limited(test)


class Moody:
    """A server that answers in 0.1 s, and that refuses a call each `calm` seconds, for `seconds`."""

    def __init__(self, clock: VirtualClock, calm: float, seconds: float) -> None:
        self.clock = clock
        self.calm = calm
        self.seconds = seconds
        self.next = calm
        self.answered = 0

    async def ask(self, limiter: RateLimiter) -> None:
        async with limiter.reserve() as reservation:
            await asyncio.sleep(0.1)
            if self.clock.monotonic() < self.next:
                self.answered += 1
                return
            self.next = self.clock.monotonic() + self.seconds + self.calm
            reservation.settle(input_tokens=0, output_tokens=0)
            limiter.drain(self.seconds)


@pytest.mark.parametrize(("calm", "least"), [(1.0, 0.4), (2.0, 0.6), (12.0, 0.85)])
def test_without_limits_a_refusal_now_and_then_halves_the_flow_and_quiet_times_double_it(
    calm: float, least: float
) -> None:
    """A hundred callers, a thousand calls a second: of those that the server would answer, the least part that is."""

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        server = Moody(clock, calm, 0.1)

        async def one() -> None:
            while clock.monotonic() < 24.0:
                await server.ask(limiter)

        await asyncio.gather(*(one() for _ in range(100)))
        assert server.answered > least * 24_000

    limited(test)


def test_what_was_refused_is_no_flow() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        for _ in range(1000):
            (await limiter.reserve()).settle(input_tokens=0, output_tokens=0)
            (await limiter.reserve()).release()
            (await limiter.reserve()).cancel()
        limiter.drain(5)
        times = await asyncio.gather(*(use(limiter) for _ in range(8)))
        assert times == pytest.approx([5 + 0.5 * math.log2(n) for n in range(1, 9)], abs=CLOSE)

    limited(test)


def test_what_was_answered_is_flow_once() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        for _ in range(50):
            reservation = await limiter.reserve()
            reservation.settle(input_tokens=3, output_tokens=0)
            reservation.settle()
            async with limiter.reserve():
                pass
        limiter.drain(5)
        times = await asyncio.gather(*(use(limiter) for _ in range(73)))
        assert times[-1] == pytest.approx(5 + 0.5 * math.log2(1 + 72 / (25 / math.log(2))), abs=CLOSE)

    limited(test)


class Slices:
    """A server that keeps its limit of so many a minute in slices of a second."""

    def __init__(self, clock: VirtualClock, per_minute: int) -> None:
        self.clock = clock
        self.each = per_minute // 60 + 1
        self.slices: Counter[int] = Counter()
        self.refused = 0

    def ask(self) -> bool:
        now = int(self.clock.monotonic())
        self.slices[now] += 1
        self.refused += self.slices[now] > self.each
        return self.slices[now] <= self.each


@pytest.mark.parametrize(("burst", "refused"), [(1.0, 500 - 9), (1 / 60, 1), (1 / 500, 0)])
def test_a_server_that_slices_its_minute_refuses_the_first_moment_of_a_crowd_and_nothing_after_it(
    burst: float, refused: int
) -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        server = Slices(clock, 500)

        async def one() -> None:
            while True:
                async with limiter.reserve():
                    if server.ask():
                        return
                    limiter.drain(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(1500):
                group.create_task(one())
        assert server.refused <= refused
        assert clock.monotonic() < 60 * 1500 / 500 + 2

    limited(test, requests_per_minute=500, burst=burst)


@pytest.mark.parametrize("rate", [None, 600])
@pytest.mark.parametrize("seed", range(5))
def test_stale_words_of_the_server_in_any_order_hold_nobody_for_longer_than_they_say(
    rate: float | None, seed: int
) -> None:
    """Answers overtake each other: the last one to arrive may speak of the emptiest moment."""

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        words = [
            ServerLimits(requests_remaining=left, requests_reset=20 - left / 5, tokens_remaining=left, tokens_reset=9)
            for left in range(100, -1, -1)
        ]
        random.Random(seed).shuffle(words)
        waiting = []
        for word in [*words, words[-1], ServerLimits(requests_remaining=0, requests_reset=20)]:
            limiter.observe(word)
            waiting.append(asyncio.create_task(use(limiter, tokens=1)))
            await asyncio.sleep(0.01)
        spoken = clock.monotonic()
        await asyncio.gather(*waiting)
        assert clock.monotonic() <= spoken + 20 + CLOSE
        assert await use(limiter, tokens=50) == pytest.approx(clock.monotonic())

    limited(test, requests_per_minute=rate)


# ---- cancellation


@pytest.mark.parametrize("kind", ["rate", "slot", "both"])
def test_cancelled_anywhere_it_leaves_nothing_behind_and_others_are_served(kind: str) -> None:
    limits: dict[str, dict[str, Any]] = {
        "rate": {"requests_per_minute": 60, "tokens_per_minute": 600},
        "slot": {"concurrency": 1},
        "both": {"requests_per_minute": 60, "concurrency": 2},
    }
    limiter = RateLimiter()
    served: list[int] = []

    async def other(number: int) -> None:
        async with limiter.reserve(tokens=5, timeout=1000, requests=59 if number == 0 else 1):
            await asyncio.sleep(1)
            served.append(number)

    async def operation(clock: VirtualClock) -> None:
        nonlocal limiter
        limiter = RateLimiter(clock=clock, **limits[kind])
        served.clear()
        others = [asyncio.create_task(other(number)) for number in range(2)]
        try:
            await asyncio.sleep(0)
            others.append(asyncio.create_task(other(2)))
            async with limiter.reserve(timeout=500, requests=3) as held:
                others.append(asyncio.create_task(other(3)))
                await asyncio.sleep(0.1)
                held.settle(tokens=3)
            await limiter(asyncio.sleep)(1)
            reservation = await limiter.reserve(tokens=100)
            reservation.settle(tokens=400)
        finally:
            try:
                await asyncio.wait(others)
            finally:  # the one cancellation may have come just here
                await asyncio.wait(others)

    def check() -> None:
        assert_free(limiter)
        assert served == list(range(len(served)))
        assert len(served) >= 2

    assert sweep(operation, check) >= 4


def test_a_grant_on_its_way_to_who_leaves_is_passed_on() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        held = await limiter.reserve(tokens=60)
        leaving = asyncio.create_task(use(limiter, tokens=40))
        staying = asyncio.create_task(use(limiter, tokens=40))
        await asyncio.sleep(0)
        held.cancel()
        leaving.cancel()  # granted a moment ago
        assert await staying == 0
        assert leaving.cancelled()
        assert limiter.available().tokens == pytest.approx(20)

    limited(test, tokens_per_minute=60)


def test_when_the_first_leaves_the_next_is_served_in_its_own_time() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, tokens=60)
        large = asyncio.create_task(use(limiter, tokens=60))
        small = asyncio.create_task(use(limiter, tokens=10))
        await asyncio.sleep(5)
        large.cancel()
        assert await small == pytest.approx(10, abs=CLOSE)

    limited(test, tokens_per_minute=60)


def test_a_release_in_the_middle_of_a_decision_is_carried_out_after_it() -> None:
    """As when the garbage collector closes an abandoned coroutine while its thread holds the limiter's lock."""
    held: list[Reservation] = []

    class Collecting(VirtualClock):
        def monotonic(self) -> float:
            for each in [*held]:
                held.remove(each)
                each.cancel()
            return super().monotonic()

    clock = Collecting()
    limiter = RateLimiter(requests_per_minute=60, concurrency=2, clock=clock)

    async def main() -> None:
        first, second = (limiter.try_reserve() for _ in range(2))
        waiting = asyncio.create_task(use(limiter))
        await asyncio.sleep(0)
        assert first is not None
        assert second is not None
        held.append(first)
        limiter.available()
        assert await waiting == 0
        held.append(second)
        limiter.available()
        assert limiter.available().requests == 59
        assert_free(limiter)

    clock.run(main())


# ---- several event loops


def test_an_end_while_another_thread_decides_is_entered_after_that() -> None:
    """The lock is held meanwhile: in real life by the other thread."""
    limiter = RateLimiter(tokens_per_minute=100, concurrency=1, clock=VirtualClock())
    held = limiter.try_reserve(input_tokens=50)
    assert held is not None
    with limiter._allowance.turn:
        held.settle(input_tokens=10)
        assert limiter.in_use == 1
    assert (limiter.in_use, limiter.available().tokens) == (0, pytest.approx(90))


def test_two_loops_in_two_threads_share_one_limiter() -> None:
    limiter = RateLimiter(requests_per_minute=60_000, burst=0.001, concurrency=3)
    peak, inside, lock = 0, 0, threading.Lock()
    done: list[int] = []

    def count(step: int) -> None:
        nonlocal peak, inside
        with lock:
            inside += step
            peak = max(peak, inside)

    async def call(number: int) -> None:
        async with limiter.reserve() as held:
            count(+1)
            await asyncio.sleep(0)
            count(-1)
            held.settle()
        done.append(number)

    async def main() -> None:
        await asyncio.gather(*(call(number) for number in range(150)))

    started = time.monotonic()
    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == sorted([*range(150)] * 2)
    assert peak <= 3
    assert (limiter.in_use, limiter.waiting, limiter._allowance.alarm.timer) == (0, 0, None)
    assert time.monotonic() - started >= 0.238  # 60 at once and 1 each millisecond: 300 need 240 ms


def test_one_loop_wakes_a_waiter_of_another() -> None:
    limiter = RateLimiter(concurrency=1)
    held = limiter.try_reserve()
    assert held is not None
    served = threading.Event()

    async def main() -> None:
        async with limiter.reserve():
            served.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    while not limiter.waiting:
        pass
    held.release()
    assert served.wait(10)
    thread.join()
    assert (limiter.in_use, limiter.waiting) == (0, 0)


def test_a_loop_that_was_closed_with_its_waiters_holds_nobody_up() -> None:
    limiter = RateLimiter(requests_per_minute=60_000, burst=0.001)
    gone = asyncio.new_event_loop()
    kept: list[object] = []  # nobody else would keep the task

    async def wait() -> None:
        await limiter.reserve(requests=60)

    async def start() -> None:
        await wait()
        kept.append(asyncio.ensure_future(wait()))
        await asyncio.sleep(0)

    gone.run_until_complete(start())
    assert limiter.waiting == 1
    gone.close()
    asyncio.run(use(limiter, requests=10))
    assert limiter.waiting == 0
    assert limiter.in_use == 1  # the one that nobody ever ended


# ---- the listener


def test_the_listener_is_told_each_decision() -> None:
    told: list[Decision] = []

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        assert told == []  # no wait, no word
        await use(limiter)
        with pytest.raises(LimiterError):
            await limiter.reserve(timeout=0.5)
        with pytest.raises(LimiterError):
            await limiter.reserve(requests=61)
        with pytest.raises(LimiterError):
            limiter.try_reserve(requests=61)
        limiter.drain(3)
        limiter.observe(ServerLimits(tokens_remaining=0, tokens_reset=5))
        waiting = asyncio.create_task(use(limiter, tokens=1, timeout=6))
        await asyncio.sleep(1)
        limiter.drain(9)
        with pytest.raises(LimiterError):
            await waiting

    limited(test, name="mine", requests_per_minute=60, listener=told.append)
    assert {each.guard for each in told} == {"mine"}
    assert [(each.kind, each.data.get("reason")) for each in told] == [
        ("limiter_wait", None),
        ("limiter_refused", "timeout"),
        ("limiter_refused", "capacity"),
        ("limiter_refused", "capacity"),
        ("limiter_drained", None),
        ("limiter_clamped", None),
        ("limiter_drained", None),
        ("limiter_refused", "late"),
    ]
    assert told[0].data == {"seconds": pytest.approx(1, abs=CLOSE)}
    assert told[1].data["retry_after"] == pytest.approx(1, abs=CLOSE)
    assert told[4].data == {"seconds": 3}
    assert told[5].data == {"tokens": 0}


def test_a_listener_that_raises_changes_nothing() -> None:
    def listener(decision: Decision) -> None:
        raise Boom

    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        await use(limiter, requests=60)
        limiter.drain(3)
        limiter.observe(ServerLimits(requests_remaining=0))
        with pytest.raises(LimiterError):
            await limiter.reserve(timeout=1)
        assert await use(limiter) == pytest.approx(3, abs=CLOSE)

    limited(test, requests_per_minute=60, listener=listener)


# ---- long runs and models


def test_a_day_of_calls_stays_within_the_limits() -> None:
    async def test(limiter: RateLimiter, clock: VirtualClock) -> None:
        passed = tokens = 0

        async def caller() -> None:
            nonlocal passed, tokens
            while clock.monotonic() < 86_400:
                guess, actual = (int(400 * clock.random()) + 1 for _ in range(2))
                async with limiter.reserve(input_tokens=100, output_tokens=guess) as held:
                    await asyncio.sleep(30 * clock.random())
                    held.settle(output_tokens=actual)
                passed, tokens = passed + 1, tokens + 100 + actual

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
        most = 1000 * (24 * 60 + 1)
        assert most * 0.95 < tokens < most + 8 * 500
        assert passed < 20 * (24 * 60 + 1)

    limited(test, requests_per_minute=20, tokens_per_minute=1000, concurrency=6)


class Model(RuleBasedStateMachine):
    """Against a model that works all out from the log of what happened, each time anew, and serves the queue itself."""

    @initialize(
        requests=st.sampled_from([None, 30, 120]),
        tokens=st.sampled_from([None, 60, 600]),
        slots=st.sampled_from([None, 1, 3]),
    )
    def start(self, requests: int | None, tokens: int | None, slots: int | None) -> None:
        self.clock = VirtualClock()
        self.loop = asyncio.Runner(loop_factory=lambda: self._loop())
        self.limiter = RateLimiter(
            requests_per_minute=requests, tokens_per_minute=tokens, concurrency=slots, clock=self.clock
        )
        self.rates = (requests, tokens)
        self.slots = math.inf if slots is None else slots
        self.log: list[tuple[float, tuple[float, float], str]] = []  # when, amounts, take | give | clamp
        self.open: dict[asyncio.Task[Reservation], tuple[int, int]] = {}  # granted, not ended
        self.queue: dict[asyncio.Task[Reservation], tuple[int, int]] = {}
        self.hold = -math.inf

    def _loop(self) -> asyncio.AbstractEventLoop:
        from agentflow.clock import _VirtualLoop

        return _VirtualLoop(self.clock)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for task in self.queue:
            task.cancel()
        self.loop.run(asyncio.sleep(0))
        self.loop.run(asyncio.sleep(0))
        for task in self.open:
            task.result().cancel()
        self.loop.run(asyncio.sleep(0.01 + max(0.0, self.hold - self.clock.monotonic())))
        self.loop.run(asyncio.sleep(500))
        left = self.limiter.available()
        assert (self.limiter.in_use, self.limiter.waiting, self.limiter._allowance.alarm.timer) == (0, 0, None)
        assert left.requests == pytest.approx(self.rates[0] or math.inf)
        assert left.tokens == pytest.approx(self.rates[1] or math.inf)
        self.loop.close()

    def levels(self, now: float) -> tuple[float, float]:
        """What there is, from the whole log."""
        found = []
        for index, rate in enumerate(self.rates):
            if rate is None:
                found.append(math.inf)
                continue
            level, at = float(rate), 0.0
            for when, amounts, what in self.log:
                level, at = min(rate, level + (when - at) * rate / 60), when
                level = min(level, amounts[index]) if what == "clamp" else min(rate, level - amounts[index])
            found.append(min(rate, level + (now - at) * rate / 60))
        return found[0], found[1]

    def serve(self, until: float) -> None:
        """Let the queue's head go whenever it can, up to a time."""
        now = max([0.0, *(when for when, _, _ in self.log[-1:])])
        now = max(now, self.since)
        while self.queue and len(self.open) < self.slots:
            task, need = next(iter(self.queue.items()))
            when = max(now, self.hold)
            levels = self.levels(when)
            for level, amount, rate in zip(levels, need, self.rates, strict=True):
                if rate is not None and amount > level:
                    when = max(when, max(now, self.hold) + (amount - level) * 60 / rate)
            if when > until + 1e-6:
                return
            self.log.append((when, (float(need[0]), float(need[1])), "take"))
            self.open[task] = self.queue.pop(task)
            now = when

    since = 0.0

    def settle_down(self, seconds: float = 0.0) -> None:
        self.since = self.clock.monotonic()
        self.loop.run(self._turns(seconds))
        self.serve(self.clock.monotonic())

    async def _turns(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        for _ in range(6):
            await asyncio.sleep(0)

    @rule(requests=st.integers(1, 3), tokens=st.integers(0, 50))
    def reserve(self, requests: int, tokens: int) -> None:
        async def one() -> Reservation:
            return await self.limiter.reserve(requests=requests, input_tokens=tokens)

        task = self.loop.get_loop().create_task(one())
        self.queue[task] = (requests, tokens)
        self.settle_down()

    @rule(seconds=st.floats(0.01, 40))
    def wait(self, seconds: float) -> None:
        self.settle_down(seconds)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), actual=st.one_of(st.none(), st.integers(0, 120)))
    def end(self, data: st.DataObject, actual: int | None) -> None:
        task = data.draw(st.sampled_from(list(self.open)))
        requests, tokens = self.open.pop(task)
        now = self.clock.monotonic()
        if actual is None:
            task.result().cancel()
            self.log.append((now, (-float(requests), -float(tokens)), "give"))
        else:
            task.result().settle(tokens=actual)
            self.log.append((now, (0.0, float(actual - tokens)), "give"))
        self.settle_down()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(list(self.queue)))
        del self.queue[task]
        task.cancel()
        self.settle_down()

    @rule(requests=st.integers(0, 40), tokens=st.integers(0, 100))
    def observe(self, requests: int, tokens: int) -> None:
        self.limiter.observe(ServerLimits(requests_remaining=requests, tokens_remaining=tokens))
        self.log.append((self.clock.monotonic(), (float(requests), float(tokens)), "clamp"))
        self.settle_down()

    @invariant()
    def same_as_the_model(self) -> None:
        if not hasattr(self, "limiter"):
            return
        assert self.limiter.in_use == len(self.open)
        assert self.limiter.waiting == len(self.queue)
        assert all(task.done() for task in self.open)
        assert not any(task.done() for task in self.queue)
        now = self.limiter.available()
        assert (now.requests, now.tokens) == pytest.approx(self.levels(self.clock.monotonic()), abs=0.01)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
