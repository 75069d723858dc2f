"""Where the time of a call went: the account that every answer comes with."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one call went, in seconds.

    `queue` was spent waiting to be admitted, `limiter` waiting for the rate limit, `pool` for a free connection,
    `backoff` between attempts, `failed` in attempts that came to nothing. Of the attempt that counts, `first_token` ran
    until the first piece of a stream (None for an answer that came whole) and `generation` from there to its end.
    `total` is all of it; what it exceeds the sum of the others by is our own work and that of the event loop.
    """

    queue: float = 0.0
    limiter: float = 0.0
    pool: float = 0.0
    backoff: float = 0.0
    failed: float = 0.0
    first_token: float | None = None
    generation: float = 0.0
    total: float = 0.0
    attempts: int = 1

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
            first_token=sum(firsts) if firsts else None,
            generation=self.generation + other.generation,
            total=self.total + other.total,
            attempts=self.attempts + other.attempts,
        )
