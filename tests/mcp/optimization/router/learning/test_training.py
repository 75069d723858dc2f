"""Learning from outcomes whose truth is planted, and from tables that teach little."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tests.support.planted_outcomes import COST, LARGE, MIDDLE, SMALL, planted, planted_with_truth

from agentflow.errors import ConfigurationError
from agentflow.llm.config.prices import Rates
from agentflow.mcp.optimization.router.learning.evaluation import evaluate
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.learning.table import OutcomeTable
from agentflow.mcp.optimization.router.learning.training import Training, train

HARD_TEXT = "please derive the matrix equation and the proof"
EASY_TEXT = "what colour is the garden in winter"
BOTH = (SMALL, LARGE)


@pytest.fixture(scope="module")
def learned() -> LearnedPolicy:
    return train(planted(), Training(objective=Objective(quality_floor=0.88)))


def ask(policy: LearnedPolicy, text: str, seed: int = 0) -> str:
    return policy.choose(text, policy.models, {}, random.Random(seed)).model


def test_a_planted_signal_is_found_and_decides(learned: LearnedPolicy) -> None:
    assert learned.name == "learned"
    assert learned.verdict.deployed
    assert (ask(learned, HARD_TEXT), ask(learned, EASY_TEXT)) == (LARGE, SMALL)
    forecast = learned.forecast(HARD_TEXT, BOTH, {})
    assert forecast[SMALL].quality < 0.45 < 0.8 < forecast[LARGE].quality


def test_a_choice_says_why_and_how_likely_it_was(learned: LearnedPolicy) -> None:
    choice = learned.choose(HARD_TEXT, BOTH, {}, random.Random(0))
    assert choice.kind == "learned"
    assert "quality 0." in choice.reason
    assert choice.propensity == choice.probabilities[choice.model]
    assert sum(choice.probabilities.values()) == pytest.approx(1)
    assert set(choice.forecasts) == set(BOTH)


def test_without_a_signal_the_hull_decides() -> None:
    policy = train(planted(signal=False), Training(objective=Objective(quality_floor=0.8)))
    assert policy.name == "hull"
    assert not policy.verdict.deployed
    drawn = Counter(ask(policy, HARD_TEXT, seed) for seed in range(400))
    [expected] = [policy.hull.mixture(BOTH).probabilities(BOTH)[LARGE]]
    assert drawn[LARGE] / 400 == pytest.approx(expected, abs=0.08)


def test_forecasts_are_calibrated_and_their_intervals_hold_the_truth(learned: LearnedPolicy) -> None:
    table, truth = planted_with_truth(300, seed=5)
    found = [learned.forecast(text, BOTH, {}) for text in table.texts]
    quality = np.array([[each[model].quality for model in BOTH] for each in found])
    inside = [
        each[model].low <= truth[row, place] <= each[model].high
        for row, each in enumerate(found)
        for place, model in enumerate(BOTH)
    ]
    assert np.abs(quality - truth).mean() < 0.1
    assert np.mean(inside) > 0.8
    assert max(evaluate(learned, table).calibration.values()) < 0.1


@pytest.mark.parametrize("objective", [Objective(quality_floor=0.86), Objective(budget_usd=0.007)])
def test_floor_and_budget_are_met_on_fresh_outcomes(learned: LearnedPolicy, objective: Objective) -> None:
    policy = learned.aimed(objective, {})
    found = evaluate(policy, planted(700, seed=9))
    if objective.quality_floor is not None:
        assert found.quality > objective.quality_floor - 0.03
        assert found.cost < 0.8 * COST[LARGE]
    else:
        assert found.cost < 1.25 * (objective.budget_usd or 0)
    assert found.over_hull_low > 0


def test_dearer_prices_move_choices(learned: LearnedPolicy) -> None:
    """The same aim at other prices: λ is solved anew, and costs are tokens times prices."""
    prices = {SMALL: Rates.stated(1.0, 1.0), LARGE: Rates.stated(1.01, 1.01)}
    policy = learned.aimed(Objective(value_usd=1.0), prices)
    forecast = policy.forecast(EASY_TEXT, BOTH, prices, input_tokens=1_000)
    assert forecast[LARGE].cost_usd == pytest.approx(0.00101 + 1.01e-6 * (forecast[LARGE].output_tokens or 0))
    assert policy.choose(HARD_TEXT, BOTH, prices, random.Random(0)).model == LARGE


def test_lengths_are_forecast(learned: LearnedPolicy) -> None:
    hard, easy = (learned.forecast(text, BOTH, {})[SMALL] for text in (HARD_TEXT, EASY_TEXT))
    assert hard.output_tokens is not None
    assert easy.output_tokens is not None
    assert hard.output_tokens > 25 > 15 > easy.output_tokens
    assert hard.output_high is not None
    assert hard.output_high >= hard.output_tokens * 0.9


def test_a_text_like_no_other_is_left_to_the_hull(learned: LearnedPolicy) -> None:
    choice = learned.choose("Ξ ∴ ⊕ ≋", BOTH, {}, random.Random(0))
    assert choice.kind == "hull"
    assert "nothing that was learned from" in choice.reason
    assert choice.forecasts[SMALL].high - choice.forecasts[SMALL].low > 0.5


def test_the_same_seed_learns_and_decides_the_same(learned: LearnedPolicy) -> None:
    again = train(planted(), Training(objective=Objective(quality_floor=0.88)))
    assert again.digest == learned.digest
    for seed in range(5):
        first, second = (each.choose(HARD_TEXT, BOTH, {}, random.Random(seed)) for each in (learned, again))
        assert first == second


def test_only_what_is_allowed_is_chosen(learned: LearnedPolicy) -> None:
    choice = learned.choose(HARD_TEXT, [SMALL, "unknown"], {}, random.Random(0))
    assert (choice.model, choice.propensity) == (SMALL, 1.0)
    with pytest.raises(ConfigurationError, match="none of them is allowed"):
        learned.choose(HARD_TEXT, ["unknown"], {}, random.Random(0))


def test_three_models_are_told_apart() -> None:
    policy = train(planted(models=(SMALL, MIDDLE, LARGE)), Training(objective=Objective(value_usd=0.1)))
    assert policy.verdict.deployed
    assert ask(policy, HARD_TEXT) == LARGE
    assert ask(policy, EASY_TEXT) == SMALL


def test_a_log_with_propensities_teaches_as_a_table_does() -> None:
    """Each row knows one model's outcome, asked with a chance that depends on the text."""
    whole = planted(2_000)
    rng = np.random.default_rng(1)
    to_small = np.where([any(word in text for word in ("proof", "matrix")) for text in whole.texts], 0.3, 0.7)
    small = rng.random(len(whole)) < to_small
    asked = np.stack([small, ~small], axis=1)
    chance = np.where(asked, np.stack([to_small, 1 - to_small], axis=1), np.nan)
    log = replace(whole, quality=np.where(asked, whole.quality, np.nan), propensity=chance)
    policy = train(log, Training(objective=Objective(quality_floor=0.86)))
    assert policy.verdict.deployed
    assert (ask(policy, HARD_TEXT), ask(policy, EASY_TEXT)) == (LARGE, SMALL)
    assert policy.hull.quality == pytest.approx(whole.quality.mean(axis=0), abs=0.05)
    greedy = replace(log, propensity=np.where(asked, 1.0, np.nan))
    assert "chance" in train(greedy).verdict.reason


