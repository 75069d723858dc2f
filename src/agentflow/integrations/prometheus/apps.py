"""`/metrics` as an app, for who has a server already: WSGI and ASGI.

    application = wsgi_app(collector)                      # gunicorn, Flask's DispatcherMiddleware, Django
    app.mount("/metrics", asgi_app(collector))             # Starlette, FastAPI; or alone under uvicorn

Mounted at a path of its own an app answers there, else at `/metrics`. The ASGI app renders in a thread, so that a large
scrape does not hold up the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from agentflow.integrations.prometheus.answering import Reply, Request, answer
from agentflow.integrations.prometheus.exposition import Collects

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Receive", "Scope", "Send", "asgi_app", "wsgi_app"]

Message: TypeAlias = "MutableMapping[str, Any]"
Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"

_ALONE = ("/metrics",)
_MOUNTED = ("", "/", "/metrics")


def wsgi_app(metrics: Collects) -> WSGIApplication:
    """The app that any WSGI server runs (PEP 3333)."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            environ.get("PATH_INFO", ""),
            environ.get("HTTP_ACCEPT", ""),
            environ.get("HTTP_ACCEPT_ENCODING", ""),
        )
        reply = answer(metrics, request, _MOUNTED if environ.get("SCRIPT_NAME") else _ALONE)
        start_response(f"{reply.status.value} {reply.status.phrase}", list(reply.headers))
        return [reply.body]

    return app


def asgi_app(metrics: Collects) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The app that any ASGI server runs (version 3). Of WebSockets it closes each."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            mount = scope.get("root_path", "")
            reply = await asyncio.to_thread(answer, metrics, _request(scope, mount), _MOUNTED if mount else _ALONE)
            await _send(reply, send)

    return app


def _request(scope: Scope, mount: str) -> Request:
    """Servers differ in whether the path includes where the app is mounted."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
    path = scope["path"].removeprefix(mount) if mount else scope["path"]
    return Request(scope["method"], path, headers.get("accept", ""), headers.get("accept-encoding", ""))


async def _send(reply: Reply, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to begin and nothing to end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
