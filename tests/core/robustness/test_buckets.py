"""Token buckets taken together: what is granted, when more is there, debt, the server's word, and a drain."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.robustness.buckets import (
    INPUT,
    OUTPUT,
    QUANTITIES,
    REQUESTS,
    TOKENS,
    Buckets,
    Need,
    ServerLimits,
)

SLACK = 1e-3


def buckets(*, requests: Any = None, tokens: Any = None, asked: Any = None, answer: Any = None, burst: float = 1.0):
    return Buckets((requests, tokens, asked, answer), burst)


def need(requests: int = 1, asked: int = 0, answer: int = 0) -> Need:
    return requests, asked + answer, asked, answer


# ---- taking


def test_it_is_full_at_first_and_fills_at_its_rate() -> None:
    each = buckets(requests=60)
    assert all(each.take(need(), 0.0) for _ in range(60))
    assert not each.take(need(), 0.0)
    assert each.when(need(), 0.0) == pytest.approx(1.0)
    assert not each.take(need(), 0.9)
    assert each.take(need(), 1.0)


def test_the_burst_is_a_share_of_a_minute() -> None:
    each = buckets(requests=60, burst=0.1)
    assert sum(each.take(need(), 0.0) for _ in range(60)) == 6


def test_it_is_never_more_than_full_however_long_nobody_comes() -> None:
    each = buckets(requests=60)
    each.take(need(60), 0.0)
    assert each.levels(10.0)[0] == pytest.approx(10)
    assert each.levels(1e9)[0] == pytest.approx(60)


def test_all_are_taken_or_none() -> None:
    each = buckets(requests=60, tokens=100)
    assert not each.take(need(1, 101), 0.0)
    assert not each.take(need(61, 1), 0.0)
    assert each.levels(0.0)[:2] == (60, 100)


def test_tokens_count_both_ways_and_input_and_output_their_own() -> None:
    each = buckets(tokens=100, asked=80, answer=50)
    assert each.take(need(1, 30, 40), 0.0)
    assert each.levels(0.0) == pytest.approx((math.inf, 30, 50, 10))
    assert not each.take(need(1, 0, 11), 0.0)
    assert not each.take(need(1, 31, 0), 0.0)
    assert each.take(need(1, 25, 5), 0.0)


def test_the_slowest_bucket_says_when() -> None:
    each = buckets(requests=60, tokens=60)
    each.take(need(60, 60), 0.0)
    assert each.when(need(2, 30), 0.0) == pytest.approx(30)
    assert each.when(need(40, 30), 0.0) == pytest.approx(40)


def test_when_counts_a_queue_longer_than_the_capacity() -> None:
    each = buckets(requests=60, burst=1 / 6)
    assert each.when(need(30), 0.0, ahead=29) == pytest.approx(20)


def test_without_buckets_all_is_there() -> None:
    each = buckets()
    assert each.take(need(10**9, 10**12), 0.0)
    assert each.levels(0.0) == (math.inf,) * 4
    assert each.above_capacity(need(10**9)) is None


def test_what_is_never_there_is_named_with_both_numbers() -> None:
    each = buckets(requests=60, asked=100, burst=0.5)
    assert each.above_capacity(need(30, 50)) is None
    assert each.above_capacity(need(1, 51)) == ("input_tokens", 51, 50)
    assert each.above_capacity(need(31, 51)) == ("requests", 31, 30)


def test_the_quantities_are_named_in_their_order() -> None:
    assert [QUANTITIES[each] for each in (REQUESTS, TOKENS, INPUT, OUTPUT)] == list(QUANTITIES)


# ---- giving back, and debt


def test_a_refund_never_fills_above_the_capacity() -> None:
    each = buckets(requests=60)
    each.take(need(50), 0.0)
    each.give_back(need(50))
    assert each.levels(0.0)[0] == pytest.approx(60)
    each.take(need(50), 0.0)
    each.give_back(need(50))  # of another time: by then it was full again
    each.give_back(need(50))
    assert each.levels(0.0)[0] == pytest.approx(60)
    assert sum(each.take(need(), 0.0) for _ in range(100)) == 60


def test_debt_is_waited_out_even_by_those_who_need_nothing() -> None:
    each = buckets(tokens=60)
    each.take(need(1, 60), 0.0)
    each.adjust((0, 30, 30, 0), 0.0)
    assert each.levels(0.0)[1] == pytest.approx(-30)
    assert each.when(need(1, 10), 0.0) == pytest.approx(40)
    assert each.when(need(1, 0), 0.0) == pytest.approx(30)


def test_what_took_more_than_was_thought_counts_when_that_is_known() -> None:
    each = buckets(tokens=60)
    each.take(need(1, 10), 0.0)
    each.adjust((0, 30, 30, 0), 100.0)  # long since full again
    assert each.levels(100.0)[1] == pytest.approx(30)


def test_even_one_more_than_was_thought_is_taken_from_a_full_bucket() -> None:
    each = buckets(tokens=60)
    each.adjust((0, 1, 1, 0), 1000.0)
    assert each.levels(1000.0)[1] == pytest.approx(59)


# ---- the server's word


def test_a_level_is_lowered_to_what_remains_and_never_raised() -> None:
    each = buckets(requests=60)
    assert each.observe(ServerLimits(requests_remaining=10), 0.0) == {"requests": 10}
    assert each.levels(0.0)[0] == pytest.approx(10)
    assert each.observe(ServerLimits(requests_remaining=50), 0.0) == {}
    assert each.levels(0.0)[0] == pytest.approx(10)
    assert each.levels(5.0)[0] == pytest.approx(15)


def test_the_servers_word_never_forgives_a_debt() -> None:
    each = buckets(tokens=60)
    each.take(need(1, 60), 0.0)
    each.adjust((0, 30, 30, 0), 0.0)
    each.observe(ServerLimits(tokens_remaining=0), 0.0)
    assert each.levels(0.0)[1] == pytest.approx(-30)


@pytest.mark.parametrize("remaining", [-5.0, 0.0])
def test_less_than_nothing_is_nothing(remaining: float) -> None:
    each = buckets(requests=60)
    each.observe(ServerLimits(requests_remaining=remaining), 0.0)
    assert each.levels(0.0)[0] == pytest.approx(0)


def test_a_quantity_without_a_rate_is_held_until_its_reset() -> None:
    each = buckets()
    assert each.observe(ServerLimits(input_tokens_remaining=0, input_tokens_reset=20), 100.0) == {"input_tokens": 0}
    assert not each.take(need(1, 5), 119.0)
    assert not each.take(need(1, 0, 5), 119.0)  # it may only not have counted
    assert each.when(need(1, 5), 100.0) == 120
    assert each.take(need(1, 5), 120.0)
    assert each.levels(120.0) == (math.inf,) * 4


def test_what_the_server_has_left_is_used_up_first() -> None:
    each = buckets(requests=60)
    each.observe(ServerLimits(tokens_remaining=100, tokens_reset=20), 0.0)
    assert each.take(need(1, 60), 0.0)
    assert not each.take(need(1, 60), 0.0)
    assert each.take(need(1, 40), 0.0)
    each.give_back(need(1, 40))
    assert each.levels(0.0)[1] == 40
    each.give_back(need(1, 400))
    assert each.levels(0.0)[1] == 100  # never more than the server said
    assert each.levels(21.0)[1] == math.inf


def test_what_the_server_has_left_may_be_taken_to_the_last_one() -> None:
    each = buckets()
    each.observe(ServerLimits(requests_remaining=1, requests_reset=20), 0.0)
    assert each.when(need(), 5.0) == 5.0
    assert each.take(need(), 5.0)
    assert each.when(need(), 5.0) == 20.0
    assert not each.take(need(), 5.0)


def test_the_last_word_counts() -> None:
    each = buckets()
    each.observe(ServerLimits(requests_remaining=0, requests_reset=20), 0.0)
    each.observe(ServerLimits(requests_remaining=5, requests_reset=1), 0.0)
    assert each.take(need(), 0.0)
    each.observe(ServerLimits(requests_remaining=0), 0.0)  # until when, nobody says
    assert each.take(need(), 0.0)


@pytest.mark.parametrize("reset", [math.nan, math.inf, 0.0, -1.0])
def test_a_reset_that_makes_no_sense_holds_nothing(reset: float) -> None:
    each = buckets()
    each.observe(ServerLimits(requests_remaining=0, requests_reset=reset), 0.0)
    assert each.take(need(), 0.0)


def test_remaining_that_is_no_number_is_left_alone() -> None:
    each = buckets(requests=60)
    each.observe(ServerLimits(requests_remaining=math.nan, tokens_remaining=math.inf, tokens_reset=9), 0.0)
    assert each.take(need(60, 10**9), 0.0)


# ---- the drain


def test_nothing_is_taken_until_a_drain_ends_and_then_one_at_a_time() -> None:
    each = buckets(requests=60)
    assert each.drain(10, 0.0) == 10
    assert each.held(4.0) == pytest.approx(6)
    assert not each.take(need(), 9.9)
    assert [each.take(need(), 10.0) for _ in range(3)] == [True, False, False]
    assert each.take(need(), 11.0)


def test_after_a_drain_tokens_are_enough_for_one_like_the_last() -> None:
    each = buckets(tokens=6000)
    each.take(need(1, 600), 0.0)
    each.drain(10, 0.0)
    assert each.take(need(1, 600), 10.0)
    assert each.when(need(1, 600), 10.0) == pytest.approx(16)


def test_a_drain_never_fills() -> None:
    each = buckets(tokens=60)
    each.take(need(1, 60), 0.0)
    each.adjust((0, 60, 60, 0), 0.0)
    each.drain(10, 0.0)
    assert each.levels(10.0)[1] == pytest.approx(-50)


def test_the_later_of_two_drains_counts() -> None:
    each = buckets(requests=60)
    each.drain(10, 0.0)
    assert each.drain(3, 1.0) == pytest.approx(9)
    assert not each.take(need(), 9.0)
    assert each.drain(20, 2.0) == 20
    assert not each.take(need(), 21.0)
    assert each.take(need(), 22.0)


@pytest.mark.parametrize("seconds", [0.0, -3.0, math.nan])
def test_a_drain_without_a_time_only_slows_down(seconds: float) -> None:
    each = buckets(requests=60)
    assert each.drain(seconds, 5.0) == 0
    assert [each.take(need(), 5.0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("seconds", [4_294_967.0, math.inf])
def test_a_drain_is_a_day_at_most(seconds: float) -> None:
    assert buckets().drain(seconds, 0.0) == 86_400


def test_without_any_rate_requests_start_slowly_after_a_drain_and_are_soon_free() -> None:
    each = buckets()
    each.drain(10, 0.0)
    went = [sum(each.take(need(), 10.0 + step / 2) for _ in range(1000)) for step in range(5)]
    assert went == [1, 1, 2, 4, 8]
    assert each.when(need(), 12.0, ahead=15) == pytest.approx(12.5)
    assert all(each.take(need(), 20.001) for _ in range(10**4))


def test_without_any_rate_it_goes_on_at_half_of_what_was_answered_and_doubles_from_there() -> None:
    each = buckets()
    each.drain(10, 0.0, flow=200.0)
    first = 50 / math.log(2)  # a hundred a second, as it grows in half a second
    went = [taken(each, 10.0 + step / 2) for step in range(5)]
    assert went == pytest.approx([1, first, 2 * first, 4 * first, 8 * first], abs=1)


def taken(each: Buckets, now: float) -> int:
    """How many go at that moment."""
    count = 0
    while each.take(need(), now):
        count += 1
    return count


def test_a_little_flow_makes_no_slower_start_than_none() -> None:
    some, none = buckets(), buckets()
    some.drain(10, 0.0, flow=0.5)
    none.drain(10, 0.0)
    for ahead in (0, 1, 5, 1000):
        assert some.when(need(), 10.0, ahead=ahead) <= none.when(need(), 10.0, ahead=ahead)


def test_the_refusals_of_one_crowd_halve_once() -> None:
    """All that come before the drain is over, or in one second, are answers to calls that were sent before it."""
    once, often = buckets(), buckets()
    once.drain(3.0, 0.0, flow=400.0)
    for refused in range(20):
        often.drain(3.0 - refused / 10, refused / 10, flow=400.0 / (1 + refused))
    assert [once.when(need(), 2.0, ahead=ahead) for ahead in (0, 10, 500)] == pytest.approx(
        [often.when(need(), 2.0, ahead=ahead) for ahead in (0, 10, 500)]
    )


def test_a_refusal_within_the_second_holds_the_start_up_and_does_not_begin_it_anew() -> None:
    each = buckets()
    each.drain(0.0, 0.0, flow=200.0)
    assert taken(each, 0.5) == 73
    each.drain(2.0, 0.5, flow=0.0)
    assert not each.take(need(), 2.4)
    assert each.when(need(), 2.5) == pytest.approx(2.5, abs=0.01)
    assert taken(each, 3.0) == pytest.approx(144, abs=1)


def test_a_refusal_after_the_second_begins_the_start_anew() -> None:
    each = buckets()
    each.drain(0.0, 0.0, flow=200.0)
    assert taken(each, 1.0) == 217
    each.drain(2.0, 1.0, flow=100.0)
    assert [taken(each, now) for now in (2.9, 3.0, 3.5)] == [0, 1, 36]


# ---- properties

AMOUNTS = st.integers(0, 20)
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "settle", "cancel"]), st.floats(0, 30), AMOUNTS, AMOUNTS), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.floats(20, 200), st.floats(0.5, 2))
def test_no_window_of_time_sees_more_than_the_capacity_and_the_rate(
    steps: list[tuple[str, float, int, int]], rate: float, burst: float
) -> None:
    """Whatever is given back counts against what is granted, at the time when it is given back."""
    each, now = buckets(tokens=rate, burst=burst), 0.0
    log: list[tuple[float, float, float]] = []  # when, granted, forced
    held: list[int] = []
    for action, seconds, amount, other in steps:
        now += seconds
        if action == "take":
            if each.take(need(1, amount), now):
                held.append(amount)
                log.append((now, amount, 0.0))
        elif held:
            amount = held.pop()
            change = other - amount if action == "settle" else -amount
            each.adjust((0, change, change, 0), now)
            log.append((now, min(0, change), max(0, change)))
    for first, (start, _, _) in enumerate(log):
        total = forced = 0.0
        for end, granted, debt in log[first:]:
            total, forced = total + granted + debt, forced + debt
            assert total <= rate * burst + rate / 60 * (end - start) + forced + SLACK


@settings(max_examples=200, deadline=None)
@given(STEPS, st.floats(20, 200))
def test_it_can_be_taken_exactly_when_it_says(steps: list[tuple[str, float, int, int]], rate: float) -> None:
    each, now = buckets(requests=60, tokens=rate), 0.0
    for action, seconds, amount, other in steps:
        now += seconds
        what = need(1, amount)
        when = each.when(what, now)
        if when > now + 1e-5:
            assert not each.take(what, now)
            assert not each.take(what, now + (when - now) * 0.99 - 1e-5)
        if action == "cancel":
            each.drain(other, now)
        elif each.take(what, when):
            now = when
        else:
            raise AssertionError(f"{what} was promised for {when}")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 3)), max_size=30))
def test_after_all_is_given_back_and_time_has_passed_all_are_full(takes: list[tuple[int, int, float]]) -> None:
    each, now, held = buckets(requests=60, tokens=120, asked=90, answer=90), 0.0, []
    for asked, answer, seconds in takes:
        now += seconds
        if each.take(need(1, asked, answer), now):
            held.append(need(1, asked, answer))
    for what in held:
        each.give_back(what)
    assert each.levels(now + 60) == pytest.approx((60, 120, 90, 90))
