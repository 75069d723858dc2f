"""For which errors another model stands in, in the words of models.yml.

fallback: [gpt-4o, {model: claude-sonnet-4-5, when: [rate_limit, overloaded, timeout]}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agentflow.core.robustness.fallback import falls_back
from agentflow.errors import (
    AgentFlowError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    ModelConnectionError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RejectedError,
    ServerError,
    StreamInterruptedError,
)

__all__ = ["CONDITIONS", "stands_in"]

CONDITIONS: Final[Mapping[str, tuple[type[AgentFlowError], ...]]] = {
    "rate_limit": (RateLimitError,),
    "quota": (QuotaExceededError,),
    "overloaded": (OverloadedError,),
    "server_error": (ServerError, ProtocolError),
    "timeout": (ModelTimeoutError,),
    "connection": (ModelConnectionError, StreamInterruptedError),
    "context_length": (ContextLengthError,),
    "auth": (AuthenticationError, PermissionDeniedError),
    "not_found": (NotFoundError,),
    "bad_request": (BadRequestError,),
    "content_filter": (ContentFilterError,),
    "refused": (RejectedError,),
    "any": (AgentFlowError,),
}
"""What each condition of models.yml means. A limiter of ours that refuses is a rate limit as well."""


def stands_in(when: Sequence[str], error: Exception) -> bool:
    """Whether a stand-in with these conditions, or with none, is asked after such an error."""
    if not when:
        return falls_back(error)
    return any(isinstance(error, CONDITIONS[condition]) for condition in when)
