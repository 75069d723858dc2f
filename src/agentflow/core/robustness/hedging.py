"""A second request beside a slow first one: the first success wins, the other is cancelled.

    hedge = Hedge(percentile=0.95)                        one for all calls of a kind: it learns how long they take
    answer = await hedge.run(lambda: ask(question))

    ├── first ───────────────────────────── ✗ cancelled
    │           ├── second ──────── ✓ wins
    0          delay

The delay is fixed (`after`), or the percentile of the latencies seen lately, once there are enough of them. It cuts the
slow tail and costs `budget` more requests at most: a model that is slow because it is overloaded is not asked twice by
everybody. (Dean and Barroso, "The Tail at Scale", CACM 2013.) Hedge only what may be done twice.

A failure does not start a second request, for that is a retry's business. Where one fails while another runs, the other
is waited for; where all fail, the first one's error is raised with the others as notes. The caller's cancellation ends
all of them and records nothing. Whatever loses has ended before `run` returns; one that does not heed its cancellation
is left alone after a second.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import Any, Final, Generic, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.notes import add_notes, brief

__all__ = ["Hedge", "Loser"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()
_SAMPLES: Final = 200  # latencies that are remembered
_BURST: Final = 10.0  # hedges that may be saved up while all is fast
_GRACE: Final = 1.0  # seconds in which a cancelled request has to end


@dataclass(frozen=True, slots=True)
class Loser:
    """A request that was sent for nothing: its `number` (1 is the first), and the `seconds` it ran. It may have
    cost money."""

    number: int
    seconds: float


class Hedge:
    """Shared by all calls of one kind, from any task, event loop and thread. `max_hedges` are per call."""

    __slots__ = ("_balance", "_clock", "_latencies", "_listener", "_lock", "after", "budget", "max_hedges", "name")

    def __init__(
        self,
        *,
        after: float | None = None,
        percentile: float = 0.95,
        minimum_samples: int = 20,
        max_hedges: int = 1,
        budget: float = 0.1,
        name: str = "hedge",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        if after is not None and not 0 <= after < math.inf:
            raise ValueError(f"after is finite seconds, 0 or more, or None for the percentile, not {after}")
        if not 0 < percentile < 1:
            raise ValueError(f"percentile is a share between 0 and 1, such as 0.95, not {percentile}")
        if not 1 <= minimum_samples <= _SAMPLES:
            raise ValueError(f"minimum_samples is 1 to {_SAMPLES}, not {minimum_samples}")
        if max_hedges < 1:
            raise ValueError(f"max_hedges is at least 1, not {max_hedges}: without a hedge, leave it away")
        if not 0 < budget < math.inf:
            raise ValueError(f"budget is hedges per call, finite and above 0, not {budget}")
        self.after = after
        self.max_hedges = max_hedges
        self.budget = budget
        self.name = name
        self._clock = clock
        self._listener = listener
        self._lock = Lock()
        self._balance = 1.0
        self._latencies = _Latencies(percentile, minimum_samples)

    @property
    def delay(self) -> float | None:
        """Seconds after which a second request would be sent now; None while too little is known."""
        return self._latencies.slow if self.after is None else self.after

    @property
    def summary(self) -> str:
        """In a few words."""
        when = f"the {self._latencies.percentile:.0%} percentile" if self.after is None else f"{self.after:g} s"
        return f"another request after {when}, for up to {self.budget:.0%} of calls"

    async def run(self, function: Callable[[], Awaitable[R]], *, on_loser: Callable[[Loser], None] | None = None) -> R:
        """What the first of the requests returns. `on_loser` is told of each that ran for nothing, once it has ended;
        it must not wait, and one that raises changes nothing."""
        return await self._run(function, None, on_loser)

    async def run_opened(
        self,
        open: Callable[[], Awaitable[R]],
        close: Callable[[R], Awaitable[None]],
        *,
        on_loser: Callable[[Loser], None] | None = None,
    ) -> R:
        """The same for what has to be closed, such as streams: `close` gets whatever was opened and is not returned,
        because another was first, or because the caller has left. An error of `close` is nobody's."""
        return await self._run(open, close, on_loser)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The async function, hedged."""

        @wraps(function)
        async def hedged(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self._run(lambda: function(*args, **kwargs), None, None)

        return hedged

    async def _run(
        self,
        function: Callable[[], Awaitable[R]],
        close: Callable[[R], Awaitable[None]] | None,
        on_loser: Callable[[Loser], None] | None,
    ) -> R:
        began = self._clock.monotonic()
        delay = self._begin()
        if delay is None:
            result = await function()
        else:
            result = await _Race(self, function, close, on_loser).run(delay)
        seconds = self._clock.monotonic() - began
        with self._lock:
            # Also where a hedge has won: the first took at least so long.
            self._latencies.add(seconds)
        return result

    def _begin(self) -> float | None:
        """The delay, if a hedge may be sent at all."""
        with self._lock:
            self._balance = min(_BURST, self._balance + self.budget)
            return self.delay if self._balance >= 1 else None

    def try_spend(self) -> bool:
        """Take one hedge from the budget, if there is one."""
        with self._lock:
            granted = self._balance >= 1
            if granted:
                self._balance -= 1
            return granted

    def tell(self, kind: str, **data: object) -> None:
        tell(self._listener, kind, self.name, **data)

    def now(self) -> float:
        return self._clock.monotonic()


class _Latencies:
    """The last latencies, in the order they came and in order of size."""

    __slots__ = ("_minimum", "_order", "_recent", "percentile")

    def __init__(self, percentile: float, minimum: int) -> None:
        self.percentile = percentile
        self._minimum = minimum
        self._recent: deque[float] = deque()
        self._order: list[float] = []

    def add(self, seconds: float) -> None:
        if len(self._recent) == _SAMPLES:
            del self._order[bisect_left(self._order, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self._order, seconds)

    @property
    def slow(self) -> float | None:
        """The smallest latency that the given share of calls did not exceed."""
        count = len(self._order)
        return self._order[math.ceil(self.percentile * count) - 1] if count >= self._minimum else None


class _Leg(Generic[R]):
    """One of the requests. `ending`: it came too late, and closes what it has opened."""

    __slots__ = ("began", "ending", "number", "task", "value")

    task: asyncio.Task[None]
    value: R

    def __init__(self, number: int, began: float) -> None:
        self.number = number
        self.began = began
        self.ending = False


class _Race(Generic[R]):
    """One call. Who wins is settled in the request's own task, synchronously, so that there is never more than one."""

    __slots__ = ("_close", "_function", "_hedge", "_legs", "_on_loser", "_winner")

    def __init__(
        self,
        hedge: Hedge,
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
            self._legs.clear()  # a task knows its error, which knows this frame

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
