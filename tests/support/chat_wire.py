"""Chat Completions without a server: requests written, answers read, streams added up, and invented answers cut up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agentflow.llm.content import Json
from agentflow.llm.messages import Message, Request, Response, StreamChunk
from agentflow.llm.providers.api import _ENCODER
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.dialects import DIALECTS, Dialect
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.sse import ServerSentEvent

__all__ = ["SOURCE", "api", "call", "chunks_in", "completion", "delta", "read", "read_stream", "sent", "turn", "turns"]

SOURCE = Source("lab", "gpt-4o", "r-1")


def api(dialect: str | Dialect) -> ChatApi:
    return ChatApi(DIALECTS[dialect] if isinstance(dialect, str) else dialect)


def sent(request: Request, dialect: str | Dialect = "openai", *, stream: bool = False) -> dict[str, Any]:
    """The body of a request as it goes over the wire."""
    body: dict[str, Any] = json.loads(_ENCODER.encode(api(dialect).write(request, stream=stream).body))
    return body


def turns(*messages: Message, dialect: str | Dialect = "openai") -> list[dict[str, Any]]:
    """How turns are written."""
    found: list[dict[str, Any]] = sent(Request("m", messages), dialect)["messages"]
    return found


def turn(message: Message, dialect: str | Dialect = "openai") -> dict[str, Any]:
    (wire,) = turns(message, dialect=dialect)
    return wire


def read(body: Json | bytes, dialect: str | Dialect = "openai") -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api(dialect).read(raw, SOURCE)


def chunks_in(events: Iterable[Any], dialect: str | Dialect = "openai", *, name: str = "message") -> list[StreamChunk]:
    """The chunks of a stream that ends as it should."""
    reading = api(dialect).reading(SOURCE)
    found: list[StreamChunk] = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        found += reading.read(ServerSentEvent(data, name))
    return [*found, *reading.read(ServerSentEvent("[DONE]"))]


def read_stream(events: Iterable[Any], dialect: str | Dialect = "openai") -> Response:
    return join(chunks_in(events, dialect), provider="lab", model="gpt-4o")


def completion(content: Json = "Hello", finish: str | None = "stop", **message: Json) -> dict[str, Any]:
    """A whole answer."""
    said = {"role": "assistant", "content": content, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-4o-2024",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def delta(finish: str | None = None, usage: Json = None, index: int = 0, **fields: Json) -> dict[str, Any]:
    """One event of a stream."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "gpt-4o-2024",
        "choices": [{"index": index, "delta": fields, "finish_reason": finish}],
        "usage": usage,
    }


def call(
    id_: str = "call_a", name: str = "weather", arguments: Json = '{"city":"Oslo"}', **more: Json
) -> Mapping[str, Json]:
    """One tool call of an answer."""
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}, **more}
