"""Who goes on with a conversation: the answers that a router gave say in the history which model gave them.

    Response.opaque["router"] = {"auto": "small"}      travels with the turn, as all opaque data does: into the next
                                                       request, a journal, JSON, another process
    standing(request, "auto")  ──▶  "small"

Nothing is remembered here, so nothing is lost where a run goes on elsewhere. No provider sends it: opaque data goes to
the API of its name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec.structs import replace

from agentflow.llm.content import Json
from agentflow.llm.messages import Message, Request, Response, StreamChunk
from agentflow.llm.streaming.join import laid_over

__all__ = ["Sessions", "Standing", "marked", "marked_chunk", "standing"]

Sessions: TypeAlias = Literal["conversation", "tools", "never"]
"""How long a model stays: for the whole conversation, while it waits for the results of its tools, or not at all."""

_KEY: Final = "router"


class Standing(NamedTuple):
    """Who gave the last answer, and whether it waits for the results of tools that it called."""

    model: str
    in_tools: bool


def standing(request: Request, router: str) -> Standing | None:
    """Who of this router's models gave the last answer in the request's history; None where none did."""
    tools = bool(request.messages) and request.messages[-1].role == "tool"
    for message in reversed(request.messages):
        if message.role == "assistant":
            model = _of(message, router)
            return None if model is None else Standing(model, tools)
    return None


def marked(response: Response, router: str, model: str) -> Response:
    """The answer, with who gave it."""
    return replace(response, opaque=laid_over(response.opaque, _mark(router, model)))


def marked_chunk(chunk: StreamChunk, router: str, model: str) -> StreamChunk:
    """The same on a piece that belongs to the whole answer."""
    return replace(chunk, opaque=laid_over(chunk.opaque, _mark(router, model)))


def _mark(router: str, model: str) -> Mapping[str, Json]:
    return {_KEY: {router: model}}


def _of(message: Message, router: str) -> str | None:
    known = message.opaque.get(_KEY)
    model = known.get(router) if isinstance(known, Mapping) else None
    return model if isinstance(model, str) else None
