"""The short way for answers of Chat Completions that are words and nothing else, which is what most are.

    body ──read_plain──▶ Response, or None: then something else stands in it, and `chat_answers` reads it the long way

The shape below is strict, so whatever is not listed here is seen as something else. It costs a quarter of the long way,
and says the same.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from agentflow.llm.messages import Response, Usage
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.history import ANSWER

__all__ = ["read_plain"]

_Count = Annotated[int, Meta(ge=0, lt=10**12)]


class _Asked(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _Said(Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: Literal[0] | None = None
    rejected_prediction_tokens: Literal[0] | None = None


class _Usage(Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _Asked | None = None
    completion_tokens_details: _Said | None = None


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: Annotated[str, Meta(min_length=1)]
    refusal: None = None
    annotations: Annotated[list[None], Meta(max_length=0)] | None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None


class _Choice(Struct, forbid_unknown_fields=True, gc=False):
    message: _Message
    index: Literal[0] = 0
    finish_reason: Literal["stop", "length"] | None = None
    logprobs: None = None


class _Answer(Struct, forbid_unknown_fields=True, gc=False):
    model: Annotated[str, Meta(min_length=1)]
    choices: Annotated[list[_Choice], Meta(min_length=1, max_length=1)]
    usage: _Usage | None = None
    id: str | None = None
    object: str | None = None
    created: float | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None


_PLAIN: Final = msgspec.json.Decoder(_Answer)
_NO_ASKED, _NO_SAID = _Asked(), _Said()


def read_plain(body: bytes, source: Source, api: str) -> Response | None:
    """The answer, where it is nothing but words. `api` is the name of its opaque data."""
    try:
        answer = _PLAIN.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    usage, choice, mark = answer.usage, answer.choices[0], answer.system_fingerprint
    if usage is not None and usage.total_tokens > usage.prompt_tokens + usage.completion_tokens:
        return None  # something was counted beside the answer
    return Response(
        choice.message.content,
        answer.model,
        source.provider,
        None if usage is None else _counted(usage),
        choice.finish_reason,
        choice.finish_reason,
        source.request_id,
        None,
        {api: {ANSWER: {"system_fingerprint": mark}}} if mark else {},
        answer.id or None,
        answer.service_tier or None,
    )


def _counted(usage: _Usage) -> Usage:
    asked, said = usage.prompt_tokens_details or _NO_ASKED, usage.completion_tokens_details or _NO_SAID
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        asked.cached_tokens or 0,
        said.reasoning_tokens or 0,
        0,
        0,
        asked.audio_tokens or 0,
        said.audio_tokens or 0,
    )
