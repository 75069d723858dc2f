"""A policy that has learned: forecasts each model's quality and cost, and takes the one that is worth most.

    quality 0.62 / 0.91, cost $0.0002 / $0.006 ──max λ·quality − cost──▶ "large", because 0.29 more is worth $0.0087

It decides only where the gate said so (see `gate`); else the hull decides, and the forecasts are still there to be
looked at. Every choice carries its exact propensity. What explores is the router, with these forecasts' intervals.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.curve import Aim, curve_of, solve
from agentflow.mcp.optimization.router.learning.experience import ASSUMED_TOKENS, Validated
from agentflow.mcp.optimization.router.learning.gate import Verdict, judge
from agentflow.mcp.optimization.router.learning.hull_policy import HullPolicy
from agentflow.mcp.optimization.router.learning.knowledge import Guess, Knowledge
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Objective, Prices, expected_cost
from agentflow.mcp.optimization.router.learning.space import Encoded
from agentflow.mcp.optimization.router.learning.table import Matrix, token_estimate

__all__ = ["LearnedPolicy"]

_NORMAL_90: Final = 1.645
_DEAREST: Final = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class LearnedPolicy:
    """`source` is the digest of the artifact; `aim` and `verdict` belong to `objective` and are made by `aimed`."""

    knowledge: Knowledge
    validated: Validated
    hull: HullPolicy
    objective: Objective
    aim: Aim
    verdict: Verdict
    source: str

    @property
    def name(self) -> str:
        return "learned" if self.verdict.deployed else "hull"

    @property
    def digest(self) -> str:
        said = f"{self.source}|{self.objective}|{self.aim}|{self.verdict.deployed}|{self.hull.digest}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def models(self) -> tuple[str, ...]:
        return self.knowledge.models

    def forecast(
        self, text: str, models: Sequence[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        return self._look(text, self._places(models), prices, input_tokens)[0]

    def choose(
        self, text: str, models: Sequence[str], prices: Prices, rng: random.Random, *, input_tokens: int | None = None
    ) -> Choice:
        places = self._places(models)
        if not places:
            raise ConfigurationError(f"the policy knows {', '.join(self.models)}, and none of them is allowed")
        forecasts, guess = self._look(text, places, prices, input_tokens)
        if self.verdict.deployed and not guess.novel:
            return self._learned(forecasts, rng)
        why = "the text is like nothing that was learned from" if self.verdict.deployed else self.verdict.reason
        choice = self.hull.choose(text, list(forecasts), prices, rng)
        return replace(choice, forecasts=forecasts, reason=f"{choice.reason} ({why})")

    def aimed(self, objective: Objective, prices: Prices) -> LearnedPolicy:
        experience = self.validated.priced(self.models, prices)
        curve = curve_of(experience.forecast, experience.expected, experience.quality, experience.cost)
        aim = solve(curve, objective)
        hull = replace(
            self.hull,
            objective=objective,
            quality=tuple(map(float, experience.quality.mean(axis=0))),
            cost=tuple(map(float, experience.cost.mean(axis=0))),
        )
        return replace(
            self,
            objective=objective,
            aim=aim,
            hull=hull,
            verdict=judge(experience, aim, explored=self.validated.explored),
        )

    # ---- one decision ----------------------------------------------------------------------------------------

    def _places(self, models: Sequence[str]) -> list[int]:
        return [place for place, model in enumerate(self.models) if model in models]

    def _look(
        self, text: str, places: Sequence[int], prices: Prices, input_tokens: int | None
    ) -> tuple[dict[str, Forecast], Guess]:
        encoded = self.knowledge.space.encode(text)
        guess = self.knowledge.guess(encoded)
        cost, tokens, high = self._costs(
            encoded, prices, token_estimate(text) if input_tokens is None else input_tokens
        )
        forecasts = {}
        for place in places:
            quality, error = float(guess.quality[place]), _NORMAL_90 * float(guess.error[place])
            length = float(tokens[place])
            forecasts[self.models[place]] = Forecast(
                quality,
                max(0.0, quality - error),
                min(1.0, quality + error),
                float(cost[place]),
                None if np.isnan(length) else length,
                None if np.isnan(length) else float(high[place]),
            )
        return forecasts, guess

    def _costs(self, encoded: Encoded, prices: Prices, input_tokens: float) -> tuple[list[float], Matrix, Matrix]:
        known = self.knowledge
        columns = np.concatenate([encoded.shape, encoded.vector])
        tokens = known.tokens.expected(columns)
        costs = known.costs.expected(columns)
        found = []
        for place, model in enumerate(self.models):
            rates = prices.get(model)
            if rates is None:
                said = float(costs[place])
                found.append(self.hull.cost[place] if said != said else said)  # NaN: known by prices alone, as of then
                continue
            length = float(tokens[place])
            found.append(expected_cost(rates, input_tokens, ASSUMED_TOKENS if length != length else length))
        return found, tokens, tokens * known.tokens.high

    def _learned(self, forecasts: Mapping[str, Forecast], rng: random.Random) -> Choice:
        low, high = best(forecasts, self.aim.low), best(forecasts, self.aim.high)
        share = self.aim.share
        model = high if rng.random() < share else low
        if low == high:
            chances = {each: float(each == low) for each in forecasts}
        else:
            chances = {each: (each == low) * (1 - share) + (each == high) * share for each in forecasts}
        reason = _reason(model, forecasts, self.aim.high if model == high else self.aim.low)
        return Choice(model, chances[model], reason, "learned", chances, forecasts)


def best(forecasts: Mapping[str, Forecast], value: float) -> str:
    """The model of the highest value · quality − cost; the cheaper of two that are worth the same."""

    def worth(model: str) -> tuple[float, float]:
        found = forecasts[model]
        return value * found.quality - found.cost_usd, -found.cost_usd

    return max(forecasts, key=worth)


def _reason(model: str, forecasts: Mapping[str, Forecast], value: float) -> str:
    mine = forecasts[model]
    others = {each: found for each, found in forecasts.items() if each != model}
    if not others:
        return f"{model} is the only one allowed that is known"
    rival = best(others, value)
    worth = "quality alone counts" if value > _DEAREST else f"a good answer is worth ${value:.3g}"
    return (
        f"quality {mine.quality:.2f} for ${mine.cost_usd:.2g} against {others[rival].quality:.2f} for "
        f"${others[rival].cost_usd:.2g} of {rival}, where {worth}"
    )
