"""Whole answers as OpenAI writes them: Response and Embeddings in, plain data for JSON out.

    Response("Hello.", …)  ──chat──▶        {"object": "chat.completion", "choices": [{"message": {…}}], "usage": {…}}
                           ──completion──▶  {"object": "text_completion", "choices": [{"text": "Hello."}], …}
    Embeddings(…)          ──embeddings──▶  {"object": "list", "data": [{"embedding": […]}], …}

`model` is the name that was asked for, whoever answered behind it. Thoughts stand in `reasoning_content`, which
compatible servers and clients know.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterable, Mapping, Sequence
from sys import byteorder
from typing import Final

from agentflow.llm.content import Image, Json, Reasoning, Text, ToolCall, parts_of
from agentflow.llm.messages import Alternative, Embeddings, Response, TokenLogprob, Usage

__all__ = [
    "chat",
    "completion",
    "drawn",
    "embeddings",
    "finish_reason",
    "model",
    "models",
    "old_logprobs",
    "summed",
    "token_logprobs",
    "usage_fields",
]

_FINISHES: Final = frozenset(["stop", "length", "content_filter", "tool_calls"])


def chat(response: Response, *, id: str, created: int, model: str) -> dict[str, Json]:
    """A `chat.completion`."""
    answers: list[Response | Alternative] = [response, *response.alternatives]
    choices = [_choice(at, each) for at, each in enumerate(answers)]
    whole: dict[str, Json] = {"id": id, "object": "chat.completion", "created": created, "model": model}
    return {**whole, "choices": choices, "usage": usage_fields(response.usage)}


def _choice(index: int, answer: Response | Alternative) -> dict[str, Json]:
    message = _message(answer)
    return {
        "index": index,
        "message": message,
        "logprobs": token_logprobs(answer.logprobs) if answer.logprobs else None,
        "finish_reason": finish_reason(answer.finish_reason, calls="tool_calls" in message),
    }


def _message(answer: Response | Alternative) -> dict[str, Json]:
    parts = parts_of(answer.content)
    words = "".join([part.text for part in parts if isinstance(part, Text)])
    calls = [_call(part) for part in parts if isinstance(part, ToolCall)]
    message: dict[str, Json] = {"role": "assistant", "content": words if words or not calls else None, "refusal": None}
    thought = "".join([part.text for part in parts if isinstance(part, Reasoning)])
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    images = [drawn(part) for part in parts if isinstance(part, Image) and part.path is None]
    return {**message, "images": images} if images else message


def _call(part: ToolCall) -> dict[str, Json]:
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.json}}


def drawn(part: Image) -> dict[str, Json]:
    """A picture in an answer, as OpenRouter shows them."""
    return {"type": "image_url", "image_url": {"url": part.uri}}


def finish_reason(said: str | None, *, calls: bool) -> str:
    """One of the words that clients know; an answer that is here has ended somehow."""
    return said if said in _FINISHES else "tool_calls" if calls else "stop"


def usage_fields(usage: Usage | None) -> dict[str, Json] | None:
    """None where nobody has counted."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": usage.input_audio_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }


def token_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Json]:
    """The log probabilities of a chat."""
    content = [
        {**_chance(each.token, each.logprob), "top_logprobs": [_chance(*other) for other in each.alternatives]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def _chance(token: str, logprob: float) -> dict[str, Json]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


# ---- completions ---------------------------------------------------------------------------------------------


def completion(
    responses: Sequence[Response], prompts: Sequence[str], *, id: str, created: int, model: str
) -> dict[str, Json]:
    """A `text_completion`; `prompts` are what each answer begins with, empty where nothing is echoed."""
    choices = [
        {
            "index": at,
            "text": prompt + response.text,
            "logprobs": old_logprobs(response.logprobs) if response.logprobs else None,
            "finish_reason": finish_reason(response.finish_reason, calls=False),
        }
        for at, (response, prompt) in enumerate(zip(responses, prompts, strict=True))
    ]
    whole: dict[str, Json] = {"id": id, "object": "text_completion", "created": created, "model": model}
    return {**whole, "choices": choices, "usage": usage_fields(summed([each.usage for each in responses]))}


def summed(usages: Iterable[Usage | None]) -> Usage | None:
    """Several answers' usage; None where any of them is not known."""
    total = Usage()
    for usage in usages:
        if usage is None:
            return None
        total += usage
    return total


def old_logprobs(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Json]:
    """The log probabilities of a completion: lists side by side. `offset` is where in the text the first token is."""
    offsets: list[Json] = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    tops: list[Mapping[str, Json]] = [dict(each.alternatives) for each in tokens]
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


# ---- vectors and names ---------------------------------------------------------------------------------------


def embeddings(found: Embeddings, *, model: str, packed: bool) -> dict[str, Json]:
    data: list[Json] = [
        {"object": "embedding", "index": at, "embedding": _packed(vector) if packed else vector}
        for at, vector in enumerate(found.vectors)
    ]
    tokens = 0 if found.usage is None else found.usage.input_tokens
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _packed(vector: Iterable[float]) -> str:
    """Base64 of 32-bit floats, little-endian."""
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def model(id: str, *, created: int, owner: str) -> dict[str, Json]:
    return {"id": id, "object": "model", "created": created, "owned_by": owner}


def models(entries: Sequence[Json]) -> dict[str, Json]:
    return {"object": "list", "data": entries}
