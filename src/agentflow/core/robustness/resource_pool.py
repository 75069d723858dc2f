"""A pool of whatever takes long to make: connections, sessions, loaded models.

    pool = ResourcePool(connect, name="database", size=10, close=lambda connection: connection.close())

    async with pool.acquire(timeout=5.0) as connection:      # or: lease = await pool.acquire()
        await connection.send(…)

    acquire ──▶ idle? the last used (after `validate_after` s idle, validated) ──▶ lent ──▶ release ──▶ idle ─┐
        │                                                                       ▲          └▶ closed: too old, │
        ├─────▶ a slot free? made by `factory` ─────────────────────────────────┤             invalidated      │
        └─────▶ wait: whoever came first is served first ───────────────────────┘◀─────────────────────────────┘

Edges:

- A resource belongs to the event loop that it was made on, and is lent, validated and closed there alone. One pool may
  serve several loops in several threads: `size` is their sum, and the queue is one. Where a waiter of one loop is next
  and only resources of other loops are idle, the longest idle of these is closed to make room.
- `size` counts what is lent, idle, or being made. What is being closed no longer counts.
- Made and validated in the task that acquires, outside of any lock. If that fails or is cancelled, the slot goes to the
  next in the queue. What fails its validation, or takes more than `validate_timeout` for it, is closed, and another one
  is made in its place.
- A block that raises gives its resource back like any other, unless the error is one of `discard_on`. For a connection
  that is useless after half an answer: `discard_on=(OSError, asyncio.CancelledError)`.
- A resource is closed in a task of the pool's, which gets ten seconds for it. An error of `close` is told to the
  listener, and harms nobody.
- A lifetime ends while nobody uses the resource: it is looked at when lent and when given back. Each is shorter than
  `max_lifetime` by a random part of up to `lifetime_jitter`, so that those made together do not end together.

Times are seconds. Errors: PoolTimeoutError (also where the time went into making or validating), PoolClosedError, and
whatever the factory raises. Decisions told: `pool_wait` (seconds), `pool_timeout` (seconds, in_use), `pool_created`
(seconds), `pool_closed_resource` (error, and why: idle, lifetime, invalid, invalidated, discard_on, lost, other_loop,
loop_ended or closed).
LIFO reuse, validation after idling and jittered lifetimes are HikariCP's.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.pool_disposal import Disposal, on_loop
from agentflow.core.robustness.pool_lease import Acquiring, Lease, Trace
from agentflow.core.robustness.pool_making import Maker
from agentflow.core.robustness.pool_slots import Claim, Entry, Home, Make, Queued, Slots
from agentflow.core.robustness.turn import Turn
from agentflow.core.robustness.waiting import Waiter
from agentflow.errors import PoolClosedError, PoolTimeoutError

__all__ = ["Acquiring", "Lease", "PoolSnapshot", "ResourcePool"]

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")

_CLOCK: Final = SystemClock()
_SOONEST: Final = 0.001  # a timer that comes a hair too early must not spin
_NOTES: Final = 10


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment. `in_use` is lent, or made or validated for somebody; `closing` comes on top of `size`."""

    name: str
    size: int
    in_use: int
    idle: int
    waiting: int
    closing: int
    closed: bool


