"""One process asks, the others wait: a lease in the store, which ends by itself when its holder dies.

    async with leases.turn(name, look) as found:       found: what another process has brought meanwhile
        if found is None: ask the model, keep the answer

The holder prolongs its lease for as long as the call takes. One that was killed does not, and the next one asks.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from agentflow.clock import Clock
from agentflow.mcp.performance.caching.store import CacheStore

__all__ = ["Leases"]

T = TypeVar("T")

_SHORTEST, _LONGEST = 0.005, 0.2  # seconds between two looks whether the other has answered


class Leases:
    """`seconds` is after what time a holder that is not heard of counts as dead."""

    def __init__(self, store: CacheStore, clock: Clock, seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._seconds = seconds
        self._numbers = itertools.count()
        self._process = uuid.uuid4().hex[:12]

    @asynccontextmanager
    async def turn(self, name: str, look: Callable[[], Awaitable[T | None]]) -> AsyncIterator[T | None]:
        """Waits until it is this one's turn to ask, or another has brought what `look` finds."""
        holder = f"{os.getpid()}-{self._process}-{next(self._numbers)}"
        pause: Final = itertools.chain([_SHORTEST * 2**n for n in range(5)], itertools.repeat(_LONGEST))
        while not await self._store.claim(name, holder, self._seconds):
            await self._clock.sleep(next(pause) * (0.5 + self._clock.random() / 2))
            found = await look()
            if found is not None:
                yield found
                return
        renewing = asyncio.create_task(self._renew(name, holder))
        try:
            yield await look()  # it may have come between the first look and the claim
        finally:
            renewing.cancel()
            await self._store.release(name, holder)

    async def _renew(self, name: str, holder: str) -> None:
        while True:
            await self._clock.sleep(self._seconds / 3)
            await self._store.claim(name, holder, self._seconds)
