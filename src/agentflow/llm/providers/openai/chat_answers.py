"""Answers of Chat Completions, whole: JSON in, a Response out; and what whole and streamed answers have in common.

    {"choices": [{"message": {…}, "finish_reason": "stop"}], "usage": {…}}  ──read_response──▶  Response

Written from OpenAI's API reference and from recorded traffic of it and of compatible servers, which differ: they leave
fields out, add their own, and put usage in three places. So unknown fields are ignored or kept, enumerations are open,
and a field counts only when it is there. What goes back with the turn is kept under the dialect's name (`"groq"`), and
there under "answer" what only tells of the answer (`system_fingerprint`, filter results), which never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from agentflow.llm.content import Image, Json, Part, Raw, Reasoning, Text, content_of
from agentflow.llm.messages import Alternative, Response, TokenLogprob, Usage
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.openai.chat_calls import ToolCalls
from agentflow.llm.providers.openai.dialects import ANSWER, Dialect

__all__ = [
    "KNOWN_FIELDS",
    "REASONING_FIELDS",
    "REFUSAL",
    "WireUsage",
    "answer_facts",
    "choice_facts",
    "details_text",
    "drawn",
    "finish_reason",
    "listed_part",
    "logprobs_of",
    "text_of",
    "usage_of",
]

REASONING_FIELDS: Final = ("reasoning_content", "reasoning")
"""DeepSeek, Moonshot, Z.ai; OpenRouter, Groq, Ollama, vLLM."""

REFUSAL: Final[Mapping[str, Json]] = {"type": "refusal"}

KNOWN_FIELDS: Final = frozenset(
    ["role", "content", "refusal", "tool_calls", "function_call", "images", "reasoning_details", *REASONING_FIELDS]
)
_TOP: Final = frozenset(
    ["id", "object", "created", "model", "choices", "usage", "service_tier", "error", "obfuscation", "message"]
)
_CHOICE: Final = frozenset(["index", "message", "delta", "finish_reason", "logprobs", "usage", "error"])
_USAGE: Final = frozenset(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cost"),
        *("prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "reasoning_tokens", "audio_tokens"),
        *("text_tokens", "cache_write_tokens"),
    ]
)

_FINISH: Final = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "guardrail_intervened": "content_filter",
    "network_error": "error",
    "insufficient_system_resource": "error",
}


# ---- shapes --------------------------------------------------------------------------------------------------


class _Details(Struct):
    cached_tokens: float | None = None
    cache_write_tokens: float | None = None
    audio_tokens: float | None = None
    reasoning_tokens: float | None = None


class WireUsage(Struct):
    """Usage in the three places where it stands."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    total_tokens: float | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    cached_tokens: float | None = None  # Moonshot
    prompt_cache_hit_tokens: float | None = None  # DeepSeek
    cost: float | None = None  # OpenRouter


class _Choice(Struct):
    index: int | None = None
    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: object = None
    usage: WireUsage | None = None  # Moonshot
    error: object = None  # OpenRouter


