"""How the resources of a pool begin, and whether they still work.

    maker = Maker(connect, name="database", validate=ping, …)
    entry = await maker.make(home)        # how long it may live is settled here
    if not await maker.works(entry): …

Foreign code runs here, in the task of whoever acquires; the pool holds a slot for it meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from agentflow.clock import Clock
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.pool_disposal import call_within
from agentflow.core.robustness.pool_slots import Entry, Home

__all__ = ["Maker"]

R = TypeVar("R")


@dataclass(frozen=True)
class Maker(Generic[R]):
    """Times are seconds, `jitter` is the share of `max_lifetime` by which chance may shorten it."""

    factory: Callable[[], Awaitable[R]]
    name: str
    validate: Callable[[R], Awaitable[bool] | bool] | None
    validate_timeout: float
    max_lifetime: float
    jitter: float
    clock: Clock
    listener: Listener | None

    async def make(self, home: Home[R]) -> Entry[R]:
        start = self.clock.monotonic()
        resource = await self.factory()
        now = self.clock.monotonic()
        lifetime = self.max_lifetime * (1 - self.jitter * self.clock.random())
        tell(self.listener, "pool_created", self.name, seconds=now - start)
        return Entry(resource, home, now, now + lifetime)

    async def works(self, entry: Entry[R]) -> bool:
        """What raises or takes too long does not."""
        if self.validate is None:
            return True
        with suppress(Exception):
            what = f"validating a resource of {self.name}"
            return bool(await call_within(self.validate_timeout, what, self.validate, entry.resource))
        return False
