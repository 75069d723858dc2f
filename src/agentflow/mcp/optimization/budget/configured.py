"""The budgets of a models.yml, to be looked at: each account once, whoever spends from it.

budgets_of(registry)  ──▶  Configured("auto", Budget), …
"""

from __future__ import annotations

from typing import NamedTuple

from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.wrappers import BudgetEntry
from agentflow.llm.wrapped_models import surroundings_of
from agentflow.mcp.optimization.budget.budget import Budget
from agentflow.mcp.optimization.budget.from_settings import budget_of

__all__ = ["Configured", "budgets_of"]


class Configured(NamedTuple):
    """A budget, and the first entry that names it."""

    model: str
    budget: Budget


def budgets_of(registry: ModelRegistry) -> list[Configured]:
    """Raises ConfigurationError, MissingExtraError. Nothing is opened yet."""
    found: dict[tuple[str, object], Configured] = {}
    for name in registry.models():
        config = registry.describe(name)
        settings = config.wrappers.get("budget")
        if isinstance(settings, BudgetEntry):
            budget = budget_of(settings, surroundings_of(registry, config))
            found.setdefault((budget.account, settings.store), Configured(name, budget))
    return list(found.values())
