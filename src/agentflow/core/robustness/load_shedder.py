"""Too much to do: the important goes first, the rest waits a little or is told at once to come back later.

    shedder = LoadShedder(limit=AIMD())
    async with shedder.admit(Priority.HIGH, tenant="ann", timeout=5.0) as ticket:
        answer = await ask()              # its end is recorded: well, overloaded, or nothing at all

A call that finds fewer than `limit` under way starts at once. Else it waits: higher priorities first, tenants in turn,
first come first served within one. It is refused with LoadShedError, which says when to come back, if

    deadline      its `timeout` (seconds it may wait) is shorter than the wait to be expected, or is 0
    queue_time    chance has it: the queue is too slow, see below
    lag           chance has it: the event loop is late by more than `max_lag`, whether or not there is room
    queue_full    `max_queue` calls wait, and none of them is less important, or of a tenant that has more waiting
    displaced     it was the one that such a newcomer displaced
    timeout       its `timeout` has passed in the queue

Chance: with wait w and target t a newcomer is refused with probability min(0.9, 1 − k·t ÷ w), where k is 1 for LOW,
2 for NORMAL and 4 for HIGH; CRITICAL is never refused so. (The shape and the bound are those of client-side throttling:
Beyer et al., Site Reliability Engineering, 2016, chapter 21.) For queue time w is the moving average of the waits of
its own priority, or how long the next one there has waited already if that is more, times the part of the line that is
ahead of the newcomer: a modest tenant is not refused for the queue of a greedy one. It is 0 once that line was empty.
For lag t is `max_lag`, and HIGH is never refused.

The wait to be expected is (those ahead + 1) × the mean time that a call holds its place ÷ limit. It is known
once 10 calls have ended while every place was taken.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.adaptive_limit import AIMD, Limit
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.fair_queue import Tenant
from agentflow.core.robustness.places import Places, Ticket, Waiting
from agentflow.core.robustness.shedding import Priority, ShedderSnapshot, risk
from agentflow.errors import LoadShedError

if TYPE_CHECKING:
    from agentflow.core.robustness.loop_lag import LoopLag

__all__ = ["LoadShedder", "Priority", "ShedderSnapshot", "Ticket"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()
_MESSAGES: Final = {
    "deadline": "the wait would be longer than this call may wait",
    "queue_time": "calls wait too long already",
    "lag": "the event loop is late already",
    "queue_full": "its queue is full",
    "displaced": "a more important call, or one of a tenant with fewer, took its place in the full queue",
    "timeout": "it waited as long as it may",
}


class Admitting:
    """What `admit` returns: await it for the ticket, or enter it, and the ticket is given back at the end."""

    __slots__ = ("_admit", "_ticket")

    def __init__(self, admit: Callable[[], Coroutine[Any, Any, Ticket]]) -> None:
        self._admit = admit
        self._ticket: Ticket | None = None

    def __await__(self) -> Generator[Any, Any, Ticket]:
        return self._admit().__await__()

    async def __aenter__(self) -> Ticket:
        self._ticket = ticket = await self._admit()
        return ticket

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.end(error)


class LoadShedder:
    """At most `limit` calls at once. Serves any number of event loops and threads.

    `max_queue` bounds how many wait (None: any number; 0: none). `target_wait` is the queue time in seconds above which
    LOW calls begin to be refused, NORMAL above twice and HIGH above four times that; None for work that may wait for
    ever, such as a large batch. `max_lag` is the lag of the event loop above which LOW and (above twice that) NORMAL
    calls begin to be refused; None does not measure it. 0.1 s is a good value for it.

    As a decorator it admits each call of an async function with NORMAL priority:

        @shedder
        async def ask(question: str) -> str: ...

    The listener hears `shedder_wait` (seconds, priority, tenant), `shedder_refused` (reason, priority, tenant, seconds
    waited, retry_after) and `shedder_limit` (from, to, why: overload, latency or growth; small changes are not told).
    """

    __slots__ = ("_clock", "_lag", "_listener", "_max_lag", "_max_queue", "_places", "name")

    def __init__(
        self,
        *,
        name: str = "shedder",
        limit: Limit | None = None,
        max_queue: int | None = None,
        target_wait: float | None = 5.0,
        max_lag: float | None = None,
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        if max_queue is not None and max_queue < 0:
            raise ValueError(f"max_queue is 0 or more, or None for no bound, not {max_queue!r}")
        for argument, seconds in (("target_wait", target_wait), ("max_lag", max_lag)):
            if seconds is not None and not 0.0 < seconds < float("inf"):
                raise ValueError(f"{argument} is a finite number of seconds above 0, or None, not {seconds!r}")
        self.name = name
        self._max_queue, self._max_lag = max_queue, max_lag
        self._lag = None if max_lag is None else _loop_lag()
        self._clock = clock
        self._listener = listener
        self._places = Places(AIMD() if limit is None else limit, target_wait, name, clock, listener)

    @property
    def summary(self) -> str:
        """What it does, on one line."""
        queue = "any number waits" if self._max_queue is None else f"at most {self._max_queue} wait"
        lag = "" if self._max_lag is None else f", or where the event loop is {self._max_lag:g} s late"
        return f"{self.limit} calls at once ({type(self._places.limit).__name__}), {queue}{lag}"

    @property
    def limit(self) -> int:
        """Calls that may be under way at once, at the moment."""
        return self._places.limit.limit

    @property
    def in_flight(self) -> int:
        return self._places.in_flight

    @property
    def queued(self) -> int:
        return self._places.line.size

    def snapshot(self) -> ShedderSnapshot:
        places = self._places
        now, line = places.now(), places.line
        with places.turn:
            return ShedderSnapshot(
                limit=places.limit.limit,
                in_flight=places.in_flight,
                queued={priority: line.length(priority) for priority in Priority},
                waits={priority: line.wait_of(priority, now) for priority in Priority},
                held=line.held,
            )

    # ---- admission -------------------------------------------------------------------------------------------

    def try_admit(self, priority: Priority = Priority.NORMAL, tenant: str | None = None) -> Ticket | None:
        """A ticket if there is room and nothing to be decided; None where it would have to wait, or might be refused.

        It refuses nothing itself: after None, `admit` decides.
        """
        if self._lag is not None and self._lag_risk(priority):
            return None
        return self._places.take()

    def admit(
        self, priority: Priority = Priority.NORMAL, tenant: str | None = None, *, timeout: float | None = None
    ) -> Admitting:
        """Await or enter it. `timeout` is how many seconds the call may wait; LoadShedError if that is too short."""
        return Admitting(functools.partial(self._admit, priority, tenant, timeout))

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        @functools.wraps(function)
        async def admitted(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self.admit():
                return await function(*args, **kwargs)

        return admitted

    async def _admit(self, priority: Priority, tenant: Tenant, timeout: float | None) -> Ticket:
        ticket = self.try_admit(priority, tenant)
        if ticket is not None:
            return ticket
        places = self._places
        now, lag_risk = places.now(), self._lag_risk(priority)
        with places.turn:
            reason, retry_after = self._refusal(priority, tenant, timeout, lag_risk, now), None
            waiter = None if reason else places.enter(priority, tenant, now)
            if reason and reason != "lag":
                retry_after = places.line.expected_wait(priority, tenant)
        places.news.tell()
        if waiter is None:
            self._tell_refused(reason, priority, tenant, 0.0, retry_after)
            raise self._error(reason, retry_after)
        return await self._wait(waiter, timeout)

    def _refusal(self, priority: Priority, tenant: Tenant, timeout: float | None, lag_risk: float, now: float) -> str:
        """Why this call is refused; empty where it is not."""
        if lag_risk and self._clock.random() < lag_risk:
            return "lag"
        places, line = self._places, self._places.line
        if places.in_flight < places.limit.limit:
            return ""
        if timeout is not None and (timeout <= 0 or (line.expected_wait(priority, tenant) or 0.0) > timeout):
            return "deadline"
        risk = line.risk(priority, tenant, now)
        if risk and self._clock.random() < risk:
            return "queue_time"
        if self._max_queue is None or line.size < self._max_queue:
            return ""
        return "" if self._displace(priority, tenant) else "queue_full"

    async def _wait(self, waiter: Waiting, timeout: float | None) -> Ticket:
        late = None if timeout is None else functools.partial(self._late, waiter)
        try:
            ticket = await waiter.wait(self._places.withdraw, seconds=timeout, late=late)
        except LoadShedError as error:  # told here, in the task whose call it is
            waited = self._places.now() - waiter.since
            self._tell_refused(waiter.reason, waiter.priority, waiter.tenant, waited, error.retry_after)
            raise
        if ticket.waited:
            told = {"seconds": ticket.waited, "priority": waiter.priority.name.lower(), "tenant": waiter.tenant}
            tell(self._listener, "shedder_wait", self.name, **told)
        return ticket

    def _displace(self, priority: Priority, tenant: Tenant) -> bool:
        waiter = self._places.line.displace(priority, tenant)
        if waiter is None:
            return False
        self._refuse(waiter, "displaced")
        return True

    def _refuse(self, waiter: Waiting, reason: str) -> None:
        waiter.reason = reason
        waiter.refuse(self._error(reason, self._places.line.expected_wait(waiter.priority, waiter.tenant)))

    def _late(self, waiter: Waiting) -> None:
        """Its time is up."""
        places = self._places
        with places.turn:
            if places.line.remove(waiter):
                self._refuse(waiter, "timeout")
        places.news.tell()

    # ---- telling ---------------------------------------------------------------------------------------------

    def _lag_risk(self, priority: Priority) -> float:
        if self._lag is None or self._max_lag is None or priority < Priority.NORMAL:
            return 0.0
        return risk(self._lag.seconds(), self._max_lag, priority)

    def _error(self, reason: str, retry_after: float | None) -> LoadShedError:
        return LoadShedError(self.name, _MESSAGES[reason], retry_after=retry_after)

    def _tell_refused(
        self, reason: str, priority: Priority, tenant: Tenant, seconds: float, retry_after: float | None
    ) -> None:
        tell(
            self._listener,
            "shedder_refused",
            self.name,
            reason=reason,
            priority=priority.name.lower(),
            tenant=tenant,
            seconds=seconds,
            retry_after=retry_after,
        )


def _loop_lag() -> LoopLag:
    from agentflow.core.robustness.loop_lag import LoopLag  # few shedders look at it

    return LoopLag()
