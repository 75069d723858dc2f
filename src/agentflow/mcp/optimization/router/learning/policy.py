"""What a router asks whoever has learned: how good, how dear would each model be for this text, and which shall it be.

    text, models, prices ──policy.forecast──▶ {model: Forecast(quality 0.81 [0.74, 0.87], $0.0004, 120 tokens)}
                         ──policy.choose────▶ Choice("small", propensity 0.95, "0.81 is worth more than …", forecasts)

    policy = load_policy("router.policy").aimed(Objective(quality_floor=0.9), prices)
    choice = policy.choose(text, ["small", "large"], prices, random.Random(7))

Nothing here needs numpy: a policy that does loads it when it is made. A policy is frozen and may be used from all
threads; the source of randomness is the caller's, so that a decision can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from agentflow.errors import ConfigurationError
from agentflow.llm.config.prices import Rates

__all__ = ["Choice", "Forecast", "Objective", "Policy", "Prices", "expected_cost"]

Prices: TypeAlias = Mapping[str, Rates]
"""By the model's name, in USD per million tokens (`ModelConfig.current_price().usual`). A model that is not in it
costs what it cost on average in the table that was learned from."""

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one model would make of a text.

    `quality` is the calibrated probability of a good answer (its expectation where quality is a grade), with a 90 %
    interval from `low` to `high`. `cost_usd` is expected; `output_tokens` is the expected number, `output_high` its
    90 % quantile, None where nothing is known of lengths.
    """

    quality: float
    low: float
    high: float
    cost_usd: float
    output_tokens: float | None = None
    output_high: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that shall answer, and why.

    `propensity` is the probability with which it was chosen, given the text: 1.0 unless chance had a part in it.
    `probabilities` are those of all models that were allowed and known, and add up to 1. `kind` is how it came about:
    `learned`, `hull` (the best mixture of single models), `fixed` or `explored`.
    """

    model: str
    propensity: float
    reason: str
    kind: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """What to aim at; exactly one of these is said.

    `quality_floor`: the mean quality that is kept at the least cost, from 0 to 1. `budget_usd`: what a request may cost
    on average, with the most quality. `value_usd`: what a good answer is worth against none (the λ of
    max λ·quality − cost). Raises ConfigurationError where none or several are said, or one is out of its range.
    """

    quality_floor: float | None = None
    budget_usd: float | None = None
    value_usd: float | None = None

    def __post_init__(self) -> None:
        said = [each for each in (self.quality_floor, self.budget_usd, self.value_usd) if each is not None]
        if len(said) != 1:
            raise ConfigurationError(
                f"an objective is one of quality_floor, budget_usd and value_usd; {len(said)} of them are given"
            )
        most = 1.0 if self.quality_floor is not None else float("inf")
        if not 0.0 <= said[0] <= most:  # which NaN is not, either
            raise ConfigurationError(f"an objective is no negative number, and a quality at most 1: not {said[0]!r}")

    def __str__(self) -> str:
        if self.quality_floor is not None:
            return f"quality ≥ {self.quality_floor:.3g}"
        if self.budget_usd is not None:
            return f"cost ≤ ${self.budget_usd:.3g} a request"
        return f"a good answer is worth ${self.value_usd:.3g}"


class Policy(Protocol):
    """Chooses among models from the text alone. `load_policy` gives one, so do `FixedPolicy` and `HullPolicy`."""

    @property
    def name(self) -> str:
        """For people: `learned`, `hull`, `fixed`."""
        ...

    @property
    def digest(self) -> str:
        """Of all that decides; what is written beside a decision, to know later which policy made it."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """The models it knows; it says nothing of others."""
        ...

    def forecast(
        self, text: str, models: Sequence[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        """For each of `models` that it knows. `input_tokens`, where the caller knows better than the text does."""
        ...

    def choose(
        self, text: str, models: Sequence[str], prices: Prices, rng: random.Random, *, input_tokens: int | None = None
    ) -> Choice:
        """One of `models`. Raises ConfigurationError where it knows none of them."""
        ...

    def aimed(self, objective: Objective, prices: Prices) -> Policy:
        """The same knowledge with another aim: λ is solved anew, and whether to trust what was learned is asked anew.

        A floor that no model reaches is aimed at as near as can be.
        """
        ...


def expected_cost(rates: Rates, input_tokens: float, output_tokens: float) -> float:
    """USD; a model whose output has no price costs what its input does."""
    output = rates.input if rates.output is None else rates.output
    return (input_tokens * rates.input + output_tokens * output) / _MILLION
