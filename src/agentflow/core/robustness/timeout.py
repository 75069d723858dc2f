"""The time limits of named operations, in one place, and learned from what they take where that is wished.

    timeouts = TimeoutManager({"search": 5.0, "index": 120.0}, default=30.0, adaptive=Adaptive())
    with timeouts.limit("search"):        @timeouts("search")
        await search()                    async def search(…): …

Each is a limit as `limit(seconds, operation)` makes it (time_limit.py, whose names are here, too): it is bounded by
what is around it, and raises OperationTimeoutError. How limits learn is told in adaptive_timeout.py. `Phase` has the
names for the parts of a request.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import partial, wraps
from typing import Any, Final, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.adaptive_timeout import Adaptive, Latencies
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.time_limit import (
    Limit,
    bounded_by_context,
    current_deadline,
    limit,
    remaining,
    remaining_ms,
)
from agentflow.errors import ConfigurationError

__all__ = [
    "Adaptive",
    "Limit",
    "Phase",
    "Phases",
    "TimeoutManager",
    "bounded_by_context",
    "current_deadline",
    "limit",
    "remaining",
    "remaining_ms",
]

R = TypeVar("R")
P = ParamSpec("P")

_CLOCK: Final = SystemClock()
_NO_TIMEOUTS: Final[Mapping[str, float | None]] = {}
_MOST_NAMES: Final = 1_000  # that are learned about; a name made of a user's words must not fill the memory


class Phase(StrEnum):
    """The names of a request's phases."""

    POOL = "pool"
    """the wait for a free connection"""
    CONNECT = "connect"
    """name look-up, TCP, TLS"""
    FIRST_BYTE = "first_byte"
    """from the sent request to the first byte of the answer"""
    IDLE = "idle"
    """the longest silence between two pieces"""
    TOTAL = "total"
    """all of it"""


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds that each phase of a request may take: `TimeoutManager(Phases(connect=10, total=600).timeouts())`."""

    pool: float | None = None
    connect: float | None = None
    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None

    def timeouts(self) -> dict[str, float | None]:
        return asdict(self)


class TimeoutManager:
    """The time limits of named operations, in seconds; None is no limit. `default` is for all other names: without it
    an unknown name is a ConfigurationError.

    With `adaptive` a limit follows what the operation takes, and is never longer than the configured one; None stays no
    limit. A success counts, and a time-out of ours; a caller that leaves, another error, and a nearer limit around
    count as nothing. One manager may serve several threads. Told: `operation_timeout` (operation, seconds).
    """

    __slots__ = ("_adaptive", "_clock", "_default", "_latencies", "_listener", "_lock", "_timeouts", "name")

    def __init__(
        self,
        timeouts: Mapping[str, float | None] = _NO_TIMEOUTS,
        *,
        default: float | None = None,
        adaptive: Adaptive | None = None,
        name: str = "timeouts",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        for operation, seconds in [*timeouts.items(), ("default", default)]:
            if seconds is not None and not seconds > 0:
                raise ValueError(f"timeouts: {operation} is a number of seconds, more than 0, or None, not {seconds!r}")
        self.name = name
        self._timeouts: dict[str, float | None] = dict(timeouts)
        self._default = default
        self._adaptive = adaptive
        self._clock = clock
        self._listener = listener
        self._lock = threading.Lock()
        self._latencies: dict[str, Latencies] = {}

    def seconds(self, operation: str) -> float | None:
        """The limit as it is now; None for no limit."""
        configured = self._configured(operation)
        latencies = self._latencies.get(operation)
        learned = None if latencies is None else latencies.limit()
        return configured if learned is None or configured is None else min(configured, learned)

    def limit(self, operation: str) -> Limit:
        """`with timeouts.limit("search"):` as the function `limit` does."""
        seconds = self.seconds(operation)
        if self._adaptive is None and self._listener is None:
            return Limit(seconds, operation)
        return Limit(seconds, operation, partial(self._ended, self._clock.monotonic()))

    def __call__(self, operation: str) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """As a decorator: each call has the limit of that name."""
        self._configured(operation)

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            @wraps(function)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                with self.limit(operation):
                    return await function(*args, **kwargs)

            return limited

        return decorate

    def observe(self, operation: str, seconds: float) -> None:
        """One call took so long: for work that does not run inside of `limit`. Without effect unless adaptive."""
        if self._configured(operation) is None or self._adaptive is None:
            return
        with self._lock:
            latencies = self._latencies.get(operation)
            if latencies is None:
                if len(self._latencies) >= _MOST_NAMES:
                    del self._latencies[next(iter(self._latencies))]
                latencies = self._latencies[operation] = Latencies(self._adaptive)
            latencies.add(seconds)

    def _ended(self, start: float, block: Limit, success: bool) -> None:
        if block.expired and block.seconds is not None:
            self.observe(block.operation, block.seconds)
            tell(self._listener, "operation_timeout", self.name, operation=block.operation, seconds=block.seconds)
        elif success:
            self.observe(block.operation, self._clock.monotonic() - start)

    def _configured(self, operation: str) -> float | None:
        try:
            return self._timeouts[operation]
        except KeyError:
            if self._default is None:
                raise self._unknown(operation) from None
            return self._default

    def _unknown(self, operation: str) -> ConfigurationError:
        near = get_close_matches(operation, self._timeouts, n=3)
        known = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {sorted(self._timeouts)}"
        return ConfigurationError(f"{self.name}: no time-out for {operation!r}, and no default; {known}")
