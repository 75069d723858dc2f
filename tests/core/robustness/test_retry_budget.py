"""The retry budget: retries as a share of the calls, in a window that moves, for many threads at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.abandoned import Collecting, abandon, for_ever

from agentflow.clock import VirtualClock
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.retry_budget import RetryBudget


def spent(budget: RetryBudget, tries: int = 1000) -> int:
    return sum(budget.try_spend() for _ in range(tries))


def test_a_minimum_is_always_allowed() -> None:
    assert spent(RetryBudget(ratio=0.2, minimum=3, clock=VirtualClock())) == 3


def test_beyond_it_retries_are_a_share_of_the_calls() -> None:
    budget = RetryBudget(ratio=0.2, minimum=3, clock=VirtualClock())
    for _ in range(100):
        budget.request()
    assert budget.snapshot().left == 23
    assert spent(budget) == 23
    assert budget.snapshot().left == 0


def test_a_call_at_the_very_end_of_a_tenth_of_the_window_belongs_to_the_next() -> None:
    clock = VirtualClock()
    budget = RetryBudget(window=10, clock=clock)
    budget.request()
    clock.advance(1.0)
    budget.request()
    clock.advance(9.5)
    assert budget.snapshot().requests == 1
    clock.advance(0.5)
    assert budget.snapshot().requests == 0


def test_it_shows_what_it_was_made_of() -> None:
    budget = RetryBudget(ratio=0.25, minimum=3, window=5)
    assert (budget.ratio, budget.minimum, budget.window) == (0.25, 3, 5)
    assert repr(budget) == "RetryBudget(ratio=0.25, minimum=3, window=5)"


@pytest.mark.parametrize("requests", range(0, 101, 10))
def test_rounding_gives_nothing_away(requests: int) -> None:
    budget = RetryBudget(ratio=0.1, minimum=0, clock=VirtualClock())
    for _ in range(requests):
        budget.request()
    assert spent(budget) == requests // 10


def test_a_share_that_has_begun_is_good_for_a_retry() -> None:
    budget = RetryBudget(ratio=0.2, minimum=0, clock=VirtualClock())
    budget.request()
    assert (budget.snapshot().left, spent(budget)) == (1, 1)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = VirtualClock()
    budget = RetryBudget(ratio=0, minimum=2, window=10, clock=clock)
    assert budget.try_spend()
    clock.advance(5)
    assert spent(budget) == 1
    clock.advance(4.9)
    assert spent(budget) == 0
    clock.advance(0.1)
    assert spent(budget) == 1


@pytest.mark.parametrize("jump", [10, 3600, 1e9])
def test_after_a_long_sleep_the_window_is_empty(jump: float) -> None:
    clock = VirtualClock()
    budget = RetryBudget(clock=clock)
    for _ in range(50):
        budget.request()
    assert spent(budget) == 20
    clock.advance(jump)
    found = budget.snapshot()
    assert (found.requests, found.retries, found.left) == (0, 0, 10)


def test_a_retry_storm_is_bounded_by_the_ratio() -> None:
    """Everything fails for a minute, and each call would like to try five times."""
    clock = VirtualClock()
    budget = RetryBudget(ratio=0.1, minimum=5, clock=clock)
    retries = 0
    for _ in range(6000):
        clock.advance(0.01)
        budget.request()
        retries += spent(budget, 4)
    assert retries <= 0.1 * 6000 + 5 * 7
    assert retries >= 0.1 * 6000 * 0.8


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"ratio": -0.1}, "ratio"),
        ({"ratio": float("nan")}, "ratio"),
        ({"minimum": -1}, "minimum"),
        ({"window": 0}, "window"),
        ({"window": float("inf")}, "window"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RetryBudget(**options)


def test_the_listener_hears_of_each_refusal_and_may_fail() -> None:
    heard: list[Decision] = []

    def listen(decision: Decision) -> None:
        heard.append(decision)
        assert budget.snapshot().left == 0  # no lock is held meanwhile
        raise RuntimeError("listener")

    budget = RetryBudget(ratio=0, minimum=1, name="openai", clock=VirtualClock(), listener=listen)
    assert spent(budget, 3) == 1
    assert heard == [Decision("retry_refused", "openai", {"ratio": 0, "minimum": 1})] * 2


def test_threads_share_it_without_spending_twice() -> None:
    budget = RetryBudget(ratio=0.5, minimum=100, window=3600)
    granted: list[int] = []

    def work() -> None:
        for _ in range(500):
            budget.request()
        granted.append(spent(budget, 1000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    granted.append(spent(budget, 2000))
    assert budget.snapshot().requests == 2000
    assert sum(granted) == budget.snapshot().retries == 100 + 1000


@pytest.mark.timeout(10)
def test_a_call_that_begins_in_the_midst_of_a_decision_is_noted_after_it() -> None:
    """As when the garbage collector closes a coroutine, which makes a call as it ends."""
    clock = Collecting()
    budget = RetryBudget(clock=clock)

    async def farewell() -> None:
        try:
            await for_ever()
        finally:
            budget.request()

    abandon(farewell())
    clock.when = budget._turn.lock.locked
    assert budget.try_spend()
    assert clock.collected
    clock.when = None
    assert budget.snapshot().requests == 1


class Machine(RuleBasedStateMachine):
    """Against a list of everything that ever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.budget = RetryBudget(ratio=0.25, minimum=2, window=10, clock=self.clock)
        self.requests: list[int] = []
        self.retries: list[int] = []

    def bucket(self) -> int:
        return int(self.clock.monotonic() // 1.0)

    def lately(self, times: list[int]) -> int:
        return sum(time > self.bucket() - 10 for time in times)

    @rule(count=st.integers(1, 9))
    def request(self, count: int) -> None:
        for _ in range(count):
            self.budget.request()
            self.requests.append(self.bucket())

    @rule()
    def spend(self) -> None:
        allowed = self.lately(self.retries) < 2 + 0.25 * self.lately(self.requests)
        assert self.budget.try_spend() is allowed
        if allowed:
            self.retries.append(self.bucket())

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0, 9.75, 10.0, 11.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.requests)
    @invariant()
    def counts(self) -> None:
        found = self.budget.snapshot()
        assert (found.requests, found.retries) == (self.lately(self.requests), self.lately(self.retries))


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
