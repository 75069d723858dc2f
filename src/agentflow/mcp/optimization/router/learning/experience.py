"""What a policy keeps of the rows it was validated on, so that it can aim anew when prices or wishes change.

    forecasts of rows not learned from, outcomes, tokens, costs  ──prices──▶  Experience in USD  ──▶  λ, verdict

No text is kept: numbers alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.gate import Experience
from agentflow.mcp.optimization.router.learning.policy import Prices, expected_cost
from agentflow.mcp.optimization.router.learning.table import Matrix

__all__ = ["ASSUMED_TOKENS", "Validated"]

ASSUMED_TOKENS = 200.0
"""The length of an answer where a table says nothing of lengths."""


@dataclass(frozen=True, slots=True, eq=False)
class Validated:
    """Everything is (rows × models) but `input_tokens` and `blocks`. `tokens` and `costs` are what was, NaN where that
    is unknown; `said_tokens` and `said_costs` what was forecast. `explored` is the share of rows in which every model
    had a chance to answer."""

    forecast: Matrix
    quality: Matrix
    tokens: Matrix
    said_tokens: Matrix
    costs: Matrix
    said_costs: Matrix
    input_tokens: Matrix
    blocks: NDArray[np.int64]
    explored: float = 1.0

    def priced(self, models: tuple[str, ...], prices: Prices) -> Experience:
        """Raises ConfigurationError for a model of which neither a price nor a cost is known."""
        expected, real = np.empty_like(self.forecast), np.empty_like(self.forecast)
        for place, model in enumerate(models):
            expected[:, place], real[:, place] = self._costs(place, model, prices)
        return Experience(self.forecast, expected, self.quality, real, self.blocks)

    def _costs(self, place: int, model: str, prices: Prices) -> tuple[Matrix, Matrix]:
        rates = prices.get(model)
        if rates is None:
            said, known = self.said_costs[:, place], self.costs[:, place]
            if np.isnan(said).any():
                raise ConfigurationError(
                    f"what {model!r} costs is unknown: the table has no costs of it, and no price was given"
                )
            return said, np.where(np.isnan(known), said, known)
        said = self.said_tokens[:, place]
        said = np.where(np.isnan(said), ASSUMED_TOKENS, said)
        known = np.where(np.isnan(self.tokens[:, place]), said, self.tokens[:, place])
        per_input, per_output = expected_cost(rates, 1, 0), expected_cost(rates, 0, 1)
        inputs = self.input_tokens * per_input
        return inputs + said * per_output, inputs + known * per_output
