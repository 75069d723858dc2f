"""The budget of an entry of models.yml: the wrapper `budget` of the group `agentflow.wrappers`.

auto: {router: {candidates: [small, large]}, budget: {per_day: 20.0, per_tenant: {per_day: 5.0}, store: budget.db}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from msgspec import UNSET, UnsetType

from agentflow.core.accounts import Accounts
from agentflow.errors import ConfigurationError
from agentflow.llm.config.wrappers import AllowanceEntry, BudgetEntry
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.wrapping import Surroundings
from agentflow.mcp.optimization.budget.budget import Budget
from agentflow.mcp.optimization.budget.limits import Allowance
from agentflow.mcp.optimization.budget.memory import MemoryAccounts
from agentflow.mcp.optimization.budget.provider import BudgetedProvider
from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts
from agentflow.mcp.optimization.budget.tariffs import Costs, Described

__all__ = ["budget_of", "from_settings"]

_OF_BUDGET: Final = (
    "per_hour", "per_day", "per_month", "per_run", "mode", "soft", "window", "time_zone", "account", "lease",
)  # fmt: skip

_IN_MEMORY: Final[WeakKeyDictionary[object, dict[str, MemoryAccounts]]] = WeakKeyDictionary()
"""By registry and account: entries of one registry that name the same account spend the same money."""


@runtime_checkable
class _KeepsAccounts(Protocol):
    """A shared store that can keep budgets, as Valkey's does."""

    def accounts(self, key: str) -> Accounts: ...


def from_settings(inner: LLMProvider, settings: BudgetEntry, surroundings: Surroundings) -> LLMProvider:
    """Raises ConfigurationError."""
    media = None if settings.media_tokens is UNSET else settings.media_tokens
    described = Described(surroundings.model, surroundings.describe, surroundings.clock, media_tokens=media)
    costs = Costs(described, None if settings.ceiling is UNSET else settings.ceiling)
    return BudgetedProvider(inner, budget_of(settings, surroundings), costs=costs, model=surroundings.model)


def budget_of(settings: BudgetEntry, surroundings: Surroundings) -> Budget:
    """The budget that a section of models.yml describes. Raises ConfigurationError."""
    said: dict[str, Any] = {name: value for name in _OF_BUDGET if (value := getattr(settings, name)) is not UNSET}
    account = said.setdefault("account", surroundings.model)
    return Budget(
        **said,
        per_tenant=_allowance(settings.per_tenant),
        per_flow=_allowance(settings.per_flow),
        store=_store(settings, account, surroundings),
        clock=surroundings.clock,
    )


def _store(settings: BudgetEntry, account: str, surroundings: Surroundings) -> Accounts:
    if settings.store is not UNSET:
        return SqliteAccounts(surroundings.folder / Path(settings.store).expanduser())
    shared = surroundings.store()
    if shared is None:
        return _in_memory(account, surroundings.registry)
    if not isinstance(shared, _KeepsAccounts):
        raise ConfigurationError(
            f"models.{surroundings.model}.budget: the store of defaults.shared keeps no budgets: "
            "name a file for them (store: …)"
        )
    return shared.accounts(account)


def _in_memory(account: str, registry: object) -> MemoryAccounts:
    if registry is None:
        return MemoryAccounts()
    return _IN_MEMORY.setdefault(registry, {}).setdefault(account, MemoryAccounts())


def _allowance(said: AllowanceEntry | UnsetType) -> Allowance:
    if said is UNSET:
        return Allowance()
    amounts = (said.per_hour, said.per_day, said.per_month)
    return Allowance(*(None if amount is UNSET else amount for amount in amounts))
