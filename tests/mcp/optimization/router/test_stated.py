"""What a router chooses by who has learned nothing."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError
from agentflow.llm.config.prices import Rates
from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.lengths import FIRST_GUESS, Lengths
from agentflow.mcp.optimization.router.stated import StatedPolicy

PRICES = {"small": Rates(0.1, 0.4), "medium": Rates(1.0, 4.0), "large": Rates(2.0, 8.0)}
QUALITY = {"small": 0.6, "medium": 0.8, "large": 0.9}
NAMES = ("small", "medium", "large")
ANY = random.Random(0)


def chosen(policy: StatedPolicy, models: tuple[str, ...] = NAMES, prices: dict[str, Rates] | None = None) -> str:
    return policy.choose("words", models, PRICES if prices is None else prices, ANY, input_tokens=1000).model


def test_without_an_aim_the_cheapest_is_chosen() -> None:
    assert chosen(StatedPolicy(("large", "small", "medium"))) == "small"
    assert chosen(StatedPolicy(NAMES), ("medium", "large")) == "medium"


def test_where_no_price_is_known_the_first_is_chosen_and_an_unknown_price_is_the_last() -> None:
    assert chosen(StatedPolicy(("large", "small")), ("small", "large"), {}) == "large"
    assert chosen(StatedPolicy(NAMES), NAMES, {"large": PRICES["large"]}) == "large"


@pytest.mark.parametrize(
    ("aim", "model"),
    [
        (Objective(quality_floor=0.5), "small"),
        (Objective(quality_floor=0.8), "medium"),
        (Objective(quality_floor=0.85), "large"),
        (Objective(quality_floor=0.95), "large"),  # none is so good
        (Objective(budget_usd=1.0), "large"),
        (Objective(budget_usd=0.0023), "medium"),  # 1,000 tokens in, 300 out
        (Objective(budget_usd=0.0001), "small"),  # none is so cheap
        (Objective(value_usd=0.0), "small"),
        (Objective(value_usd=0.01), "medium"),
        (Objective(value_usd=1.0), "large"),
    ],
)
def test_stated_qualities_are_aimed_with(aim: Objective, model: str) -> None:
    assert chosen(StatedPolicy(NAMES, QUALITY, aim)) == model


def test_a_model_of_unknown_quality_is_not_preferred_where_there_is_an_aim() -> None:
    policy = StatedPolicy(NAMES, {"large": 0.9}, Objective(quality_floor=0.0))
    assert chosen(policy) == "large"
    assert policy.forecast("words", NAMES, PRICES)["small"].high == 1.0


def test_an_aim_without_any_quality_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nobody says how good its models are"):
        StatedPolicy(NAMES, {}, Objective(quality_floor=0.9))


def test_models_that_it_does_not_know_are_not_its_business() -> None:
    with pytest.raises(ConfigurationError, match="none of them is allowed"):
        chosen(StatedPolicy(("small",)), ("large",))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0, 1), st.floats(0.01, 50)), min_size=1),
    st.floats(0, 10),
)
def test_the_choice_has_the_most_of_value_times_quality_less_cost(
    known: dict[str, tuple[float, float]], value: float
) -> None:
    prices = {name: Rates(rate, 4 * rate) for name, (_, rate) in known.items()}
    policy = StatedPolicy(
        tuple(known), {name: quality for name, (quality, _) in known.items()}, Objective(value_usd=value)
    )
    made = policy.choose("words", tuple(known), prices, ANY, input_tokens=500)
    worth = {name: value * f.quality - f.cost_usd for name, f in made.forecasts.items()}
    assert worth[made.model] == max(worth.values())
    assert sum(made.probabilities.values()) == 1.0


def test_costs_follow_the_answers_that_were_seen() -> None:
    lengths = Lengths()
    policy = StatedPolicy(("small",), lengths=lengths)

    def cost() -> float:
        return policy.forecast("words", ["small"], PRICES, input_tokens=1000)["small"].cost_usd

    assert cost() == pytest.approx((1000 * 0.1 + FIRST_GUESS * 0.4) / 1e6)
    for _ in range(2000):
        lengths.learn("small", 20)
    assert cost() == pytest.approx((1000 * 0.1 + 20 * 0.4) / 1e6, rel=0.1)
    assert policy.forecast("words", ["small"], {})["small"].cost_usd == math.inf


def test_its_digest_tells_policies_apart() -> None:
    policies = [
        StatedPolicy(NAMES),
        StatedPolicy(NAMES[:2]),
        StatedPolicy(NAMES, QUALITY),
        StatedPolicy(NAMES, QUALITY, Objective(value_usd=1)),
    ]
    assert len({policy.digest for policy in policies}) == len(policies)
    assert policies[0].digest == StatedPolicy(NAMES).digest
