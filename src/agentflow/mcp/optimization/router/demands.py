"""What a request asks of a model: abilities, room for tokens, places. Read once, held against each candidate.

Request ──demands──▶ Demands(needs={"image", "tools"}, input_tokens=1_240, max_tokens=500, regions={"eu"}, text="…")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from agentflow.llm.config.capabilities import places
from agentflow.llm.config.schema import Capability
from agentflow.llm.content import Audio, Content, Document, Image, ToolResult
from agentflow.llm.estimate import estimated_tokens, text_tokens
from agentflow.llm.messages import RESIDENCY, Request, Thinking, Tool

__all__ = ["Demands", "demands"]

_OF_PART: Final[dict[type, Capability]] = {Image: "image", Document: "document", Audio: "audio"}
_NONE: Final[frozenset[Capability]] = frozenset()


class Demands(Struct, frozen=True):
    """What a model must be able to do. `input_tokens` is estimated; `max_tokens` None leaves the answer's length to the
    model. `regions` are the only places where the request may be worked on; None for anywhere. `text` is what a policy
    reads: the last words of the user."""

    needs: frozenset[Capability] = _NONE
    input_tokens: int = 0
    max_tokens: int | None = None
    regions: frozenset[str] | None = None
    text: str = ""


def demands(request: Request, residency: frozenset[str] | None = None) -> Demands:
    """`residency` are the places that the router keeps to; what a call demands can only narrow them."""
    return Demands(
        frozenset(_needs(request)),
        _input_tokens(request),
        request.max_tokens,
        _regions(request.metadata.get(RESIDENCY), residency),
        request.prompt,
    )


def _needs(request: Request) -> Iterator[Capability]:
    for message in request.messages:
        if type(message.content) is not str:
            yield from _of_content(message.content)
    if request.tools:
        yield "tools"
    if request.output is not None and request.output.schema is not None:
        yield "schema"
    if request.thinking is not None and _wants_thought(request.thinking):
        yield "thinking"


def _of_content(content: Content) -> Iterator[Capability]:
    for part in content:
        needed = _OF_PART.get(type(part))
        if needed is not None:
            yield needed
        if isinstance(part, ToolResult):
            yield from _of_content(part.content)


def _wants_thought(thinking: Thinking) -> bool:
    """No thinking at all is what every model can do."""
    return thinking.effort != "none" if thinking.effort is not None else bool(thinking.budget or thinking.show)


def _input_tokens(request: Request) -> int:
    count = sum(map(estimated_tokens, request.messages))
    for tool in request.tools:
        count += text_tokens(_json(tool.parameters) + tool.name + tool.description) if isinstance(tool, Tool) else 0
    if request.output is not None and request.output.schema is not None:
        count += text_tokens(_json(request.output.schema))
    return count


def _json(schema: object) -> str:
    return msgspec.json.encode(schema, enc_hook=str).decode()


def _regions(asked: str | None, residency: frozenset[str] | None) -> frozenset[str] | None:
    if asked is None:
        return residency
    wanted = places(asked)
    return wanted if residency is None else wanted & residency
