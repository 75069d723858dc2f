"""Answers on their way out: JSON whole, or as server-sent events, one piece at a time.

    await send_events(request, pieces)     first piece ── 200, headers ── data: {…} ── … ── data: [DONE]

Nothing is sent before the first piece is there, so what fails until then has a status of its own; what fails later is
an event with the error, and no `[DONE]`. A piece is asked for when the last one is on its way: a slow reader slows the
model down. Whoever goes away has the handler cancelled, and with it the model's work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from agentflow.llm.content import plain
from agentflow.server.wire.refusal import Refusal

__all__ = ["encoded", "send_events", "sent_json"]

_EVENTS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would keep pieces back
}

Pieces = AsyncGenerator[Mapping[str, object], None]


def encoded(data: object) -> bytes:
    """JSON in UTF-8. Half of a character, which some model may write, goes as its escape."""
    try:
        return msgspec.json.encode(data, enc_hook=plain)
    except UnicodeEncodeError:
        return json.dumps(data, default=plain).encode()


def sent_json(data: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=encoded(data), status=status, headers=headers, content_type="application/json")


async def send_events(
    request: web.Request, pieces: Pieces, *, headers: Mapping[str, str], failed: Callable[[Exception], Refusal]
) -> web.StreamResponse:
    """Raises what the first piece raises; `failed` turns what a later one raises into what the client is told."""
    try:
        piece = await anext(pieces, None)
        response = web.StreamResponse(headers={**_EVENTS, **headers})
        await response.prepare(request)
        while piece is not None:
            await response.write(_event(encoded(piece)))
            try:
                piece = await anext(pieces, None)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client is told that this is not the end
                await response.write(_event(encoded(failed(error).body())))
                break
        else:
            await response.write(_event(b"[DONE]"))
        await response.write_eof()
        return response
    finally:
        await pieces.aclose()


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
