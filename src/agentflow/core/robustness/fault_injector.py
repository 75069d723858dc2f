"""Faults on purpose: latency, errors and cut streams, the same ones for the same seed. For tests of what uses us.

    faults = FaultInjector(seed=7, error_rate=0.2, latency=(0.1, 2.0), latency_rate=0.5)

    await faults.before()                                   a wait, an error, or nothing
    async for chunk in faults.stream(chunks): …             may break off in the middle
    async with faults: …                                    the same as `before`, around a block
    @faults                                                 …, around an async function

Each call draws from the seed by its number: the third call meets the same fault in every run, whatever the others do
meanwhile. (As Polly's chaos strategies do, faults stand inside the pipeline, so that all its guards meet them.)
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from threading import Lock
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeAlias, TypeVar, runtime_checkable

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener, tell
from agentflow.errors import OverloadedError, StreamInterruptedError

__all__ = ["ErrorFactory", "FaultInjector", "Latency"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Latency: TypeAlias = float | tuple[float, float] | Callable[[float], float]
"""Seconds, a range of them, or a function of a number in [0, 1)."""

ErrorFactory: TypeAlias = Callable[[], BaseException]
"""Makes a new error each time; an exception class that needs no arguments is one."""

_CLOCK: Final = SystemClock()


def _overloaded() -> Exception:
    return OverloadedError("injected: the server is overloaded", status=503)


def _cut() -> Exception:
    return StreamInterruptedError("injected: the stream was cut", partial="")


class FaultInjector:
    """`latency_rate`, `error_rate` and `cut_rate` are shares of calls, 0 to 1.

    One of `error`, drawn by chance, is raised by `before`; a stream is cut after 0 to `cut_after` chunks, with one of
    `cut_error`. The latency comes first, so a call may be slow and fail. With `enabled` False nothing happens and no
    number is used up; it may be switched at any time.
    """

    __slots__ = (
        "_calls",
        "_clock",
        "_cut_after",
        "_cut_error",
        "_cut_rate",
        "_error",
        "_error_rate",
        "_latency",
        "_latency_rate",
        "_listener",
        "_lock",
        "_seed",
        "enabled",
        "name",
    )

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: Latency = 0.0,
        latency_rate: float | None = None,
        error: ErrorFactory | Sequence[ErrorFactory] = _overloaded,
        error_rate: float = 0.0,
        cut_rate: float = 0.0,
        cut_after: int = 10,
        cut_error: ErrorFactory | Sequence[ErrorFactory] = _cut,
        enabled: bool = True,
        name: str = "faults",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        self._seed = seed
        self._latency = _drawn(latency)
        # Whoever names a latency wants it, always, unless a rate is given.
        self._latency_rate = _share("latency_rate", float(latency != 0) if latency_rate is None else latency_rate)
        self._error = _factories("error", error)
        self._error_rate = _share("error_rate", error_rate)
        self._cut_rate = _share("cut_rate", cut_rate)
        if cut_after < 0:
            raise ValueError(f"cut_after is chunks, 0 or more, not {cut_after}")
        self._cut_after = cut_after
        self._cut_error = _factories("cut_error", cut_error)
        self.enabled = enabled
        self.name = name
        self._clock = clock
        self._listener = listener
        self._lock = Lock()
        self._calls = 0

    @property
    def summary(self) -> str:
        """In a few words."""
        shares = {"slow": self._latency_rate, "failing": self._error_rate, "cut": self._cut_rate}
        told = ", ".join(f"{share:.0%} {what}" for what, share in shares.items() if share) or "none"
        return told if self.enabled else f"{told} (switched off)"

    async def before(self) -> None:
        """What happens before a call: a wait, an error, both or nothing."""
        if not self.enabled:
            return
        draw = self._next()
        slow, much, failing = draw() < self._latency_rate, draw(), draw() < self._error_rate
        error = self._error[int(draw() * len(self._error))]
        seconds = self._latency(much) if slow else 0.0
        if seconds > 0:
            self._tell("latency", seconds=seconds)
            await self._clock.sleep(seconds)
        if failing:
            raise self._told(error())

    def stream(self, chunks: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The chunks, perhaps broken off. The source is closed with it, however it ends."""
        draw = self._next() if self.enabled else None
        if draw is None or draw() >= self._cut_rate:
            return self._passed(chunks, None, self._cut_error[0])
        last = int(draw() * (self._cut_after + 1))
        return self._passed(chunks, last, self._cut_error[int(draw() * len(self._cut_error))])

    async def _passed(self, chunks: AsyncIterator[T], last: int | None, error: ErrorFactory) -> AsyncGenerator[T, None]:
        """A stream that is shorter than `last` chunks is cut at its end, instead of ending well."""
        count = 0
        try:
            while last is None or count < last:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                yield chunk
                count += 1
            if last is not None:
                raise self._told(error(), chunks=count)
        finally:
            if isinstance(chunks, _Closable):
                await chunks.aclose()

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The async function, with faults before it."""

        @wraps(function)
        async def faulty(*args: P.args, **kwargs: P.kwargs) -> R:
            await self.before()
            return await function(*args, **kwargs)

        return faulty

    async def __aenter__(self) -> FaultInjector:
        await self.before()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _next(self) -> Callable[[], float]:
        """Numbers in [0, 1) for the next call."""
        with self._lock:
            self._calls += 1
            return random.Random(f"{self._seed}/{self._calls}").random

    def _told(self, error: BaseException, **data: object) -> BaseException:
        self._tell("error" if not data else "cut", error=type(error).__name__, **data)
        return error

    def _tell(self, fault: str, **data: object) -> None:
        tell(self._listener, "fault_injected", self.name, fault=fault, **data)


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share of calls from 0 to 1, not {value}")
    return value


def _drawn(latency: Latency) -> Callable[[float], float]:
    if isinstance(latency, tuple):
        low, high = latency
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"latency is a range of seconds from low to high, 0 or more, not {latency}")
        return lambda chance: low + chance * (high - low)
    if callable(latency):
        return latency
    if not 0 <= latency < math.inf:
        raise ValueError(f"latency is finite seconds, 0 or more, not {latency}")
    return lambda _: latency


def _factories(name: str, made: ErrorFactory | Sequence[ErrorFactory]) -> Sequence[ErrorFactory]:
    factories = (made,) if callable(made) else tuple(made)
    if not factories or not all(callable(each) for each in factories):
        raise TypeError(f"{name} is a function that makes an error, or several, not {made!r}")
    return factories
