"""Parts a question into the words that may differ, and all the rest, which may not.

    Request(system, history, …, "How far is the moon?")  ──▶  text "How far is the moon?", frame: hash of the rest

The text is that of the last user turn. The frame is made as the exact tier makes its keys, so whatever would change an
exact key changes the frame: the model, every other turn, every parameter, pictures beside the text, the tenant.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agentflow.llm.content import Text
from agentflow.llm.messages import Message
from agentflow.mcp.performance.caching.canonical import canonical
from agentflow.mcp.performance.caching.semantic_tier import Asked

__all__ = ["Framed", "framed"]

_HOLE: Final = "\x00"


class Framed(Struct, frozen=True):
    """The `text` that may differ; `frame` is the hash of all the rest, 32 bytes."""

    text: str
    frame: bytes


def framed(asked: Asked) -> Framed | None:
    """None where the last user turn has no words. Raises SerializationError for what JSON cannot hold."""
    messages = asked.request.messages
    last = next((place for place in reversed(range(len(messages))) if messages[place].role == "user"), None)
    if last is None or not messages[last].text.strip():
        return None
    turn = _hollow(messages[last])
    rest = replace(asked.request, messages=(*messages[:last], turn, *messages[last + 1 :]))
    tenant = b"nobody" if asked.tenant is None else b"tenant:" + asked.tenant.encode("utf-8", "surrogatepass")
    hashed = hashlib.sha256(tenant + b"\x00" + canonical(rest, asked.provider, "frame")).digest()
    return Framed(messages[last].text, hashed)


def _hollow(message: Message) -> Message:
    """The same turn without its words. What stands where beside them still counts."""
    if isinstance(message.content, str):
        return replace(message, content=_HOLE)
    content = tuple([replace(part, text=_HOLE) if isinstance(part, Text) else part for part in message.content])
    return replace(message, content=content)
