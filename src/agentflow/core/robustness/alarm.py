"""One timer for a guard that serves several event loops: it rings on the loop of whoever is first in the queue.

    alarm = Alarm(self._rung)                under the guard's lock: alarm.set(loop, when, now), alarm.clear()
    def _rung(self, ring): ...               on that loop: takes the lock, says alarm.rung(ring), and looks again

A timer belongs to the thread of its loop. From another thread, the loop is asked to look at once, and sets it then.
"""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from contextlib import suppress

from agentflow.core.robustness.waiting import running_loop

__all__ = ["Alarm"]


class Alarm:
    """All methods are called under the guard's lock, and `ring` is called without it."""

    __slots__ = ("_loop", "_ring", "_rings", "_when", "timer")

    def __init__(self, ring: Callable[[int], None]) -> None:
        self._ring = ring
        self._rings = 0  # counted, so that one that comes late does not pass for the next
        self._loop: AbstractEventLoop | None = None
        self._when = math.inf
        self.timer: TimerHandle | None = None

    def set(self, loop: AbstractEventLoop, when: float, now: float) -> None:
        """Ring on that loop at `when`. One that is set for earlier stays: it rings, and is set again."""
        if self._loop is loop and self._when <= when:
            return
        self.clear()
        self._loop = loop
        if running_loop() is loop:
            self._when, self.timer = when, loop.call_later(max(0.0, when - now), self._ring, self._rings)
            return
        self._when = -math.inf
        with suppress(RuntimeError):  # closed just now: the next who comes by sees it
            loop.call_soon_threadsafe(self._ring, self._rings)

    def rung(self, ring: int) -> None:
        """That one has rung, so none is set any more."""
        if ring == self._rings:
            self._forget()

    def clear(self) -> None:
        """Nobody waits for it."""
        loop, timer = self._loop, self.timer
        if loop is None:
            return
        self._forget()
        if timer is not None and running_loop() is loop:
            timer.cancel()
        elif timer is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(timer.cancel)

    def _forget(self) -> None:
        self._rings += 1
        self._loop, self.timer, self._when = None, None, math.inf
