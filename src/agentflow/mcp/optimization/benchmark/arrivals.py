"""When requests arrive: moments fixed before anything is sent, so that a slow server gets no fewer of them.

    Constant(5.0)          |    |    |    |    |    |        a metronome
    Poisson(5.0)           | ||    |  |      | | |           people who know nothing of each other
    Gamma(5.0, cv=3.0)     ||||         |       |||||        the same rate in bursts; cv=1 is Poisson, cv<1 is calmer

    Poisson(5.0).moments(60.0, Random(7))       [0.08, 0.31, …], seconds from the start, all below 60

That is an open loop: who arrives does not wait for who came before. A closed loop sends the next request when the last
one is answered, so while a server stalls it asks nothing, and what it did not ask it did not measure (Schroeder,
Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from agentflow.errors import ConfigurationError

__all__ = ["MOST_ARRIVALS", "Arrivals", "Constant", "Gamma", "Poisson", "positive"]

MOST_ARRIVALS: Final = 2_000_000
"""Of one run: each is remembered until its end."""


class Arrivals(Protocol):
    """Moments of arrival, ascending, in seconds from the start of a run, all below `duration`.

    The same seed gives the same moments on every machine. `rate` is how many come in a second, on average.
    """

    @property
    def rate(self) -> float: ...

    def moments(self, duration: float, dice: Random) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """One every 1/rate seconds, the first at once."""

    rate: float

    def __post_init__(self) -> None:
        positive("rate", self.rate)

    def moments(self, duration: float, dice: Random) -> list[float]:
        count = math.ceil(_bounded(self.rate, duration) - 1e-9)
        return [index / self.rate for index in range(count)]


@dataclass(frozen=True, slots=True)
class Poisson:
    """Gaps drawn from the exponential distribution: its coefficient of variation is 1."""

    rate: float

    def __post_init__(self) -> None:
        positive("rate", self.rate)

    def moments(self, duration: float, dice: Random) -> list[float]:
        _bounded(self.rate, duration)
        return list(_until(duration, (dice.expovariate(self.rate) for _ in iter(int, 1))))


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps drawn from the gamma distribution, whose coefficient of variation is `cv`: what measured traffic of model
    servers looks like with a cv of 2 to 5."""

    rate: float
    cv: float

    def __post_init__(self) -> None:
        positive("rate", self.rate)
        positive("cv", self.cv)

    def moments(self, duration: float, dice: Random) -> list[float]:
        _bounded(self.rate, duration)
        shape = self.cv**-2
        return list(_until(duration, (dice.gammavariate(shape, 1.0 / (shape * self.rate)) for _ in iter(int, 1))))


def positive(name: str, value: float) -> float:
    """Raises ConfigurationError for what is no number above zero."""
    if not (math.isfinite(value) and value > 0.0):
        raise ConfigurationError(f"{name}: found {value!r}, allowed is a number greater than 0")
    return value


def _bounded(rate: float, duration: float) -> float:
    """How many are to be expected. Raises ConfigurationError where they are more than a run may hold."""
    expected = rate * duration
    if expected > MOST_ARRIVALS:
        raise ConfigurationError(
            f"{rate:g} requests a second for {duration:g} s are {expected:,.0f}: a run holds {MOST_ARRIVALS:,} at most"
        )
    return expected


def _until(duration: float, gaps: Iterator[float]) -> Iterator[float]:
    """Gaps added up. In a stationary stream the first one is part of a gap that began before; that it is drawn whole
    here matters to nobody, since what comes first is warm-up."""
    at = 0.0
    for count, gap in enumerate(gaps):
        at += gap
        if at >= duration or count >= MOST_ARRIVALS:
            return
        yield at
