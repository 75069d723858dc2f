"""Time and randomness as arguments, and a test clock that jumps.

    Clock            what the engine asks: now, wall time, sleep, a random number
    SystemClock      the machine's
    VirtualClock     for tests: a week of back-off passes in a millisecond, and the same seed gives the same run

A test gives its coroutine to `VirtualClock.run`, which runs it on an event loop whose time stands still while there is
work and jumps to the next timer when there is none. Every `asyncio.sleep` and `asyncio.timeout` beneath it follows.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, TypeVarTuple

__all__ = ["Clock", "SystemClock", "VirtualClock", "real_wait"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Clock(Protocol):
    """What the engine knows of time and chance. All times are float seconds."""

    def monotonic(self) -> float:
        """Never goes back; its zero means nothing."""
        ...

    def time(self) -> float:
        """Wall time, seconds since 1970 UTC."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that jumps: `clock.run(main())` returns what `main` returns, in no time at all.

    Waiting for a timer costs nothing. Waiting for a thread is real: while `run_in_executor` has work under way the
    clock stands still, so a thread is never overtaken by a time-out that it would have met in real life. A socket has
    no such protection: it is waited for only where no timer is pending.
    """

    def __init__(self, *, start: float = 1_700_000_000.0, seed: int = 0) -> None:
        self._start = start
        self._now = 0.0
        self._random = random.Random(seed)

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._start + self._now

    def random(self) -> float:
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass without waiting; timers that fall due run at the loop's next turn."""
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds:g})")
        self._now += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a new virtual-time event loop and return its result."""
        with asyncio.Runner(loop_factory=lambda: _VirtualLoop(self)) as runner:
            return runner.run(main)


@contextmanager
def real_wait() -> Iterator[None]:
    """What this code awaits takes real time, as another process's work does: a virtual clock stands still meanwhile."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _VirtualLoop):
        yield
        return
    loop.begin_real_wait()
    try:
        yield
    finally:
        loop.end_real_wait()


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a `VirtualClock`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._real_waits = 0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._clock.monotonic()

    def _jump(self, seconds: float) -> bool:
        """Advance to the next timer, unless a thread or a process is still at work."""
        if self._real_waits:
            return False
        self._clock.advance(seconds)
        return True

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.begin_real_wait()
        future.add_done_callback(self.end_real_wait)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Joining threads is real waiting, too: the limit that Python 3.12 sets on it would be overtaken at once."""
        with real_wait():
            await super().shutdown_default_executor()

    def begin_real_wait(self) -> None:
        self._real_waits += 1

    def end_real_wait(self, _: object = None) -> None:
        self._real_waits -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, it moves the clock there."""

    def __init__(self, jump: Callable[[float], bool]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if ready or self._jump(timeout):
            return ready
        return super().select(None)  # a thread or a process is at work: its result wakes us
