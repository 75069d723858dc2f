"""Who waits, in which order, how long, and who is refused: what the load shedder calculates.

    line = Line(limit, target_wait=5.0)
    line.expected_wait(Priority.NORMAL, "ann")     # seconds, None before there is evidence
    line.risk(Priority.NORMAL, "ann", now)         # the probability that a newcomer is refused

No lock, no event loop, no chance: `now` comes as an argument, and the caller throws the dice. The formulas stand in the
load shedder's docstring.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

from agentflow.core.robustness.adaptive_limit import Limit
from agentflow.core.robustness.fair_queue import FairQueue, Tenant
from agentflow.errors import (
    NodeError,
    OperationTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    RejectedError,
)

__all__ = ["Line", "Priority", "Queued", "ShedderSnapshot", "is_overload", "risk"]

_CAP: Final = 0.9  # a tenth always gets through: nobody would find out otherwise that all is well again
_EVIDENCE: Final = 10  # calls, before the expected wait is believed
_HELD_SMOOTHING: Final = 0.1
_WAIT_SMOOTHING: Final = 0.2
_OUTLIER: Final = 10.0  # times the mean: the machine was asleep


class Priority(IntEnum):
    """How important a call is."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


_PATIENCE: Final = (float("inf"), 4.0, 2.0, 1.0)  # by priority: so many targets are borne before any is refused


def is_overload(error: BaseException) -> bool:
    """Whether what was called has said, or shown, that it has too much to do.

    A guard of ours says nothing about it, and an empty purse nothing about its load. What wraps another error, such as
    a node's failure, is judged by that.
    """
    if isinstance(error, NodeError) and error.__cause__ is not None and error.__cause__ is not error:
        return is_overload(error.__cause__)
    if isinstance(error, RejectedError | QuotaExceededError):
        return False
    return isinstance(error, OverloadedError | RateLimitError | OperationTimeoutError)


def risk(wait: float, target: float, priority: int) -> float:
    """The probability that a newcomer is refused, 0 up to the multiple of the target that its priority bears."""
    borne = target * _PATIENCE[priority]
    return min(_CAP, 1.0 - borne / wait) if wait > borne else 0.0


@dataclass(frozen=True, slots=True)
class ShedderSnapshot:
    """A shedder at one moment. `held` is the mean time that a call holds its place, None before there is evidence;
    `waits` are the seconds that each priority waits at the moment."""

    limit: int
    in_flight: int
    queued: Mapping[Priority, int]
    waits: Mapping[Priority, float]
    held: float | None


class Queued(Hashable, Protocol):
    """What stands in line."""

    priority: Priority
    tenant: Tenant
    since: float


Item = TypeVar("Item", bound=Queued)


class Line(Generic[Item]):
    """The queue, how long each priority waits there, and how long a call holds its place."""

    __slots__ = ("_held", "_known", "_limit", "_queue", "_target_wait", "_waits")

    def __init__(self, limit: Limit, target_wait: float | None) -> None:
        self._limit, self._target_wait = limit, target_wait
        self._queue: FairQueue[Item] = FairQueue(len(Priority))
        self._waits = [0.0] * len(Priority)
        self._held, self._known = 0.0, 0

    @property
    def size(self) -> int:
        return self._queue.size

    def length(self, priority: int) -> int:
        return self._queue.length(priority)

    @property
    def held(self) -> float | None:
        """Mean seconds that a call holds its place, None before there is evidence."""
        return self._held if self._known >= _EVIDENCE else None

    def wait_of(self, priority: int, now: float) -> float:
        """Seconds that calls of a priority wait at the moment; 0 where none does."""
        head = self._queue.head(priority)
        return 0.0 if head is None else max(self._waits[priority], now - head.since)

    def expected_wait(self, priority: int, tenant: Tenant) -> float | None:
        """Seconds until a newcomer would be served, if nobody more important came."""
        if self._known < _EVIDENCE:
            return None
        return (self._queue.ahead(priority, tenant) + 1) * self._held / self._limit.limit

    def risk(self, priority: int, tenant: Tenant, now: float) -> float:
        """The probability that the queue time refuses a newcomer."""
        if self._target_wait is None:
            return 0.0
        return risk(self.wait_of(priority, now) * self._queue.share(priority, tenant), self._target_wait, priority)

    def push(self, item: Item) -> None:
        self._queue.push(item.priority, item.tenant, item)

    def pop(self, now: float) -> Item | None:
        """The next in turn, whose wait is learnt from; None where nobody waits."""
        item = self._queue.pop()
        if item is not None:
            priority = item.priority
            self._waits[priority] += _WAIT_SMOOTHING * (now - item.since - self._waits[priority])
            self._left(priority)
        return item

    def remove(self, item: Item) -> bool:
        """Whether it was still there."""
        if not self._queue.remove(item.priority, item.tenant, item):
            return False
        self._left(item.priority)
        return True

    def displace(self, priority: int, tenant: Tenant) -> Item | None:
        """Take out whoever makes room for a newcomer; None where the newcomer has to go."""
        item = self._queue.displace(priority, tenant)
        if item is not None:
            self._left(item.priority)
        return item

    def learn(self, held: float) -> None:
        """A call has held its place for so many seconds."""
        if self._known < _EVIDENCE:
            self._known += 1
            self._held += (held - self._held) / self._known
        else:
            self._held += _HELD_SMOOTHING * (min(held, self._held * _OUTLIER) - self._held)

    def _left(self, priority: int) -> None:
        if not self._queue.length(priority):
            self._waits[priority] = 0.0  # a queue that empties is not a standing one
