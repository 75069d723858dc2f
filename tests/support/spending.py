"""A program that spends from accounts, for tests with several processes: `python -m … STORE COUNT`.

STORE is a SQLite file, or the URL of a Valkey server with the accounts' key behind a `#`.

It reserves 7 units at a time and settles 3 to 7 of them. What it has settled for good is printed, as a sum, at its end;
`crash` as a third word makes it die in the middle, with a reservation open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from agentflow.core.accounts import Accounts, Charge
from agentflow.integrations.valkey import ValkeyStore
from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts

__all__ = ["LIMIT", "NOW"]

NOW = 1_700_000_000.0
LIMIT = 2_000


async def spend(place: str, count: int, crash: bool) -> int:
    url, _, key = place.partition("#")
    store = ValkeyStore(url, timeout=10.0) if key else None
    accounts: Accounts = SqliteAccounts(place, patience=60.0) if store is None else store.accounts(key)
    charge = Charge("all/day", 0, NOW + 86_400, LIMIT)

    async def one(number: int) -> int:
        call = f"{os.getpid()}-{number}"
        verdict = await accounts.reserve(call, 7, [charge], now=NOW, lease=100.0)
        assert sum(standing.taken for standing in verdict.standings) <= LIMIT
        if not verdict.granted:
            return 0
        if crash and number == count // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        amount = 3 + number % 5
        await accounts.settle(call, amount, now=NOW)
        return amount

    total = 0
    for first in range(0, count, 10):
        total += sum(await asyncio.gather(*[one(number) for number in range(first, min(first + 10, count))]))
    await accounts.aclose()
    if store is not None:
        await store.aclose()
    return total


if __name__ == "__main__":
    print(asyncio.run(spend(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["crash"])))
