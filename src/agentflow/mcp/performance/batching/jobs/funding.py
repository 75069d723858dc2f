"""What a budget of models.yml has to say to a batch: reserved in full before it is sent, settled when it is collected.

    part ──hold──▶ at most $1.20 reserved ──▶ submitted … hours … collected ──settle──▶ $0.31 spent

A reservation lapses into spent while the batch runs, for no lease lasts hours; settling it puts that right, up to a
week later. It is reserved at the usual price, of which a batch costs half, so batches never exceed a hard budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from agentflow.llm.caller import Caller
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.wrappers import BudgetEntry
from agentflow.llm.messages import Request
from agentflow.llm.wrapped_models import surroundings_of
from agentflow.mcp.optimization.budget.budget import Budget
from agentflow.mcp.optimization.budget.from_settings import budget_of
from agentflow.mcp.optimization.budget.money import charged
from agentflow.mcp.optimization.budget.tariffs import Costs, Described

__all__ = ["Funding", "funding_of"]


class Funding:
    """The budget of one entry. `owned` says whether its accounts are a file that was opened for this."""

    def __init__(self, budget: Budget, costs: Costs, *, owned: bool) -> None:
        self._budget = budget
        self._costs = costs
        self._owned = owned

    async def hold(self, requests: Sequence[Request], caller: Caller) -> str:
        """Reserve what these may cost at most. Raises BudgetExceededError, BudgetUnavailableError and
        UnboundedCostError."""
        amount = sum([self._costs.most(request) for request in requests])
        reservation = await self._budget.reserve(amount, caller)
        return reservation.call

    async def settle(self, hold: str, cost: float) -> None:
        """They have cost so much, in US dollars. Said twice, it counts once."""
        await self._budget.settle(hold, charged(cost))

    async def aclose(self) -> None:
        if self._owned:
            await self._budget.aclose()


def funding_of(registry: ModelRegistry, config: ModelConfig) -> Funding | None:
    """The budget that the model's entry is under, if it is under one."""
    settings = config.wrappers.get("budget")
    if not isinstance(settings, BudgetEntry):
        return None
    media = None if settings.media_tokens is UNSET else settings.media_tokens
    described = Described(config.name, registry.describe, registry.clock, media_tokens=media)
    ceiling = None if settings.ceiling is UNSET else settings.ceiling
    budget = budget_of(settings, surroundings_of(registry, config))
    return Funding(budget, Costs(described, ceiling), owned=settings.store is not UNSET)
