"""Rules: which request each condition is about, and that the first that holds decides."""

from __future__ import annotations

import pytest
from tests.support.routing import ask

from agentflow.errors import ConfigurationError
from agentflow.llm.messages import Tool
from agentflow.mcp.optimization.router.demands import demands
from agentflow.mcp.optimization.router.rules import Rule, first_match

REQUEST = ask("Please check this CONTRACT", tools=(Tool("search"),), metadata={"team": "law", "x": "1"})


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (Rule("large"), True),
        (Rule("large", tenant="acme"), True),
        (Rule("large", tenant=("zeta", "acme")), True),
        (Rule("large", tenant="zeta"), False),
        (Rule("large", flow="article"), True),
        (Rule("large", flow="other"), False),
        (Rule("large", text=r"(?i)\bcontract\b"), True),
        (Rule("large", text=r"\bcontract\b"), False),
        (Rule("large", longer=1), True),
        (Rule("large", longer=10_000), False),
        (Rule("large", shorter=10_000), True),
        (Rule("large", shorter=1), False),
        (Rule("large", metadata={"team": "law"}), True),
        (Rule("large", metadata={"team": "sales"}), False),
        (Rule("large", metadata={"other": ""}), False),
        (Rule("large", tools=True), True),
        (Rule("large", tools=False), False),
        (Rule("large", tenant="acme", tools=True, text="CONTRACT"), True),
        (Rule("large", tenant="acme", tools=False, text="CONTRACT"), False),
    ],
)
def test_a_rule_holds_where_all_its_conditions_do(rule: Rule, holds: bool) -> None:
    assert rule.holds(REQUEST, demands(REQUEST), tenant="acme", flow="article") is holds


def test_a_condition_on_who_asks_holds_for_nobody_else() -> None:
    assert not Rule("large", tenant="acme").holds(REQUEST, demands(REQUEST), tenant=None, flow=None)


def test_lengths_count_from_the_same_token_on() -> None:
    tokens = demands(REQUEST).input_tokens
    here = [Rule("a", longer=tokens), Rule("a", shorter=tokens), Rule("a", shorter=tokens + 1)]
    assert [rule.holds(REQUEST, demands(REQUEST), tenant=None, flow=None) for rule in here] == [True, False, True]


def test_the_first_rule_that_holds_decides() -> None:
    rules = (Rule("a", tools=False), Rule("b", text="CONTRACT"), Rule("c"))
    assert first_match(rules, REQUEST, demands(REQUEST), tenant=None, flow=None) == (2, rules[1])
    assert first_match(rules[:1], REQUEST, demands(REQUEST), tenant=None, flow=None) is None


def test_a_rule_that_says_nothing_usable_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError, match="no regular expression"):
        Rule("a", text="(")
    with pytest.raises(ConfigurationError, match="at least one model"):
        Rule(())
