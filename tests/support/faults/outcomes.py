"""What is expected of the client when a fault happens: written down first, tested by tests/llm/test_faults.py.

fails("ModelTimeoutError", 3, FIRST_BYTE)     that class, after three requests, each given up at that limit
recovers(2)                                   the whole answer, once, after two requests
fails("StreamInterruptedError", said=FIRST)   what had been said stays said, and is not said again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.support.speakers import halves

__all__ = [
    "ATTEMPTS",
    "AT_ONCE",
    "CONNECT",
    "FIRST",
    "FIRST_BYTE",
    "IDLE",
    "TEXT",
    "TOTAL",
    "Outcome",
    "fails",
    "recovers",
]

TEXT: Final = "Hei på deg, it is 19 °C ☀️ and calm."
FIRST: Final = halves(TEXT)[0]
"""What a stream says of it before its middle."""

ATTEMPTS: Final = 3
"""The default: two more after the first."""

AT_ONCE: Final = "at once"
CONNECT: Final = "connect"
FIRST_BYTE: Final = "first byte"
IDLE: Final = "idle"
TOTAL: Final = "total"


@dataclass(frozen=True)
class Outcome:
    """`error` is the name of the class that is raised, "" where the call recovers; `attempts` counts the requests that
    reached the server, or what came instead of one; `limit` is the time limit that each of them runs into (TOTAL: all
    of them together); `said` is the text that the caller had got by then."""

    error: str
    attempts: int
    limit: str
    said: str

    @property
    def bound(self) -> str:
        """How long it takes at most."""
        if self.limit in (AT_ONCE, TOTAL) or self.attempts == 1:
            return self.limit
        return f"{self.attempts} × {self.limit}"

    def __str__(self) -> str:
        number = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        kept = "; the first words are kept" if self.error and self.said else ""
        return f"{f'`{self.error}`' if self.error else 'recovers'}, {number}, {self.bound}{kept}"


def fails(error: str, attempts: int = 1, limit: str = AT_ONCE, *, said: str = "") -> Outcome:
    return Outcome(error, attempts, limit, said)


def recovers(attempts: int = 1, limit: str = AT_ONCE, *, said: str = TEXT) -> Outcome:
    return Outcome("", attempts, limit, said)
