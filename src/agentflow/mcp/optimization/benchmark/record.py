"""What became of one request: when it was to be sent, when it was, when words came, what they cost.

    intended     sent        first       last  ended
       ├─ lag ────┤            │           │     │
       ├──────── ttft ─────────┤─ gap ─ gap┤     │
       ├──────────────────── e2e ────────────────┤

Latencies count from the moment the request was *intended* for. Where the generator itself was late, or had to hold
a request back, a user would have waited as well. All moments are seconds from the run's start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["UNFINISHED", "Record"]

UNFINISHED: Final = "Unfinished"
"""The error of a request that was still under way, or not sent yet, when the run had to end."""


@dataclass(frozen=True, slots=True)
class Record:
    """`held` is how long a request waited because as many were in flight as are allowed. `gaps` lie between pieces of
    text as they came; a piece may hold several tokens. `error` is the name of the error's class, None for an answer.
    `estimated` says that nobody counted the tokens. `cost` is in US dollars, None where it is not known."""

    index: int
    intended: float
    sent: float | None = None
    first: float | None = None
    last: float | None = None
    ended: float | None = None
    held: float = 0.0
    gaps: Sequence[float] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cost: float | None = None
    error: str | None = None
    finish: str | None = None
    cache_hit: str | None = None
    text: str = ""
    worker: int = 0

    @property
    def answered(self) -> bool:
        return self.error is None

    @property
    def censored(self) -> bool:
        """Nobody knows how long it would have taken, only that it was longer than we waited."""
        return self.error is not None and (self.error == UNFINISHED or "Timeout" in self.error)

    @property
    def lag(self) -> float | None:
        """How late the generator sent it, beyond what it was held back."""
        return None if self.sent is None else max(0.0, self.sent - self.intended - self.held)

    @property
    def ttft(self) -> float | None:
        """From the intended moment to the first piece of the answer; infinite where none came in time."""
        if self.censored and self.first is None:
            return math.inf
        return None if self.first is None or (self.error and not self.censored) else self.first - self.intended

    @property
    def e2e(self) -> float | None:
        """From the intended moment to the end of the answer; infinite where that did not come in time."""
        if self.censored:
            return math.inf
        return self.ended - self.intended if self.answered and self.ended is not None else None

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first: (e2e - ttft) / (n - 1)."""
        if not self.answered or self.first is None or self.ended is None or self.output_tokens < 2:
            return None
        return (self.ended - self.first) / (self.output_tokens - 1)

    @property
    def sent_ttft(self) -> float | None:
        """As other tools count: from the moment it was really sent."""
        return None if not self.answered or self.first is None or self.sent is None else self.first - self.sent

    @property
    def sent_e2e(self) -> float | None:
        return None if not self.answered or self.ended is None or self.sent is None else self.ended - self.sent
