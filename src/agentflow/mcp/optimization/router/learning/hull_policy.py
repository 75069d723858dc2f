"""The best mixture of single models, which looks at no text: what has to be beaten, and what is used until it is.

    HullPolicy(("small", "large"), quality=(0.68, 0.81), cost=(0.0002, 0.006)).aimed(Objective(quality_floor=0.75), {})
        ──▶  large with probability 0.54, small else

It needs no numpy, and serves as a policy of its own where means are all that is known.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Objective, Prices, expected_cost

__all__ = ["HullPolicy", "Mixture"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """`high` with probability `share`, `low` else; the mean `cost` (USD) and `quality` of that."""

    low: str
    high: str
    share: float
    cost: float
    quality: float

    def probabilities(self, models: Sequence[str]) -> dict[str, float]:
        return {each: (each == self.low) * (1 - self.share) + (each == self.high) * self.share for each in models}


@dataclass(frozen=True, slots=True)
class HullPolicy:
    """`quality` and `cost` (USD a request) are means, in the order of `models`. `tokens` (input, output) a request are
    what prices are multiplied with; where they are left out prices change nothing. Without an objective it keeps within
    one point of the best model's quality."""

    models: tuple[str, ...]
    quality: tuple[float, ...]
    cost: tuple[float, ...]
    tokens: tuple[tuple[float, float], ...] = ()
    objective: Objective | None = None
    name: str = "hull"

    def __post_init__(self) -> None:
        if not self.models or not len(self.models) == len(self.quality) == len(self.cost):
            raise ConfigurationError("a hull has a quality and a cost for each of its models, and at least one model")

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def forecast(
        self, text: str, models: Sequence[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        """The means, whatever the text is."""
        found = {}
        for place, model in enumerate(self.models):
            if model in models:
                quality, cost = self.quality[place], self._cost(place, prices, input_tokens)
                tokens = self.tokens[place][1] if self.tokens else None
                found[model] = Forecast(quality, quality, quality, cost, tokens)
        return found

    def choose(
        self, text: str, models: Sequence[str], prices: Prices, rng: random.Random, *, input_tokens: int | None = None
    ) -> Choice:
        mixture = self.mixture(models)
        known = [model for model in self.models if model in models]
        drawn = mixture.high if rng.random() < mixture.share else mixture.low
        chances = mixture.probabilities(known)
        forecasts = self.forecast(text, models, prices, input_tokens=input_tokens)
        return Choice(drawn, chances[drawn], self._reason(drawn, mixture), "hull", chances, forecasts)

    def mixture(self, models: Sequence[str]) -> Mixture:
        """What is chosen among `models`. Raises ConfigurationError where it knows none of them."""
        points = [
            (cost, quality, model)
            for cost, quality, model in zip(self.cost, self.quality, self.models, strict=True)
            if model in models
        ]
        if not points:
            raise ConfigurationError(f"the policy knows {', '.join(self.models)}, and none of them is allowed")
        return _solved(_hull(points), self.objective or Objective(quality_floor=max(0.0, max(self.quality) - 0.01)))

    def aimed(self, objective: Objective, prices: Prices) -> HullPolicy:
        cost = tuple(self._cost(place, prices, None) for place in range(len(self.models)))
        return replace(self, objective=objective, cost=cost)

    def _cost(self, place: int, prices: Prices, input_tokens: int | None) -> float:
        rates = prices.get(self.models[place])
        if rates is None or not self.tokens:
            return self.cost[place]
        read, written = self.tokens[place]
        return expected_cost(rates, read if input_tokens is None else input_tokens, written)

    def _reason(self, drawn: str, mixture: Mixture) -> str:
        aim = self.objective or "a point below the best quality"
        if mixture.low == mixture.high:
            return f"{drawn} alone is the best there is for {aim}"
        return f"{mixture.share:.0%} {mixture.high}, else {mixture.low}: the best mixture for {aim}"


_Point = tuple[float, float, str]


def _hull(points: Sequence[_Point]) -> list[_Point]:
    """The upper hull from the cheapest point to the best one, by Andrew's monotone chain."""
    kept: list[_Point] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1])):
        if kept and point[1] <= kept[-1][1]:
            continue
        while len(kept) > 1 and _below(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _below(first: _Point, middle: _Point, last: _Point) -> bool:
    return (middle[1] - first[1]) * (last[0] - first[0]) <= (last[1] - first[1]) * (middle[0] - first[0])


def _solved(hull: Sequence[_Point], objective: Objective) -> Mixture:
    if objective.value_usd is not None:
        value = objective.value_usd
        return _single(max(hull, key=lambda point: value * point[1] - point[0]))
    for before, after in pairwise(hull):
        share = _share(before, after, objective)
        if share <= 0:
            return _single(before)
        if share < 1:
            cost = before[0] + share * (after[0] - before[0])
            return Mixture(before[2], after[2], share, cost, before[1] + share * (after[1] - before[1]))
    return _single(hull[-1])


def _share(before: _Point, after: _Point, objective: Objective) -> float:
    """How much of the dearer one brings the mixture to the floor, or to the budget."""
    if objective.quality_floor is not None:
        return (objective.quality_floor - before[1]) / (after[1] - before[1])
    assert objective.budget_usd is not None
    gap = after[0] - before[0]
    return (objective.budget_usd - before[0]) / gap if gap > 0 else 1.0


def _single(point: _Point) -> Mixture:
    return Mixture(point[2], point[2], 0.0, point[0], point[1])
