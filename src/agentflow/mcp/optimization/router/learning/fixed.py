"""One model always, as long as it is allowed: what a router does who has learned nothing, and wants nothing else.

FixedPolicy(("large", "small")).choose(text, ["small"], prices, rng)  ──▶  Choice("small", 1.0, …)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Objective, Prices

__all__ = ["FixedPolicy"]


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """The first of `models` that is allowed. It forecasts nothing, and aims at nothing."""

    models: tuple[str, ...]
    name: str = "fixed"

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigurationError("a fixed policy needs at least one model")

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.name, *self.models)).encode()).hexdigest()[:16]

    def forecast(
        self, text: str, models: Sequence[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        return {}

    def choose(
        self, text: str, models: Sequence[str], prices: Prices, rng: random.Random, *, input_tokens: int | None = None
    ) -> Choice:
        """Raises ConfigurationError where none of `models` is one of its own."""
        for model in self.models:
            if model in models:
                rank = self.models.index(model)
                why = f"{model} is the first of the fixed order" if rank == 0 else f"{self.models[0]} is not allowed"
                return Choice(model, 1.0, why, "fixed", {each: float(each == model) for each in models})
        raise ConfigurationError(f"the policy knows {', '.join(self.models)}, and none of them is allowed")

    def aimed(self, objective: Objective, prices: Prices) -> FixedPolicy:
        return self
