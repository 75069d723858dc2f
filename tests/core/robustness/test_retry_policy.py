"""Retries: how long to wait, what is worth repeating, who repeats in nested calls, and what is raised at last."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.attempt import (
    Attempt,
    current_attempt,
    idempotency_key,
    is_owned,
    mark_owned,
    note_pool_wait,
)
from agentflow.core.robustness.deadline import Deadline, _alarms
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.retry import Repetition, RetryPolicy, inherited_policy
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import (
    BadRequestError,
    CircuitOpenError,
    LimiterError,
    LoadShedError,
    NodeError,
    OperationTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)

EVEN = RetryPolicy(max_attempts=3, base_delay=1, max_delay=30, jitter="none")


class Script:
    """An async function that does one thing after the other, and counts its calls."""

    def __init__(self, *outcomes: BaseException | float | str) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, int | float):
            await asyncio.sleep(outcome)
            return f"after {outcome:g} s"
        return outcome


async def by_run(policy: RetryPolicy, work: Callable[[], Awaitable[str]], **options: Any) -> str:
    return await policy.run(work, **options)


async def by_block(policy: RetryPolicy, work: Callable[[], Awaitable[str]], **options: Any) -> str:
    result = ""
    async for attempt in policy.attempts(**options):
        with attempt:
            result = await work()
    return result


async def by_decorator(policy: RetryPolicy, work: Callable[[], Awaitable[str]], **options: Any) -> str:
    @policy
    async def decorated() -> str:
        return await work()

    return await decorated()


every_form = pytest.mark.parametrize("form", [by_run, by_block, by_decorator])
bounded_forms = pytest.mark.parametrize("form", [by_run, by_block])


# ---- how long to wait ----------------------------------------------------------------------------------------

chances = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 2000), chances, st.floats(0, 100), st.floats(0, 1000))
def test_equal_jitter_waits_at_least_half_of_the_bound(attempt: int, chance: float, base: float, cap: float) -> None:
    bound = RetryPolicy(base_delay=base, max_delay=cap, jitter="none").delay(attempt, 0)
    wait = RetryPolicy(base_delay=base, max_delay=cap, jitter="equal").delay(attempt, chance)
    assert bound / 2 <= wait <= bound <= cap


@given(chances, st.floats(0, 100), st.floats(0, 1000), st.floats(0, 1000))
def test_decorrelated_jitter_lies_between_base_and_three_times_the_wait_before(
    chance: float, base: float, cap: float, previous: float
) -> None:
    wait = RetryPolicy(base_delay=base, max_delay=cap, jitter="decorrelated").delay(7, chance, previous)
    assert min(cap, base) <= wait <= min(cap, 3 * max(base, previous))


def test_decorrelated_jitter_begins_with_the_base() -> None:
    policy = RetryPolicy(base_delay=2, max_delay=30, jitter="decorrelated")
    assert [policy.delay(1, chance) for chance in (0, 0.5)] == [2, 4]
    assert policy.delay(2, 0.5, previous=4) == 7
    assert policy.delay(9, 0.99, previous=29) == 30


@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated", "none"])
@given(attempt=st.integers(1, 50), chance=chances, floor=st.floats(0, 1e6))
def test_what_the_server_asks_for_is_a_floor(jitter: Any, attempt: int, chance: float, floor: float) -> None:
    policy = RetryPolicy(jitter=jitter)
    wait = policy.wait_for(attempt, RateLimitError("slow down", retry_after=floor), chance)
    assert floor <= wait <= max(floor, policy.max_delay) + policy.max_delay


def test_those_who_were_refused_together_do_not_come_back_together() -> None:
    error = RateLimitError("slow down", retry_after=20)
    policy = RetryPolicy(base_delay=1)
    assert [policy.wait_for(2, error, chance) for chance in (0, 0.25, 0.5)] == [20, 20.5, 21]
    assert EVEN.wait_for(2, error, 0.5) == 20


@pytest.mark.parametrize("told", [math.nan, math.inf, -math.inf, -1.0, None, "7", [], pytest.param(10**400, id="huge")])
def test_a_wait_that_is_no_sensible_number_is_ignored(told: Any) -> None:
    error = RateLimitError("slow down", retry_after=told)
    assert EVEN.wait_for(1, error, 0.5) == 1


def test_an_error_without_a_word_about_waiting_waits_as_the_policy_says() -> None:
    assert EVEN.wait_for(3, ValueError("no"), 0.5) == 4


# ---- what is worth repeating ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (ValueError("no"), True),
        (ServerError("down"), True),
        (OperationTimeoutError("total", 3), True),
        (BadRequestError("wrong"), False),
        (QuotaExceededError("no money"), False),
        (CircuitOpenError("breaker", "open"), False),
        (LoadShedError("shedder", "full"), False),
        (LimiterError("limiter", "too long"), False),
    ],
)
def test_what_may_succeed_later_is_repeated_and_what_our_own_guards_refuse_is_not(
    error: Exception, repeated: bool
) -> None:
    assert RetryPolicy().allows(1, error) is repeated


def test_retry_on_types_repeats_those_and_no_others() -> None:
    policy = RetryPolicy(retry_on=(OSError, BadRequestError, LimiterError))
    assert policy.allows(1, ConnectionError("lost"))
    assert policy.allows(1, BadRequestError("wrong"))
    assert policy.allows(1, LimiterError("limiter", "too long"))
    assert not policy.allows(1, ServerError("down"))


def test_retry_on_a_predicate_asks_it() -> None:
    policy = RetryPolicy(retry_on=lambda error: "later" in str(error))
    assert policy.allows(1, ValueError("later"))
    assert not policy.allows(1, ValueError("never"))


def test_the_last_attempt_is_the_last_whatever_retry_on_says() -> None:
    assert not RetryPolicy(max_attempts=2, retry_on=(Exception,)).allows(2, ValueError("no"))


@pytest.mark.parametrize("wrong", [ValueError, (ValueError, "KeyError"), "ValueError", [ValueError], 3])
def test_retry_on_is_a_tuple_of_types_or_a_predicate(wrong: Any) -> None:
    """A single type would be a predicate that agrees to every error."""
    with pytest.raises(TypeError, match="retry_on"):
        RetryPolicy(retry_on=wrong)


def test_policies_are_values() -> None:
    assert RetryPolicy(budget=RetryBudget()) == RetryPolicy()
    assert hash(RetryPolicy(retry_on=(OSError,))) == hash(RetryPolicy(retry_on=(OSError,)))
    assert RetryPolicy(retry_on=(OSError,)) != RetryPolicy()
    assert pickle.loads(pickle.dumps(RetryPolicy(jitter="equal"))) == RetryPolicy(jitter="equal")


# ---- repeating -----------------------------------------------------------------------------------------------


@every_form
def test_the_first_success_is_returned(form: Any) -> None:
    clock, work = VirtualClock(), Script(ServerError("1"), ServerError("2"), "third")
    assert clock.run(form(EVEN, work)) == "third"
    assert work.calls == 3
    assert clock.monotonic() == 1 + 2


@every_form
def test_the_last_failure_itself_is_raised_with_the_earlier_ones_as_notes(form: Any) -> None:
    errors = [OverloadedError("busy"), RateLimitError("slow\n down", retry_after=5), ServerError("down")]
    work = Script(*errors)
    with pytest.raises(ServerError) as caught:
        VirtualClock().run(form(EVEN, work))
    assert caught.value is errors[2]
    assert caught.value.__notes__ == [
        "attempt 1 of 3: OverloadedError: busy; waited 1 s",
        "attempt 2 of 3: RateLimitError: slow down; waited 5 s",
    ]
    assert not hasattr(errors[0], "__notes__")


@every_form
def test_an_error_that_was_not_repeated_has_no_notes(form: Any) -> None:
    work = Script(BadRequestError("wrong"))
    with pytest.raises(BadRequestError) as caught:
        VirtualClock().run(form(EVEN, work))
    assert not hasattr(caught.value, "__notes__")


@every_form
def test_an_error_that_is_kept_and_raised_again_and_again_gets_its_notes_once(form: Any) -> None:
    error = ServerError("down")
    for _ in range(3):
        work = Script(error, error, error)
        with pytest.raises(ServerError):
            VirtualClock().run(form(EVEN, work))
        assert work.calls == 3
    assert error.__notes__ == [
        "attempt 1 of 3: ServerError: down; waited 1 s",
        "attempt 2 of 3: ServerError: down; waited 2 s",
    ]


def test_errors_that_refuse_attributes_or_words_are_repeated_all_the_same() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    for error in (Frozen(3), Mute()):
        work = Script(error, error, error)
        with pytest.raises(type(error)):
            VirtualClock().run(EVEN.run(work))
        assert work.calls == 3
        assert is_owned(error)


def test_a_long_error_is_cut_short_in_a_note() -> None:
    with pytest.raises(ServerError) as caught:
        VirtualClock().run(EVEN.run(Script(ValueError("x" * 5000), ServerError("a"), ServerError("b"))))
    assert len(caught.value.__notes__[0]) < 400


@pytest.mark.parametrize("error", [asyncio.CancelledError("stray"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("form", [by_run, by_block])
async def test_what_is_no_exception_of_the_work_passes_through(form: Any, error: BaseException) -> None:
    """A CancelledError above all, even one that nobody asked for."""
    work = Script(error, "never")
    with pytest.raises(type(error)):
        await form(RetryPolicy(retry_on=(BaseException,)), work)
    assert work.calls == 1


@every_form
def test_the_callers_cancellation_ends_a_wait_at_once(form: Any) -> None:
    clock, work = VirtualClock(), Script(ServerError("1"), "never")

    async def main() -> None:
        async with asyncio.timeout(0.25):
            await form(EVEN, work)

    with pytest.raises(TimeoutError):
        clock.run(main())
    assert (work.calls, clock.monotonic()) == (1, 0.25)


@every_form
def test_an_error_that_somebody_made_of_the_callers_cancellation_is_not_repeated(form: Any) -> None:
    """Some libraries do; nobody would cancel a second time, so it would go on past every deadline."""
    clock = VirtualClock()

    async def deaf() -> str:
        try:
            return await asyncio.sleep(60, "never")
        except asyncio.CancelledError:
            raise ServerError("lost") from None

    async def main() -> None:
        async with asyncio.timeout(0.25):
            await form(EVEN, deaf)

    with pytest.raises(ServerError):
        clock.run(main())
    assert clock.monotonic() == 0.25


@bounded_forms
def test_the_waits_follow_the_clocks_chance_and_the_wait_before(form: Any) -> None:
    clock, twin = VirtualClock(seed=5), VirtualClock(seed=5)
    policy = RetryPolicy(max_attempts=4, base_delay=1, jitter="decorrelated")
    clock.run(form(policy, Script(*[ServerError("no")] * 3, "done"), clock=clock))

    expected: list[float] = []
    for attempt in (1, 2, 3):
        expected.append(policy.delay(attempt, twin.random(), expected[-1] if expected else None))
    assert clock.monotonic() == pytest.approx(sum(expected))


def test_the_listener_hears_of_each_retry_and_may_fail() -> None:
    heard: list[Decision] = []

    def listen(decision: Decision) -> None:
        heard.append(decision)
        raise RuntimeError("listener")

    policy = RetryPolicy(base_delay=1, jitter="none", name="ask", listener=listen)
    assert VirtualClock().run(policy.run(Script(ServerError("1"), ValueError("2"), "third"))) == "third"
    assert heard == [
        Decision("retry", "ask", {"attempt": 1, "error": "ServerError", "delay": 1}),
        Decision("retry", "ask", {"attempt": 2, "error": "ValueError", "delay": 2}),
    ]


def test_a_decorated_function_keeps_its_name_and_arguments_and_counts_anew_each_time() -> None:
    calls: list[int] = []

    @EVEN
    async def double(number: int, *, plus: int = 0) -> int:
        """Twice as much."""
        calls.append(number)
        if len(calls) % 3:
            raise ServerError("down")
        return 2 * number + plus

    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert [VirtualClock().run(double(number, plus=1)) for number in (3, 4)] == [7, 9]
    assert calls == [3, 3, 3, 4, 4, 4]


def test_a_stream_cannot_be_decorated() -> None:
    async def stream() -> Any:
        yield 1

    with pytest.raises(TypeError, match="async generator"):
        RetryPolicy()(stream)


def test_a_predicate_that_fails_is_not_hidden() -> None:
    policy = RetryPolicy(retry_on=lambda error: error.code == 3)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError) as caught:
        VirtualClock().run(policy.run(Script(ValueError("no"))))
    assert isinstance(caught.value.__context__, ValueError)


def test_a_loop_may_be_left_from_inside_the_block() -> None:
    async def main() -> str:
        async for attempt in EVEN.attempts(timeout=9):
            with attempt:
                if attempt.number == 2:
                    return f"left at {attempt.number}"
                raise ServerError("down")
        return "never"

    assert VirtualClock().run(main()) == "left at 2"


# ---- time ----------------------------------------------------------------------------------------------------


@bounded_forms
def test_a_wait_that_would_outlast_the_time_left_is_not_begun(form: Any) -> None:
    clock, error = VirtualClock(), RateLimitError("slow down", retry_after=30)
    work = Script(error, "never")
    with pytest.raises(RateLimitError) as caught:
        clock.run(form(EVEN, work, timeout=20))
    assert caught.value is error
    assert clock.monotonic() == 0
    assert error.__notes__ == ["not tried again: the next wait, 30 s, would outlast the time left"]


@bounded_forms
def test_the_time_out_spans_attempts_and_waits_and_is_an_error_of_ours(form: Any) -> None:
    clock, work = VirtualClock(), Script(ServerError("1"), 100.0, "never")
    with pytest.raises(OperationTimeoutError, match="retry took longer than 20 s") as caught:
        clock.run(form(EVEN, work, timeout=20))
    assert (work.calls, clock.monotonic()) == (2, 20)
    assert caught.value.__notes__[0] == "attempt 1 of 3: ServerError: 1; waited 1 s"


@bounded_forms
def test_a_success_within_the_time_leaves_no_deadline_behind(form: Any) -> None:
    clock = VirtualClock()

    async def main() -> None:
        assert await form(EVEN, Script(ServerError("1"), 5.0), timeout=20) == "after 5 s"
        await asyncio.sleep(100)

    clock.run(main())
    assert clock.monotonic() == 106


@every_form
def test_a_wait_that_would_outlast_a_deadline_around_is_not_begun(form: Any) -> None:
    clock, work = VirtualClock(), Script(ServerError("1"), ServerError("2"), "never")

    async def main() -> None:
        deadline = Deadline(2.5)
        try:
            with deadline:
                await form(EVEN, work)
        finally:
            deadline.close()

    with pytest.raises(ServerError, match="2"):
        clock.run(main())
    assert clock.monotonic() == 1


# ---- the budget ----------------------------------------------------------------------------------------------


@every_form
def test_without_budget_left_a_failure_is_final(form: Any) -> None:
    budget = RetryBudget(ratio=0, minimum=1, clock=VirtualClock())
    policy = RetryPolicy(max_attempts=9, base_delay=0, budget=budget)
    work = Script(*[ServerError(str(number)) for number in range(9)])
    with pytest.raises(ServerError, match="1") as caught:
        VirtualClock().run(form(policy, work))
    assert work.calls == 2
    assert caught.value.__notes__[-1] == "not tried again: the retry budget is used up"
    assert (budget.snapshot().requests, budget.snapshot().retries) == (1, 1)


def test_only_a_retry_that_is_made_costs_budget() -> None:
    budget = RetryBudget(clock=VirtualClock())
    policy = RetryPolicy(max_attempts=2, base_delay=10, jitter="none", budget=budget)
    for error in (BadRequestError("wrong"), RateLimitError("slow", retry_after=99)):
        with pytest.raises(type(error)):
            VirtualClock().run(policy.run(Script(error), timeout=5))
    assert budget.snapshot().retries == 0


# ---- nested calls --------------------------------------------------------------------------------------------


def test_the_innermost_layer_repeats_and_no_other() -> None:
    work = Script(*[ServerError(str(number)) for number in range(27)])

    async def inner() -> str:
        return await EVEN.run(work)

    async def middle() -> str:
        return await by_block(EVEN, inner)

    with pytest.raises(ServerError) as caught:
        VirtualClock().run(EVEN.run(middle))
    assert work.calls == 3
    assert len(caught.value.__notes__) == 2


def test_what_an_inner_layer_would_not_repeat_is_not_repeated_further_out() -> None:
    work = Script(ValueError("no"), "never")

    async def inner() -> str:
        return await RetryPolicy(retry_on=(OSError,)).run(work)

    with pytest.raises(ValueError):
        VirtualClock().run(EVEN.run(inner))
    assert work.calls == 1


def test_a_layer_that_repeats_once_has_repeated_and_those_around_do_not() -> None:
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        raise OverloadedError("busy")

    async def main() -> None:
        inner = RetryPolicy(max_attempts=2, base_delay=1, jitter="none")
        with pytest.raises(OverloadedError):
            await EVEN.run(lambda: inner.run(call))

    VirtualClock().run(main())
    assert len(calls) == 2


def test_a_layer_that_never_repeats_leaves_it_to_those_around() -> None:
    work = Script(ServerError("1"), "second")

    async def inner() -> str:
        return await RetryPolicy(max_attempts=1).run(work)

    assert VirtualClock().run(EVEN.run(inner)) == "second"


def test_what_fails_outside_of_the_inner_layer_is_repeated_by_the_outer() -> None:
    outer = Script(ValueError("mine"), "fine")

    async def work() -> str:
        await EVEN.run(Script(ServerError("1"), "inner"))
        return await outer()

    assert VirtualClock().run(EVEN.run(work)) == "fine"


def test_an_error_that_wraps_one_that_was_repeated_counts_as_that() -> None:
    cause = ServerError("down")
    mark_owned(cause)
    error = NodeError("f/n#1", "exec", 3, cause)
    error.__cause__ = cause
    assert is_owned(error)
    assert is_owned(ExceptionGroup("siblings", [ValueError("no"), ExceptionGroup("more", [error])]))
    assert not RetryPolicy(retry_on=(Exception,)).allows(1, error)
    assert not is_owned(ServerError("down"))


def test_a_ring_of_causes_ends() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert not is_owned(first)


def test_a_mark_survives_the_way_to_another_process() -> None:
    error = ServerError("down")
    mark_owned(error)
    assert is_owned(pickle.loads(pickle.dumps(error)))


def test_a_mark_of_an_earlier_operation_does_not_count() -> None:
    """Tests and caches keep an error object, and raise it again and again."""
    error = ServerError("down")
    mark_owned(error)
    began = Attempt().began
    assert not is_owned(error, began)
    assert RetryPolicy().allows(1, error, began)


# ---- the attempt around --------------------------------------------------------------------------------------


@every_form
def test_the_idempotency_key_stays_the_same_over_attempts_and_differs_between_operations(form: Any) -> None:
    keys: list[str | None] = []

    async def work() -> str:
        keys.append(idempotency_key())
        attempt = current_attempt.get()
        assert attempt is not None
        assert attempt.number == (len(keys) - 1) % 3 + 1
        if attempt.number < 3:
            raise ServerError("down")
        return "third"

    async def main() -> None:
        assert idempotency_key() is None
        for _ in range(2):
            await form(EVEN, work)
            assert current_attempt.get() is None

    VirtualClock().run(main())
    assert [len(key or "") for key in keys] == [32] * 6
    assert len(set(keys)) == 2
    assert len(set(keys[:3])) == 1


def test_a_block_knows_its_number_and_key() -> None:
    async def main() -> list[tuple[int, str]]:
        seen: list[tuple[int, str]] = []
        async for attempt in EVEN.attempts():
            with attempt:
                seen.append((attempt.number, attempt.idempotency_key))
                assert attempt.idempotency_key == idempotency_key()
                raise ServerError("down") if attempt.number < 3 else asyncio.CancelledError
        return seen

    with pytest.raises(asyncio.CancelledError):
        VirtualClock().run(main())


def test_a_generator_that_is_closed_by_somebody_else_ends_quietly() -> None:
    """Its block began in another context, in which nothing can be reset from here."""

    async def numbers() -> AsyncGenerator[int, None]:
        async for attempt in EVEN.attempts():
            with attempt:
                yield 1

    async def main() -> None:
        stream = numbers()
        assert await asyncio.create_task(anext(stream)) == 1
        await stream.aclose()

    VirtualClock().run(main())


def test_a_layer_without_a_policy_takes_over_the_nearest_one_around() -> None:
    outer, inner = RetryPolicy(max_attempts=5), RetryPolicy(max_attempts=2)
    found: list[RetryPolicy | None] = []

    async def look() -> None:
        token = current_attempt.set(Attempt())  # a layer without one
        found.append(inherited_policy())
        current_attempt.reset(token)

    async def between() -> None:
        await look()
        await inner.run(look)
        await look()

    async def main() -> None:
        await look()
        await outer.run(between)

    VirtualClock().run(main())
    assert found == [None, outer, inner, outer]


def test_a_wait_for_a_connection_goes_to_the_account_of_the_nearest_layer_that_keeps_one() -> None:
    @dataclass
    class Kept:
        pool: float = 0.0
        begun: float = 0.0

    account = Kept()

    async def call() -> None:
        note_pool_wait(1.5)

    async def kept() -> None:
        attempt = current_attempt.get()
        assert attempt is not None
        attempt.account = account
        await call()
        await EVEN.run(call)

    async def main() -> None:
        await call()  # nobody keeps one
        await EVEN.run(call)
        await EVEN.run(kept)

    VirtualClock().run(main())
    assert (account.pool, account.begun) == (3.0, 3.0)


def test_who_keeps_count_by_itself_may_give_up_for_a_reason_of_its_own() -> None:
    async def main() -> ServerError:
        repetition = Repetition(EVEN, Attempt(EVEN), VirtualClock())
        first, second = ServerError("1"), ServerError("2")
        assert repetition.after(first) == 1
        repetition.give_up(second, "not tried again: the breaker is open")
        return second

    error = VirtualClock().run(main())
    assert is_owned(error)
    assert error.__notes__ == ["attempt 1 of 3: ServerError: 1; waited 1 s", "not tried again: the breaker is open"]


# ---- cancelled anywhere --------------------------------------------------------------------------------------


@every_form
def test_cancelled_at_any_wait_nothing_is_left(form: Any) -> None:
    seen: list[Attempt | None] = []

    async def operation(clock: VirtualClock) -> None:
        try:
            await form(EVEN, Script(ServerError("1"), 5.0, "never"), timeout=60)
        finally:
            seen.append(current_attempt.get())

    def check() -> None:
        alarm = _alarms.get(asyncio.get_running_loop())
        assert seen[-1] is None
        assert alarm is None or not alarm._waiting  # no deadline is left

    assert sweep(operation, check) == 2
