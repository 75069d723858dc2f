"""How good a policy is on outcomes it has not seen, beside the best mixture of single models.

    forecasts, costs, outcomes ──▶ curve ──▶ APGR, CPT50, CPT80, cost within a point of the best model, ECE

PGR is the part of the way from the cheapest model's quality to the best one's; APGR its mean over all costs between
theirs (one half for chance), CPT50 the share of the extra cost at which half of the way is done: with two models of
fixed costs, the share of calls to the strong one (RouteLLM; Ong et al., 2024). They hold for more than two models, too.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from agentflow.mcp.optimization.router.learning.calibration import calibration_error
from agentflow.mcp.optimization.router.learning.curve import Curve, curve_of, hull_quality
from agentflow.mcp.optimization.router.learning.experience import ASSUMED_TOKENS
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.policy import Forecast, Prices, expected_cost
from agentflow.mcp.optimization.router.learning.table import Matrix, OutcomeTable

__all__ = ["Evaluation", "Measures", "evaluate", "forecasts_of", "measures_of", "table_costs"]

_COSTS: Final = 201
_RESAMPLES: Final = 400
_POINT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Measures:
    """Of a curve: NaN where the cheapest model is the best one. `near_best_cost` is the part of the best model's cost
    at which the quality is within a point (0.01) of its quality."""

    apgr: float
    cpt50: float
    cpt80: float
    near_best_cost: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`quality` and `cost` (USD a request) are what the policy as deployed got; `over_hull` is its quality beyond the
    hull's at the same cost, with a two-sided 95 % interval of a paired bootstrap. `calibration` is the ECE by model;
    `learned` and `hull` are the measures of both curves."""

    rows: int
    deployed: bool
    quality: float
    cost: float
    over_hull: float
    over_hull_low: float
    over_hull_high: float
    learned: Measures
    hull: Measures
    calibration: dict[str, float]


def evaluate(policy: LearnedPolicy, table: OutcomeTable, prices: Prices | None = None, *, seed: int = 0) -> Evaluation:
    """On rows of which every outcome is known, with the policy's models in the table. Raises ConfigurationError."""
    known = _complete(table.picked(policy.models))
    quality, cost = known.quality, table_costs(policy, known, prices or {})
    rng = random.Random(seed)
    chosen = [policy.choose(text, policy.models, prices or {}, rng) for text in known.texts]
    chances = np.array([[each.probabilities.get(model, 0.0) for model in policy.models] for each in chosen])
    forecast, expected = _matrices(policy, [each.forecasts for each in chosen])
    gained, low, high = _over_hull(quality, cost, chances, seed)
    return Evaluation(
        len(known),
        policy.verdict.deployed,
        float((chances * quality).sum(axis=1).mean()),
        float((chances * cost).sum(axis=1).mean()),
        gained,
        low,
        high,
        measures_of(curve_of(forecast, expected, quality, cost), quality, cost),
        measures_of(None, quality, cost),
        {model: calibration_error(forecast[:, place], quality[:, place]) for place, model in enumerate(policy.models)},
    )


def _complete(table: OutcomeTable) -> OutcomeTable:
    return table.rows(np.flatnonzero(~np.isnan(table.quality).any(axis=1)))


def forecasts_of(policy: LearnedPolicy, texts: tuple[str, ...], prices: Prices) -> tuple[Matrix, Matrix]:
    """Qualities and costs (texts × models), as the policy forecasts them."""
    return _matrices(policy, [policy.forecast(text, policy.models, prices) for text in texts])


def _matrices(policy: LearnedPolicy, found: Sequence[Mapping[str, Forecast]]) -> tuple[Matrix, Matrix]:
    quality = [[each[model].quality for model in policy.models] for each in found]
    cost = [[each[model].cost_usd for model in policy.models] for each in found]
    shape = (len(found), len(policy.models))
    return np.array(quality, float).reshape(shape), np.array(cost, float).reshape(shape)


def table_costs(policy: LearnedPolicy, table: OutcomeTable, prices: Prices) -> Matrix:
    """What each answer did cost: tokens at the prices, else the table's own cost, else what the policy has seen."""
    cost = np.where(np.isnan(table.cost), np.array(policy.hull.cost), table.cost)
    for place, model in enumerate(policy.models):
        if model in prices:
            usual = policy.knowledge.tokens.mean[place]
            usual = ASSUMED_TOKENS if np.isnan(usual) else usual
            lengths = np.where(np.isnan(table.output_tokens[:, place]), usual, table.output_tokens[:, place])
            rates = prices[model]
            cost[:, place] = table.input_tokens * expected_cost(rates, 1, 0) + lengths * expected_cost(rates, 0, 1)
    return cost


def _over_hull(quality: Matrix, cost: Matrix, chances: Matrix, seed: int) -> tuple[float, float, float]:
    """Quality beyond the hull's at the same cost, and its interval."""
    rows = len(quality)
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES) / rows
    weights[0] = 1 / rows
    got, paid = (chances * quality).sum(axis=1), (chances * cost).sum(axis=1)
    spent = weights @ paid
    least = (weights @ cost).min(axis=1)
    hull = hull_quality(weights @ quality, weights @ cost, np.maximum(spent, least))
    gains = weights @ got - hull
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(gains[0]), float(low), float(high)


def measures_of(curve: Curve | None, quality: Matrix, cost: Matrix) -> Measures:
    """Of a curve, or of the hull of single models where it is None, on these outcomes (rows × models)."""
    mean, paid = quality.mean(axis=0), cost.mean(axis=0)
    best = int(mean.argmax())
    cheapest = min(range(len(paid)), key=lambda each: (paid[each], -mean[each]))
    if paid[best] <= paid[cheapest]:
        return Measures(np.nan, np.nan, np.nan, np.nan)
    at = np.linspace(paid[cheapest], paid[best], _COSTS)
    if curve is None:
        reached = hull_quality(np.tile(mean, (_COSTS, 1)), np.tile(paid, (_COSTS, 1)), at)
    else:
        order = np.argsort(curve.cost, kind="stable")
        reached = np.interp(at, curve.cost[order], curve.quality[order])
    recovered = (reached - mean[cheapest]) / (mean[best] - mean[cheapest])
    share = np.linspace(0, 1, _COSTS)
    near = np.interp(_first(reached, mean[best] - _POINT, share), share, at) / paid[best]
    return Measures(
        float(np.trapezoid(recovered, share)), _first(recovered, 0.5, share), _first(recovered, 0.8, share), float(near)
    )


def _first(values: Matrix, level: float, share: Matrix) -> float:
    """Where values first come up to a level, in a straight line between two points; 1 where they never do."""
    above = np.flatnonzero(values >= level - 1e-12)
    if not above.size:
        return 1.0
    place = int(above[0])
    if place == 0:
        return float(share[0])
    before, after = values[place - 1], values[place]
    part = (level - before) / (after - before)
    return float(share[place - 1] + part * (share[place] - share[place - 1]))
