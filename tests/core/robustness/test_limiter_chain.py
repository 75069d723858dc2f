"""Two limiters, both of which must let a call through: what one refuses leaves nothing held in the other."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.limiter_chain import LimiterChain
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.errors import LimiterError


class Both:
    """A model's limiter, its account's, and the chain of both."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.own = RateLimiter(name="own", clock=self.clock)
        self.other = RateLimiter(name="other", clock=self.clock)
        self.common = RateLimiter(name="common", requests_per_minute=60, burst=0.05, concurrency=2, clock=self.clock)
        self.chain = LimiterChain(self.own, self.common)

    def assert_free(self) -> None:
        for each in (self.own, self.common):
            assert (each.in_use, each.waiting) == (0, 0)


def test_both_count_and_both_are_settled() -> None:
    both = Both()
    reservation = both.chain.try_reserve(input_tokens=5)
    assert reservation is not None
    assert (both.own.in_use, both.common.in_use) == (1, 1)
    reservation.settle(input_tokens=3)
    both.assert_free()


def counting(clock: VirtualClock) -> tuple[RateLimiter, RateLimiter, LimiterChain]:
    """Two that count tokens of both kinds, and their chain."""
    limits = {"requests_per_minute": 60, "input_tokens_per_minute": 100, "output_tokens_per_minute": 100}
    own, common = (RateLimiter(name=name, clock=clock, **limits) for name in ("own", "common"))
    return own, common, LimiterChain(own, common)


@pytest.mark.parametrize("waits", [False, True])
def test_both_count_tokens_and_settle_them(waits: bool) -> None:
    clock = VirtualClock()
    own, common, chain = counting(clock)

    async def main() -> None:
        need = {"requests": 2, "input_tokens": 30, "output_tokens": 20}
        reservation = await chain.reserve(**need) if waits else chain.try_reserve(**need)
        assert reservation is not None
        for each in (own, common):
            now = each.available()
            assert (now.requests, now.input_tokens, now.output_tokens) == pytest.approx((58, 70, 80))
        reservation.settle(input_tokens=10, output_tokens=40)
        for each in (own, common):
            now = each.available()
            assert (now.input_tokens, now.output_tokens) == pytest.approx((90, 60))

    clock.run(main())
    assert chain.counts_tokens


def test_what_the_second_never_could_give_is_refused_and_given_back_to_the_first() -> None:
    both = Both()
    with pytest.raises(LimiterError):
        both.chain.try_reserve(requests=9)
    both.assert_free()


@pytest.mark.parametrize("timeout", [2.0, 2.5])
def test_no_part_of_it_waits_longer_than_the_whole_may(timeout: float) -> None:
    """The first would take three seconds, which is known at once; or it takes two, and half a second is left."""
    both = Both()
    both.chain.drain(3.0 if timeout < 2.5 else 2.0)

    async def main() -> None:
        held = [await LimiterChain(both.other, both.common).reserve() for _ in range(2)]
        with pytest.raises(LimiterError):
            await both.chain.reserve(timeout=timeout)
        assert both.clock.monotonic() == pytest.approx(0.0 if timeout < 2.5 else 2.5)
        for each in held:
            each.release()

    both.clock.run(main())
    both.assert_free()


def test_it_describes_what_the_account_allows() -> None:
    both = Both()
    assert both.chain.summary == "60 requests a minute, 2 at once (all models of the provider together)"

    class Plain(RateLimiter):
        summary = property()

        def __str__(self) -> str:
            return "plain"

    assert LimiterChain(both.own, Plain()).summary == "plain (all models of the provider together)"


@pytest.mark.parametrize("end", ["cancel", "release"])
def test_both_end_together(end: str) -> None:
    both = Both()
    reservation = both.chain.try_reserve()
    getattr(reservation, end)()
    both.assert_free()
    assert both.common.available().requests == {"cancel": 3, "release": 2}[end]


def test_what_the_second_cannot_give_is_given_back_to_the_first() -> None:
    both = Both()
    held = [both.chain.try_reserve() for _ in range(2)]
    assert both.chain.try_reserve() is None
    assert both.own.in_use == 2
    for each in held:
        assert each is not None
        each.cancel()
    both.assert_free()


def test_a_refusal_of_the_second_leaves_the_first_free() -> None:
    both = Both()

    async def main() -> None:
        held = [await both.chain.reserve() for _ in range(2)]
        with pytest.raises(LimiterError):
            await both.chain.reserve(requests=9)
        with pytest.raises(LimiterError):
            await both.chain.reserve(timeout=1.0)
        for each in held:
            each.release()

    both.clock.run(main())
    both.assert_free()


def test_the_servers_word_holds_for_what_was_asked_and_for_no_other() -> None:
    both = Both()
    other = LimiterChain(both.other, both.common)
    both.chain.drain(30.0)

    async def main() -> float:
        assert both.chain.try_reserve() is None
        (await other.reserve()).release()
        assert both.clock.monotonic() == 0.0
        reservation = await both.chain.reserve()
        reservation.release()
        return reservation.waited

    assert both.clock.run(main()) == pytest.approx(30.0)


def test_the_time_for_the_second_is_what_the_first_has_left() -> None:
    both = Both()
    both.chain.drain(3.0)

    async def main() -> None:
        held = [await LimiterChain(both.other, both.common).reserve() for _ in range(2)]
        with pytest.raises(LimiterError):
            await both.chain.reserve(timeout=5.0)
        assert both.clock.monotonic() == pytest.approx(5.0)
        for each in held:
            each.release()

    both.clock.run(main())
    both.assert_free()


def test_cancelled_at_any_wait_nothing_is_held() -> None:
    current: list[Both] = []

    async def operation(clock: VirtualClock) -> None:
        both = Both(clock)
        current.append(both)
        both.chain.drain(1.0)
        others = [await LimiterChain(both.other, both.common).reserve() for _ in range(2)]
        asyncio.get_running_loop().call_later(2.0, lambda: [each.release() for each in others])
        try:
            (await both.chain.reserve()).release()
        finally:
            for each in others:
                each.release()

    assert sweep(operation, lambda: current[-1].assert_free()) == 2
