"""One caller that waits its turn: woken on its own event loop, and nothing is lost if it leaves.

    waiter = Waiter()                     queue.append(waiter), under the owner's lock
    await waiter.wait(withdraw)           ◀── the owner, from any thread: waiter.grant(value) or waiter.refuse(error)

A guard may serve several event loops and threads at once, so a grant travels to the loop that waits for it. A waiter
that is cancelled after its grant hands it back: `withdraw` is called, looks at `waiter.granted`, and passes it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

__all__ = ["Waiter", "running_loop"]

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, None where none runs."""
    return asyncio._get_running_loop()


class Waiter(Generic[T]):
    """Made on the loop that waits. `grant` and `refuse` are the owner's, under its lock, and each at most once."""

    __slots__ = ("_error", "_future", "_loop", "_timer", "granted", "refused", "value")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self.granted = False
        self.refused = False
        self.value: T | None = None

    def grant(self, value: T) -> bool:
        """Give it `value`. False where its event loop is gone, so that nobody would take it."""
        self.granted, self.value = True, value
        if self._wake():
            return True
        self.granted, self.value = False, None
        return False

    def refuse(self, error: BaseException) -> None:
        """`wait` raises this. Without effect once granted or refused."""
        if not self.granted and not self.refused:
            self.refused, self._error = True, error
            self._wake()

    async def wait(
        self,
        withdraw: Callable[[Waiter[T]], None],
        *,
        seconds: float | None = None,
        late: Callable[[], None] | None = None,
    ) -> T:
        """What was granted. After `seconds`, `late` is called once on this loop; most often it refuses.

        `withdraw` is called where the caller leaves with nothing (cancelled or refused): the owner takes the waiter out
        of its queue, or back what it had granted. It takes the owner's lock itself.
        """
        if seconds is not None and late is not None:
            self._timer = self._loop.call_later(max(0.0, seconds), late)
        try:
            await self._future
            if self._error is not None:
                raise self._error
        except BaseException:
            withdraw(self)
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._error = None
        return cast("T", self.value)

    def _wake(self) -> bool:
        if running_loop() is self._loop:
            self._finish()
            return True
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:  # the loop is closed, with its tasks
            return False
        return True

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
