"""Whether an error says that what was called is ill, or says nothing about it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OutputError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RejectedError,
    ServerError,
    StreamInterruptedError,
)

__all__ = ["Verdict", "default_verdict"]

Verdict: TypeAlias = Literal["failure", "ignore"]

_FAILURES: Final = (
    ServerError,
    OverloadedError,
    ModelTimeoutError,
    ModelConnectionError,
    ProtocolError,
    StreamInterruptedError,
)
_IGNORED: Final = (
    RejectedError,
    RateLimitError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    BadRequestError,
    OutputError,
)


def default_verdict(error: BaseException) -> Verdict:
    """Whether an error says that the service is ill.

    What a guard of ours refused, a 429, and what is wrong with the request or its key say nothing of it. Other model
    errors go by their status. Of a group, one failure is enough. All other exceptions count, time-outs among them; what
    is no Exception (a cancellation, KeyboardInterrupt) never does.
    """
    if isinstance(error, ExceptionGroup):
        return "failure" if any(default_verdict(each) == "failure" for each in error.exceptions) else "ignore"
    if isinstance(error, _IGNORED) or not isinstance(error, Exception):
        return "ignore"
    if isinstance(error, ModelError) and not isinstance(error, _FAILURES):
        return "failure" if (error.status or 0) >= 500 else "ignore"
    return "failure"
