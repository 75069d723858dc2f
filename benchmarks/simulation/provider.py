"""A model of a provider's server: rate limits, a number of workers with a queue, storms and outages.

    request ─▶ network ─▶ down? 503 ─▶ too many at once? 529 ─▶ over the rate? 429 ─▶ queue ─▶ work ─▶ answer

A refused request costs the quota nothing, which is kind to those who send without a limiter. Work that nobody waits for
any more is done all the same, as most model servers do it. An answer takes `first` + `per_token` × its tokens seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentflow.core.robustness.buckets import ServerLimits
from agentflow.errors import ModelError, OverloadedError, RateLimitError, ServerError

from .traffic import Request

__all__ = ["NETWORK", "Provider", "Rates", "Spell", "Terms"]

NETWORK: Final = (0.02, 0.06)  # seconds to the server, uniform
_EXACT: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Spell:
    """From `start` to `end`, in seconds of the run, `what` is true: down, slow by a factor, or only so many places."""

    what: str
    start: float
    end: float
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the provider grants. None: without such a limit. `burst` is the part of a minute's amount that may come at
    once. `told`: answers carry the limits in their heads, and a 429 its Retry-After (whole seconds, rounded up)."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst: float = 1 / 6
    told: bool = True
    workers: int | None = None
    places: int | None = None
    first: float = 0.4
    per_token: float = 0.004
    spells: tuple[Spell, ...] = ()

    def spell(self, what: str, now: float) -> Spell | None:
        for spell in self.spells:
            if spell.what == what and spell.start <= now < spell.end:
                return spell
        return None

    def seconds(self, request: Request, now: float) -> float:
        """How long the answer takes once a worker has begun it."""
        slow = self.spell("slow", now)
        return (self.first + self.per_token * request.output_tokens) * (1.0 if slow is None else slow.value)

    def places_at(self, now: float) -> float:
        weak = self.spell("weak", now)
        if weak is not None:
            return weak.value
        return math.inf if self.places is None else self.places


class Rates:
    """Two token buckets, full at first, as the server keeps them."""

    __slots__ = ("_levels", "_now", "_rates", "_sizes")

    def __init__(self, terms: Terms) -> None:
        limits = (terms.requests_per_minute, terms.tokens_per_minute)
        self._rates = [math.inf if limit is None else limit / 60 for limit in limits]
        self._sizes = [rate * 60 * terms.burst for rate in self._rates]
        self._levels = list(self._sizes)
        self._now = 0.0

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a request of so many tokens would be let in; 0 where it would be now. Takes nothing."""
        wait = 0.0
        for level, rate, size, need in zip(self._at(now), self._rates, self._sizes, (1, tokens), strict=True):
            missing = min(need, size) - level
            if missing > _EXACT:
                wait = max(wait, missing / rate)
        return wait

    def take(self, tokens: int, now: float) -> None:
        requests, others = self._at(now)
        self._levels, self._now = [requests - 1, others - tokens], now

    def left(self, now: float) -> ServerLimits | None:
        """What an answer's head says; None where there is no limit."""
        if self._rates[0] == self._rates[1] == math.inf:
            return None
        told: list[float | None] = []
        for level, rate, size in zip(self._at(now), self._rates, self._sizes, strict=True):
            told += [None, None] if rate == math.inf else [float(int(max(0.0, level))), (size - level) / rate]
        return ServerLimits(told[0], told[1], told[2], told[3])

    def _at(self, now: float) -> list[float]:
        """How full they are; infinitely, where there is no limit."""
        passed = max(0.0, now - self._now)
        return [
            math.inf if rate == math.inf else min(size, level + passed * rate)
            for level, rate, size in zip(self._levels, self._rates, self._sizes, strict=True)
        ]


class Provider:
    """Answers requests by `terms`, and says of each that arrives to `seen(request, now, error or None)`."""

    def __init__(
        self,
        terms: Terms,
        seed: int,
        now: Callable[[], float],
        seen: Callable[[Request, float, ModelError | None], None],
    ) -> None:
        self._terms = terms
        self._chance = random.Random(seed)
        self._now = now
        self._seen = seen
        self._rates = Rates(terms)
        self._free = [0.0] * (terms.workers or 0)  # a heap: when each worker will be free
        self.here = 0  # requests that are here, at work or in the queue, and waited for

    async def answer(self, request: Request) -> ServerLimits | None:
        """The answer, that is what its head says of the limits. Raises as the client would for 429, 503 and 529."""
        await asyncio.sleep(self._chance.uniform(*NETWORK))
        now = self._now()
        error = self._refusal(request, now)
        self._seen(request, now, error)
        if error is not None:
            await asyncio.sleep(self._chance.uniform(*NETWORK))
            raise error
        self.here += 1
        try:
            await asyncio.sleep(self._work(request, now) - now)
        finally:
            self.here -= 1
        return self._rates.left(self._now()) if self._terms.told else None

    def _refusal(self, request: Request, now: float) -> ModelError | None:
        terms = self._terms
        if terms.spells and terms.spell("down", now) is not None:
            return ServerError("down", status=503)
        if self.here >= terms.places_at(now):
            return OverloadedError("overloaded", status=529)
        wait = self._rates.wait(request.tokens, now)
        if wait > 0:
            return RateLimitError("rate limited", status=429, retry_after=math.ceil(wait) if terms.told else None)
        self._rates.take(request.tokens, now)
        return None

    def _work(self, request: Request, now: float) -> float:
        """When the answer is done."""
        if not self._free:
            return now + self._terms.seconds(request, now)
        begin = max(now, self._free[0])
        done = begin + self._terms.seconds(request, begin)
        heapq.heapreplace(self._free, done)
        return done
