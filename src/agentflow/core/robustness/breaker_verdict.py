"""Whether an error says that what was called is ill, or says nothing about it.

    failure    the service failed (5xx), was overloaded, broke off or talked nonsense; a time-out, an OSError, and any
               exception that is not ours
    ignore     a 429, and what is wrong with the request or its key; a refusal of a guard of ours; what went wrong on
               our side: configuration, graph, state, tools, limits, documents; a cancellation

What wraps another error is judged by that: a node's failure by its cause, a group by its worst.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from agentflow.errors import (
    AgentFlowError,
    AuthenticationError,
    BadRequestError,
    ModelConnectionError,
    ModelError,
    NodeError,
    NotFoundError,
    OperationTimeoutError,
    OutputError,
    OverloadedError,
    PermissionDeniedError,
    PoolTimeoutError,
    ProtocolError,
    RateLimitError,
    RejectedError,
    ServerError,
    StreamInterruptedError,
)

__all__ = ["Verdict", "default_verdict"]

Verdict: TypeAlias = Literal["failure", "ignore"]

_ILL: Final = (
    ServerError,
    OverloadedError,
    ModelConnectionError,
    ProtocolError,
    StreamInterruptedError,
)
_SAID_NO: Final = (  # whatever status they came with
    RateLimitError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    BadRequestError,
    OutputError,
)
_SERVER_ERRORS: Final = 500  # this status and all above it


def default_verdict(error: BaseException) -> Verdict:
    """What a breaker thinks of an error, where nobody tells it otherwise."""
    return "failure" if _is_ill(error, set()) else "ignore"


def _is_ill(error: BaseException | None, seen: set[int]) -> bool:
    if not isinstance(error, Exception) or id(error) in seen:
        return False
    seen.add(id(error))  # a cause may lead back to where it came from
    if isinstance(error, ExceptionGroup):
        return any(_is_ill(each, seen) for each in error.exceptions)
    if isinstance(error, NodeError):
        return _is_ill(error.__cause__, seen)
    if isinstance(error, RejectedError):  # before the others, for some are of two kinds
        return False
    if isinstance(error, OperationTimeoutError):
        return not _waited_for_us(error)
    if isinstance(error, ModelError):
        return _is_ill_model(error)
    return not isinstance(error, AgentFlowError)


def _waited_for_us(error: OperationTimeoutError) -> bool:
    """Whether the time was spent on a connection or a resource of ours, so that nothing was sent."""
    return isinstance(error, PoolTimeoutError) or error.operation == "pool"


def _is_ill_model(error: ModelError) -> bool:
    if isinstance(error, _ILL):
        return True
    return not isinstance(error, _SAID_NO) and (error.status or 0) >= _SERVER_ERRORS
