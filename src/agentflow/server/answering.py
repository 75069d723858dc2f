"""Around every handler: a number for the request, the check at the door, and errors in OpenAI's shape.

    request ──▶ Access.check ──▶ handler ──▶ response + x-request-id
                      └── Refusal, an error of ours, anything at all ──▶ {"error": {…}} with the right status

Nothing of an unexpected error leaves the process: its traceback goes to the log `agentflow.server`, under the number
that the client is told.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agentflow.errors import describe
from agentflow.server.access import Access
from agentflow.server.sending import sent_json
from agentflow.server.wire.failures import refusal_of, unexpected
from agentflow.server.wire.refusal import Refusal

__all__ = ["REQUEST_ID", "answering", "told"]

REQUEST_ID: Final = web.RequestKey("agentflow_request_id", str)
_LOG: Final = logging.getLogger("agentflow.server")


def answering(access: Access) -> Middleware:
    """The middleware."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        id_ = request[REQUEST_ID] = f"req_{secrets.token_hex(12)}"
        try:
            access.check(request)
            response = await handler(request)
        except ConnectionError:  # whoever asked is gone, and there is nobody to tell
            raise
        except Exception as error:  # noqa: BLE001 - nothing is above us but aiohttp's own page of HTML
            refusal = told(error, id_)
            response = sent_json(refusal.body(), status=refusal.status, headers=refusal.headers())
        if not response.prepared:
            response.headers["x-request-id"] = id_
        return response

    return answer


def told(error: Exception, request_id: str) -> Refusal:
    """What the client is told; what it is not told is logged."""
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    refusal = refusal_of(error)
    if refusal is None:
        _LOG.error("%s failed: %s", request_id, describe(error), exc_info=error)
        return unexpected(request_id)
    if refusal.status >= 500:
        _LOG.warning("%s failed: %s", request_id, describe(error))
    return refusal


def _of_http(error: web.HTTPException) -> Refusal:
    """What aiohttp itself refuses."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Refusal(413, "the body is too large", code="request_too_large")
    if isinstance(error, web.HTTPNotFound):
        return Refusal(404, "there is no such path; the API is under /v1", code="unknown_url")
    return Refusal(error.status, error.reason.lower())
