"""The counter of a pool: lends, takes back, and has closed what is too old or broken. The pool is its public face.

    lease = desk.take_now()                        or a claim, with which `await desk.take_slowly(claim, …)` goes on
    desk.take_back(entry, lending, why)            from any thread; never waits for the lock (see turn)

What is made, validated and closed is so outside of the lock, on the event loop that it belongs to.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from agentflow.clock import Clock
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.pool_disposal import Disposal, on_loop
from agentflow.core.robustness.pool_lease import Lease, Trace
from agentflow.core.robustness.pool_making import Maker
from agentflow.core.robustness.pool_slots import Claim, Entry, Home, Make, Queued, Slots
from agentflow.core.robustness.turn import Turn
from agentflow.core.robustness.waiting import Waiter
from agentflow.errors import PoolClosedError, PoolTimeoutError

__all__ = ["Desk", "PoolSnapshot"]

R = TypeVar("R")

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


class Desk(Generic[R]):
    """What leases see of the pool. Times are seconds, infinite for no limit."""

    __slots__ = (
        "_acquire_timeout",
        "_clock",
        "_disposal",
        "_doubt_after",
        "_listener",
        "_lost",
        "_maker",
        "_name",
        "_traces",
        "discard_on",
        "slots",
        "turn",
    )

    def __init__(
        self,
        slots: Slots[R],
        maker: Maker[R],
        close: Callable[[R], Awaitable[None] | None] | None,
        *,
        name: str,
        acquire_timeout: float,
        doubt_after: float,
        discard_on: tuple[type[BaseException], ...],
        trace_leaks: bool,
        clock: Clock,
        listener: Listener | None,
    ) -> None:
        self.slots = slots
        self.turn = Turn()
        self.discard_on = discard_on
        self._maker = maker
        self._disposal = Disposal(close, name=name, listener=listener, done=self._disposed)
        self._name = name
        self._acquire_timeout = acquire_timeout
        self._doubt_after = doubt_after  # so long after its last use it is validated
        self._traces: dict[Entry[R], Trace] | None = {} if trace_leaks else None
        self._lost: deque[tuple[Entry[R], int]] = deque()
        self._clock = clock
        self._listener = listener

    def snapshot(self) -> PoolSnapshot:
        self._find_lost()
        with self.turn:
            slots = self.slots
            return PoolSnapshot(
                self._name, slots.size, slots.in_use, slots.idle, len(slots.waiting), slots.closing, slots.closed
            )

    async def close(self, seconds: float) -> None:
        """Lend nothing any more, and wait for so long for what is lent."""
        with self.turn:
            refused = self.slots.close()
            for turn in refused:
                turn.refuse(self._closed_error())
            homes = list(self.slots.homes.values())
        for home in homes:
            on_loop(home.loop, _disarm, home)
        self._bury()
        await self._drain(seconds)

    # ---- acquiring

    def take_now(self) -> Lease[R] | Claim[R]:
        """For `acquire`: a lease, or what `take_slowly` goes on with, and must."""
        if self._lost:
            self._find_lost()
        loop = asyncio.get_running_loop()
        now = self._clock.monotonic()
        slots, turn = self.slots, self.turn
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
        tell(self._listener, "pool_wait", self._name, seconds=self._clock.monotonic() - start)
        return granted

    async def _ready(self, claim: Entry[R] | Make) -> Entry[R]:
        """A resource that works, in the slot that is ours; the slot goes to the next where there is none."""
        try:
            if isinstance(claim, Entry) and await self._still_works(claim):
                return claim
            return await self._make()
        except BaseException:
            self._end(partial(self.slots.free, self._clock.monotonic()))
            raise

    async def _make(self) -> Entry[R]:
        with self.turn:
            home = self.slots.home(asyncio.get_running_loop())
        entry = await self._maker.make(home)
        if self.slots.closed:
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
        self._end(partial(self.slots.withdraw, turn, self._clock.monotonic()), turn.home)

    def _late(self, _: str, seconds: float) -> PoolTimeoutError:
        in_use = self.snapshot().in_use
        error = PoolTimeoutError(self._name, seconds, in_use=in_use)
        now = self._clock.monotonic()
        with self.turn:
            traces = sorted((self._traces or {}).values(), key=lambda trace: trace.since)
        for trace in traces[:_NOTES]:
            error.add_note(f"one is held for {now - trace.since:.3f} s, and was acquired here:\n{trace}")
        if len(traces) > _NOTES:
            error.add_note(f"{len(traces) - _NOTES} more are held for less long")
        tell(self._listener, "pool_timeout", self._name, seconds=seconds, in_use=in_use)
        return error

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(self._name, "the pool is closed")

    # ---- giving back

    def take_back(self, entry: Entry[R], lending: int, why: str | None) -> None:
        """For leases: the resource is free again. Does not wait for the lock (see turn)."""
        slots, turn, home, now = self.slots, self.turn, entry.home, self._clock.monotonic()
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
        self.slots.give_back(entry, why, now)

    def _end(self, action: Callable[[], None], home: Home[R] | None = None) -> None:
        """Do under the lock what gives something back, and what follows from it; without waiting for the lock, which
        this very thread may hold (see turn). In that case the rest is left to the loop."""
        held = self.turn.lock.locked()
        self.turn.soon(action)
        if held:
            self._remind(self._bury if home is None else partial(self._arm, home), home)
            return
        self._bury()
        if home is not None:
            on_loop(home.loop, self._arm, home)

    def _remind(self, what: Callable[[], None], home: Home[R] | None) -> None:
        """Have it called on that home's own loop, or on any."""
        homes = list(self.slots.homes.values()) if home is None else [home]
        for each in homes:
            with suppress(RuntimeError):  # that loop has ended
                each.loop.call_soon_threadsafe(what)
                return

    def lost(self, entry: Entry[R], lending: int) -> str:
        """For leases: one was collected, perhaps by a garbage collection in the midst of our own lock. So it is only
        noted here, and looked at from the loop, or by whoever comes next."""
        trace = None if self._traces is None else self._traces.get(entry)
        self._lost.append((entry, lending))
        for loop in (entry.home.loop, *self.slots.homes):
            with suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(self._find_lost)
                break
        where = "trace_leaks=True tells where it was acquired" if trace is None else f"it was acquired here:\n{trace}"
        return f"a lease of {self._name} was never released; {where}"

    def _find_lost(self) -> None:
        while self._lost:
            try:
                entry, lending = self._lost.popleft()
            except IndexError:  # another thread was faster
                return
            self.take_back(entry, lending, "lost")

    def _scrap(self, entry: Entry[R], why: str) -> None:
        """Close it; its slot stays with us."""
        self._end(partial(self.slots.doom, entry, why))

    # ---- closing

    def _bury(self) -> None:
        """Have the doomed closed, each on its own loop."""
        with self.turn:
            doomed, self.slots.doomed = self.slots.doomed, []
        for entry, why in doomed:
            self._disposal.dispose(entry, why)

    def _disposed(self) -> None:
        with self.turn:
            self.slots.closing -= 1
            self.slots.tell_drains()

    async def _drain(self, seconds: float) -> None:
        waiter: Waiter[None] = Waiter()
        with self.turn:
            if self.slots.is_drained:
                return
            self.slots.drains.add(waiter)
        bound = None if seconds == math.inf else seconds
        await waiter.wait(self._stop_draining, seconds=bound, late=partial(self._enough, waiter))

    def _enough(self, waiter: Waiter[None]) -> None:
        with self.turn:
            if waiter in self.slots.drains:
                self.slots.drains.discard(waiter)
                waiter.grant(None)

    def _stop_draining(self, waiter: Waiter[None]) -> None:
        self.turn.soon(partial(self.slots.drains.discard, waiter))

    # ---- idle resources: one timer of each loop

    def _arm(self, home: Home[R]) -> None:
        now = self._clock.monotonic()
        with self.turn:
            when = self.slots.expire(home, now)
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
