"""A call that has begun well, and what it holds until it is over: a place, a slot, tokens, a permit.

    held = await pipeline.open(work, operation)
    held.value                       what `work` returned: an answer, or a stream with its first piece
    held.succeed(output_tokens=812)  ── or held.fail(error), or held.leave(): the first of them counts

All three are synchronous and raise nothing, so they fit into any `finally`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from agentflow.errors import (
    ModelError,
    OperationTimeoutError,
    RateLimitError,
    RejectedError,
)

if TYPE_CHECKING:
    from agentflow.core.robustness.attempt import Attempt
    from agentflow.core.robustness.circuit_breaker import Permit
    from agentflow.core.robustness.limiting import Limiter, Reserved
    from agentflow.core.robustness.load_shedder import Ticket
    from agentflow.core.robustness.operation import Operation
    from agentflow.core.robustness.pool_lease import Lease

__all__ = ["Held", "Stake"]

R = TypeVar("R")

_LONGEST_DRAIN: Final = 300.0  # seconds that one answer may close a limiter for; then a single call asks again


class Stake:
    """What one attempt holds of the limiter and the breaker."""

    __slots__ = ("_limiter", "_open", "lease", "permit", "reservation", "sent")

    def __init__(self, limiter: Limiter | None) -> None:
        self._limiter = limiter
        self._open = True
        self.permit: Permit | None = None
        self.reservation: Reserved | None = None
        self.lease: Lease[object] | None = None
        self.sent = False

    def succeed(self, input_tokens: int | None, output_tokens: int | None, seconds: float | None) -> None:
        if not self._close():
            return
        if self.reservation is not None:
            self.reservation.settle(input_tokens=input_tokens, output_tokens=output_tokens)
        if self.permit is not None:
            self.permit.success(seconds)

    def fail(self, error: BaseException, begun: bool = False) -> None:
        """The attempt has ended so. A cancellation records nothing, and neither does what was never sent. What had
        `begun` to answer has cost what nobody counted."""
        if not self._close():
            return
        if isinstance(error, OperationTimeoutError) and error.operation == "pool":
            self.sent = False  # it waited for a connection of ours: whoever is to be called knows nothing of it
        known = isinstance(error, Exception)
        if self.permit is not None:
            if self.sent and known:
                self.permit.failure(error)
            else:
                self.permit.drop()
        if self.reservation is not None:
            if begun:
                self.reservation.release()
            else:
                self._give_back(self.reservation, error)
        if self._limiter is not None and isinstance(error, RateLimitError) and not isinstance(error, RejectedError):
            self._drain(self._limiter, error)

    def _drain(self, limiter: Limiter, error: RateLimitError) -> None:
        """The server has said when to come back: until then nobody shall, not for what waiting does not mend."""
        if error.retry_after and error.retryable:
            limiter.drain(min(error.retry_after, _LONGEST_DRAIN))

    def _give_back(self, reservation: Reserved, error: BaseException) -> None:
        """Nothing was sent: all of it. Refused: the tokens, but not the request. Nobody knows: nothing."""
        if not self.sent or isinstance(error, RejectedError):
            reservation.cancel()
        elif isinstance(error, ModelError) and not isinstance(error, OperationTimeoutError):
            reservation.settle(input_tokens=0, output_tokens=0)
        else:
            reservation.release()

    def _close(self) -> bool:
        """Whether this is the first end. What was lent goes back in any case."""
        was, self._open = self._open, False
        if was and self.lease is not None:
            self.lease.release()
        return was


class Held(Generic[R]):
    """What `Pipeline.open` gives."""

    __slots__ = ("_stake", "_ticket", "attempt", "leg", "value")

    def __init__(self, value: R, stake: Stake, attempt: Attempt) -> None:
        self.value = value
        self.attempt = attempt
        self._stake = stake
        self._ticket: Ticket | None = None
        self.leg: Operation | None = None  # of hedged calls, the one that this is

    def hold(self, ticket: Ticket | None) -> None:
        """The place that the call was admitted to."""
        self._ticket = ticket

    def succeed(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, seconds: float | None = None
    ) -> None:
        """It is whole. None for what nobody counted; `seconds` is what counts as slow, where it is not all of it."""
        self._stake.succeed(input_tokens, output_tokens, seconds)
        if self._ticket is not None:
            self._ticket.done(seconds=seconds)

    def fail(self, error: BaseException) -> None:
        """It broke after it had begun."""
        self._stake.fail(error, begun=True)
        if self._ticket is not None:
            self._ticket.end(error)

    def leave(self) -> None:
        """Whoever wanted it has gone: that is neither success nor failure."""
        self.fail(asyncio.CancelledError())
