"""How much a run, or a single question, may spend, and how much it has spent.

    Limits(requests=20, dollars=0.50)  ──  what is allowed
    Ledger(limits)                     ──  request() before each call, spend() after it

A limit is checked before a call and settled after it: the call that crosses it is finished, the next one is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock

from agentflow.errors import LimitExceededError

__all__ = ["Ledger", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """At most so many model requests, tokens (input and output together), rounds of tool calls, and US dollars; None
    is no limit. Repetitions of a failed request count as one.

    What a request costs is known when it has been answered: the one that reaches a limit is finished, and so are those
    under way beside it. A request whose cost nobody can say uses a limit in dollars up.
    """

    requests: int | None = None
    tokens: int | None = None
    tool_rounds: int | None = None
    dollars: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens", "tool_rounds", "dollars"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is 0 or more, not {value!r}")


class Ledger:
    """What was spent under some limits. Safe to use from several tasks and threads.

    `request` and `tool_round` raise LimitExceededError where a limit is used up; they count what they allow. `check`
    tells beforehand whether there is room for one more request.
    """

    __slots__ = ("_lock", "_unpriced", "dollars", "limits", "requests", "tokens", "tool_rounds")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.tokens = 0
        self.tool_rounds = 0
        self.dollars = 0.0
        self._unpriced = False
        self._lock = Lock()

    def request(self) -> None:
        """One more model request is about to be made."""
        with self._lock:
            self._check()
            self.requests += 1

    def check(self) -> None:
        """Raises what `request` would, and counts nothing."""
        with self._lock:
            self._check()

    def tool_round(self) -> None:
        """The tools of one more answer are about to be called."""
        with self._lock:
            _check("tool_rounds", self.limits.tool_rounds, self.tool_rounds)
            self.tool_rounds += 1

    def spend(self, tokens: int, dollars: float | None) -> None:
        """What a request has cost; None for dollars that nobody can tell."""
        with self._lock:
            self.tokens += tokens
            self.dollars += dollars or 0.0
            self._unpriced = self._unpriced or dollars is None

    def take_over(self, requests: int, tokens: int, dollars: float | None) -> None:
        """What an earlier stretch of the run has spent."""
        with self._lock:
            self.requests += requests
        self.spend(tokens, dollars)

    def _check(self) -> None:
        limits = self.limits
        _check("requests", limits.requests, self.requests)
        _check("tokens", limits.tokens, self.tokens)
        _check("dollars", limits.dollars, self.dollars)
        if self._unpriced and limits.dollars is not None:
            raise LimitExceededError("dollars", limits.dollars, math.inf)


def _check(name: str, allowed: float | None, spent: float) -> None:
    if allowed is not None and spent >= allowed:
        raise LimitExceededError(name, allowed, spent)
