"""Answers and errors as the file holds them, and back: JSON, never pickle.

written(ServerError("down", status=500))  ──▶  {"type": "ServerError", "args": […], "facts": {…}}  ──▶  ServerError
"""

from __future__ import annotations

import json

from agentflow import errors
from agentflow.errors import AgentFlowError, BatchRequestError, ModelError
from agentflow.llm.messages import Request, Response

__all__ = ["error_text", "read_error", "read_request", "read_response", "request_text", "response_text"]

_PLAIN = (str, int, float, bool, type(None))


def response_text(response: Response) -> str:
    return json.dumps(response.to_json(), ensure_ascii=False)


def read_response(text: str) -> Response:
    return Response.from_json(json.loads(text))


def request_text(request: Request) -> str:
    return json.dumps(request.to_json(), ensure_ascii=False)


def read_request(text: str) -> Request:
    return Request.from_json(json.loads(text))


def error_text(error: Exception) -> str:
    """Its type, its words, and what facts of it are plain."""
    if not isinstance(error, AgentFlowError):
        error = ModelError(errors.describe(error))
    facts = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN) and name.isidentifier()}
    return json.dumps({"type": type(error).__name__, "message": str(error), "facts": facts}, ensure_ascii=False)


def read_error(text: str) -> AgentFlowError:
    """The error again; a type that this version does not know becomes a BatchRequestError."""
    told = json.loads(text)
    kind = getattr(errors, told["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, AgentFlowError)):
        return BatchRequestError("failed", told["message"])
    error = kind.__new__(kind)
    error.args = (told["message"],)
    error.__dict__.update(told["facts"])
    return error
