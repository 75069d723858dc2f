"""A rate limiter whose levels lie in the store: all processes together keep the limit. Core's face, one call each.

    limiter = store.limiter("openai/gpt-4o", requests_per_minute=500, tokens_per_minute=30_000, concurrency=20)
    async with limiter.reserve(input_tokens=900, output_tokens=400, timeout=30) as reservation:
        answer = await call()
        reservation.settle(input_tokens=answer.input, output_tokens=answer.output)

        tasks of a process, in order        the store                          what is granted
        ▪ ▪ ▪ ▪ ──▶ the first asks ──▶  levels, leases, and who waits  ──▶  a reservation with a lease
                     ◀── "come back in 0.3 s" ──┘   (one per process)

Within a process nobody overtakes. Across processes the first of each wait in a queue in the store, by when they first
asked; one that does not come back when it was told to (give or take a second) loses its place. So a grant without
waiting is one call; waiting for a rate costs about one a second, waiting for a slot one every 50 ms.

A reservation has a lease, which its process renews. If the process dies, its slots come back `lease` seconds later, and
its tokens count as they were estimated. Settling is queued and applied once, however often it is sent.

While the store is away each process goes by its share (share.py). Raised is LimiterError, as by core's RateLimiter; the
time-out of a caller behind others of its own process is only seen when it is over.

The listener hears `limiter_wait` (seconds, shared), `limiter_refused` (reason, retry_after, shared) and
`limiter_drained` (seconds); `shared` is False for what was decided without the store.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar

from agentflow.core.robustness.buckets import QUANTITIES, Need, ServerLimits
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.turn import Turn
from agentflow.errors import LimiterError
from agentflow.integrations.valkey.lane import Lane
from agentflow.integrations.valkey.levels import Levels
from agentflow.integrations.valkey.remote import Argument, Message, Remote
from agentflow.integrations.valkey.reservation import SharedReservation, SharedReserving
from agentflow.integrations.valkey.scripts import ADJUST, FINISH, TAKE, Script
from agentflow.integrations.valkey.share import Share

__all__ = ["ValkeyRateLimiter"]

P = ParamSpec("P")
R = TypeVar("R")

_NAP: Final = 1.0  # seconds after which a waiter asks again at the latest: what is given back makes it earlier
_NO_END: Final = 1e12  # seconds; infinite, for a script
_UNTOUCHED: Final = 1e15  # a level that no bucket reaches
_NOTHING: Final[Need] = (0, 0, 0, 0)
_ids = itertools.count(1)


class ValkeyRateLimiter:
    """Made by `ValkeyStore.limiter`. It serves any number of event loops and threads."""

    def __init__(
        self,
        remote: Remote,
        key: str,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        concurrency: int | None = None,
        burst: float = 1.0,
        on_limit: Literal["wait", "raise"] = "wait",
        listener: Listener | None = None,
    ) -> None:
        RateLimiter(  # refuses what cannot be, in the same words
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            input_tokens_per_minute=input_tokens_per_minute,
            output_tokens_per_minute=output_tokens_per_minute,
            concurrency=concurrency,
            burst=burst,
            on_limit=on_limit,
        )
        self._remote = remote
        self._name = key
        self._rates = (requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute)
        self._burst = burst
        self._concurrency = concurrency
        self._waits = on_limit == "wait"
        self._listener = listener
        self._keys = remote.keys("limit", key, "levels", "leases", "queue", "needs")
        self._levels = Levels(self._rates, burst)
        self._me = uuid.uuid4().hex[:16]
        self._in_use = 0
        self._last: Need = (1, 0, 0, 0)
        self._drained_until = -math.inf
        self._share: Share | None = None  # while the store is away
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
        self._turn = Turn()
        remote.when_back(self._came_back)

    def __repr__(self) -> str:
        return f"<shared limiter {self._name}: {self.summary}>"

    @property
    def summary(self) -> str:
        """Its limits, in words."""
        slots = f"{self._concurrency} at a time" if self._concurrency else ""
        return ", ".join(part for part in (str(self._levels), slots, "shared") if part)

    # ---- taking

    def try_reserve(self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Always None: what several processes share cannot be taken without asking."""
        return None

    def reserve(
        self,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        tokens: int = 0,
        timeout: float | None = None,
    ) -> SharedReserving:
        """Take it when it is there: `await` it, or `async with` it. `tokens` is a short word for input tokens.

        `timeout` is how long the caller may wait, in seconds.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is 0 or more seconds, not {timeout:g}")
        if min(requests, input_tokens, output_tokens, tokens) < 0:
            raise ValueError(
                f"amounts are 0 or more, not {requests} requests, {input_tokens + tokens} + {output_tokens} tokens"
            )
        asked = input_tokens + tokens
        return SharedReserving(self._take, (requests, asked + output_tokens, asked, output_tokens), timeout)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Limit the calls of an async function; each is one request."""

        @wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self.reserve():
                return await function(*args, **kwargs)

        return limited

    # ---- the provider's word

    def observe(self, limits: ServerLimits) -> None:
        """An answer said how much is left: every process is told, where this limiter counts that quantity."""
        left = {quantity: remaining for quantity, remaining, _ in limits.each()}
        if not self._levels.counts(list(left)):
            return
        with self._turn:
            if self._share is not None:
                self._share.observe(limits, self._now())
        levels = [left.get(quantity, _UNTOUCHED) for quantity in range(len(QUANTITIES))]
        self._adjust("left", lambda: 0.0, levels)

    def drain(self, seconds: float) -> None:
        """The provider refused a call, and wants to be left alone for so long: no process is granted anything until
        then. This one knows at once, the others when the queued message has arrived."""
        wait = min(seconds, 86_400.0) if seconds > 0 else 0.0  # NaN is no wait
        now = self._now()
        with self._turn:
            until = self._drained_until = max(self._drained_until, now + wait)
            if self._share is not None:
                self._share.drain(wait, now)
            last = self._last
        self._adjust("drain", lambda: max(0.0, until - self._now()), [max(1, amount) for amount in last])
        tell(self._listener, "limiter_drained", self._name, seconds=until - now)

    # ---- looking

    @property
    def name(self) -> str:
        return self._name

    @property
    def counts_tokens(self) -> bool:
        return any(rate is not None for rate in self._rates[1:])

    @property
    def waiting(self) -> int:
        """How many of this process wait."""
        return sum(lane.waiting for lane in list(self._lanes.values()))

    @property
    def in_use(self) -> int:
        """How many reservations of this process are neither settled nor cancelled."""
        return self._in_use

    # ---- the first of each event loop asks

    async def _take(self, need: Need, timeout: float | None) -> SharedReservation:
        self._refuse_impossible(need)
        begun = self._now()
        ends = math.inf if timeout is None else begun + timeout
        lane = self._lane()
        waited = await lane.turn(timeout, lambda: self._refused("late", "still not its turn", None))
        try:
            reservation, slept = await self._first(lane, need, ends)
        finally:
            lane.next()
        if waited or slept:
            reservation.waited = self._now() - begun
            tell(
                self._listener, "limiter_wait", self._name, seconds=reservation.waited, shared=reservation.share is None
            )
        return reservation

    async def _first(self, lane: Lane, need: Need, ends: float) -> tuple[SharedReservation, bool]:
        """Ask until it is granted. Also: whether it was ever told to wait."""
        holder, slept = self._new_holder(), False
        try:
            while True:
                left = max(0.0, ends - self._now())
                patience = left if self._waits else 0.0
                wait, share = await self._decide(holder, need, patience)
                if share is not None:
                    holder = self._new_holder()  # what the old one may have got is being undone
                if wait <= 0:
                    return self._granted(holder, need, share), slept
                if wait > patience:
                    raise self._too_long(wait, patience, shared=share is None)
                slept = True
                await lane.pause(min(wait, _NAP, left))
        except BaseException:
            if slept:
                self._send(FINISH, lambda: (holder,))  # out of the queue
            raise

    async def _decide(self, holder: str, need: Need, patience: float) -> tuple[float, Share | None]:
        """0.0 where it is granted, else how long it will be; and whose share was asked, where the store was not."""
        drained = self._drained_until - self._now()
        if drained > 0:
            return drained, None
        answer = await self._ask(holder, need, patience)
        if answer is None:
            return self._take_share(need)
        return (0.0 if answer[0] == 1 else max(0.001, float(answer[1]))), None

    async def _ask(self, holder: str, need: Need, patience: float) -> Sequence[Any] | None:
        remote = self._remote
        arguments = [
            holder,
            remote.lease,
            self._concurrency or 0,
            min(patience, _NO_END),
            _NAP,
            *self._levels.groups(need),
        ]
        answer: Sequence[Any] | None = await remote.ask(
            TAKE, self._keys, arguments, undo=lambda: self._send(FINISH, lambda: (holder, *self._levels.groups(need)))
        )
        return answer

    def _take_share(self, need: Need) -> tuple[float, Share]:
        now = self._now()
        with self._turn:
            if self._share is None:
                self._share = Share(self._rates, self._burst, self._concurrency, self._remote.replicas, now)
            share, wait = self._share, self._share.take(need, self._in_use, now)
            if wait <= 0:
                self._in_use += 1
        return wait, share

    def _granted(self, holder: str, need: Need, share: Share | None) -> SharedReservation:
        with self._turn:
            self._in_use += share is None  # a share has counted it already
            self._last = need
        if share is None or self._concurrency is not None:
            self._remote.hold(self._keys[1], holder, often=self._concurrency is not None)
        return SharedReservation(self._close, holder, need, share)

    # ---- the end of a reservation

    def _close(self, reservation: SharedReservation, change: Need) -> None:
        """Only the first counts. `change` is what was used beyond the estimate. Never waits for the lock (see turn)."""
        self._turn.soon(partial(self._end, reservation, change))

    def _end(self, reservation: SharedReservation, change: Need) -> None:
        if reservation.closed:
            return
        reservation.closed = True
        self._in_use -= 1
        if reservation.share is not None and reservation.share is self._share:
            reservation.share.settle(change, self._now())
        self._remote.let_go(reservation.holder)
        back: Sequence[Argument] = ()
        if reservation.share is None and change != _NOTHING:
            back = self._levels.groups((-change[0], -change[1], -change[2], -change[3]))
        frees = self._concurrency is not None or min(change) < 0
        if reservation.share is None or self._concurrency is not None:
            self._send(FINISH, lambda: (reservation.holder, *back), sent=self._poke if frees else None)
        if frees and not self._remote.up:
            self._poke()

    def _came_back(self) -> None:
        """The store is there again: it hears what was used without it, and whoever waits asks it."""
        with self._turn:
            share, self._share = self._share, None
        if share is not None and max(share.used) > 0:
            self._adjust("used", lambda: 0.0, [max(0, amount) for amount in share.used])
        self._poke()

    def _poke(self) -> None:
        for lane in list(self._lanes.values()):
            lane.poke()

    # ---- small things

    def _now(self) -> float:
        return self._remote.clock.monotonic()

    def _new_holder(self) -> str:
        return f"{self._me}-{next(_ids)}"

    def _lane(self) -> Lane:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            for other, old in list(self._lanes.items()):
                if old.is_over:
                    self._lanes.pop(other, None)
            lane = self._lanes[loop] = Lane(loop)
        return lane

    def _send(
        self, script: Script, arguments: Callable[[], Sequence[Argument]], *, sent: Callable[[], None] | None = None
    ) -> None:
        self._remote.send(Message(script, self._keys, arguments, sent))

    def _adjust(self, mode: str, seconds: Callable[[], float], amounts: Sequence[float]) -> None:
        groups = self._levels.groups(amounts)
        self._send(ADJUST, lambda: (mode, seconds(), *groups))

    def _refuse_impossible(self, need: Need) -> None:
        message = self._levels.too_much(need)
        if message is not None:
            error = self._refused("capacity", message, None)
            error.retryable = False
            raise error

    def _too_long(self, wait: float, patience: float, *, shared: bool) -> LimiterError:
        if not self._waits:
            return self._refused("on_limit", "it would have to wait, and must not", wait, shared=shared)
        message = f"the wait would be {wait:.3g} s, and only {patience:.3g} s are left"
        return self._refused("timeout", message, wait, shared=shared)

    def _refused(self, reason: str, message: str, retry_after: float | None, *, shared: bool = True) -> LimiterError:
        tell(self._listener, "limiter_refused", self._name, reason=reason, retry_after=retry_after, shared=shared)
        return LimiterError(self._name, message, retry_after=retry_after)
