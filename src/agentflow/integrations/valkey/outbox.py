"""What the store has still to be told, and the leases that must be renewed: no I/O in here, and nothing is waited for.

    outbox.add(message)              at the end of a call, synchronously
    batch = outbox.take()            the task that sends; put_back(batch) where it did not arrive
    outbox.renewals(now)             every third of a lease, for whatever is still held
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


class Outbox:
    """Keeps the newest `most` messages; `lost` counts the others."""

    __slots__ = ("_held", "_lease", "_lock", "_most", "_queue", "_renew_at", "lost")

    def __init__(self, lease: float, most: int) -> None:
        self._lease = lease
        self._most = most
        self._queue: deque[Message] = deque()
        self._held: dict[str, str] = {}  # holder: the set that its lease is in
        self._renew_at = math.inf
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

    def hold(self, lease: str, holder: str, now: float) -> bool:
        """True where somebody must see to it that it is renewed."""
        self._held[holder] = lease
        if self._renew_at < math.inf:
            return False
        self._renew_at = now + self._lease / 3
        return True

    def let_go(self, holder: str) -> None:
        self._held.pop(holder, None)

    def renew_now(self) -> None:
        """The store may have forgotten everything."""
        self._renew_at = -math.inf

    def renewals(self, now: float) -> list[Message]:
        """The leases to be renewed, if it is time."""
        if now < self._renew_at or not self._held:
            return []
        self._renew_at = now + self._lease / 3
        holders: dict[str, list[str]] = {}
        for holder, lease in list(self._held.items()):
            holders.setdefault(lease, []).append(holder)
        return [
            Message(HOLD, (lease,), _still_held(self._held, self._lease, each[first : first + _LEASES]))
            for lease, each in holders.items()
            for first in range(0, len(each), _LEASES)
        ]

    def pause(self, now: float, *, up: bool, retry: float) -> float | None:
        if not self._queue and not self._held:
            self._renew_at = math.inf
            return None
        if not up:
            return retry
        return 0.0 if self._queue else max(0.0, self._renew_at - now)


def _still_held(held: Mapping[str, str], lease: float, holders: Sequence[str]) -> Callable[[], Sequence[Argument]]:
    """Looked up when it is sent, so that nothing is renewed that has been settled by then."""
    return lambda: (lease, *(holder for holder in holders if holder in held))