class _Body(Struct):
    choices: list[_Choice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    id: object = None
    service_tier: object = None
    error: object = None


_PLAIN: Final = ("role", "content")  # most answers say nothing else
_ANY: Final = msgspec.json.Decoder(dict[str, Any])


# ---- a whole answer ------------------------------------------------------------------------------------------


def read_response(body: bytes, source: Source, dialect: Dialect) -> Response:
    """A whole answer with status 200. Raises ProtocolError where it is none, or what an error in it says."""
    raw = decoded(_ANY, body, source)
    try:
        wire = msgspec.convert(raw, _Body)
    except msgspec.ValidationError as error:
        raise no_answer(str(error), body, source) from None
    choices = wire.choices or []
    failure = wire.error or next((choice.error for choice in choices if choice.error), None)
    if failure:
        raise wire_error(failure, source)
    if not choices or choices[0].message is None:
        raise no_answer("it has no choices[0].message", body, source)
    id_ = text_of(wire.id)
    facts = [choice_facts(choice) for choice in raw["choices"]]
    facts[0] = {**answer_facts(raw), **facts[0]}
    answers = [_answer(choice, at, id_, facts[at], dialect) for at, choice in enumerate(choices)]
    answers.sort(key=lambda answer: answer[0])
    (_, first), *others = answers
    usage = wire.usage or choices[0].usage
    return Response(
        first.content,
        wire.model or source.model,
        source.provider,
        usage=usage_of(usage),
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        request_id=source.request_id,
        cost=usage.cost if usage is not None and dialect.cost else None,
        opaque=first.opaque,
        id=id_ or None,
        service_tier=text_of(wire.service_tier) or None,
        logprobs=first.logprobs,
        alternatives=tuple([other for _, other in others]),
    )


def _answer(choice: _Choice, at: int, id_: str, facts: Mapping[str, Json], dialect: Dialect) -> tuple[int, Alternative]:
    """One of the answers, by its number; the first is one like the others until it becomes the response."""
    number = at if choice.index is None else choice.index
    message = choice.message or {}
    content = message.get("content")
    if type(content) is str and not any([message[name] for name in message if name not in _PLAIN]):
        reason, raw = finish_reason(choice.finish_reason, refused=False, calls=False), choice.finish_reason or None
        return number, Alternative(content, reason, raw, logprobs_of(choice.logprobs), opaque_of(dialect, {}, facts))
    calls = ToolCalls(dialect.name, number)
    parts = _parts(message, calls, id_, dialect)
    refused = bool(text_of(message.get("refusal")))
    kept = {name: value for name, value in message.items() if value and name not in KNOWN_FIELDS}
    if calls:
        kept.update({name: "" for name in ("content", *REASONING_FIELDS) if message.get(name) == ""})
    return number, Alternative(
        content_of(parts),
        finish_reason(choice.finish_reason, refused=refused, calls=bool(calls)),
        choice.finish_reason or None,
        logprobs_of(choice.logprobs),
        opaque_of(dialect, kept, facts),
    )


def _parts(message: Mapping[str, Any], calls: ToolCalls, id_: str, dialect: Dialect) -> list[Part]:
    parts: list[Part] = []
    thought = _thought(message, dialect)
    if thought is not None:
        parts.append(thought)
    content = message.get("content")
    if isinstance(content, list):
        parts += [listed_part(item, dialect.name) for item in content if isinstance(item, dict)]
    elif isinstance(content, str) and content:
        parts.append(Text(content))
    refusal = text_of(message.get("refusal"))
    if refusal:
        parts.append(Text(refusal, opaque={dialect.name: REFUSAL}))
    parts += drawn(message.get("images"), dialect.name)
    parts += calls.whole(message.get("tool_calls"), message.get("function_call"), id_)
    return parts


def _thought(message: Mapping[str, Any], dialect: Dialect) -> Reasoning | None:
    """The thoughts that were shown, with the field they came in where that is not the one they go back in."""
    field = next((name for name in REASONING_FIELDS if text_of(message.get(name))), None)
    details = message.get("reasoning_details")
    if field is None and not details:
        return None
    own: dict[str, Json] = {} if field == dialect.reasoning_field else {"field": field}
    if details:
        own["reasoning_details"] = details
    text = details_text(details) if field is None else message[field]
    return Reasoning(text, opaque={dialect.name: own} if own else {})


# ---- what a stream has too -----------------------------------------------------------------------------------


def opaque_of(dialect: Dialect, kept: Mapping[str, Json], facts: Mapping[str, Json]) -> Mapping[str, Json]:
    """What goes back with the turn, and what only tells of the answer."""
    if facts:
        return {dialect.name: {**kept, ANSWER: facts}}
    return {dialect.name: kept} if kept else {}


def answer_facts(raw: Mapping[str, Any]) -> dict[str, Json]:
    """What a body says that is not modelled, usage of kinds that are not counted included."""
    facts = {name: value for name, value in raw.items() if value and name not in _TOP}
    usage = raw.get("usage")
    extra = _uncounted(usage) if isinstance(usage, Mapping) else {}
    if extra:
        facts["usage"] = extra
    return facts


def choice_facts(raw: Mapping[str, Any]) -> dict[str, Json]:
    return {name: value for name, value in raw.items() if value and name not in _CHOICE}


def _uncounted(usage: Mapping[str, Any]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in usage.items():
        if value and name not in _USAGE:
            inner = _uncounted(value) if name.endswith("_tokens_details") and isinstance(value, Mapping) else value
            if inner:
                found[name] = inner
    return found


def usage_of(wire: WireUsage | None) -> Usage | None:
    """Both counts are inclusive already, except where the total shows that thoughts are counted beside the answer
    (docs.x.ai: 32 + 9 + 94 reasoning tokens are 135). None where nothing is counted."""
    if wire is None or (wire.prompt_tokens is None and wire.completion_tokens is None):
        return None
    prompt, completion = wire.prompt_tokens_details or _NO_DETAILS, wire.completion_tokens_details or _NO_DETAILS
    asked, said, thought = wire.prompt_tokens or 0, wire.completion_tokens or 0, completion.reasoning_tokens or 0
    beside = thought and wire.total_tokens == asked + said + thought
    return Usage(
        int(asked),
        int(said + thought if beside else said),
        int(prompt.cached_tokens or wire.cached_tokens or wire.prompt_cache_hit_tokens or 0),
        int(thought),
        int(prompt.cache_write_tokens or 0),
        0,
        int(prompt.audio_tokens or 0),
        int(completion.audio_tokens or 0),
    )


_NO_DETAILS: Final = _Details()


def finish_reason(raw: str | None, *, refused: bool, calls: bool) -> str | None:
    """Our word for the server's, which stays as it is where we have none. A refusal and a call count as what they are
    also where the server says "stop"."""
    ours = _FINISH.get(raw, raw) if raw else None
    if ours is None or ours == "stop":
        if refused:
            return "content_filter"
        return "tool_calls" if calls and ours else ours
    return ours


def listed_part(item: dict[str, Any], api: str) -> Part:
    """A part of a content that came as a list: words, thoughts (Mistral), or what is kept as it is."""
    kind = item.get("type")
    if kind in ("text", "output_text") and isinstance(item.get("text"), str):
        return Text(item["text"], opaque={api: {name: value for name, value in item.items() if name != "text"}})
    if kind == "thinking":
        thinking = item.get("thinking")
        return Reasoning(thinking if isinstance(thinking, str) else details_text(thinking), opaque={api: item})
    return Raw(api, item)


def details_text(details: object) -> str:
    """The readable part of a list of thoughts; ciphers have none."""
    if not isinstance(details, list):
        return ""
    found = [item.get("text") or item.get("summary") for item in details if isinstance(item, dict)]
    return "".join([text for text in found if isinstance(text, str)])


def drawn(images: object, api: str) -> list[Part]:
    """Pictures in an answer (OpenRouter). An address that is none of the web's is no picture to be opened here."""
    parts: list[Part] = []
    for item in images if isinstance(images, list) else []:
        address = item.get("image_url") if isinstance(item, dict) else None
        url = address.get("url") if isinstance(address, dict) else None
        if isinstance(url, str) and url.startswith(("data:", "https://", "http://")):
            rest = {name: value for name, value in item.items() if name != "image_url" and value is not None}
            parts.append(Image(url, opaque={api: rest or {"type": "image_url"}}))
    return parts


def logprobs_of(value: object) -> tuple[TokenLogprob, ...]:
    """The tokens of an answer, words before refusal."""
    if not isinstance(value, dict):
        return ()
    tokens = [token for name in ("content", "refusal") for token in _entries(value.get(name))]
    return tuple(
        [
            TokenLogprob(name, number, tuple([(n, p) for n, p, _ in _likely(token.get("top_logprobs"))]))
            for name, number, token in _likely(tokens)
        ]
    )


def _entries(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _likely(value: object) -> Iterable[tuple[str, float, dict[str, Any]]]:
    for item in _entries(value):
        token, number = item.get("token"), item.get("logprob")
        if isinstance(token, str) and isinstance(number, int | float) and not isinstance(number, bool):
            yield token, float(cast("float", number)), item


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""
