"""Who gets which resource of a pool: the decisions alone, without a lock, a task or a clock.

    claim(loop, now)          → an idle Entry │ Make: a slot to put a new one in │ a Queued in the queue
    give_back(entry, …, now)  → idle again, or doomed; then the queue is served
    doomed                    what must be closed, and why; the pool takes it from here

Two numbers hold at any time: `taken` (idle, lent, or being made) is at most `size`, and nobody waits while something
is idle for its event loop or a slot is free. Whoever waits longest is served first, of whichever loop it is: where only
resources of other loops are idle, the oldest of them is closed to make room.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from enum import Enum
from typing import Final, Generic, TypeAlias, TypeVar

from agentflow.core.robustness.waiting import Waiter

__all__ = ["Claim", "Entry", "Home", "Make", "Queued", "Slots"]

R = TypeVar("R")


class Make(Enum):
    """A slot was taken, and the claimer makes the resource for it."""

    SLOT = "slot"


class Home(Generic[R]):
    """One event loop and what is idle on it: the longest idle first, the last used at the end. The timer is the pool's,
    and touched on this loop alone."""

    __slots__ = ("idle", "loop", "timer", "when")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle: deque[Entry[R]] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.when = math.inf


class Entry(Generic[R]):
    """A resource and its times. `lending` counts how often it was lent or given back: a lease knows its own number, so
    that a second release is told from the next holder's first."""

    __slots__ = ("dies", "expires", "home", "idle_since", "lending", "resource")

    def __init__(self, resource: R, home: Home[R], now: float, dies: float) -> None:
        self.resource = resource
        self.home = home
        self.dies = dies
        self.idle_since = now
        self.expires = dies
        self.lending = 0


class Queued(Waiter[Entry[R] | Make]):
    """Somebody's place in the queue."""

    __slots__ = ("home",)

    def __init__(self, home: Home[R]) -> None:
        super().__init__()
        self.home = home


Claim: TypeAlias = Entry[R] | Make | Queued[R]


