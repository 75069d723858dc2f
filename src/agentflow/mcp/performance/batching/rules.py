"""When what has gathered is sent: pure decisions over how much waits, until when, and what is under way.

nothing under way                         ──▶  send at once            idle
as many wait as go into one batch         ──▶  send                    full, tokens
the first must be answered soon           ──▶  send                    deadline
everything is to come to an end           ──▶  send                    drain
else                                      ──▶  wait until the first must go, or a batch comes back
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from agentflow.errors import ConfigurationError

__all__ = ["BatchRules", "Gathered", "Reason", "Verdict", "decide"]

Reason: TypeAlias = Literal["idle", "full", "tokens", "deadline", "drain"]

_NOT_YET: Final = 1e-9  # seconds that a timer may be early


@dataclass(frozen=True, slots=True)
class BatchRules:
    """`max_size` inputs go into a batch, of `max_tokens` together where that is a limit. `latency_budget` is how many
    seconds after it was asked each should be answered. `in_flight` batches are under way at most. `padded` says that
    the server fills every input up to the longest: then a batch has the longest's tokens for each, and inputs of about
    the same length are sent together. Raises ConfigurationError for what cannot be."""

    max_size: int = 32
    max_tokens: int | None = None
    latency_budget: float = 0.05
    in_flight: int = 4
    padded: bool = False

    def __post_init__(self) -> None:
        for name in ("max_size", "max_tokens", "in_flight"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ConfigurationError(f"batch: {name} is at least 1, not {value!r}")
        if not 0 <= self.latency_budget < math.inf:
            raise ConfigurationError(f"batch: latency_budget is 0 or more seconds, not {self.latency_budget!r}")

    def fits(self, size: int, tokens: int) -> bool:
        return size <= self.max_size and (self.max_tokens is None or tokens <= self.max_tokens)

    def weight(self, tokens: int, longest: int, size: int) -> int:
        """The tokens of a batch of `size` inputs that have so many, of which the longest has `longest`."""
        return longest * size if self.padded else tokens


class Gathered(NamedTuple):
    """What waits: how many inputs, of how many tokens, and the moment by which the first should be answered."""

    size: int
    tokens: int
    deadline: float


class Verdict(NamedTuple):
    """Send for that reason; or, without one, look again after `wait` seconds (None: when something happens)."""

    reason: Reason | None
    wait: float | None = None


def decide(
    rules: BatchRules, gathered: Gathered, under_way: int, expected: float, now: float, *, draining: bool = False
) -> Verdict:
    """`expected` is how many seconds the batch that could be sent now would take. Times are monotonic seconds."""
    if not gathered.size or under_way >= rules.in_flight:
        return Verdict(None)
    if draining:
        return Verdict("drain")
    if gathered.size >= rules.max_size:
        return Verdict("full")
    if rules.max_tokens is not None and gathered.tokens >= rules.max_tokens:
        return Verdict("tokens")
    if not under_way:
        return Verdict("idle")
    wait = gathered.deadline - expected - now
    return Verdict("deadline") if wait <= _NOT_YET else Verdict(None, wait)