def test_traffic_of_new_groups_is_validated_by_groups() -> None:
    policy = train(planted(groups=12), Training(objective=Objective(quality_floor=0.86), traffic="unseen"))
    assert policy.verdict.deployed
    assert len(np.unique(policy.validated.blocks)) == 12
    with pytest.raises(ConfigurationError, match="name their column"):
        train(planted(100), Training(traffic="unseen"))


def test_copies_of_a_prompt_are_never_split() -> None:
    """Outcomes are noise, but each prompt stands there four times with the same ones: only a leak would learn them."""
    table = planted(200, signal=False)
    copied = OutcomeTable.of(
        [text.upper() if turn % 2 else f"  {text}" for turn in range(4) for text in table.texts],
        {model: list(table.quality[:, place]) * 4 for place, model in enumerate(table.models)},
        cost={model: [COST[model]] * 800 for model in table.models},
    )
    policy = train(copied)
    assert len(np.unique(policy.validated.blocks)) == 200
    assert not policy.verdict.deployed


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_tiny_tables_are_left_to_the_hull(rows: int) -> None:
    policy = train(planted(rows))
    assert policy.name == "hull"
    assert policy.choose(HARD_TEXT, policy.models, {}, random.Random(0)).model in policy.models


def test_constant_and_empty_columns_and_empty_texts_do_no_harm() -> None:
    """One model is always right, one was never asked, one knows only a few outcomes."""
    table = planted(120)
    many = len(table)
    odd = OutcomeTable.of(
        ["", "a", *table.texts[2:]],
        {
            "always": [1.0] * many,
            "never": [0.0] * many,
            "silent": [float("nan")] * many,
            "rare": [1.0, 0.0, *[float("nan")] * (many - 2)],
            SMALL: list(table.quality[:, 0]),
        },
        cost={"always": [0.3] * many, "never": [0.1] * many, "rare": [0.2] * many, SMALL: [0.05] * many},
    )
    policy = train(odd)
    assert policy.models == ("always", "never", "rare", SMALL)
    forecast = policy.forecast("", policy.models, {})
    assert forecast["always"].quality > 0.95
    assert forecast["never"].quality < 0.05
    assert all(np.isfinite(each.cost_usd) for each in forecast.values())


