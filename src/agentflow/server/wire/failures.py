"""Errors of ours → what a client is told of them: a status, OpenAI's words, and when to come back.

    ContextLengthError  ──refusal_of──▶  400 context_length_exceeded
    LimiterError                         429 rate_limit_exceeded, Retry-After
    AuthenticationError                  502: the key that the provider refused is the server's, not the client's
    anything else                        500, with the number of the request and not a word of what happened

What a client did is said to it; what went wrong behind the server is for its own log. The first row that fits counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ContentFilterError,
    ContextLengthError,
    DocumentError,
    LimitExceededError,
    LoadShedError,
    ModelError,
    NotFoundError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RejectedError,
    SerializationError,
    UnboundedCostError,
    UnknownModelError,
    UnsupportedError,
)
from agentflow.server.wire.refusal import Refusal

__all__ = ["refusal_of", "unexpected"]

_A_MOMENT: Final = 1.0  # seconds, where nobody knows when there will be room


def refusal_of(error: Exception) -> Refusal | None:
    """What to tell a client of an error; None for one that no client may be told of (see `unexpected`)."""
    if isinstance(error, Refusal):
        return error
    return next((told(error) for kind, told in _ROWS if isinstance(error, kind)), None)


def unexpected(request_id: str) -> Refusal:
    """For all that is the server's own fault."""
    return Refusal(500, f"the server failed; its log has the reason, under {request_id}", code="internal_error")


def _wrong(code: str | None = None) -> Callable[[Exception], Refusal]:
    """The request is wrong, and the error says how."""
    return lambda error: Refusal(400, _said(error), code=code)


def _said(error: Exception) -> str:
    """The words of an error, without the facts of the provider's own answer."""
    return error.message if isinstance(error, ModelError) else str(error)


def _unable(error: Exception) -> Refusal:
    """Which other models could, and how models.yml may be mended, is for the server's owner."""
    return Refusal(400, str(error).partition("; ")[0], code="unsupported_value")


def _not_found(error: Exception) -> Refusal:
    return Refusal(404, "the provider behind this model does not know it", code="model_not_found", param="model")


def _too_fast(error: Exception) -> Refusal:
    return Refusal(429, "there are too many requests", code="rate_limit_exceeded", retry_after=_after(error))


def _used_up(error: Exception) -> Refusal:
    told = "the budget, or the quota with the provider, is used up"
    return Refusal(429, told, type="insufficient_quota", code="insufficient_quota", retryable=False)


def _busy(error: Exception) -> Refusal:
    return Refusal(503, "the model has too much to do, or fails", code="overloaded", retry_after=_after(error))


def _after(error: Exception) -> float:
    after = getattr(error, "retry_after", None)
    return after if isinstance(after, int | float) else _A_MOMENT


def _behind(status: int, message: str) -> Callable[[Exception], Refusal]:
    """What is behind the server failed, which is nothing that the client can mend."""
    return lambda error: Refusal(status, message, code="upstream_error")


_NO_KEY: Final = _behind(502, "the provider behind this model refuses the server's own key")

_ROWS: Final[tuple[tuple[type[Exception], Callable[[Exception], Refusal]], ...]] = (
    (UnknownModelError, _not_found),
    (UnsupportedError, _unable),
    (UnboundedCostError, _wrong("unbounded_cost")),
    (DocumentError, _wrong("invalid_file")),
    (SerializationError, _wrong()),
    (BudgetExceededError, _used_up),
    (QuotaExceededError, _used_up),
    (LimitExceededError, _used_up),
    (RateLimitError, _too_fast),
    (LoadShedError, _too_fast),
    (RejectedError, _busy),
    (OverloadedError, _busy),
    (ContextLengthError, _wrong("context_length_exceeded")),
    (ContentFilterError, _wrong("content_filter")),
    (BadRequestError, _wrong()),
    (NotFoundError, _not_found),
    (AuthenticationError, _NO_KEY),
    (PermissionDeniedError, _NO_KEY),
    (OperationTimeoutError, _behind(504, "the model did not answer in time")),
    (ModelError, _behind(502, "the model behind this server failed")),
)
