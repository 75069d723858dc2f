"""A queue of several priorities in which no tenant starves another of the same priority.

    priority 0   ann: a1 a2        served: a1 b1 a2 b2 b3, then priority 1
                 bob: b1 b2 b3
    priority 1   ann: a3

Higher priorities first; among the tenants of one priority in turn (round-robin, as fair queueing does: Nagle, RFC 970,
1985); within a tenant first come, first served. Every operation takes constant time, however long the queue. It is no
guard of its own: whoever owns it locks it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar

__all__ = ["FairQueue", "Tenant"]

Item = TypeVar("Item", bound=Hashable)
Tenant: TypeAlias = str | None  # None is a tenant of its own


class FairQueue(Generic[Item]):
    """`priorities` lines, 0 the most important."""

    __slots__ = ("_lines", "size")

    def __init__(self, priorities: int) -> None:
        self._lines: list[_Line[Item]] = [_Line() for _ in range(priorities)]
        self.size = 0

    def push(self, priority: int, tenant: Tenant, item: Item) -> None:
        self._lines[priority].push(tenant, item)
        self.size += 1

    def pop(self) -> Item | None:
        """The next in turn, None where nobody waits."""
        for line in self._lines:
            if line.size:
                self.size -= 1
                return line.pop()
        return None

    def remove(self, priority: int, tenant: Tenant, item: Item) -> bool:
        """Whether it was there."""
        found = self._lines[priority].remove(tenant, item)
        self.size -= found
        return found

    def head(self, priority: int) -> Item | None:
        """The next of that priority; it stays where it is."""
        return self._lines[priority].head()

    def length(self, priority: int) -> int:
        return self._lines[priority].size

    def ahead(self, priority: int, tenant: Tenant) -> int:
        """At most so many are served before one of this tenant that came now, if nobody more important comes later."""
        return sum(line.size for line in self._lines[:priority]) + self._lines[priority].ahead(tenant)

    def share(self, priority: int, tenant: Tenant) -> float:
        """The part of its line that is ahead of a newcomer: 1.0 at the end, near 0 for a modest tenant."""
        line = self._lines[priority]
        return line.ahead(tenant) / line.size if line.size else 1.0

    def displace(self, priority: int, tenant: Tenant) -> Item | None:
        """Take out whoever must make room for a newcomer; None where the newcomer is the one to go.

        That is the youngest item of the tenant that has most, in the least important line below the newcomer's, or in
        the newcomer's own if that tenant would still have as many as the newcomer's (longest queue drop).
        """
        for level in range(len(self._lines) - 1, priority - 1, -1):
            line = self._lines[level]
            if line.size and (level > priority or line.longest > line.length(tenant) + 1):
                self.size -= 1
                return line.pop_youngest()
        return None


class _Line(Generic[Item]):
    """One priority: its tenants in the order of their turns, and by how much each has waiting."""

    __slots__ = ("_by_length", "_tenants", "longest", "size")

    def __init__(self) -> None:
        # Ordered dicts, since a plain one takes linear time to find its first entry after many were deleted there.
        self._tenants: OrderedDict[Tenant, OrderedDict[Item, None]] = OrderedDict()
        self._by_length: dict[int, OrderedDict[Tenant, None]] = {}
        self.longest = 0
        self.size = 0

    def push(self, tenant: Tenant, item: Item) -> None:
        items = self._tenants.setdefault(tenant, OrderedDict())
        items[item] = None
        self._count(tenant, len(items) - 1, len(items))

    def pop(self) -> Item:
        tenant, items = next(iter(self._tenants.items()))
        item, _ = items.popitem(last=False)
        self._tenants.move_to_end(tenant)
        self._count(tenant, len(items) + 1, len(items))
        return item

    def pop_youngest(self) -> Item:
        tenant = next(reversed(self._by_length[self.longest]))
        items = self._tenants[tenant]
        item, _ = items.popitem()
        self._count(tenant, len(items) + 1, len(items))
        return item

    def remove(self, tenant: Tenant, item: Item) -> bool:
        items = self._tenants.get(tenant)
        if items is None or item not in items:
            return False
        del items[item]
        self._count(tenant, len(items) + 1, len(items))
        return True

    def head(self) -> Item | None:
        for items in self._tenants.values():
            return next(iter(items))
        return None

    def length(self, tenant: Tenant) -> int:
        return len(self._tenants.get(tenant, ()))

    def ahead(self, tenant: Tenant) -> int:
        """A newcomer waits for one turn of each tenant for each of its own items, and for one more."""
        tenants = len(self._tenants) + (tenant not in self._tenants)
        return min(self.size, (self.length(tenant) + 1) * tenants)

    def _count(self, tenant: Tenant, before: int, after: int) -> None:
        """A tenant's length has changed by one, so the longest changes by one at most."""
        self.size += after - before
        if before:
            same = self._by_length[before]
            del same[tenant]
            if not same:
                del self._by_length[before]
        if after:
            self._by_length.setdefault(after, OrderedDict())[tenant] = None
        else:
            del self._tenants[tenant]
        if after > self.longest:
            self.longest = after
        elif self.longest not in self._by_length:
            self.longest -= 1
