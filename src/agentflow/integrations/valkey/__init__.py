"""What several processes share, through Valkey or Redis: limits, budgets, open breakers, answers. agentflow[valkey].

    store = ValkeyStore("valkey://limits.internal:6379/0", replicas=4)
    limiter = store.limiter("openai/gpt-4o", requests_per_minute=500, tokens_per_minute=30_000)
    async with limiter.reserve(tokens=900) as reservation: ...

    store ──▶ limiter, budget, breaker   decide by one script a decision   ──▶ connection ──▶ the server
                 └── share               and by their own part while the store is away

The package `redis` is needed when a store is made, not for the import.
"""

from agentflow.integrations.valkey.accounts import ValkeyAccounts
from agentflow.integrations.valkey.answers import AnswerTotals, SharedAnswers
from agentflow.integrations.valkey.breaker import BreakerGate, SharedBreaker
from agentflow.integrations.valkey.budget import SharedBudget, Spend
from agentflow.integrations.valkey.limiter import ValkeyRateLimiter
from agentflow.integrations.valkey.reservation import SharedReservation, SharedReserving
from agentflow.integrations.valkey.settings import from_settings
from agentflow.integrations.valkey.store import ValkeyStore

__all__ = [
    "AnswerTotals",
    "BreakerGate",
    "SharedAnswers",
    "SharedBreaker",
    "SharedBudget",
    "SharedReservation",
    "SharedReserving",
    "Spend",
    "ValkeyAccounts",
    "ValkeyRateLimiter",
    "ValkeyStore",
    "from_settings",
]
