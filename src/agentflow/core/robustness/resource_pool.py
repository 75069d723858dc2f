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

import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener
from agentflow.core.robustness.pool_desk import Desk, PoolSnapshot
from agentflow.core.robustness.pool_lease import Acquiring, Lease
from agentflow.core.robustness.pool_making import Maker
from agentflow.core.robustness.pool_slots import Slots

__all__ = ["Acquiring", "Lease", "PoolSnapshot", "ResourcePool"]

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")

_CLOCK: Final = SystemClock()


class ResourcePool(Generic[R]):
    """See the module. `idle_timeout`, `max_lifetime` and `acquire_timeout` are None for no limit."""

    __slots__ = ("_desk", "name")

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
        waits = _seconds("acquire_timeout", acquire_timeout, least=0.0)
        slots: Slots[R] = Slots(size, _seconds("idle_timeout", idle_timeout))
        doubt_after = _seconds("validate_after", validate_after, least=0.0)
        maker = Maker(
            factory,
            name,
            validate,
            _seconds("validate_timeout", validate_timeout),
            _seconds("max_lifetime", max_lifetime),
            lifetime_jitter,
            clock,
            listener,
        )
        self._desk = Desk(
            slots,
            maker,
            close,
            name=name,
            acquire_timeout=waits,
            doubt_after=math.inf if validate is None else doubt_after,
            discard_on=discard_on,
            trace_leaks=trace_leaks,
            clock=clock,
            listener=listener,
        )

    # ---- what callers do

    def acquire(self, *, timeout: float | None = None) -> Acquiring[R]:
        """`async with` gives a resource, `await` a Lease. `timeout` replaces the pool's `acquire_timeout`; infinite
        waits for ever, and 0 is for what needs no waiting at all."""
        if timeout is not None:
            _seconds("timeout", timeout, least=0.0)
        return Acquiring(self._desk, timeout)

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
        await self._desk.close(seconds)
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
        return self._desk.slots.size

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
        return self._desk.snapshot()


def _seconds(name: str, value: float | None, *, least: float | None = None) -> float:
    """A limit, infinite for None; more than nothing unless `least` allows it."""
    if value is None:
        return math.inf
    if not (value > 0 if least is None else value >= least):
        bound = "more than 0" if least is None else f"{least:g} or more"
        raise ValueError(f"{name} is a number of seconds, {bound}, not {value!r}")
    return value
