"""Answers of Chat Completions, whole: JSON in, a Response out; and what whole and streamed answers have in common.

    {"choices": [{"message": {…}, "finish_reason": "stop"}], "usage": {…}}  ──read_response──▶  Response

Written from OpenAI's API reference and from recorded traffic of it and of compatible servers, which differ: they leave
fields out, add their own, and put usage in three places. So unknown fields are ignored or kept, enumerations are open,
and a field counts only when it is there. What goes back with the turn is kept under the dialect's name (`"groq"`), and
there under "answer" what only tells of the answer (`system_fingerprint`, filter results), which never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agentflow.llm.content import Image, Json, Part, Raw, Reasoning, Text, content_of
from agentflow.llm.messages import Alternative, Response, TokenLogprob
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.history import ANSWER
from agentflow.llm.providers.lenient import mapping, mappings, number, text
from agentflow.llm.providers.openai.chat_calls import ToolCalls
from agentflow.llm.providers.openai.chat_pieces import Thought, Voice, details_text
from agentflow.llm.providers.openai.chat_wire import (
    OBJECT,
    WireChoice,
    answer_facts,
    choice_facts,
    cost_of,
    usage_of,
    wire_of,
)
from agentflow.llm.providers.openai.dialects import Dialect

__all__ = [
    "KNOWN_FIELDS",
    "REASONING_FIELDS",
    "REFUSAL",
    "drawn",
    "finish_reason",
    "listed_text",
    "logprobs_of",
    "opaque_of",
    "read_response",
]

REASONING_FIELDS: Final = ("reasoning_content", "reasoning")
"""DeepSeek, Moonshot, Z.ai; OpenRouter, Groq, Ollama, vLLM."""

REFUSAL: Final[Mapping[str, Json]] = {"type": "refusal"}

KNOWN_FIELDS: Final = frozenset(
    [
        *("role", "content", "refusal", "tool_calls", "function_call", "images", "audio", "reasoning_details"),
        *REASONING_FIELDS,
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


# ---- a whole answer ------------------------------------------------------------------------------------------


def read_response(body: bytes, source: Source, dialect: Dialect) -> Response:
    """A whole answer with status 200. Raises ProtocolError where it is none, or what an error in it says."""
    raw = decoded(OBJECT, body, source)
    try:
        wire = wire_of(raw)
    except msgspec.ValidationError as error:
        raise no_answer(str(error), body, source) from None
    if failure := wire.failure:
        raise wire_error(failure, source)
    choices = wire.choices or []
    if wire.choices is None and wire.message is not None:
        raise wire_error(raw, source)
    if not choices or choices[0].message is None:
        raise no_answer("it has no choices[0].message", body, source)
    facts = choice_facts(raw)
    facts[0] = {**answer_facts(raw), **facts[0]}
    answers = [_answer(choice, at, wire.id or "", facts[at], dialect) for at, choice in enumerate(choices)]
    answers.sort(key=lambda answer: answer[0])
    (_, first), *others = answers
    if not any(_says_something(answer, dialect) for _, answer in answers):
        raise no_answer("it says nothing, and not why", body, source)
    usage = wire.counted
    return Response(
        first.content,
        wire.model or source.model,
        source.provider,
        usage=usage_of(usage),
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        request_id=source.request_id,
        cost=cost_of(usage) if dialect.cost else None,
        opaque=first.opaque,
        id=wire.id or None,
        service_tier=wire.service_tier or None,
        logprobs=first.logprobs,
        alternatives=tuple([other for _, other in others]),
    )


def _answer(
    choice: WireChoice, at: int, id_: str, facts: Mapping[str, Json], dialect: Dialect
) -> tuple[int, Alternative]:
    """One of the answers, by its number; the first is one like the others until it becomes the response."""
    index = at if choice.index is None else choice.index
    message = choice.message or {}
    calls, voice = ToolCalls(dialect.name, index), Voice(dialect.name)
    parts = _parts(message, calls, voice, id_, dialect)
    refused = bool(text(message.get("refusal")))
    kept = {name: value for name, value in message.items() if value and name not in KNOWN_FIELDS}
    if calls:
        kept.update({name: "" for name in ("content", *REASONING_FIELDS) if message.get(name) == ""})
    if voice.facts:
        facts = {**facts, "audio": voice.facts}
    return index, Alternative(
        content_of(parts),
        finish_reason(choice.finish_reason, refused=refused, calls=bool(calls)),
        choice.finish_reason or None,
        logprobs_of(choice.logprobs),
        opaque_of(dialect, kept, facts),
    )


def _says_something(answer: Alternative, dialect: Dialect) -> bool:
    if answer.content or answer.raw_finish_reason:
        return True
    own = answer.opaque.get(dialect.name)
    return isinstance(own, Mapping) and bool(own.keys() - {ANSWER})


def _parts(message: Mapping[str, Any], calls: ToolCalls, voice: Voice, id_: str, dialect: Dialect) -> list[Part]:
    parts: list[Part] = []
    thought = _thought(message, dialect)
    if thought is not None:
        parts.append(thought)
    content = message.get("content")
    if isinstance(content, list):
        parts += [_listed(item, dialect.name) for item in mappings(content)]
    elif isinstance(content, str) and content:
        parts.append(Text(content))
    spoken = voice.hear(mapping(message.get("audio")))
    if spoken or voice.mark:
        parts.append(Text(spoken, opaque=voice.mark))
    refusal = text(message.get("refusal"))
    if refusal:
        parts.append(Text(refusal, opaque={dialect.name: REFUSAL}))
    parts += drawn(message.get("images"), dialect.name)
    parts += calls.whole(message.get("tool_calls"), message.get("function_call"), id_)
    sound = voice.sound()
    return parts if sound is None else [*parts, sound]


def _thought(message: Mapping[str, Any], dialect: Dialect) -> Reasoning | None:
    """The thoughts that were shown, with the field they came in where that is not the one they go back in."""
    field = next((name for name in REASONING_FIELDS if text(message.get(name))), None)
    details = message.get("reasoning_details")
    if field is None and not details:
        return None
    own: dict[str, Json] = {} if field == dialect.reasoning_field else {"field": field}
    if details:
        own["reasoning_details"] = details
    words = details_text(details) if field is None else message[field]
    return Reasoning(words, opaque={dialect.name: own} if own else {})


def _listed(item: dict[str, Any], api: str) -> Part:
    """A part of a content that came as a list: words, thoughts (Mistral), or what is kept as it is."""
    if item.get("type") == "thinking":
        thought = Thought()
        return Reasoning(thought.add(item), opaque={api: thought.own()})
    return listed_text(item, api) or Raw(api, item)


# ---- what a stream has too -----------------------------------------------------------------------------------


def opaque_of(dialect: Dialect, kept: Mapping[str, Json], facts: Mapping[str, Json]) -> Mapping[str, Json]:
    """What goes back with the turn, as far as the server takes it, and what only tells of the answer."""
    if kept and dialect.returned is not None:
        back = {name: value for name, value in kept.items() if name in KNOWN_FIELDS or name in dialect.returned}
        facts = {**{name: value for name, value in kept.items() if name not in back}, **facts}
        kept = back
    if facts:
        return {dialect.name: {**kept, ANSWER: facts}}
    return {dialect.name: kept} if kept else {}


def finish_reason(raw: str | None, *, refused: bool, calls: bool) -> str | None:
    """Our word for the server's, which stays as it is where we have none. A refusal and a call count as what they are
    also where the server says "stop"."""
    ours = _FINISH.get(raw, raw) if raw else None
    if ours is None or ours == "stop":
        if refused:
            return "content_filter"
        return "tool_calls" if calls and ours else ours
    return ours


def listed_text(item: Mapping[str, Any], api: str) -> Text | None:
    """The words of a part of a content that came as a list."""
    if item.get("type") not in ("text", "output_text") or not isinstance(item.get("text"), str):
        return None
    return Text(item["text"], opaque={api: {name: value for name, value in item.items() if name != "text"}})


def drawn(images: object, api: str) -> list[Part]:
    """Pictures in an answer (OpenRouter). An address that is none of the web's is no picture to be opened here."""
    parts: list[Part] = []
    for item in mappings(images):
        address = item.get("image_url")
        url = address.get("url") if isinstance(address, dict) else None
        if isinstance(url, str) and url.startswith(("data:", "https://", "http://")):
            rest = {name: value for name, value in item.items() if name != "image_url" and value is not None}
            parts.append(Image(url, opaque={api: rest or {"type": "image_url"}}))
    return parts


def logprobs_of(value: object) -> tuple[TokenLogprob, ...]:
    """The tokens of an answer, words before refusal."""
    if not isinstance(value, dict):
        return ()
    tokens = [token for name in ("content", "refusal") for token in mappings(value.get(name))]
    return tuple(
        [
            TokenLogprob(name, chance, tuple([(n, p) for n, p, _ in _likely(token.get("top_logprobs"))]))
            for name, chance, token in _likely(tokens)
        ]
    )


def _likely(value: object) -> Iterable[tuple[str, float, dict[str, Any]]]:
    for item in mappings(value):
        token, chance = item.get("token"), number(item.get("logprob"))
        if isinstance(token, str) and chance is not None:
            yield token, chance, item
