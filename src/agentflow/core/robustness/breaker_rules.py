"""The numbers that a circuit breaker goes by, checked when they are put together. What each means: circuit_breaker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from agentflow.core.robustness.breaker_window import CountWindow, Ring, Window

__all__ = ["Rules"]

_COHORT: Final = 50  # calls, where the window says nothing of a number


@dataclass(frozen=True, slots=True)
class Rules:
    """`slow_call` is None where nothing is slow. ValueError for a number that cannot be."""

    window: Window
    min_calls: int
    failure_rate: float
    slow_call: float | None
    slow_rate: float
    open_for: float
    growth: float
    max_open: float
    jitter: float
    half_open_calls: int
    half_open_wait: float

    def __post_init__(self) -> None:
        _at_least_one(min_calls=self.min_calls, half_open_calls=self.half_open_calls)
        _rates(failure_rate=self.failure_rate, slow_rate=self.slow_rate)
        _durations(open_for=self.open_for, max_open=self.max_open)
        _durations(half_open_wait=self.half_open_wait, slow_call=self.slow_call)
        if isinstance(self.window, CountWindow) and self.min_calls > self.window.size:
            size = self.window.size
            raise ValueError(f"min_calls must be at most the window's size ({size}), not {self.min_calls}")
        if self.max_open < self.open_for:
            raise ValueError(f"max_open must be at least open_for ({self.open_for:g} s), not {self.max_open:g}")
        if not 1 <= self.growth < math.inf:
            raise ValueError(f"growth must be a finite factor of at least 1, not {self.growth:g}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be a share from 0 to below 1, not {self.jitter:g}")

    @property
    def slow(self) -> float:
        """A call that took longer is slow; infinite where none is."""
        return math.inf if self.slow_call is None else self.slow_call

    @property
    def cohort(self) -> int:
        """How many calls that began together are judged together, where many are under way."""
        return self.window.size if isinstance(self.window, CountWindow) else max(_COHORT, self.min_calls)

    @property
    def timed(self) -> bool:
        """Whether it has to be known when a call ended, or how long it took, while all is well."""
        return self.slow_call is not None or not isinstance(self.window, CountWindow)

    @property
    def summary(self) -> str:
        """When it opens, and for how long, on one line."""
        slow = "" if self.slow_call is None else f", or {self.slow_rate:.0%} took over {self.slow_call:g} s"
        opens = f"opens where {self.failure_rate:.0%} of {self.min_calls} calls or more failed{slow}"
        return f"{opens}; for {self.open_for:g} s, then longer, up to {self.max_open:g} s"

    def bad(self, ring: Ring, of: int) -> bool:
        """Whether, of so many calls, too many failed or were slow."""
        # Divided, not multiplied: 7 / 100 is the float that 0.07 is, but 0.07 * 100 is not 7.
        return ring.failures / of >= self.failure_rate or ring.slow / of >= self.slow_rate

    def slowed(self, ring: Ring) -> bool:
        """Whether too many were slow."""
        return ring.slow / ring.total >= self.slow_rate

    def good(self, ring: Ring, left: int) -> bool:
        """Whether the probes are good, however those that are left will end."""
        of = ring.total + left
        slow = ring.slow + (0 if self.slow_call is None else left)
        return (ring.failures + left) / of < self.failure_rate and slow / of < self.slow_rate

    def complaint(self, ring: Ring, what: str) -> str:
        """Why it opens, in words."""
        if ring.failures / ring.total >= self.failure_rate:
            return f"{ring.failures} of {ring.total} {what} failed"
        return f"{ring.slow} of {ring.total} {what} took longer than {self.slow:g} s"


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


def _rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 < rate <= 1:
            raise ValueError(f"{name} must be a share above 0 and up to 1, not {rate:g}")


def _durations(**durations: float | None) -> None:
    for name, seconds in durations.items():
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"{name} must be a finite time above 0 s, not {seconds:g}")