class ResourcePool(Generic[R]):
    """See the module. `idle_timeout`, `max_lifetime` and `acquire_timeout` are None for no limit."""

    __slots__ = (
        "_acquire_timeout",
        "_clock",
        "_disposal",
        "_doubt_after",
        "_listener",
        "_lost",
        "_maker",
        "_slots",
        "_traces",
        "_turn",
        "discard_on",
        "name",
    )

    def __init__(
        self,
        factory: Callable[[], Awaitable[R]],
        *,
        name: str = "pool",
        size: int = 10,
        close: Callable[[R], Awaitable[None] | None] | None = None,
        validate: Callable[[R], Awaitable[bool] | bool] | None = None,
        validate_after: float = 5.0,
        validate_timeout: float = 5.0,
        idle_timeout: float | None = 300.0,
        max_lifetime: float | None = 1800.0,
        lifetime_jitter: float = 0.1,
        acquire_timeout: float | None = 30.0,
        discard_on: tuple[type[BaseException], ...] = (),
        trace_leaks: bool = False,
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size is the number of resources, 1 or more, not {size!r}")
        if not 0 <= lifetime_jitter <= 1:
            raise ValueError(f"lifetime_jitter is a share of max_lifetime, from 0 to 1, not {lifetime_jitter!r}")
        self.name = name
        self.discard_on = discard_on
        self._acquire_timeout = _seconds("acquire_timeout", acquire_timeout, least=0.0)
        self._clock = clock
        self._listener = listener
        self._turn = Turn()
        self._slots: Slots[R] = Slots(size, _seconds("idle_timeout", idle_timeout))
        self._lost: deque[tuple[Entry[R], int]] = deque()
        self._traces: dict[Entry[R], Trace] | None = {} if trace_leaks else None
        doubt_after = _seconds("validate_after", validate_after, least=0.0)
        self._doubt_after = math.inf if validate is None else doubt_after
        self._maker = Maker(
            factory,
            name,
            validate,
            _seconds("validate_timeout", validate_timeout),
            _seconds("max_lifetime", max_lifetime),
            lifetime_jitter,
            clock,
            listener,
        )
        self._disposal = Disposal(close, name=name, listener=listener, done=self._disposed)

    # ---- what callers do

    def acquire(self, *, timeout: float | None = None) -> Acquiring[R]:
        """`async with` gives a resource, `await` a Lease. `timeout` replaces the pool's `acquire_timeout`; infinite
        waits for ever, and 0 is for what needs no waiting at all."""
        if timeout is not None:
            _seconds("timeout", timeout, least=0.0)
        return Acquiring(self, timeout)

    def __call__(self, function: Callable[Concatenate[R, P], Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """As a decorator: each call gets a resource as its first argument."""

        @wraps(function)
        async def with_resource(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self.acquire() as resource:
                return await function(resource, *args, **kwargs)

        return with_resource

    async def aclose(self, timeout: float | None = 10.0) -> int:
        """Lend nothing any more, close what is idle, and wait up to `timeout` seconds (None: as long as it takes) for
        what is lent to come back and be closed. Returns how many resources are still lent: each is closed when it comes
        back. Safe to call again. Whoever waits for a resource gets a PoolClosedError."""
        seconds = _seconds("timeout", timeout, least=0.0)
        with self._turn:
            refused = self._slots.close()
            for turn in refused:
                turn.refuse(self._closed_error())
            homes = list(self._slots.homes.values())
        for home in homes:
            on_loop(home.loop, _disarm, home)
        self._bury()
        await self._drain(seconds)
        return self.in_use

    async def __aenter__(self) -> ResourcePool[R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---- what can be seen

    @property
    def summary(self) -> str:
        """What it lends, on one line."""
        return f"{self.name}: at most {self.size} at once"

    @property
    def size(self) -> int:
        return self._slots.size

    @property
    def in_use(self) -> int:
        """Lent, or being made or validated for somebody."""
        return self.snapshot().in_use

    @property
    def idle(self) -> int:
        return self.snapshot().idle

    @property
    def waiting(self) -> int:
        return self.snapshot().waiting

    def snapshot(self) -> PoolSnapshot:
        self._find_lost()
        with self._turn:
            slots = self._slots
            return PoolSnapshot(
                self.name, slots.size, slots.in_use, slots.idle, len(slots.waiting), slots.closing, slots.closed
            )

    # ---- acquiring

    def take_now(self) -> Lease[R] | Claim[R]:
        """For `acquire`: a lease, or what `take_slowly` goes on with, and must."""
        if self._lost:
            self._find_lost()
        loop = asyncio.get_running_loop()
        now = self._clock.monotonic()
        slots, turn = self._slots, self._turn
        turn.lock.acquire()  # by hand, as `with` costs twice as much
        try:
            if slots.closed:
                raise self._closed_error()
            claim = slots.claim(loop, now)
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        if slots.doomed:
            self._bury()
        if isinstance(claim, Entry) and now - claim.idle_since < self._doubt_after:
            return Lease(self, claim) if self._traces is None else self._lend(claim)
        return claim

    async def take_slowly(self, claim: Claim[R], timeout: float | None) -> Lease[R]:
        seconds = self._acquire_timeout if timeout is None else timeout
        deadline = Deadline(None if seconds == math.inf else seconds, "pool", failure=self._late)
        try:
            with deadline:
                if isinstance(claim, Queued):
                    claim = await self._wait(claim)
                return self._lend(await self._ready(claim))
        finally:
            deadline.close()

    async def _wait(self, turn: Queued[R]) -> Entry[R] | Make:
        if self._listener is None:
            return await turn.wait(self._withdraw)
        start = self._clock.monotonic()
        granted = await turn.wait(self._withdraw)
        tell(self._listener, "pool_wait", self.name, seconds=self._clock.monotonic() - start)
        return granted

    async def _ready(self, claim: Entry[R] | Make) -> Entry[R]:
        """A resource that works, in the slot that is ours; the slot goes to the next where there is none."""
        try:
            if isinstance(claim, Entry) and await self._still_works(claim):
                return claim
            return await self._make()
        except BaseException:
            self._end(partial(self._slots.free, self._clock.monotonic()))
            raise

    async def _make(self) -> Entry[R]:
        with self._turn:
            home = self._slots.home(asyncio.get_running_loop())
        entry = await self._maker.make(home)
        if self._slots.closed:
            self._scrap(entry, "closed")
            raise self._closed_error()
        return entry

    async def _still_works(self, entry: Entry[R]) -> bool:
        if self._clock.monotonic() - entry.idle_since < self._doubt_after:
            return True
        works = False
        try:
            works = await self._maker.works(entry)
        finally:  # also where the caller leaves in the midst of it: who knows what is on the wire
            if not works:
                self._scrap(entry, "invalid")
        return works

    def _lend(self, entry: Entry[R]) -> Lease[R]:
        if self._traces is not None:
            self._traces[entry] = Trace(self._clock.monotonic())
        return Lease(self, entry)

    def _withdraw(self, turn: Waiter[Entry[R] | Make]) -> None:
        assert isinstance(turn, Queued)
        self._end(partial(self._slots.withdraw, turn, self._clock.monotonic()), turn.home)

    def _late(self, _: str, seconds: float) -> PoolTimeoutError:
        in_use = self.in_use
        error = PoolTimeoutError(self.name, seconds, in_use=in_use)
        now = self._clock.monotonic()
        with self._turn:
            traces = sorted((self._traces or {}).values(), key=lambda trace: trace.since)
        for trace in traces[:_NOTES]:
            error.add_note(f"one is held for {now - trace.since:.3f} s, and was acquired here:\n{trace}")
        if len(traces) > _NOTES:
            error.add_note(f"{len(traces) - _NOTES} more are held for less long")
        tell(self._listener, "pool_timeout", self.name, seconds=seconds, in_use=in_use)
        return error

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(self.name, "the pool is closed")

    # ---- giving back

    def take_back(self, entry: Entry[R], lending: int, why: str | None) -> None:
        """For leases: the resource is free again. Does not wait for the lock (see turn)."""
        slots, turn, home, now = self._slots, self._turn, entry.home, self._clock.monotonic()
        if turn.lock.locked():
            self._end(partial(self._give_back, entry, lending, why, now), home)
            return
        turn.lock.acquire()
        try:
            self._give_back(entry, lending, why, now)
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        if slots.doomed:
            self._bury()
        if home.idle and entry.expires < home.when:
            on_loop(home.loop, self._arm, home)

    def _give_back(self, entry: Entry[R], lending: int, why: str | None, now: float) -> None:
        if entry.lending != lending:
            return
        entry.lending += 1
        if self._traces is not None:
            self._traces.pop(entry, None)
        self._slots.give_back(entry, why, now)

    def _end(self, action: Callable[[], None], home: Home[R] | None = None) -> None:
        """Do under the lock what gives something back, and what follows from it; without waiting for the lock, which
        this very thread may hold (see turn). In that case the rest is left to the loop."""
        held = self._turn.lock.locked()
        self._turn.soon(action)
        if held:
            self._remind(self._bury if home is None else partial(self._arm, home), home)
            return
        self._bury()
        if home is not None:
            on_loop(home.loop, self._arm, home)

    def _remind(self, what: Callable[[], None], home: Home[R] | None) -> None:
        """Have it called on that home's own loop, or on any."""
        homes = list(self._slots.homes.values()) if home is None else [home]
        for each in homes:
            with suppress(RuntimeError):  # that loop has ended
                each.loop.call_soon_threadsafe(what)
                return

    def lost(self, entry: Entry[R], lending: int) -> str:
        """For leases: one was collected, perhaps by a garbage collection in the midst of our own lock. So it is only
        noted here, and looked at from the loop, or by whoever comes next."""
        trace = None if self._traces is None else self._traces.get(entry)
        self._lost.append((entry, lending))
        for loop in (entry.home.loop, *self._slots.homes):
            with suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(self._find_lost)
                break
        where = "trace_leaks=True tells where it was acquired" if trace is None else f"it was acquired here:\n{trace}"
        return f"a lease of {self.name} was never released; {where}"

    def _find_lost(self) -> None:
        while self._lost:
            try:
                entry, lending = self._lost.popleft()
            except IndexError:  # another thread was faster
                return
            self.take_back(entry, lending, "lost")

    def _scrap(self, entry: Entry[R], why: str) -> None:
        """Close it; its slot stays with us."""
        self._end(partial(self._slots.doom, entry, why))

    # ---- closing

    def _bury(self) -> None:
        """Have the doomed closed, each on its own loop."""
        with self._turn:
            doomed, self._slots.doomed = self._slots.doomed, []
        for entry, why in doomed:
            self._disposal.dispose(entry, why)

    def _disposed(self) -> None:
        with self._turn:
            self._slots.closing -= 1
            self._slots.tell_drains()

    async def _drain(self, seconds: float) -> None:
        waiter: Waiter[None] = Waiter()
        with self._turn:
            if self._slots.is_drained:
                return
            self._slots.drains.add(waiter)
        bound = None if seconds == math.inf else seconds
        await waiter.wait(self._stop_draining, seconds=bound, late=partial(self._enough, waiter))

    def _enough(self, waiter: Waiter[None]) -> None:
        with self._turn:
            if waiter in self._slots.drains:
                self._slots.drains.discard(waiter)
                waiter.grant(None)

    def _stop_draining(self, waiter: Waiter[None]) -> None:
        self._turn.soon(partial(self._slots.drains.discard, waiter))

    # ---- idle resources: one timer of each loop

    def _arm(self, home: Home[R]) -> None:
        now = self._clock.monotonic()
        with self._turn:
            when = self._slots.expire(home, now)
        self._bury()
        if when < home.when:
            _disarm(home)
            home.when = when
            home.timer = home.loop.call_later(max(_SOONEST, when - now), self._ring, home)

    def _ring(self, home: Home[R]) -> None:
        home.timer, home.when = None, math.inf
        self._arm(home)


def _disarm(home: Home[R]) -> None:
    if home.timer is not None:
        home.timer.cancel()
    home.timer, home.when = None, math.inf


def _seconds(name: str, value: float | None, *, least: float | None = None) -> float:
    """A limit, infinite for None; more than nothing unless `least` allows it."""
    if value is None:
        return math.inf
    if not (value > 0 if least is None else value >= least):
        bound = "more than 0" if least is None else f"{least:g} or more"
        raise ValueError(f"{name} is a number of seconds, {bound}, not {value!r}")
    return value
