"""So much may be spent, and no more: by everybody, by a tenant, a flow, a run, in an hour, a day, a month."""

from agentflow.mcp.optimization.budget.budget import AccountStatus, Budget, Reservation
from agentflow.mcp.optimization.budget.limits import Allowance
from agentflow.mcp.optimization.budget.memory import MemoryAccounts
from agentflow.mcp.optimization.budget.provider import BudgetedProvider
from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts

__all__ = [
    "AccountStatus",
    "Allowance",
    "Budget",
    "BudgetedProvider",
    "MemoryAccounts",
    "Reservation",
    "SqliteAccounts",
]
