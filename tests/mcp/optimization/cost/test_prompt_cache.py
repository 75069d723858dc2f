"""Keeping the beginnings of prompts: when it pays, and what it comes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cost_traffic import LIST

from agentflow.llm.config.prices import Price, Rates
from agentflow.mcp.optimization.cost import Call, CostOptimizer, UsageLog
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.prompt_cache import HOUR, MINUTES, break_even, caches_by_itself, gains
from agentflow.mcp.optimization.cost.table import table_of

RATES = Rates.stated(3.0, 15.0, cached=0.3, cache_write=3.75, cache_write_1h=6.0)
PRICES = PriceSnapshot({"claude": Price.flat(RATES)}, "2026-11-26", "a test")


def call(at: float, prefix: str = "p", tokens: int = 4_000, **facts: object) -> Call:
    return Call(
        at=at, model="claude", input_tokens=tokens + 100, cost=0.02, prefix=prefix, prefix_tokens=tokens, **facts
    )  # type: ignore[arg-type]


def test_a_written_beginning_pays_when_it_is_read_a_third_of_a_time_or_for_an_hour_once() -> None:
    """(1.25 - 1) / (1 - 0.1), and (2 - 1) / (1 - 0.1)."""
    assert break_even(RATES, MINUTES) == pytest.approx(0.25 / 0.9)
    assert break_even(RATES, HOUR) == pytest.approx(1.0 / 0.9)
    assert break_even(Rates.stated(3.0, 15.0), MINUTES) is None


@pytest.mark.parametrize(
    ("provider", "model", "by_itself"),
    [("anthropic", "claude-sonnet-4-5", False), ("openai", "gpt-4o", True), ("google", "gemini-2.5-pro", True)],
)
def test_who_must_be_asked_is_told_from_the_price_list(provider: str, model: str, by_itself: bool) -> None:
    price = LIST.price(provider, model)
    assert price is not None
    assert price.usual is not None
    assert caches_by_itself(price.usual) is by_itself


@given(st.lists(st.tuples(st.integers(0, 5_000), st.sampled_from("pq")), min_size=1, max_size=40))
def test_each_use_keeps_it_for_its_whole_lifetime_again(rows: list[tuple[int, str]]) -> None:
    """Next to a dictionary, asked call by call."""
    calls = [call(float(at), prefix) for at, prefix in sorted(rows)]
    made = table_of(UsageLog(calls), PRICES)
    used: dict[str, float] = {}
    expected = []
    for each in calls:
        is_read = each.at - used.get(each.prefix or "", -1e9) < MINUTES
        expected.append(4_000 * (3.0 - (0.3 if is_read else 3.75)) / 1e6)
        used[each.prefix or ""] = each.at
    assert gains(made, made.counts, MINUTES) == pytest.approx(expected)


def proposed(calls: list[Call]) -> list[str]:
    found = CostOptimizer(UsageLog(calls), prices=PRICES).propose()
    return [each.title for each in found.proposals if each.kind == "prompt_cache"]


def test_it_is_proposed_where_reads_pay_for_the_writes_and_nowhere_else() -> None:
    often = [call(60.0 * number, run=f"r{number}") for number in range(60)]
    seldom = [call(7_200.0 * number, run=f"r{number}") for number in range(60)]
    assert proposed(often) == ["Keep the beginnings of prompts at the provider for 5 min"]
    assert proposed(seldom) == []


def test_an_hour_is_proposed_where_minutes_are_too_short() -> None:
    calls = [call(1_200.0 * number, run=f"r{number}") for number in range(60)]
    assert proposed(calls) == ["Keep the beginnings of prompts at the provider for 1 h"]


def test_short_beginnings_and_those_that_are_kept_already_are_left_alone() -> None:
    assert proposed([call(60.0 * number, tokens=900, run=f"r{number}") for number in range(60)]) == []
    assert proposed([call(60.0 * number, cached_tokens=4_000, run=f"r{number}") for number in range(60)]) == []


def test_a_provider_that_caches_by_itself_may_have_missed_something_which_is_a_bound() -> None:
    rates = Rates.stated(2.5, 10.0, cached=1.25)
    prices = PriceSnapshot({"claude": Price.flat(rates)}, "2026-11-26", "a test")
    log = UsageLog([call(60.0 * number, run=f"r{number}") for number in range(60)])
    [found] = [each for each in CostOptimizer(log, prices=prices).propose().proposals if each.kind == "prompt_cache"]
    assert (found.means, found.saves.low, found.calls) == ("bound", 0.0, 60)
    assert found.saves.value * log.days == pytest.approx(59 * 4_000 * 1.25 / 1e6)
