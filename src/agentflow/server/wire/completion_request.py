"""POST /v1/completions as it arrives: texts to go on with, one question each.

    {"model": "m", "prompt": ["Once", "There"], "max_tokens": 8}   ──read_completion──▶  two calls

The old API, which many programs of measurement still speak. A model that was made for chats gets the text as the user's
turn; the texts of one request are answered side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from agentflow.llm.client import Call
from agentflow.llm.messages import Message
from agentflow.server.wire.reading import read, refuse, unset
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

__all__ = ["CompletionQuestion", "read_completion"]

_USUAL_LENGTH = 16  # tokens, as OpenAI has it


@dataclass(frozen=True, slots=True)
class CompletionQuestion:
    """`calls` are one for each of the `prompts`; `echo` has each answer begin with its prompt."""

    calls: tuple[Call, ...]
    prompts: tuple[str, ...]
    model: str
    stream: bool
    usage: bool
    echo: bool


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """All fields that are known, those that are refused or without effect included."""

    model: Annotated[str, Meta(min_length=1)]
    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=128)]
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Amount | None = None
    max_tokens: Amount | None = None
    stop: Stop | None = None
    seed: int | None = None
    n: Count | None = None
    best_of: Count | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    suffix: str | None = None


def read_completion(body: bytes) -> CompletionQuestion:
    """Raises Refusal."""
    wire = read(body, Body)
    unset(suffix=wire.suffix or None)
    for name, count in (("n", wire.n), ("best_of", wire.best_of)):
        if count is not None and count != 1:
            refuse(name, "one answer is given to each prompt; ask again for another", code="unsupported_value")
    if wire.echo and wire.logprobs is not None:
        refuse("logprobs", "there are none for the prompt, so not together with echo", code="unsupported_value")
    if wire.stream_options is not None and not wire.stream:
        refuse("stream_options", "it needs stream: true")
    prompts = (wire.prompt,) if isinstance(wire.prompt, str) else tuple(wire.prompt)
    if not all(prompts):
        refuse("prompt", "an empty text is nothing to go on with")
    usage = wire.stream_options is not None and wire.stream_options.include_usage
    calls = tuple([_call(wire, prompt) for prompt in prompts])
    return CompletionQuestion(calls, prompts, wire.model, bool(wire.stream), usage, bool(wire.echo))


def _call(wire: Body, prompt: str) -> Call:
    return Call(
        model=wire.model,
        messages=(Message("user", prompt),),
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        max_tokens=wire.max_tokens or _USUAL_LENGTH,
        stop=stop_of(wire.stop),
        seed=wire.seed,
        logprobs=wire.logprobs,
        params=params_of(
            frequency_penalty=wire.frequency_penalty,
            presence_penalty=wire.presence_penalty,
            logit_bias=wire.logit_bias,
        ),
    )
