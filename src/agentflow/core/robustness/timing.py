"""Where the time of a call went: the account that every answer comes with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Timing", "account"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one call went, in seconds.

    `queue` was spent waiting to be admitted, `limiter` waiting for the rate limit, `pool` for a free connection,
    `backoff` between attempts, `failed` in attempts that came to nothing, `connect` on opening connections. Of the
    attempt that counts, `first_token` ran until the first piece of a stream (None for an answer that came whole) and
    `generation` from there to its end. `total` is all of it; what it exceeds the sum of the others by is our own work
    and that of the event loop.
    """

    queue: float = 0.0
    limiter: float = 0.0
    pool: float = 0.0
    backoff: float = 0.0
    failed: float = 0.0
    connect: float = 0.0
    first_token: float | None = None
    generation: float = 0.0
    total: float = 0.0
    attempts: int = 1

    def as_dict(self) -> dict[str, float | int | None]:
        """What `dataclasses.asdict` gives, in a tenth of the time."""
        return {
            "queue": self.queue,
            "limiter": self.limiter,
            "pool": self.pool,
            "backoff": self.backoff,
            "failed": self.failed,
            "connect": self.connect,
            "first_token": self.first_token,
            "generation": self.generation,
            "total": self.total,
            "attempts": self.attempts,
        }

    @property
    def parts(self) -> dict[str, float]:
        """The seconds by what they were spent on, without zeros; what is left of `total` is "unattributed"."""
        parts = {
            "queue": self.queue,
            "limiter": self.limiter,
            "pool": self.pool,
            "backoff": self.backoff,
            "failed": self.failed,
            "connect": self.connect,
            "first_token": self.first_token or 0.0,
            "generation": self.generation,
        }
        parts["unattributed"] = self.total - sum(parts.values())
        return {name: seconds for name, seconds in parts.items() if seconds > 0.0}

    @property
    def failure(self) -> Timing:
        """The account of a call that came to nothing, of which another one follows."""
        wasted = (self.first_token or 0.0) + self.generation
        return replace(self, failed=self.failed + wasted, first_token=None, generation=0.0)

    def __add__(self, other: Timing) -> Timing:
        """Both calls, one after the other."""
        firsts = [each.first_token for each in (self, other) if each.first_token is not None]
        return Timing(
            queue=self.queue + other.queue,
            limiter=self.limiter + other.limiter,
            pool=self.pool + other.pool,
            backoff=self.backoff + other.backoff,
            failed=self.failed + other.failed,
            connect=self.connect + other.connect,
            first_token=sum(firsts) if firsts else None,
            generation=self.generation + other.generation,
            total=self.total + other.total,
            attempts=self.attempts + other.attempts,
        )


class _Draft:
    """A Timing that is still being written."""

    __slots__ = Timing.__slots__


def account(
    queue: float,
    limiter: float,
    pool: float,
    backoff: float,
    failed: float,
    connect: float,
    first_token: float | None,
    generation: float,
    total: float,
    attempts: int,
) -> Timing:
    """The same as `Timing(…)` in a fourth of the time, which each call would pay: a frozen dataclass sets its fields by
    nine calls, so they are set before it is frozen."""
    draft: Any = _Draft()
    draft.queue, draft.limiter, draft.pool, draft.backoff, draft.failed = queue, limiter, pool, backoff, failed
    draft.connect, draft.first_token, draft.generation = connect, first_token, generation
    draft.total, draft.attempts = total, attempts
    draft.__class__ = Timing
    timing: Timing = draft
    return timing
