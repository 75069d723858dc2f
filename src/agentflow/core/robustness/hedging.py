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

import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from threading import Lock
from typing import Any, Final, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.hedge_race import Loser, Race
from agentflow.core.robustness.latencies import REMEMBERED, Latencies

__all__ = ["Hedge", "Loser"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()
_BURST: Final = 10.0  # hedges that may be saved up while all is fast


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
        if not 1 <= minimum_samples <= REMEMBERED:
            raise ValueError(f"minimum_samples is 1 to {REMEMBERED}, not {minimum_samples}")
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
        self._latencies = Latencies(percentile, minimum_samples)

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
            result = await Race(self, function, close, on_loser).run(delay)
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