def test_other_scripts_are_learned_from() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300) < 0.5
    texts = [f"{'証明してください 行列' if each else '庭の花の色は何ですか'} {row}" for row, each in enumerate(hard)]
    table = OutcomeTable.of(
        texts,
        {SMALL: [0.0 if each else 1.0 for each in hard], LARGE: [1.0] * 300},
        cost={SMALL: [0.1] * 300, LARGE: [1.0] * 300},
    )
    policy = train(table, Training(objective=Objective(value_usd=3.0)))
    assert policy.verdict.deployed
    assert (ask(policy, "証明してください 行列 777"), ask(policy, "庭の花の色は何ですか 777")) == (LARGE, SMALL)


def test_a_table_without_costs_needs_prices() -> None:
    table = OutcomeTable.of(["a", "b"], {"m": [1.0, 0.0]})
    with pytest.raises(ConfigurationError, match="no price was given"):
        train(table)
    assert train(table, prices={"m": Rates.stated(1.0, 2.0)}).hull.cost[0] > 0
    with pytest.raises(ConfigurationError, match="no outcome"):
        train(OutcomeTable.of(["a"], {"m": [float("nan")]}))


def test_what_was_learned_with_prices_decides_without_them() -> None:
    """A price that is not stated later is the one it was aimed with, not none."""
    table = replace(planted(400), cost=np.full((400, 2), np.nan))
    prices = {SMALL: Rates.stated(1.0, 1.0), LARGE: Rates.stated(30.0, 30.0)}
    policy = train(table, Training(objective=Objective(quality_floor=0.86)), prices=prices)
    assert policy.verdict.deployed
    forecast = policy.forecast(HARD_TEXT, BOTH, {})
    assert 0 < forecast[SMALL].cost_usd < forecast[LARGE].cost_usd
    assert (ask(policy, HARD_TEXT), ask(policy, EASY_TEXT)) == (LARGE, SMALL)


def test_an_embedder_gives_the_vectors() -> None:
    """A callable of the user's: here it knows exactly what is hard."""

    def embed(texts: object) -> list[list[float]]:
        assert isinstance(texts, list | tuple)
        return [[1.0, 0.1] if any(w in t for w in ("proof", "matrix", "vector")) else [0.1, 1.0] for t in texts]

    policy = train(planted(300), Training(embed=embed))
    assert policy.knowledge.neighbours.vectors.shape[0] == 2
    assert policy.forecast(HARD_TEXT, BOTH, {})[SMALL].quality < policy.forecast(EASY_TEXT, BOTH, {})[SMALL].quality
    with pytest.raises(ConfigurationError, match="one vector"):
        train(planted(20), Training(embed=lambda texts: [[1.0]]))
