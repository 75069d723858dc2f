"""Who waits, and who goes next: tenants share the work evenly, and inputs of a length go together where that saves.

    ann: ▪▪▪▪▪▪▪▪▪▪          a batch of 6:  ▪ann ▫bob ▪ann ▫bob ▪ann ▫bob
    bob: ▫▫▫                 the tenant who has been served least goes next, by tokens

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each tenant has a clock of what it was served, who comes
back after a pause begins at the time of those who are there, so that nobody saves up. Higher priorities go first.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from typing import Any, Final, Generic, TypeAlias, TypeVar

from agentflow.mcp.performance.batching.item import Item
from agentflow.mcp.performance.batching.rules import BatchRules, Gathered

__all__ = ["Line"]

P = TypeVar("P")
A = TypeVar("A")

_LOOKS: Final = 64  # items of a tenant that are looked at for one of the right length
_FORGOTTEN: Final = 64  # clocks of tenants who are not there
_Key: TypeAlias = tuple[int, str | None]


class Line(Generic[P, A]):
    """Not safe to use from several threads. All items of a line can go into one batch."""

    __slots__ = ("_clocks", "_deadlines", "_longest", "_numbers", "_queues", "_size", "_time", "_tokens")

    def __init__(self) -> None:
        self._queues: dict[_Key, deque[Item[P, A]]] = {}  # by priority and tenant
        self._clocks: dict[str | None, float] = {}
        self._time = 0.0
        self._deadlines: list[tuple[float, int, Item[P, A]]] = []
        self._numbers = itertools.count()
        self._size = self._tokens = self._longest = 0

    def __len__(self) -> int:
        """How many inputs wait."""
        return self._size

    def push(self, item: Item[P, A]) -> None:
        tenant = item.caller.tenant
        key = (int(item.caller.priority), tenant)
        if not any(tenant == other for _, other in self._queues):
            self._clocks[tenant] = max(self._clocks.get(tenant, 0.0), self._time)
        self._queues.setdefault(key, deque()).append(item)
        heapq.heappush(self._deadlines, (item.deadline, next(self._numbers), item))
        self._size += item.size
        self._tokens += item.tokens
        self._longest = max(self._longest, item.longest)

    def remove(self, item: Item[P, A]) -> None:
        """Its caller has left."""
        key = (int(item.caller.priority), item.caller.tenant)
        self._queues[key].remove(item)
        self._taken(key, item)

    def gathered(self, rules: BatchRules) -> Gathered:
        """What waits, as `decide` wants it."""
        while self._deadlines and (self._deadlines[0][2].taken or self._deadlines[0][2].gone):
            heapq.heappop(self._deadlines)
        deadline = self._deadlines[0][0] if self._deadlines else math.inf
        return Gathered(self._size, rules.weight(self._tokens, self._longest, self._size), deadline)

    def take(self, rules: BatchRules) -> list[Item[P, A]]:
        """The next batch; of a single item, where that is larger than a batch may be."""
        batch: list[Item[P, A]] = []
        size = tokens = longest = 0
        turns = [(key[0], self._clocks[key[1]], at, key) for at, key in enumerate(self._queues)]
        heapq.heapify(turns)  # the highest priority, then the tenant who was served least
        while turns and rules.fits(size + 1, tokens):
            _, _, at, key = heapq.heappop(turns)
            item = self._fitting(key, batch, rules, size, tokens, longest)
            if item is None:
                continue  # the others may have one
            batch.append(item)
            size, tokens, longest = size + item.size, tokens + item.tokens, max(longest, item.longest)
            self._serve(key, item)
            if key in self._queues:
                heapq.heappush(turns, (key[0], self._clocks[key[1]], at, key))
        return batch

    def _fitting(
        self, key: _Key, batch: list[Item[P, A]], rules: BatchRules, size: int, tokens: int, longest: int
    ) -> Item[P, A] | None:
        """The first of them that goes into the batch, if it does; into an empty one anything does."""
        item = self._matching(self._queues[key], batch, rules)
        if item is None or not batch:
            return item
        weight = rules.weight(tokens + item.tokens, max(longest, item.longest), size + item.size)
        return item if rules.fits(size + item.size, weight) else None

    def _serve(self, key: _Key, item: Item[P, A]) -> None:
        tenant = key[1]
        self._time = max(self._time, self._clocks[tenant])
        self._clocks[tenant] += item.tokens or item.size
        item.taken = True
        self._queues[key].remove(item)
        self._taken(key, item)

    def _taken(self, key: _Key, item: Item[P, A]) -> None:
        self._size -= item.size
        self._tokens -= item.tokens
        if not self._queues[key]:
            del self._queues[key]
        if not self._queues:
            self._longest = 0
            self._deadlines.clear()
        if len(self._clocks) > 2 * len(self._queues) + _FORGOTTEN:
            here = {tenant for _, tenant in self._queues}
            self._clocks = {
                tenant: clock for tenant, clock in self._clocks.items() if tenant in here or clock > self._time
            }

    def _matching(self, queue: deque[Item[P, A]], batch: list[Any], rules: BatchRules) -> Item[P, A] | None:
        """The first, or where lengths count the first of about the length of the batch."""
        if not rules.padded or not batch:
            return queue[0]
        wanted = batch[0].longest.bit_length()
        looked = itertools.islice(queue, _LOOKS)
        return next((item for item in looked if item.longest.bit_length() == wanted), None)
