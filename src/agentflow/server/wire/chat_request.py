"""POST /v1/chat/completions as it arrives: JSON in, a question for a model of ours out.

    {"model": "edge/support", "messages": […], "max_tokens": 64}   ──read_chat──▶  ChatQuestion(Call(…), stream=False)

After OpenAI's API reference and the types of its Python client (CompletionCreateParams, 3.57). Names that are not known
here are refused by name, as OpenAI does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from agentflow.llm.client import Call
from agentflow.llm.messages import PromptCache, Thinking
from agentflow.server.wire.reading import read, refuse, unset, within
from agentflow.server.wire.settings import (
    Amount,
    Bias,
    Count,
    Penalty,
    Share,
    Stop,
    StreamOptions,
    Temperature,
    params_of,
    stop_of,
)
from agentflow.server.wire.tooling import WireChoice, WireFormat, WireTool, choice_of, format_of, tools_of
from agentflow.server.wire.turns import WireTurn, messages_of

__all__ = ["ChatQuestion", "read_chat"]


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """What is asked, and how it is to be answered: `usage` asks for a last chunk that tells it."""

    call: Call
    model: str
    stream: bool
    usage: bool
    n: int


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """All fields that are known, those that are refused or without effect included."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[WireTurn], Meta(min_length=1)]
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Amount | None = None
    max_tokens: Amount | None = None
    max_completion_tokens: Amount | None = None
    stop: Stop | None = None
    seed: int | None = None
    n: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: WireFormat | None = None
    reasoning_effort: str | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: list[Literal["text"]] | None = None
    # Without effect here.
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    # Known, and refused.
    audio: object = None
    functions: object = None
    function_call: object = None
    prediction: object = None
    web_search_options: object = None


def read_chat(body: bytes) -> ChatQuestion:
    """Raises Refusal."""
    wire = read(body, Body)
    unset(
        audio=wire.audio,
        functions=wire.functions,
        function_call=wire.function_call,
        prediction=wire.prediction,
        web_search_options=wire.web_search_options,
    )
    return ChatQuestion(_call(wire), wire.model, bool(wire.stream), _wants_usage(wire), wire.n or 1)


def _call(wire: Body) -> Call:
    tools = tools_of(wire.tools)
    return Call(
        model=wire.model,
        messages=messages_of(wire.messages),
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        max_tokens=_max_tokens(wire),
        stop=stop_of(wire.stop),
        seed=wire.seed,
        n=wire.n if wire.n != 1 else None,
        logprobs=_logprobs(wire),
        params=params_of(
            frequency_penalty=wire.frequency_penalty,
            presence_penalty=wire.presence_penalty,
            logit_bias=wire.logit_bias,
        ),
        hosted=tools,
        tool_choice=choice_of(wire.tool_choice, tools),
        parallel_tool_calls=wire.parallel_tool_calls if tools else None,
        format=format_of(wire.response_format),
        thinking=None if wire.reasoning_effort is None else Thinking(_effort(wire.reasoning_effort)),
        cache=_cache(wire),
        metadata=wire.metadata or {},
    )


def _effort(word: str) -> str:
    return within("reasoning_effort", word, "effort")


def _max_tokens(wire: Body) -> int | None:
    """Two names for one thing; the newer one is OpenAI's, the older one everybody's."""
    old, new = wire.max_tokens, wire.max_completion_tokens
    if old is not None and new is not None and old != new:
        refuse("max_tokens", "it contradicts max_completion_tokens; say one of them")
    return old if new is None else new


def _logprobs(wire: Body) -> int | None:
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        refuse("top_logprobs", "it needs logprobs: true")
    return None


def _cache(wire: Body) -> PromptCache | None:
    ttl = "24h" if wire.prompt_cache_retention == "24h" else None
    if ttl is None and not wire.prompt_cache_key:
        return None
    return PromptCache(ttl, wire.prompt_cache_key or None)


def _wants_usage(wire: Body) -> bool:
    if wire.stream_options is None:
        return False
    if not wire.stream:
        refuse("stream_options", "it needs stream: true")
    return wire.stream_options.include_usage
