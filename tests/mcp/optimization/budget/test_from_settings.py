"""Budgets as models.yml says them: whose price bounds a call, where accounts are kept, who spends the same money."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.bench import Bench

from agentflow import AsyncFlow, SharedState, node
from agentflow.errors import BudgetExceededError, ConfigurationError, ServerError, UnboundedCostError
from agentflow.llm.caller import Caller
from agentflow.llm.messages import Message, Request, Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.wrapped_models import provider_of
from agentflow.mcp.optimization.budget import AccountStatus, BudgetedProvider, MemoryAccounts, SqliteAccounts

MODELS = """
providers:
  toy: {}
models:
  small: {provider: toy, price: {input: 1.0, output: 10.0}, max_tokens: 1000}
  large: {provider: toy, price: {input: 10.0, output: 100.0}, max_tokens: 1000}
"""
LARGE = 0.1 + 10 * 150 / 1e6  # the bound of a short call of `large`, about
PAID = "paid: {provider: toy, price: {input: 10, output: 100}, budget: {per_day: 1.0}, max_tokens: 200}"


def bench(folder: Path, *entries: str, provider: ScriptedProvider | None = None) -> Bench:
    answer = Response("fine", "m", "toy", usage=Usage(100, 200))
    lines = "".join(f"  {entry}\n" for entry in entries)
    return Bench(folder, {"toy": provider or ScriptedProvider(lambda _: answer)}, MODELS + lines)


def budgeted(made: Bench, name: str) -> BudgetedProvider:
    provider = provider_of(made.registry, name)
    assert isinstance(provider, BudgetedProvider)
    return provider


def most(made: Bench, name: str, **said: Any) -> float:
    """What a call of that entry may cost at most, US dollars."""
    request = Request("m", (Message("user", "Hi"),), **said)
    return budgeted(made, name)._costs.most(request) / 1e9


async def statuses(made: Bench, name: str) -> Sequence[AccountStatus]:
    return await budgeted(made, name).budget.status()


# ---- through the client


def test_a_call_of_an_entry_with_a_budget_is_settled_at_what_it_cost(tmp_path: Path) -> None:
    made = bench(tmp_path, PAID)

    async def main() -> Sequence[AccountStatus]:
        reply = await made.ask("paid").execute_full()
        assert reply.cost == pytest.approx(0.021)
        return await statuses(made, "paid")

    [account] = made.run_watched(main)
    assert (account.account, account.reserved) == ("paid/day", 0.0)
    assert account.spent == pytest.approx(0.021)
    assert [facts["decision"] for facts in made.of("budget")] == ["allowed", "settled"]


def test_retries_within_a_call_are_one_reservation_and_a_stream_is_settled_too(tmp_path: Path) -> None:
    answers = [ServerError("down", status=500), Response("fine", "m", "toy", usage=Usage(100, 200)), "one two"]
    made = bench(tmp_path, PAID, provider=ScriptedProvider(answers))

    async def main() -> Sequence[AccountStatus]:
        await made.ask("paid").execute()
        async with made.ask("paid").streaming(True).execute_streaming() as stream:
            await stream.collect()
        return await statuses(made, "paid")

    [account] = made.run_watched(main)
    assert account.spent == pytest.approx(0.021 + 10 / 1e6 + 2 * 100 / 1e6)
    assert [facts["decision"] for facts in made.of("budget")] == ["allowed", "settled"] * 2


def test_a_stream_that_is_left_is_settled_at_what_had_come(tmp_path: Path) -> None:
    made = bench(tmp_path, PAID, provider=ScriptedProvider(["word " * 100]))

    async def main() -> Sequence[AccountStatus]:
        async with made.ask("paid").streaming(True).execute_streaming() as stream:
            await anext(aiter(stream))
        return await statuses(made, "paid")

    [account] = made.run_watched(main)
    assert account.reserved == 0
    assert 0 < account.spent < 0.001


def test_a_run_has_the_account_of_its_run_and_its_tenant(tmp_path: Path) -> None:
    entry = (
        "paid: {provider: toy, price: {input: 10, output: 100}, max_tokens: 9, "
        "budget: {per_run: 1.0, per_tenant: {per_day: 1.0}, per_flow: {per_month: 1.0}}}"
    )
    made = bench(tmp_path, entry)

    @node
    async def ask(state: SharedState) -> None:
        await made.ask("paid").execute()

    async def main() -> Sequence[AccountStatus]:
        await AsyncFlow(ask, name="article").run({}, tenant="acme", run_id="r1")
        return await statuses(made, "paid")

    names = [account.account for account in made.run(main())]
    assert names == ["paid/flow:article/month", "paid/run:r1", "paid/tenant:acme/day"]


def test_a_budget_that_is_used_up_refuses_the_next_call(tmp_path: Path) -> None:
    made = bench(tmp_path, PAID.replace("1.0", "0.03"))

    async def main() -> None:
        await made.ask("paid").execute()
        with pytest.raises(BudgetExceededError, match="paid/day"):
            await made.ask("paid").execute()

    made.run(main())


@pytest.mark.parametrize(("when", "answers"), [("", False), ("refused", True), ("overloaded", False)])
def test_another_model_stands_in_for_a_spent_budget_only_where_that_was_asked_for(
    tmp_path: Path, when: str, answers: bool
) -> None:
    """Else a hard budget would be spent, and the money of the stand-in after it."""
    other = f"{{model: small, when: [{when}]}}" if when else "small"
    made = bench(tmp_path, PAID.replace("1.0}", f"0.001}}, fallback: [{other}]"))

    async def main() -> None:
        if answers:
            assert await made.ask("paid").execute() == "fine"
        else:
            with pytest.raises(BudgetExceededError):
                await made.ask("paid").execute()

    made.run(main())


# ---- whose price


def test_a_router_is_bounded_by_its_dearest_candidate_and_a_router_of_routers_too(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        "auto: {router: {candidates: [small, large]}, budget: {per_day: 1.0}}",
        "outer: {router: {candidates: [small, auto]}, budget: {per_day: 1.0}}",
        "cheap: {router: {candidates: [small]}, budget: {per_day: 1.0}}",
    )
    assert most(made, "auto") == most(made, "outer") == pytest.approx(LARGE, rel=0.01)
    assert most(made, "cheap") == pytest.approx(LARGE / 10, rel=0.01)


def test_a_cascade_is_bounded_by_all_that_it_may_ask_and_as_often_as_it_may(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        "stairs: {router: {candidates: [small, large], cascade: true}, budget: {per_day: 1.0}}",
        "inside: {router: {candidates: [small, stairs]}, budget: {per_day: 1.0}}",
        "drawn: {router: {candidates: [small, large], cascade: {samples: 3}}, budget: {per_day: 1.0}}",
    )
    assert most(made, "stairs") == most(made, "inside") == pytest.approx(1.1 * LARGE, rel=0.01)
    assert most(made, "drawn") == pytest.approx(3 * 1.1 * LARGE, rel=0.01)


def test_what_the_entry_says_of_parameters_and_hedges_counts(tmp_path: Path) -> None:
    price = "price: {input: 10, output: 100}"
    made = bench(
        tmp_path,
        f"plain: {{provider: toy, {price}, max_tokens: 1000, budget: {{per_day: 1.0}}}}",
        f"hedged: {{provider: toy, {price}, max_tokens: 1000, hedge: {{after: 1}}, budget: {{per_day: 1.0}}}}",
        f"again: {{provider: toy, {price}, max_tokens: 1000, retry: {{max_attempts: 3, after_first_chunk: true}}, "
        "budget: {per_day: 1.0}}",
    )
    assert most(made, "hedged") == 2 * most(made, "plain")
    assert most(made, "again") == 3 * most(made, "plain")


def test_a_ceiling_stands_in_where_nobody_knows_the_price(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        "odd: {provider: toy, max_tokens: 10, budget: {per_day: 1.0, ceiling: 0.25}}",
        "odder: {provider: toy, max_tokens: 10, budget: {per_day: 1.0}}",
    )
    assert most(made, "odd") == 0.25
    with pytest.raises(UnboundedCostError, match=r"'odder'.*ceiling"):
        most(made, "odder")


# ---- where, and with whom


def test_entries_that_name_one_account_spend_the_same_money(tmp_path: Path) -> None:
    of_acme = "provider: toy, price: {input: 10, output: 100}, max_tokens: 200, budget: {per_day: 0.05, account: acme}"
    made = bench(tmp_path, f"one: {{{of_acme}}}", f"two: {{{of_acme}}}")

    async def main() -> None:
        await made.ask("one").execute()
        await made.ask("two").execute()
        with pytest.raises(BudgetExceededError, match="acme/day"):
            await made.ask("one").execute()

    made.run(main())


def test_a_store_is_a_file_beside_models_yml_and_outlives_the_registry(tmp_path: Path) -> None:
    entry = "paid: {provider: toy, price: {input: 10, output: 100}, max_tokens: 9, budget: {per_day: 1.0, store: b.db}}"

    async def spend(made: Bench) -> float:
        await made.ask("paid").execute()
        [account] = await statuses(made, "paid")
        await budgeted(made, "paid").aclose()
        return account.spent

    first = bench(tmp_path, entry)
    assert first.run(spend(first)) == pytest.approx(0.021)
    second = bench(tmp_path, entry)
    assert second.run(spend(second)) == pytest.approx(0.042)
    assert (tmp_path / "b.db").is_file()


def test_without_a_store_accounts_are_kept_in_memory_and_those_of_another_name_apart(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        "one: {provider: toy, budget: {per_day: 1.0}}",
        "two: {provider: toy, budget: {per_day: 1.0}}",
        "kept: {provider: toy, budget: {per_day: 1.0, store: b.db}}",
    )
    one, two, kept = (budgeted(made, name).budget._accounts for name in ("one", "two", "kept"))
    assert isinstance(one, MemoryAccounts)
    assert isinstance(kept, SqliteAccounts)
    assert one is not two


def test_a_section_is_obeyed_to_the_letter(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        "all: {provider: toy, budget: {per_hour: 1, per_day: 2, per_month: 3, per_run: 4, per_tenant: {per_hour: 5}, "
        "per_flow: {per_day: 6}, mode: soft, soft: [0.5], window: rolling, account: us, lease: 60}}",
    )
    budget = budgeted(made, "all").budget
    charges = budget._rules.charges(Caller("t", "f", "r"), 1_700_000_000.0)
    assert [(each.account, each.limit / 1e9, each.hard) for each in charges] == [
        ("us/hour", 1, False),
        ("us/day", 2, False),
        ("us/month", 3, False),
        ("us/run:r", 4, False),
        ("us/flow:f/day", 6, False),
        ("us/tenant:t/hour", 5, False),
    ]
    assert (budget._thresholds, budget._lease) == ((0.5, 1.0), 60)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{}", "it needs a limit"),
        ("{per_day: 0}", "per_day"),
        ("{per_day: 1, soft: 2}", "soft"),
        ("{per_day: 1, mode: firm}", "mode"),
        ("{per_day: 1, per_tenant: {per_week: 1}}", "per_week"),
    ],
)
def test_a_section_that_cannot_be_is_refused_when_it_is_read(tmp_path: Path, section: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        bench(tmp_path, f"odd: {{provider: toy, budget: {section}}}").registry.describe("odd")


def test_a_time_zone_that_nobody_knows_is_refused_when_the_model_is_first_asked(tmp_path: Path) -> None:
    made = bench(tmp_path, "odd: {provider: toy, budget: {per_day: 1, time_zone: Mars}}")
    with pytest.raises(ConfigurationError, match="no time zone 'Mars'"):
        budgeted(made, "odd")
