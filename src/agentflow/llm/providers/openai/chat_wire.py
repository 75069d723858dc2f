"""What an answer of Chat Completions looks like on the wire, whole and streamed: the shapes, and usage.

    {"choices": [{"message": {…}}], "usage": {…}}     ──wire_of──▶  WireAnswer(choices=[WireChoice(message={…})], …)
    {"choices": [{"delta": {"content": "Hel"}}]}      ──EVENT────▶  WireAnswer(choices=[WireChoice(delta={…})])

What an answer stands and falls with is checked: its choices, and the message or delta of each. Of everything else, what
is not what it should be counts as not there: a good answer is not thrown away for an odd field beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import Usage
from agentflow.llm.providers.lenient import count, mapping, mappings, number

__all__ = [
    "EVENT",
    "OBJECT",
    "WireAnswer",
    "WireChoice",
    "answer_facts",
    "choice_facts",
    "cost_of",
    "usage_of",
    "wire_of",
]


class WireChoice(Struct, gc=False):
    """One of the answers: with a message where it is whole, with a delta in a stream."""

    index: int | None = None
    message: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: object = None
    usage: dict[str, Any] | None = None  # Moonshot
    error: object = None  # OpenRouter


class WireAnswer(Struct, gc=False):
    """A body, or an event of a stream."""

    choices: list[WireChoice] | None = None
    usage: dict[str, Any] | None = None
    model: str | None = None
    id: str | None = None
    service_tier: str | None = None
    error: object = None
    message: object = None  # an error without an envelope
    x_groq: object = None

    @property
    def failure(self) -> object:
        """The error in it, at the top or in a choice."""
        return self.error or next((choice.error for choice in self.choices or () if choice.error), None)

    @property
    def counted(self) -> Mapping[str, Any] | None:
        """Usage, in one of the places where it stands."""
        if self.usage is not None:
            return self.usage
        if self.x_groq is not None and (told := mapping(mapping(self.x_groq).get("usage"))):
            return told  # Groq, where a stream was not asked for it
        return next((choice.usage for choice in self.choices or () if choice.usage is not None), None)


_PLAUSIBLE: Final = 10**12  # tokens; whether more are any is for `count` to say
EVENT: Final = msgspec.json.Decoder(WireAnswer)
"""The short way for events in which all is as it should be; for the others there is `wire_of`."""
OBJECT: Final = msgspec.json.Decoder(dict[str, Any])

_BESIDE: Final[Mapping[str, type]] = {
    "usage": dict,
    "model": str,
    "id": str,
    "service_tier": str,
    "index": int,
    "finish_reason": str,
}


def wire_of(raw: Mapping[str, Any]) -> WireAnswer:
    """An answer from its JSON, without the odd fields. Raises msgspec.ValidationError where it is none."""
    try:
        return msgspec.convert(raw, WireAnswer)
    except msgspec.ValidationError:
        fit = _without_odd(raw)
        if isinstance(fit.get("choices"), list):
            fit["choices"] = [_without_odd(item) if isinstance(item, dict) else item for item in fit["choices"]]
        return msgspec.convert(fit, WireAnswer)


def _without_odd(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if type(value) is _BESIDE.get(name, type(value))}


# ---- usage ---------------------------------------------------------------------------------------------------


def usage_of(wire: Mapping[str, Any] | None) -> Usage | None:
    """Both counts are inclusive already, except where the total shows that thoughts are counted beside the answer:
    docs.x.ai, 32 + 9 + 94 reasoning tokens are 135; Gemini's compatible face, 29 + 10 are 241. None where nothing is
    counted."""
    if not wire:
        return None
    asked, said, total = _count(wire, "prompt_tokens"), _count(wire, "completion_tokens"), _count(wire, "total_tokens")
    if (
        not (asked or said)
        and number(wire.get("prompt_tokens")) is None
        and number(wire.get("completion_tokens")) is None
    ):
        return None
    output = total - asked if total - asked > said and wire.get("prompt_tokens") is not None else said
    prompt, completion = wire.get("prompt_tokens_details"), wire.get("completion_tokens_details")
    hit = _count(wire, "cached_tokens") or _count(wire, "prompt_cache_hit_tokens")  # Moonshot, DeepSeek
    thought = _count(wire, "reasoning_tokens")  # SGLang and Perplexity say it beside the counts, not in their details
    if not prompt and not completion:
        return Usage(asked, output, hit, thought)
    prompt, completion = mapping(prompt), mapping(completion)
    return Usage(
        asked,
        output,
        _count(prompt, "cached_tokens") or hit,
        _count(completion, "reasoning_tokens") or thought,
        _count(prompt, "cache_write_tokens"),
        0,
        _count(prompt, "audio_tokens"),
        _count(completion, "audio_tokens"),
    )


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return 0 if not value else value if type(value) is int and 0 < value < _PLAUSIBLE else count(value)


def cost_of(wire: Mapping[str, Any] | None) -> float | None:
    """What OpenRouter says that a call cost, in dollars."""
    return None if wire is None else number(wire.get("cost"))


# ---- what tells of the answer --------------------------------------------------------------------------------

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


def answer_facts(raw: Mapping[str, Any]) -> dict[str, Json]:
    """What a body says that is not modelled, usage of kinds that are not counted included."""
    facts = {name: value for name, value in raw.items() if value and name not in _TOP}
    extra = _uncounted(mapping(raw.get("usage")))
    if extra:
        facts["usage"] = extra
    return facts


def choice_facts(raw: Mapping[str, Any]) -> list[dict[str, Json]]:
    """What each choice says of itself that is not modelled, in their order."""
    return [
        {name: value for name, value in choice.items() if value and name not in _CHOICE}
        for choice in mappings(raw.get("choices"))
    ]


def _uncounted(usage: Mapping[str, Any]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in usage.items():
        if value and name not in _USAGE:
            inner = _uncounted(value) if name.endswith("_tokens_details") and isinstance(value, dict) else value
            if inner:
                found[name] = inner
    return found
