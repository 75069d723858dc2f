"""What tells one question, or one call of a tool, from all others in a step: a hash that is the same in every process.

    Request(model, messages, …)  ──request_print──▶  "3fa9c1…"     the same question, asked anew or after a restart
    ToolCall(id, name, …)        ──call_print─────▶  "tool-81b0…"  the same call in the same answer

All that may change the answer counts: texts, the bytes of files, parameters, the schema, tools as they are declared.
How long it may take, what it may cost, who asks and what is noted about it (`metadata`) do not, and neither does the
order of the keys in a mapping.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from agentflow.errors import SerializationError
from agentflow.llm.content import ToolCall, plain
from agentflow.llm.messages import EmbeddingRequest, Request

__all__ = ["call_print", "request_print"]


def request_print(asked: Request | EmbeddingRequest, provider: str) -> str:
    """32 hexadecimal digits. Files must have been read. Raises SerializationError for what JSON cannot hold."""
    if isinstance(asked, Request):
        return _hashed("chat", provider, replace(asked, timeout=None, metadata={}))
    return _hashed("embeddings", provider, replace(asked, timeout=None))


def call_print(call: ToolCall, answer: str) -> str:
    """The same for a call of a tool in an answer. `answer` names that: a model may give every call the same id. What
    it begins with says that it is no request to a model."""
    return "tool-" + _hashed("tool", answer, call.id, call.name, call.raw if call.invalid else call.arguments)


def _hashed(*facts: object) -> str:
    try:
        text = msgspec.json.encode(facts, enc_hook=plain, order="sorted")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(str(facts[0]), f"JSON cannot hold what is asked: {error}") from error
    return hashlib.sha256(text).hexdigest()[:32]
