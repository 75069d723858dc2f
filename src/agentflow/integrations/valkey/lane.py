"""The waiters of one event loop, one behind the other: the first asks the store, the rest wait for their turn.

    await lane.turn(seconds, late)      nothing to wait for, or in the order of coming
    await lane.pause(seconds)           the first sleeps until it may ask again, or is poked
    lane.next()                         the first is done, however it ended

All of it happens on one event loop, except `poke`, which may be called from any thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from agentflow.core.robustness.waiting import Waiter, running_loop

__all__ = ["Lane"]


class Lane:
    __slots__ = ("_busy", "_loop", "_sleeper", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy = False
        self._waiters: OrderedDict[Waiter[None], None] = OrderedDict()
        self._sleeper: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._loop.is_closed()

    @property
    def waiting(self) -> int:
        return len(self._waiters) + (self._sleeper is not None)

    async def turn(self, seconds: float | None, late: Callable[[], Exception]) -> bool:
        """Wait for one's turn; whether it had to wait. After `seconds`, what `late` makes is raised."""
        if not self._busy:
            self._busy = True
            return False
        waiter: Waiter[None] = Waiter()
        self._waiters[waiter] = None
        await waiter.wait(self._withdraw, seconds=seconds, late=lambda: waiter.refuse(late()))
        return True

    def next(self) -> None:
        """Hand the turn on."""
        if self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.grant(None)
        else:
            self._busy = False

    async def pause(self, seconds: float) -> None:
        """Sleep for so long, or until poked."""
        self._sleeper = sleeper = self._loop.create_future()
        timer = self._loop.call_later(seconds, _finish, sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleeper = None

    def poke(self) -> None:
        """Have the first ask again now."""
        sleeper = self._sleeper
        if sleeper is None:
            return
        if running_loop() is self._loop:
            _finish(sleeper)
        else:
            with suppress(RuntimeError):  # its loop is closed
                self._loop.call_soon_threadsafe(_finish, sleeper)

    def _withdraw(self, waiter: Waiter[None]) -> None:
        if waiter.granted:
            self.next()
        else:
            self._waiters.pop(waiter, None)


def _finish(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
