"""Mixtures of single models, and the policies that look at no text."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agentflow.errors import ConfigurationError
from agentflow.llm.config.prices import Rates
from agentflow.mcp.optimization.router.learning.fixed import FixedPolicy
from agentflow.mcp.optimization.router.learning.hull_policy import HullPolicy
from agentflow.mcp.optimization.router.learning.policy import Objective

HULL = HullPolicy(("small", "large"), (0.6, 0.9), (0.001, 0.01), ((100.0, 50.0), (100.0, 200.0)))


def test_each_model_is_drawn_as_often_as_its_propensity_says() -> None:
    policy = HULL.aimed(Objective(quality_floor=0.7), {})
    rng = random.Random(1)
    drawn = [policy.choose("?", policy.models, {}, rng) for _ in range(3_000)]
    share = Counter(choice.model for choice in drawn)["large"] / len(drawn)
    assert share == pytest.approx(1 / 3, abs=0.03)
    assert all(choice.propensity == choice.probabilities[choice.model] for choice in drawn)
    assert sum(drawn[0].probabilities.values()) == pytest.approx(1)
    assert drawn[0].kind == "hull"


def test_among_fewer_models_the_mixture_is_another_one() -> None:
    choice = HULL.aimed(Objective(quality_floor=0.7), {}).choose("?", ["small"], {}, random.Random(0))
    assert (choice.model, choice.propensity) == ("small", 1.0)


def test_prices_are_multiplied_with_the_mean_lengths() -> None:
    prices = {"small": Rates.stated(10.0, 20.0), "large": Rates.stated(1.0, 2.0)}
    policy = HULL.aimed(Objective(value_usd=1.0), prices)
    assert policy.cost == pytest.approx((0.002, 0.0005))
    assert policy.choose("?", policy.models, prices, random.Random(0)).model == "large"
    assert policy.forecast("?", policy.models, prices, input_tokens=1_000)["large"].cost_usd == pytest.approx(0.0014)


def test_who_is_not_known_is_not_chosen() -> None:
    for policy in (HULL, FixedPolicy(("small",))):
        with pytest.raises(ConfigurationError, match="none of them is allowed"):
            policy.choose("?", ["other"], {}, random.Random(0))


def test_a_fixed_order_takes_the_first_that_is_allowed() -> None:
    policy = FixedPolicy(("large", "small"))
    choice = policy.choose("?", ["small"], {}, random.Random(0))
    assert (choice.model, choice.propensity, choice.reason) == ("small", 1.0, "large is not allowed")
    assert policy.aimed(Objective(value_usd=1), {}) is policy


def test_other_aims_have_other_digests() -> None:
    digests = {
        HULL.digest,
        HULL.aimed(Objective(value_usd=1), {}).digest,
        HULL.aimed(Objective(value_usd=2), {}).digest,
    }
    assert len(digests) == 3


@pytest.mark.parametrize("said", [{}, {"value_usd": 1.0, "budget_usd": 1.0}, {"quality_floor": 1.1}, {"value_usd": -1}])
def test_an_objective_is_one_wish_that_can_be_had(said: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="objective"):
        Objective(**said)
