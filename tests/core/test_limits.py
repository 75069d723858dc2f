"""What may be spent: checked before, settled after, by many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from agentflow.core.limits import Ledger, Limits
from agentflow.errors import LimitExceededError


def test_without_limits_everything_is_allowed() -> None:
    ledger = Ledger(Limits())
    for _ in range(100):
        ledger.request()
        ledger.tool_round()
        ledger.spend(1000, 1.0)
    assert (ledger.requests, ledger.tool_rounds, ledger.tokens, ledger.dollars) == (100, 100, 100_000, 100.0)


@pytest.mark.parametrize(
    ("limits", "spent", "name"),
    [
        (Limits(requests=2), (0, 0.0), "requests"),
        (Limits(tokens=10), (5, 0.0), "tokens"),
        (Limits(dollars=0.5), (0, 0.25), "dollars"),
    ],
)
def test_the_request_after_the_one_that_reaches_a_limit_is_refused(
    limits: Limits, spent: tuple[int, float], name: str
) -> None:
    ledger = Ledger(limits)
    for _ in range(2):
        ledger.request()
        ledger.spend(*spent)
    with pytest.raises(LimitExceededError, match=f"{name} is used up") as caught:
        ledger.request()
    assert (caught.value.limit, caught.value.allowed) == (name, getattr(limits, name))
    assert ledger.requests == 2


def test_rounds_of_tools_are_bounded() -> None:
    ledger = Ledger(Limits(tool_rounds=1))
    ledger.tool_round()
    with pytest.raises(LimitExceededError, match="tool rounds"):
        ledger.tool_round()


def test_a_limit_of_zero_allows_nothing() -> None:
    with pytest.raises(LimitExceededError):
        Ledger(Limits(requests=0)).request()


@pytest.mark.parametrize("name", ["requests", "tokens", "tool_rounds", "dollars"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_limit_is_a_number_of_at_least_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]  # the mistake


def test_threads_together_never_pass_a_limit() -> None:
    ledger = Ledger(Limits(requests=50))

    def some() -> None:
        for _ in range(20):
            with suppress(LimitExceededError):
                ledger.request()

    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(some)
    assert ledger.requests == 50
