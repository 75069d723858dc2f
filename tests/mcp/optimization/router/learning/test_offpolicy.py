"""What another policy would have got, from logs whose truth is known."""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.router.learning.offpolicy import (
    doubly_robust,
    explored_share,
    ips,
    propensities,
    snips,
)
from agentflow.mcp.optimization.router.learning.table import Matrix

ROWS = 4_000


def logged(seed: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Truth, what is logged of it, with which propensity, and a forecast that is wrong by 0.15."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.choice([0.2, 0.9], ROWS), np.full(ROWS, 0.8)], axis=1)
    to_first = np.where(truth[:, 0] > 0.5, 0.9, 0.3)  # the log asks the first model where that is good
    first = rng.random(ROWS) < to_first
    asked = np.stack([first, ~first], axis=1)
    quality = np.where(asked, rng.random(truth.shape) < truth, np.nan).astype(float)
    chance = np.where(asked, np.stack([to_first, 1 - to_first], axis=1), np.nan)
    return truth, quality, chance, np.clip(truth + 0.15, 0, 1)


def test_weighted_outcomes_are_unbiased_where_plain_ones_are_not() -> None:
    """Over 30 logs the mean error of always asking the first model vanishes; the plain mean flatters it."""
    choices = np.zeros(ROWS, int)
    errors: dict[str, list[float]] = {"ips": [], "snips": [], "dr": [], "plain": []}
    for seed in range(30):
        truth, quality, chance, forecast = logged(seed)
        right = truth[:, 0].mean()
        errors["ips"].append(ips(quality, chance, choices) - right)
        errors["snips"].append(snips(quality, chance, choices) - right)
        errors["dr"].append(doubly_robust(quality, np.nan_to_num(chance, nan=1.0), forecast)[:, 0].mean() - right)
        errors["plain"].append(float(np.nanmean(quality[:, 0])) - right)
    for name in ("ips", "snips", "dr"):
        several = np.array(errors[name])
        assert abs(several.mean()) < 3 * several.std() / np.sqrt(len(several)) + 1e-3, name
    assert np.mean(errors["plain"]) > 0.1


def test_a_whole_table_stays_as_it_is() -> None:
    quality = np.array([[1.0, 0.0], [0.0, 1.0]])
    chance = propensities(quality, np.full((2, 2), np.nan))
    assert (doubly_robust(quality, chance, np.full((2, 2), 0.3)) == quality).all()
    assert explored_share(quality, chance) == 1


def test_without_propensities_the_share_of_known_outcomes_is_taken() -> None:
    quality = np.array([[1.0, np.nan], [np.nan, 1.0], [np.nan, 0.0], [np.nan, 1.0]])
    assert propensities(quality, np.full((4, 2), np.nan))[0].tolist() == [0.25, 0.75]


def test_nothing_was_explored_where_nothing_was_left_to_chance() -> None:
    quality = np.array([[1.0, np.nan], [np.nan, 1.0]])
    assert explored_share(quality, np.array([[1.0, np.nan], [np.nan, 1.0]])) == 0
    assert explored_share(quality, np.array([[0.9, np.nan], [np.nan, 1.0]])) == 0.5


def test_no_matching_choice_is_worth_nobody_knows_what() -> None:
    assert np.isnan(snips(np.array([[1.0, np.nan]]), np.array([[0.5, np.nan]]), np.array([1])))
