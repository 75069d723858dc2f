"""`agentflow budget`: what is left, what is held, and what a call has cost in the end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agentflow.llm.caller import Caller
from agentflow.mcp.optimization.budget import Allowance, Budget

MODELS = """
providers: {lab: {kind: scripted, options: {answers: [fine]}}}
models:
  one: {provider: lab, max_tokens: 9, budget: {per_day: 1.0, per_run: 0.5, store: budget.db}}
  two: {provider: lab, max_tokens: 9, budget: {per_month: 9.0, mode: soft, store: budget.db}}
  three: {provider: lab, max_tokens: 9, budget: {per_day: 1.0}}
"""


@pytest.fixture
def spent(place: Path) -> Path:
    """A store in which `one` has spent a quarter of its day in a run, and has a call of unknown cost."""
    (place / "models.yml").write_text(MODELS)

    async def main() -> None:
        one = Budget(per_day=1.0, per_run=0.5, per_tenant=Allowance(per_day=9.0), account="one", store="budget.db")
        two = Budget(per_month=9.0, mode="soft", account="two", store="budget.db")
        caller = Caller(run_id="r1", tenant="acme")
        await (await one.reserve(300_000_000, caller)).settle(250_000_000)
        await one.reserve(100_000_000, caller)
        await (await two.reserve(0, caller)).settle(20_000_000)
        await one.aclose()
        await two.aclose()

    asyncio.run(main())
    return place / "budget.db"


@pytest.mark.parametrize("words", [(), ("--file", "budget.db")])
def test_every_account_is_shown_with_what_is_spent_reserved_and_left(invoke, spent: Path, words) -> None:
    shown = invoke("budget", *words)
    assert shown.exit_code == 0, shown.output
    head, _, *rows = (line.split() for line in shown.stdout.splitlines()[:6])
    assert head == ["account", "spent", "reserved", "limit", "used", "resets", "in"]
    assert [row[:5] for row in rows[:3]] == [
        ["one/day", "$0.2500", "$0.1000", "$1.00", "35%"],
        ["one/run:r1", "$0.2500", "$0.1000", "$0.5000", "70%"],
        ["one/tenant:acme/day", "$0.2500", "$0.1000", "$9.00", "4%"],
    ]
    assert rows[0][5] == "█" * 5 + "░" * 2
    assert rows[3][:4] == ["two/month", "$0.0200", "($9.00)", "<1%"]
    assert "(limits in parentheses warn, and refuse nothing)" in shown.stdout


def test_a_budget_in_memory_is_said_not_to_be_seen(invoke, spent: Path) -> None:
    assert "note: three keeps its budget in the memory of each process" in invoke("budget").stderr


def test_json_has_amounts_in_dollars(invoke, spent: Path) -> None:
    rows = {row["account"]: row for row in json.loads(invoke("budget", "--json").stdout)}
    assert rows["one/run:r1"] == {
        "account": "one/run:r1", "limit": 0.5, "spent": 0.25, "reserved": 0.1, "resets_at": None, "hard": True,
        "left": pytest.approx(0.15),
    }  # fmt: skip
    assert rows["one/day"]["resets_at"] > 1.7e9


def test_a_call_that_is_held_is_listed_and_put_right_once(invoke, spent: Path) -> None:
    [held] = json.loads(invoke("budget", "--held", "--json").stdout)
    assert (held["amount"], held["lapsed"], len(held["accounts"])) == (0.1, False, 3)
    assert held["call"] in invoke("budget", "--held").stdout
    assert invoke("budget", "--correct", held["call"], "0.05").exit_code == 0
    rows = {row["account"]: row for row in json.loads(invoke("budget", "--json").stdout)}
    assert (rows["one/day"]["spent"], rows["one/day"]["reserved"]) == (0.3, 0.0)
    again = invoke("budget", "--correct", held["call"], "0.05")
    assert again.exit_code == 1
    assert "no call" in again.stderr
    assert "every call is settled" in invoke("budget", "--held").stderr


def test_where_there_is_nothing_it_says_so_and_makes_no_file(invoke, place: Path) -> None:
    assert "no entry of models.yml has a budget" in invoke("budget").stderr
    (place / "models.yml").write_text(MODELS)
    assert "nothing has been spent" in invoke("budget").stderr
    assert not (place / "budget.db").exists()
    assert "there is no file other.db" in invoke("budget", "--file", "other.db").stderr
