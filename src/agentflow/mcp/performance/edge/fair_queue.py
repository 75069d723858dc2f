"""Who is answered next: tenants take turns by how much of the model's time they had.

    ann: ▪▪▪▪▪▪      bob: ▫▫        →   ▪ann ▫bob ▪ann ▫bob ▪ann ▪ann …

Each tenant has a clock of what it was given, in tokens; the one whose clock is furthest behind goes next. Who comes
back after a pause starts at the time of those who are there, so that nobody saves up (start-time fair queueing: Goyal,
Vin, Cheng, SIGCOMM 1996). Of one tenant, and where nobody says whose requests they are, the first to come is the first
to be answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[tuple[T, float]]] = {}
        self._clocks: dict[str | None, float] = {}
        self._time = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[T]:
        return (item for queue in self._queues.values() for item, _ in queue)

    def push(self, item: T, *, tenant: str | None, cost: float) -> None:
        if tenant not in self._queues:
            self._queues[tenant] = deque()
            self._clocks[tenant] = max(self._clocks.get(tenant, 0.0), self._time)
        self._queues[tenant].append((item, cost))

    def pop(self) -> T:
        """Raises IndexError where nobody waits."""
        if not self._queues:
            raise IndexError("nobody waits")
        tenant = min(self._queues, key=lambda each: self._clocks[each])
        item, cost = self._queues[tenant].popleft()
        self._time = max(self._time, self._clocks[tenant])
        self._clocks[tenant] += cost
        self._drop_empty()
        return item

    def remove(self, gone: Callable[[T], bool]) -> list[T]:
        """Take out all of which `gone` is true."""
        found = [item for item in self if gone(item)]
        for tenant, queue in self._queues.items():
            self._queues[tenant] = deque(entry for entry in queue if entry[0] not in found)
        self._drop_empty()
        return found

    def _drop_empty(self) -> None:
        self._queues = {tenant: queue for tenant, queue in self._queues.items() if queue}
        self._clocks = {
            tenant: clock for tenant, clock in self._clocks.items() if tenant in self._queues or clock > self._time
        }
