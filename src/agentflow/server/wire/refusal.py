"""What a client is told that gets no answer: a status, and an error in OpenAI's shape.

raise Refusal(400, "n is 1 or more", param="n")
    →  {"error": {"message": …, "type": "invalid_request_error", "param": "n", "code": null}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["Refusal"]

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """`type` is what OpenAI calls errors of that status, where it is not said. `retry_after` is in seconds; `retryable`
    False tells clients that the same request would be refused again, whatever they think of its status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.retryable = retryable

    def body(self) -> dict[str, object]:
        """The error as JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """When to come back, or that it is no use."""
        told: dict[str, str] = {}
        if self.retry_after is not None:
            told["Retry-After"] = str(max(1, -int(-self.retry_after // 1)))
        if not self.retryable:
            told["x-should-retry"] = "false"  # which the official clients obey
        return told
