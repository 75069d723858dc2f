"""The places of a load shedder: who has one, who waits for one, and what a call's end teaches the limit.

    ticket = places.take()               None where all are taken
    ticket.done()                        ── or overloaded(), or drop(): the first of them counts

All of it is under one lock, for which no end ever waits (see turn).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agentflow.clock import Clock
from agentflow.core.robustness.adaptive_limit import Limit
from agentflow.core.robustness.decision import Listener
from agentflow.core.robustness.fair_queue import Tenant
from agentflow.core.robustness.news import News
from agentflow.core.robustness.shedding import Line, Priority, is_overload
from agentflow.core.robustness.turn import Turn
from agentflow.core.robustness.waiting import Waiter

__all__ = ["Places", "Ticket", "Waiting"]

_NOTABLE: Final = 1.25  # changes of the limit by less are not told, except for overload


class Ticket:
    """A place among the calls under way. One of `done`, `overloaded` and `drop` gives it back: the first.

    `waited` is the seconds that it took to be granted; `began` is when the call did, and `tried` its present attempt.
    Made without an `__init__`, which would take as long again.
    """

    __slots__ = ("_places", "began", "ended", "tried", "waited")

    _places: Places
    began: float
    tried: float
    waited: float
    ended: bool

    def done(self, *, seconds: float | None = None) -> None:
        """It ended well. `seconds` is the latency that the limit learns from, such as the time to the first token;
        None: the time since it was admitted."""
        places = self._places
        clock, turn = places.now, places.turn
        now = clock()
        if turn.lock.locked():
            places.soon(partial(places.well, self, now, seconds))
            return
        turn.lock.acquire()
        try:
            places.well(self, now, seconds)
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        if places.news.items:
            places.news.tell()

    def overloaded(self) -> None:
        """It ended with a sign of overload: 429, 529 or a time-out. The limit goes down."""
        places = self._places
        places.soon(partial(places.overload, self, places.now(), True))

    def strained(self) -> None:
        """There was a sign of overload, but it goes on with another attempt: the limit goes down, the place is kept."""
        places = self._places
        places.soon(partial(places.overload, self, places.now(), False))

    def drop(self) -> None:
        """It was cancelled, or failed for another reason: nothing is learnt."""
        places = self._places
        places.soon(partial(places.leave, self, places.now()))

    def end(self, error: BaseException | None) -> None:
        """Give it back as fits how the call ended."""
        if error is None:
            self.done()
        elif is_overload(error):
            self.overloaded()
        else:
            self.drop()


class Waiting(Waiter[Ticket]):
    """One call in the queue."""

    __slots__ = ("priority", "reason", "since", "tenant")

    def __init__(self, priority: Priority, tenant: Tenant, since: float) -> None:
        super().__init__()
        self.priority, self.tenant, self.since = priority, tenant, since
        self.reason = ""


class Places:
    """`limit` of them. What says nothing of a lock is called under it."""

    __slots__ = ("_told", "in_flight", "limit", "line", "news", "now", "turn")

    def __init__(
        self, limit: Limit, target_wait: float | None, name: str, clock: Clock, listener: Listener | None
    ) -> None:
        self.limit = limit
        self.line: Line[Waiting] = Line(limit, target_wait)
        self.in_flight = 0
        self.now = clock.monotonic
        self.turn = Turn()
        self.news = News(listener, name, self.turn.lock)
        self._told = limit.limit

    def take(self) -> Ticket | None:
        """A place, where one is free. Takes the lock."""
        clock, turn = self.now, self.turn
        now = clock()
        turn.lock.acquire()
        try:
            if self.in_flight >= self.limit.limit:  # whoever waits, waits because of this
                return None
            self.in_flight += 1
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        ticket = Ticket()
        ticket._places = self
        ticket.began = ticket.tried = now
        ticket.waited = 0.0
        ticket.ended = False
        return ticket

    def soon(self, action: Callable[[], None]) -> None:
        """Do it under the lock, and do not wait for that."""
        self.turn.soon(action)
        self.news.tell()

    # ---- the end of a call

    def well(self, ticket: Ticket, now: float, seconds: float | None) -> None:
        if ticket.ended:
            return
        ticket.ended = True
        limit, under_way = self.limit, self.in_flight
        before = limit.limit
        self.in_flight = under_way - 1
        held = now - ticket.began
        limit.succeeded(now, held if seconds is None else seconds, under_way)
        if under_way >= before:
            self._freed(held, now)
        after = limit.limit
        if after != before:
            self._tell(before, "growth" if after > before else "latency")

    def overload(self, ticket: Ticket, now: float, ended: bool) -> None:
        if ticket.ended:
            return
        limit = self.limit
        before, under_way = limit.limit, self.in_flight
        limit.overloaded(now, ticket.tried, under_way)
        ticket.tried = now
        if ended:
            ticket.ended = True
            self.in_flight = under_way - 1
            if under_way >= before:
                self._freed(now - ticket.began, now)
        if limit.limit != before:
            self._tell(before, "overload")

    def leave(self, ticket: Ticket, now: float) -> None:
        if not ticket.ended:
            ticket.ended = True
            self.in_flight -= 1
            self.pump(now)

    def _freed(self, held: float, now: float) -> None:
        """A place came free where none had been."""
        self.line.learn(held)
        self.pump(now)

    # ---- the queue

    def enter(self, priority: Priority, tenant: Tenant, now: float) -> Waiting:
        waiter = Waiting(priority, tenant, now)
        self.line.push(waiter)
        self.pump(now)
        return waiter

    def pump(self, now: float) -> None:
        """Give each free place to the next in turn; those whose event loop is closed are passed over."""
        while self.in_flight < self.limit.limit:
            waiter = self.line.pop(now)
            if waiter is None:
                return
            ticket = Ticket()
            ticket._places = self
            ticket.began = ticket.tried = now
            ticket.waited = max(0.0, now - waiter.since)
            ticket.ended = False
            self.in_flight += waiter.grant(ticket)

    def withdraw(self, waiter: Waiter[Ticket]) -> None:
        """It leaves with nothing: cancelled in the queue, or after a place was granted. Does not wait for the lock."""
        if waiter.value is not None:
            waiter.value.drop()
        elif isinstance(waiter, Waiting):
            self.soon(partial(self._without, waiter))

    def _without(self, waiter: Waiting) -> None:
        self.line.remove(waiter)

    def _tell(self, before: int, why: str) -> None:
        after = self.limit.limit
        told = before if why == "overload" else self._told
        if why == "overload" or not told / _NOTABLE < after < told * _NOTABLE:
            self._told = after
            self.news.add("shedder_limit", {"from": told, "to": after, "why": why})
