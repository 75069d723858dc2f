"""A process's own part of a limit, by which it goes while the store is away: the limit ÷ replicas, and empty at first.

    share = Share(rates, burst, concurrency, replicas, now)     the first question that had no answer
    share.take(need, in_use, now)  ──▶ 0.0: taken | seconds to wait
    share.used                                                  what the store is told when it is back

It is empty at first because what the store held a moment ago may have been taken by any process already. So all shares
together give no more than the limit's rate, for as long as the store is away. A call that needs more than a share ever
holds takes all of it, and the rest as a debt.

Under the limiter's lock; `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Final

from agentflow.core.robustness.buckets import Buckets, Need, ServerLimits

__all__ = ["Share"]

_SLOT: Final = 0.05  # seconds after which to look again for a slot; whoever frees one says so earlier
_EMPTY: Final = ServerLimits(
    requests_remaining=0.0, tokens_remaining=0.0, input_tokens_remaining=0.0, output_tokens_remaining=0.0
)


class Share:
    """`concurrency` ÷ replicas is rounded down, but is 1 at least."""

    __slots__ = ("_buckets", "_capacities", "_slots", "used")

    def __init__(
        self,
        rates: tuple[float | None, float | None, float | None, float | None],
        burst: float,
        concurrency: int | None,
        replicas: int,
        now: float,
    ) -> None:
        parts = tuple(None if rate is None else rate / replicas for rate in rates)
        self._buckets = Buckets((parts[0], parts[1], parts[2], parts[3]), burst)
        self._capacities = tuple(float("inf") if part is None else part * burst for part in parts)
        self._slots = None if concurrency is None else max(1, concurrency // replicas)
        self._buckets.observe(_EMPTY, now)
        self.used: Need = (0, 0, 0, 0)

    def take(self, need: Need, in_use: int, now: float) -> float:
        """Take it, or say how long it will be, at least. `in_use` counts what the store had granted, too."""
        if self._slots is not None and in_use >= self._slots:
            return _SLOT
        first, debt = self._split(need)
        if not self._buckets.take(first, now):
            return max(0.001, self._buckets.when(first, now) - now)
        self._buckets.adjust(debt, now)
        self.used = _each_sum(self.used, need)
        return 0.0

    def settle(self, change: Need, now: float) -> None:
        """It took so much more than was reserved; less, where that is negative."""
        self._buckets.adjust(change, now)
        self.used = _each_sum(self.used, change)

    def drain(self, seconds: float, now: float) -> None:
        self._buckets.drain(seconds, now)

    def observe(self, limits: ServerLimits, now: float) -> None:
        self._buckets.observe(limits, now)

    def _split(self, need: Need) -> tuple[Need, Need]:
        """What a full bucket can give, and the rest. Buckets count in floats; the whole units are the caller's."""
        first = [min(amount, int(most)) if most != float("inf") else amount
                 for amount, most in zip(need, self._capacities, strict=True)]  # fmt: skip
        return (first[0], first[1], first[2], first[3]), (
            need[0] - first[0],
            need[1] - first[1],
            need[2] - first[2],
            need[3] - first[3],
        )


def _each_sum(one: Need, other: Need) -> Need:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]
