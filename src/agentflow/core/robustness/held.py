"""A call that has begun well, and what it holds until it is over: a place, a slot, tokens, a permit.

    held = await pipeline.open(work, operation)
    held.value                       what `work` returned: an answer, or a stream with its first piece
    held.succeed(output_tokens=812)  ── or held.fail(error), or held.leave(): the first of them counts

All three are synchronous and raise nothing, so they fit into any `finally`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from agentflow.errors import (
    ModelError,
    OperationTimeoutError,
    RateLimitError,
    RejectedError,
    describe,
)

if TYPE_CHECKING:
    from agentflow.core.observability.scope import Scope
    from agentflow.core.robustness.attempt import Attempt
    from agentflow.core.robustness.circuit_breaker import Permit
    from agentflow.core.robustness.limiting import Limiter, Reserved
    from agentflow.core.robustness.load_shedder import Ticket
    from agentflow.core.robustness.operation import Operation
    from agentflow.core.robustness.pool_lease import Lease

__all__ = ["Held", "Reached"]

R = TypeVar("R")

_LONGEST_DRAIN: Final = 300.0  # seconds that one answer may close a limiter for; then a single call asks again


class Reached(IntEnum):
    """How far a call has come."""

    TAKEN = 0  # what it needs, or some of it
    SENT = 1
    BEGUN = 2  # to answer
    OVER = 3


_TAKEN: Final = Reached.TAKEN
_OVER: Final = Reached.OVER


class Held(Generic[R]):
    """What `Pipeline.open` gives: one attempt, with all that it holds.

    The pipeline puts in what it takes for the attempt, piece by piece, and says how far the attempt has come.
    """

    __slots__ = (
        "_limiter",
        "attempt",
        "lease",
        "leg",
        "permit",
        "reached",
        "reservation",
        "scope",
        "settled",
        "ticket",
        "value",
    )
    value: R
    leg: Operation  # of hedged calls, the one that this is

    def __init__(self, limiter: Limiter | None, attempt: Attempt) -> None:
        self._limiter = limiter
        self.attempt = attempt
        self.reached: Reached = _TAKEN
        self.reservation: Reserved | None = None
        self.lease: Lease[object] | None = None
        self.permit: Permit | None = None
        self.scope: Scope | None = None  # where whoever watches hears of the attempt
        self.settled: Callable[[], None] | None = None  # what is to be said once it has counted
        self.ticket: Ticket | None = None  # the place that the call was admitted to, once nothing is repeated any more

    def succeed(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, seconds: float | None = None
    ) -> None:
        """It is whole. None for what nobody counted; `seconds` is what counts as slow, where it is not all of it."""
        if self.reached is _OVER:
            return
        self.reached = _OVER
        if self.lease is not None:
            self.lease.release()
        if self.reservation is not None:
            self.reservation.settle(input_tokens=input_tokens, output_tokens=output_tokens)
        if self.permit is not None:
            self.permit.success(seconds)
        if self.ticket is not None:
            self.ticket.done(seconds=seconds)
        if self.scope is not None:
            self.scope.leave("attempt_success", self.scope.common, attempt=self.attempt.number)
        if self.settled is not None:
            self.settled()

    def fail(self, error: BaseException) -> None:
        """It ended so. A cancellation records nothing, and neither does what was never sent."""
        reached, self.reached = self.reached, _OVER
        if reached is _OVER:
            return
        if is_ours(error):
            reached = _TAKEN
        if self.lease is not None:
            self.lease.release()
        if self.permit is not None:
            if reached is not _TAKEN and isinstance(error, Exception):
                self.permit.failure(error)
            else:
                self.permit.drop()
        if self.reservation is not None:
            _give_back(self.reservation, error, reached)
        if self._limiter is not None and isinstance(error, RateLimitError) and not isinstance(error, RejectedError):
            _drain(self._limiter, error)
        if self.ticket is not None:
            self.ticket.end(error)
        if self.scope is not None:
            _tell(self.scope, error, self.attempt.number)
        if self.settled is not None:
            self.settled()

    def leave(self) -> None:
        """Whoever wanted it has gone: that is neither success nor failure."""
        self.fail(asyncio.CancelledError())


def _tell(scope: Scope, error: BaseException, number: int) -> None:
    if not isinstance(error, Exception):
        scope.leave("attempt_cancelled", scope.common, attempt=number)
        return
    facts = {**scope.common, "error": describe(error), "error_type": type(error).__name__}
    if isinstance(error, ModelError):
        known = {"status": error.status, "request_id": error.request_id}
        facts |= {name: value for name, value in known.items() if value is not None}
    scope.leave("attempt_error", facts, attempt=number)


def is_ours(error: BaseException) -> bool:
    """Whether the time was spent on a connection of ours: whoever is to be called knows nothing of it."""
    return isinstance(error, OperationTimeoutError) and error.operation == "pool"


def _drain(limiter: Limiter, error: RateLimitError) -> None:
    """The server has said when to come back: until then nobody shall, not for what waiting does not mend."""
    if error.retry_after and error.retryable:
        limiter.drain(min(error.retry_after, _LONGEST_DRAIN))


def _give_back(reservation: Reserved, error: BaseException, reached: Reached) -> None:
    """Nothing was sent: all of it. Refused: the tokens, but not the request. Begun, or nobody knows: nothing."""
    if reached is Reached.BEGUN:
        reservation.release()
    elif reached is _TAKEN or isinstance(error, RejectedError):
        reservation.cancel()
    elif isinstance(error, ModelError) and not isinstance(error, OperationTimeoutError):
        reservation.settle(input_tokens=0, output_tokens=0)
    else:
        reservation.release()
