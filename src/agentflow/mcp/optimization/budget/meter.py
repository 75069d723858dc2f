"""What a call has really cost: by what was noted of each request that was paid for, else by what its answer says.

meter = Meter()                             one a call: retries, hedges, every stage of a cascade note themselves in it
with asking_as(caller.charging(meter)): …
meter.cost                                  the sum; None where a request is in it whose cost nobody knows
"""

from __future__ import annotations

from typing import Final

from agentflow.core.limits import Ledger, Limits
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    DocumentError,
    LimitExceededError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RejectedError,
)
from agentflow.mcp.optimization.budget.money import charged

__all__ = ["Meter", "cost_nothing"]

_NO_LIMITS: Final = Limits()
_NOT_SENT: Final = (ConfigurationError, RejectedError, LimitExceededError, DocumentError)
_REFUSED: Final = (
    AuthenticationError, PermissionDeniedError, NotFoundError, BadRequestError, RateLimitError, OverloadedError,
)  # fmt: skip
_BEFORE: Final = ("pool", "connect")  # what may take too long before anything is sent
_TIMED_OUT: Final = (408, 499)


class Meter(Ledger):
    """A ledger without limits that adds up in whole numbers. `noted` is how many requests have said their cost."""

    __slots__ = ("_sum", "_unknown", "noted")

    def __init__(self) -> None:
        super().__init__(_NO_LIMITS)
        self._sum = 0
        self._unknown = False
        self.noted = 0

    def spend(self, tokens: int, dollars: float | None) -> None:
        super().spend(tokens, dollars)
        with self._lock:
            self.noted += 1
            self._sum += charged(dollars or 0.0)
            self._unknown = self._unknown or dollars is None

    @property
    def known(self) -> int:
        """What is known to have been spent, 1e-9 US dollars."""
        return self._sum

    @property
    def cost(self) -> int | None:
        return None if self._unknown else self._sum


def cost_nothing(error: BaseException) -> bool:
    """Whether a request that ended so was surely not billed: it was never sent, or refused before anything was made of
    it. A gateway that lost its patience (5xx) may have left the model at work; so may whoever was cancelled."""
    if isinstance(error, ModelTimeoutError):
        return error.operation in _BEFORE
    if isinstance(error, _NOT_SENT):
        return True
    if isinstance(error, ModelError) and error.status is not None:
        refused = 400 <= error.status < 500 and error.status not in _TIMED_OUT
        return refused or isinstance(error, OverloadedError)
    return isinstance(error, _REFUSED)