class Slots(Generic[R]):
    """The pool's books. Every method is called under the pool's lock."""

    __slots__ = ("closed", "closing", "doomed", "drains", "homes", "idle_timeout", "size", "taken", "waiting")

    def __init__(self, size: int, idle_timeout: float) -> None:
        self.size: Final = size
        self.idle_timeout: Final = idle_timeout
        self.taken = 0
        self.closing = 0
        self.closed = False
        self.waiting: OrderedDict[Queued[R], None] = OrderedDict()
        self.homes: dict[asyncio.AbstractEventLoop, Home[R]] = {}
        self.doomed: list[tuple[Entry[R], str]] = []
        self.drains: set[Waiter[None]] = set()

    @property
    def idle(self) -> int:
        return sum(len(home.idle) for home in self.homes.values())

    @property
    def in_use(self) -> int:
        return self.taken - self.idle

    @property
    def is_drained(self) -> bool:
        return not self.taken and not self.closing

    def home(self, loop: asyncio.AbstractEventLoop) -> Home[R]:
        """The loop's own; what is left of loops that have ended is given up when another one begins."""
        home = self.homes.get(loop)
        if home is None:
            for ended in [other for other in self.homes.values() if other.loop.is_closed()]:
                self._empty(ended, "loop_ended")
                del self.homes[ended.loop]
            home = self.homes[loop] = Home(loop)
        return home

    def claim(self, loop: asyncio.AbstractEventLoop, now: float) -> Claim[R]:
        """What there is for a newcomer; it does not overtake anybody."""
        home = self.homes.get(loop) or self.home(loop)
        if not self.waiting:
            idle = home.idle
            if idle and idle[0].expires > now and idle[-1].expires > now:  # the most frequent case, made quick
                return idle.pop()
            offer = self._offer(home, now)
            if offer is not None:
                return offer
        turn = Queued(home)
        self.waiting[turn] = None
        return turn

    def give_back(self, entry: Entry[R], why: str | None, now: float) -> None:
        """`why` says that it must not be used again; None leaves that to its age."""
        why = why or self._unfit(entry, now)
        if why is None:
            expires = now + self.idle_timeout
            entry.idle_since = now
            entry.expires = min(entry.dies, expires)
            entry.home.idle.append(entry)
        else:
            self.taken -= 1
            self.doom(entry, why)
        if self.waiting or self.closed:
            self.serve(now)

    def free(self, now: float) -> None:
        """A slot is given back empty."""
        self.taken -= 1
        self.serve(now)

    def withdraw(self, turn: Queued[R], now: float) -> None:
        """Its owner leaves: out of the queue, or what it had been granted goes to the next."""
        self.waiting.pop(turn, None)
        if turn.granted:
            self._take_back(turn.value, now)
            self.serve(now)

    def serve(self, now: float) -> None:
        """Grant whatever there is to those who wait: for a resource, or at the end for all of them to be gone."""
        if self.closed:
            self.tell_drains()
        while self.waiting:
            turn = next(iter(self.waiting))
            if turn.home.loop.is_closed():  # nobody is there any more, so nothing is closed to make room
                del self.waiting[turn]
                continue
            offer = self._offer(turn.home, now)
            if offer is None:
                return
            del self.waiting[turn]
            if not turn.grant(offer):
                self._take_back(offer, now)

    def tell_drains(self) -> None:
        """Who waits for the end hears of it."""
        if self.drains and self.is_drained:
            for waiter in self.drains:
                waiter.grant(None)
            self.drains.clear()

    def doom(self, entry: Entry[R], why: str) -> None:
        self.closing += 1
        self.doomed.append((entry, why))

    def expire(self, home: Home[R], now: float) -> float:
        """Doom what has been idle for too long or is too old. Returns when the next one will be."""
        for entry in [entry for entry in home.idle if entry.expires <= now]:
            home.idle.remove(entry)
            self._drop(entry, now)
        return min((entry.expires for entry in home.idle), default=math.inf)

    def close(self) -> list[Queued[R]]:
        """Nothing is given away any more. Returns whoever waited in vain."""
        self.closed = True
        for home in self.homes.values():
            self._empty(home, "closed")
        refused = list(self.waiting)
        self.waiting.clear()
        return refused

    def _offer(self, home: Home[R], now: float) -> Entry[R] | Make | None:
        idle = home.idle
        while idle and idle[0].expires <= now:
            self._drop(idle.popleft(), now)
        while idle:
            entry = idle.pop()
            if entry.expires > now:
                return entry
            self._drop(entry, now)
        if self.taken >= self.size and not self._make_room(home):
            return None
        self.taken += 1
        return Make.SLOT

    def _make_room(self, home: Home[R]) -> bool:
        """Close the longest idle of another loop, one that has ended before all others."""
        others = [other for other in self.homes.values() if other is not home and other.idle]
        if not others:
            return False
        other = min(others, key=lambda each: (not each.loop.is_closed(), each.idle[0].idle_since))
        self.taken -= 1
        self.doom(other.idle.popleft(), "other_loop")
        return True

    def _take_back(self, offer: Entry[R] | Make | None, now: float) -> None:
        """What was granted to somebody who is not there to use it."""
        if not isinstance(offer, Entry):
            self.taken -= 1
        elif why := self._unfit(offer, now):
            self.taken -= 1
            self.doom(offer, why)
        else:
            offer.home.idle.append(offer)

    def _unfit(self, entry: Entry[R], now: float) -> str | None:
        if self.closed:
            return "closed"
        if entry.dies <= now:
            return "lifetime"
        return "loop_ended" if entry.home.loop.is_closed() else None

    def _drop(self, entry: Entry[R], now: float) -> None:
        self.taken -= 1
        self.doom(entry, "lifetime" if entry.dies <= now else "idle")

    def _empty(self, home: Home[R], why: str) -> None:
        while home.idle:
            self.taken -= 1
            self.doom(home.idle.popleft(), why)
