"""How many tokens something has, when nobody has counted: by its length."""

from __future__ import annotations

from typing import Final

from agentflow.llm.content import Media, Part, Raw, Reasoning, Text, ToolCall, ToolResult, parts_of
from agentflow.llm.messages import Message

__all__ = ["estimated_tokens", "text_tokens"]

_BYTES_PER_TOKEN: Final = 4  # of UTF-8; right within a third or so for prose in European languages
_TOKENS_PER_TURN: Final = 4  # role and separators
_TOKENS_PER_MEDIA: Final = 1_000  # an image of a megapixel or so


def estimated_tokens(message: Message) -> int:
    """Tokens of a turn: 4 bytes a token, more for media."""
    return _TOKENS_PER_TURN + sum(map(_part_tokens, message.parts))


def text_tokens(text: str) -> int:
    """Tokens of a text, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def _part_tokens(part: Part) -> int:
    match part:
        case Text(text=text) | Reasoning(text=text):
            return text_tokens(text)
        case ToolCall():
            return text_tokens(part.name) + text_tokens(part.json)
        case ToolResult():
            return sum([_part_tokens(inner) for inner in parts_of(part.content)])
        case Media():
            return _TOKENS_PER_MEDIA
        case Raw():
            return text_tokens(str(part.data))
