"""One hedged call: its requests run against each other, until one of them has won or all have failed.

    value = await Race(hedge, function, close, on_loser).run(delay)

Whatever loses has ended, and what it opened is closed, before `run` returns; one that does not heed its cancellation is
left alone after a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from agentflow.core.robustness.notes import add_notes, brief

__all__ = ["Loser", "Race", "Starter"]

R = TypeVar("R")

_GRACE: Final = 1.0  # seconds in which a cancelled request has to end


@dataclass(frozen=True, slots=True)
class Loser:
    """A request that was sent for nothing: its `number` (1 is the first), and the `seconds` it ran. It may have
    cost money."""

    number: int
    seconds: float


class Starter(Protocol):
    """What a race asks of its hedge."""

    max_hedges: int

    def try_spend(self) -> bool:
        """Whether one more request may be sent."""
        ...

    def tell(self, kind: str, **data: object) -> None: ...

    def now(self) -> float: ...


class _Leg(Generic[R]):
    """One of the requests. `ending`: it came too late, and closes what it has opened."""

    __slots__ = ("began", "ending", "number", "task", "value")

    task: asyncio.Task[None]
    value: R

    def __init__(self, number: int, began: float) -> None:
        self.number = number
        self.began = began
        self.ending = False


class Race(Generic[R]):
    """One call. Who wins is settled in the request's own task, synchronously, so that there is never more than one."""

    __slots__ = ("_close", "_function", "_hedge", "_legs", "_on_loser", "_winner")

    def __init__(
        self,
        hedge: Starter,
        function: Callable[[], Awaitable[R]],
        close: Callable[[R], Awaitable[None]] | None,
        on_loser: Callable[[Loser], None] | None,
    ) -> None:
        self._hedge = hedge
        self._function = function
        self._close = close
        self._on_loser = on_loser
        self._legs: list[_Leg[R]] = []
        self._winner: _Leg[R] | None = None

    async def run(self, delay: float) -> R:
        try:
            await self._decide(delay)
            if len(self._legs) > 1 and self._winner is not None:
                self._hedge.tell("hedge_won", number=self._winner.number)
            await self._end_others()
            if self._winner is None:
                raise self._failure()
            return self._winner.value
        except asyncio.CancelledError:
            await self._abandon()
            raise
        finally:
            for leg in self._legs:
                del leg.task  # it knows its error, which knows the frames that know the leg
            self._legs.clear()

    async def _decide(self, delay: float) -> None:
        """Until one has won, or all have failed."""
        loop = asyncio.get_running_loop()
        next_hedge = loop.time() + delay
        self._start()
        while self._winner is None and (running := self._running()):
            may_hedge = len(self._legs) <= self._hedge.max_hedges
            timeout = max(0.0, next_hedge - loop.time()) if may_hedge else None
            done, _ = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                next_hedge += delay if self._try_hedge(delay) else math.inf

    def _try_hedge(self, delay: float) -> bool:
        if not self._hedge.try_spend():
            return False
        self._start()
        self._hedge.tell("hedge", number=len(self._legs), after=delay)
        return True

    def _start(self) -> None:
        leg: _Leg[R] = _Leg(len(self._legs) + 1, self._hedge.now())
        leg.task = asyncio.get_running_loop().create_task(self._ask(leg))
        leg.task.add_done_callback(_look)
        self._legs.append(leg)

    async def _ask(self, leg: _Leg[R]) -> None:
        try:
            value = await self._function()
            if self._winner is None:
                self._winner = leg
                leg.value = value
            elif self._close is not None:
                leg.ending = True
                await self._close(value)
        finally:
            if self._winner is not None and self._winner is not leg and self._on_loser is not None:
                with suppress(Exception):
                    self._on_loser(Loser(leg.number, self._hedge.now() - leg.began))

    async def _end_others(self) -> None:
        """Cancel whoever still runs, and wait for it."""
        running = self._running()
        for leg in self._legs:
            if leg.task in running and not leg.ending:
                leg.task.cancel()
        await _ended(running)

    async def _abandon(self) -> None:
        """The caller has left: it raises that whatever happens here."""
        with suppress(asyncio.CancelledError):
            await self._end_others()
        if self._winner is not None and self._close is not None:
            closing = asyncio.ensure_future(self._closed(self._winner.value, self._close))
            with suppress(asyncio.CancelledError):
                await _ended([closing])

    async def _closed(self, value: R, close: Callable[[R], Awaitable[None]]) -> None:
        with suppress(Exception):
            await close(value)

    def _running(self) -> list[asyncio.Task[None]]:
        return [leg.task for leg in self._legs if not leg.task.done()]

    def _failure(self) -> BaseException:
        """All have failed: the first one's error."""
        first, *others = [_error(leg.task) for leg in self._legs]
        add_notes(first, [f"request {number} failed, too: {brief(error)}" for number, error in enumerate(others, 2)])
        return first


_left_alone: Final[set[asyncio.Task[None]]] = set()  # an event loop alone does not keep its tasks alive


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """All of them have ended, or the grace is over. A cancellation meanwhile is raised then."""
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    until = loop.time() + _GRACE
    while (running := [task for task in tasks if not task.done()]) and (left := until - loop.time()) > 0:
        try:
            await asyncio.wait(running, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in running:
        _left_alone.add(task)
        task.add_done_callback(_left_alone.discard)
    if cancelled is not None:
        raise cancelled


def _error(task: asyncio.Task[None]) -> BaseException:
    if task.cancelled():
        return asyncio.CancelledError("a hedged request was cancelled by something it awaited")
    error = task.exception()
    assert error is not None
    return error


def _look(task: asyncio.Task[None]) -> None:
    """The event loop complains of errors that nobody has looked at."""
    if not task.cancelled():
        task.exception()
