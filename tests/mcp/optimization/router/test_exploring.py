"""Exploration: how likely each choice is, that it is drawn so often, and that feedback changes what is believed."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.routing import CHEAP, DEAR, Known, Watched, ask, priced

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router import Exploration, ModelRouter
from agentflow.mcp.optimization.router.exploring import Experience, chances, drawn
from agentflow.mcp.optimization.router.learning.policy import Forecast

CLOSE = {
    "a": Forecast(0.80, 0.70, 0.90, 0.001),
    "b": Forecast(0.82, 0.60, 0.99, 0.001),
    "c": Forecast(0.3, 0.2, 0.4, 0.001),
}

_forecast = st.builds(
    lambda quality, doubt, cost: Forecast(quality, max(0.0, quality - doubt), min(1.0, quality + doubt), cost),
    st.floats(0, 1), st.floats(0, 0.5), st.sampled_from([0.0, 0.001, 0.02, math.inf]),
)  # fmt: skip


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from("abcdef"), _forecast, min_size=1), st.floats(0.0, 1.0), st.floats(0.0, 0.4))
def test_probabilities_add_up_to_one_and_none_is_below_the_least(
    forecasts: dict[str, Forecast], value: float, least: float
) -> None:
    odds = chances(forecasts, value, Experience(), Exploration(least))
    assert set(odds) == set(forecasts)
    assert sum(odds.values()) == pytest.approx(1.0, abs=1e-9)
    assert min(odds.values()) >= min(least, 1 / len(forecasts)) - 1e-12


def test_probabilities_are_those_of_being_the_best() -> None:
    """Held against sampling: each model is the best as often as the quadrature says."""
    rng, count, won = random.Random(5), 20_000, Counter[str]()
    experience = Experience()
    for _ in range(count):
        believed = {name: rng.gauss(*experience.belief(name, forecast)) for name, forecast in CLOSE.items()}
        won[max(believed, key=believed.__getitem__)] += 1
    odds = chances(CLOSE, 1.0, experience, Exploration(0.0))
    for name in CLOSE:
        assert odds[name] == pytest.approx(won[name] / count, abs=0.015)


def test_what_is_drawn_has_the_frequency_that_is_told() -> None:
    odds, rng, count = {"a": 0.7, "b": 0.25, "c": 0.05, "d": 0.0}, random.Random(1), 20_000
    seen = Counter(drawn(odds, rng) for _ in range(count))
    for name, probability in odds.items():
        assert seen[name] / count == pytest.approx(probability, abs=0.011)


async def test_the_router_chooses_as_often_as_the_propensities_in_its_events_say() -> None:
    models = {name: priced(name, CHEAP) for name in CLOSE}
    router = ModelRouter(models, policy=Known(CLOSE), exploration=Exploration(0.02), rng=random.Random(3))
    told = router.explain(ask()).probabilities
    watched, count = Watched(), 1200
    with watched.asking():
        seen = Counter([(await router.execute(ask())).text for _ in range(count)])
    for name, probability in told.items():
        assert seen[name] / count == pytest.approx(probability, abs=4 * math.sqrt(probability / count))
    for route in watched.routes:
        assert route["propensity"] == told[route["to"]] == route["candidates"][route["to"]]["propensity"]
        assert sum(each["propensity"] for each in route["candidates"].values()) == pytest.approx(1.0)


async def test_explaining_meets_the_same_chance_as_the_next_call() -> None:
    models = {name: priced(name, CHEAP) for name in CLOSE}
    router = ModelRouter(models, policy=Known(CLOSE), exploration=Exploration(), rng=random.Random(9))
    for _ in range(50):
        assert router.explain(ask()).chosen == (await router.execute(ask())).text


async def test_it_is_off_by_default() -> None:
    router = ModelRouter({name: priced(name, CHEAP) for name in CLOSE}, policy=Known(CLOSE))
    assert {router.explain(ask()).chosen for _ in range(20)} == {"b"}
    assert router.explain(ask()).propensity == 1.0


async def test_feedback_moves_the_odds_towards_what_is_better_than_it_looked() -> None:
    router = ModelRouter({name: priced(name, CHEAP) for name in CLOSE}, policy=Known(CLOSE), exploration=Exploration())
    before = router.explain(ask()).probabilities
    scores = {"a": 1.0, "b": 0.0, "c": 0.3}
    for _ in range(400):
        reply = await router.execute(ask())
        router.feedback(reply, scores[reply.text])
    after = router.explain(ask()).probabilities
    assert before["a"] < 0.6
    assert after["a"] > 0.95


def test_a_belief_is_the_forecast_until_something_is_known_and_the_outcomes_in_the_end() -> None:
    experience, forecast = Experience(), Forecast(0.8, 0.7, 0.9, 0.001)
    assert experience.belief("a", forecast) == (0.8, pytest.approx(0.2 / 3.29))
    for _ in range(10_000):
        experience.add("a", -0.3)
    mean, doubt = experience.belief("a", forecast)
    assert mean == pytest.approx(0.5, abs=0.01)
    assert doubt < 0.01


def test_it_needs_to_know_what_quality_is_worth() -> None:
    models = {"a": priced("a", CHEAP, quality=0.5), "b": priced("b", DEAR, quality=0.9)}
    with pytest.raises(ConfigurationError, match="needs a λ"):
        ModelRouter(models, quality_floor=0.8, exploration=Exploration())
    assert ModelRouter(models, value=0.01, exploration=Exploration()).explain(ask()).by == "explored"
    with pytest.raises(ConfigurationError, match="from 0 to below"):
        Exploration(0.5)
