"""What the store has still to be told, and the leases that must be renewed: no I/O in here, and nothing is waited for.

    outbox.add(message)              at the end of a call, synchronously
    batch = outbox.take()            the task that sends; put_back(batch) where it did not arrive
    outbox.renewals(now)             for whatever is still held: slots every second, the rest every third of a lease
    outbox.pause(now, up=True)       how long that task may sleep; None: there is nothing left to do

Any thread may add. `now` is monotonic seconds.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from agentflow.integrations.valkey.remote import Argument, Message
from agentflow.integrations.valkey.scripts import HOLD

__all__ = ["Outbox"]

_BATCH: Final = 200  # messages in one round trip
_LEASES: Final = 1_000  # leases in one message
_OFTEN: Final = 1.0  # seconds; a store that lost its memory gives no slot away for longer than that (scripts.py)


class Outbox:
    """Keeps the newest `most` messages; `lost` counts the others."""

    __slots__ = ("_lease", "_lock", "_most", "_often", "_queue", "_seldom", "lost")

    def __init__(self, lease: float, most: int) -> None:
        self._lease = lease
        self._most = most
        self._queue: deque[Message] = deque()
        self._seldom = _Held(lease / 3)
        self._often = _Held(min(_OFTEN, lease / 3))
        self._lock = threading.Lock()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, message: Message) -> None:
        self._queue.append(message)
        if len(self._queue) > self._most:
            with suppress(IndexError):  # another thread may have emptied it
                self._queue.popleft()
                self.lost += 1

    def take(self) -> list[Message]:
        """Some of the oldest."""
        with self._lock:  # the tasks of several event loops take from it
            return [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]

    def put_back(self, batch: Sequence[Message]) -> None:
        self._queue.extendleft(reversed(batch))

    def hold(self, lease: str, holder: str, now: float, *, often: bool) -> bool:
        """True where somebody must see to it that it is renewed: `often`, or every third of a lease."""
        held = self._often if often else self._seldom
        with self._lock:
            held.leases[holder] = lease
            if held.at < math.inf:
                return False
            held.at = now + held.every
            return True

    def let_go(self, holder: str) -> None:
        self._often.leases.pop(holder, None)
        self._seldom.leases.pop(holder, None)

    def renew_now(self) -> None:
        """The store may have forgotten everything."""
        self._often.at = self._seldom.at = -math.inf

    def renewals(self, now: float) -> list[Message]:
        """The leases to be renewed, if it is time."""
        return [
            Message(HOLD, (lease,), _still_held(held.leases, self._lease, holders[first : first + _LEASES]))
            for held in (self._often, self._seldom)
            for lease, holders in held.due(now).items()
            for first in range(0, len(holders), _LEASES)
        ]

    def pause(self, now: float, *, up: bool, retry: float) -> float | None:
        with self._lock:
            for held in (self._often, self._seldom):
                if not held.leases:
                    held.at = math.inf
            next_renewal = min(self._often.at, self._seldom.at)
            if not self._queue and next_renewal == math.inf:
                return None
        if not up:
            return retry
        return 0.0 if self._queue else max(0.0, next_renewal - now)


class _Held:
    """Leases (holder: the set it is in) that are renewed `every` so many seconds, next at `at`."""

    __slots__ = ("at", "every", "leases")

    def __init__(self, every: float) -> None:
        self.every = every
        self.at = math.inf
        self.leases: dict[str, str] = {}

    def due(self, now: float) -> dict[str, list[str]]:
        """The holders of each set, if it is time."""
        by_set: dict[str, list[str]] = {}
        if now >= self.at:
            self.at = now + self.every
            for holder, lease in list(self.leases.items()):
                by_set.setdefault(lease, []).append(holder)
        return by_set


def _still_held(held: Mapping[str, str], lease: float, holders: Sequence[str]) -> Callable[[], Sequence[Argument]]:
    """Looked up when it is sent, so that nothing is renewed that has been settled by then."""
    return lambda: (lease, *(holder for holder in holders if holder in held))
