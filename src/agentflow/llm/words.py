"""What was asked, in words, for whoever keeps it: of a file its type alone."""

from __future__ import annotations

from agentflow.llm.content import Media, Part, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import EmbeddingRequest, Message, Request

__all__ = ["words_of"]


def words_of(request: Request | EmbeddingRequest) -> list[dict[str, object]]:
    """A role and its words for each turn; the texts of a request for vectors are the user's."""
    if isinstance(request, EmbeddingRequest):
        return [{"role": "user", "content": text} for text in request.inputs]
    return [{"role": message.role, "content": _words(message)} for message in request.messages]


def _words(message: Message) -> str:
    return message.content if isinstance(message.content, str) else "\n".join(map(_word, message.content))


def _word(part: Part) -> str:
    match part:
        case Text():
            return part.text
        case Reasoning():
            return f"[reasoning] {part.text}"
        case ToolCall():
            return f"[calls {part.name} with {part.json}]"
        case ToolResult():
            return f"[result of {part.name or part.id}] {part.text}"
        case Media():
            return f"[{type(part).__name__.lower()} {part.media_type or 'of an unknown type'}]"
        case _:
            return f"[{type(part).__name__.lower()}]"
