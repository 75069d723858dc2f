"""What is chosen by who has learned nothing: the cheapest model, or the one that stated qualities speak for.

    StatedPolicy(("small", "large"))                                      the cheapest; the first, if no price is known
    StatedPolicy(("small", "large"), {"small": 0.7, "large": 0.9},
                 objective=Objective(value_usd=0.01))                     max λ·quality − cost
                           quality_floor=0.8                              the cheapest that is as good, else the best
                           budget_usd=0.002                               the best that is as cheap, else the cheapest

It is a `Policy` as a learned one is, so a router need not know the difference.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Objective, Prices, expected_cost
from agentflow.mcp.optimization.router.lengths import Lengths

__all__ = ["StatedPolicy"]

_TOKENS_WITHOUT_A_COUNT = 500


@dataclass(frozen=True, slots=True)
class StatedPolicy:
    """Chooses among `models` by `qualities` that somebody stated, and by what `lengths` say an answer costs.

    A model without a stated quality has none to speak for it: with an objective it is never preferred. Raises
    ConfigurationError for an objective where no quality is stated at all: there would be nothing to aim with.
    """

    models: tuple[str, ...]
    qualities: Mapping[str, float] = field(default_factory=dict)
    objective: Objective | None = None
    lengths: Lengths = field(default_factory=Lengths, compare=False)

    def __post_init__(self) -> None:
        if self.objective is not None and not self.qualities:
            raise ConfigurationError(
                f"the router aims at {self.objective}, but nobody says how good its models are: name a learned policy, "
                "or state `quality` of each candidate"
            )

    @property
    def name(self) -> str:
        return "cheapest" if self.objective is None else "stated"

    @property
    def value_usd(self) -> float | None:
        """λ: what a good answer is worth; None where that is not what is aimed at."""
        return None if self.objective is None else self.objective.value_usd

    @property
    def digest(self) -> str:
        said = (self.name, *self.models, *sorted(self.qualities.items()), str(self.objective))
        return hashlib.sha256("\0".join(map(str, said)).encode()).hexdigest()[:16]

    def forecast(
        self, text: str, models: Sequence[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        """Of those whose quality or price is known; an unknown cost is infinite, an unknown quality 0 to 1."""
        tokens = _TOKENS_WITHOUT_A_COUNT if input_tokens is None else input_tokens
        return {model: self._forecast(model, prices, tokens) for model in models}

    def choose(
        self, text: str, models: Sequence[str], prices: Prices, rng: random.Random, *, input_tokens: int | None = None
    ) -> Choice:
        known = [model for model in self.models if model in models]
        if not known:
            raise ConfigurationError(f"the policy knows {', '.join(self.models)}, and none of them is allowed")
        forecasts = self.forecast(text, known, prices, input_tokens=input_tokens)
        model, reason = self._best(known, forecasts)
        return Choice(model, 1.0, reason, "stated", {each: float(each == model) for each in known}, forecasts)

    def aimed(self, objective: Objective, prices: Prices) -> StatedPolicy:
        return replace(self, objective=objective)

    def _forecast(self, model: str, prices: Prices, tokens: int) -> Forecast:
        rates, length = prices.get(model), self.lengths.tokens(model)
        cost = math.inf if rates is None else expected_cost(rates, tokens, length)
        quality = self.qualities.get(model)
        known, low, high = (0.0, 0.0, 1.0) if quality is None else (quality, quality, quality)
        return Forecast(known, low, high, cost, length)

    def _best(self, models: Sequence[str], forecasts: Mapping[str, Forecast]) -> tuple[str, str]:
        """`min` and `max` take the first of equals, so that the order in which models were stated decides."""

        def cost(model: str) -> float:
            return forecasts[model].cost_usd

        def quality(model: str) -> float:
            return forecasts[model].quality

        aim = self.objective
        if aim is None:
            model = min(models, key=cost)
            return model, "it is the cheapest" if cost(model) < math.inf else "it is the first, and no price is known"
        if aim.value_usd is not None:
            value = aim.value_usd
            model = max(models, key=lambda each: value * quality(each) - cost(each))
            return model, f"it has the most of ${value:.4g} × quality − cost"
        if aim.quality_floor is not None:
            floor = aim.quality_floor
            good = [each for each in models if quality(each) >= floor and each in self.qualities]
            if good:
                return min(good, key=cost), f"it is the cheapest of a quality of {floor:.3g} or more"
            return max(models, key=quality), f"none has a quality of {floor:.3g}, and it is the best"
        budget = aim.budget_usd or 0.0
        cheap = [each for each in models if cost(each) <= budget]
        if cheap:
            best = max(cheap, key=lambda each: (quality(each), -cost(each)))
            return best, f"it is the best for ${budget:.4g} or less"
        return min(models, key=cost), f"none costs ${budget:.4g} or less, and it is the cheapest"
