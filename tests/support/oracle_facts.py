"""An answer in the words of oracle.py, so that ours and that of an official SDK can be laid side by side.

    Response of ours      ──our_facts──▶    {"text": …, "calls": …, "usage": …}
    answer of an oracle   ──their_facts──▶  {"text": …, "calls": …, "usage": …}     differences: "usage.input_tokens", …

Only usage is put into other words: the SDKs hand on what each API counts, and we count the same way for all of them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.support.recordings import same_json

from agentflow.llm.content import Media, Part, Raw, Reasoning, Text, ToolCall
from agentflow.llm.messages import Alternative, Response, TokenLogprob, Usage

__all__ = ["differences", "our_facts", "their_facts"]

Facts = dict[str, Any]


def our_facts(api: str, reply: Response, own: str) -> Facts:
    """What the oracle says of an answer of this API, from ours; `own` is the name under which its opaque data lies."""
    facts = {"chat": _chat, "responses": _responses, "messages": _messages, "generate": _generate}[api]
    usage = None if reply.usage is None else _counted(reply.usage)
    top = {"id": reply.id, "model": reply.model, "service_tier": reply.service_tier, "usage": usage}
    return {**top, **facts(reply, own)}


def _chat(reply: Response, own: str) -> Facts:
    return {"choices": [_chat_choice(each, own) for each in (reply, *reply.alternatives)]}


def _chat_choice(answer: Response | Alternative, own: str) -> Facts:
    parts = _parts(answer)
    return {
        **_words(parts, [_own(part, own).get("type") == "refusal" for part in parts]),
        "calls": _calls(parts),
        "finish": answer.raw_finish_reason,
        "annotations": _own(answer, own).get("annotations", []),
        "logprobs": _tokens(answer.logprobs),
    }


def _responses(reply: Response, own: str) -> Facts:
    parts = reply.parts
    entries = [_own(part, own).get("part", {}) for part in parts]
    words = [entry for part, entry in zip(parts, entries, strict=True) if isinstance(part, Text)]
    return {
        **_words(parts, [entry.get("type") == "refusal" for entry in entries]),
        "calls": _calls(parts),
        "finish": reply.raw_finish_reason,
        "annotations": [annotation for entry in words for annotation in entry.get("annotations") or []],
        "logprobs": _tokens(reply.logprobs),
        "others": _raw(parts),
    }


def _messages(reply: Response, own: str) -> Facts:
    parts = reply.parts
    thoughts = [_own(part, own) for part in parts if isinstance(part, Reasoning)]
    words = [_own(part, own) for part in parts if isinstance(part, Text)]
    said = _words(parts, [False] * len(parts))
    return {
        "text": said["text"],
        "thinking": said["thinking"],
        "calls": _calls(parts),
        "finish": reply.raw_finish_reason,
        "stop_sequence": _own(reply, own).get("answer", {}).get("stop_sequence"),
        "signatures": [thought.get("signature") or thought.get("data") for thought in thoughts],
        "citations": [citation for word in words for citation in word.get("citations", [])],
        "others": _raw(parts),
    }


def _generate(reply: Response, own: str) -> Facts:
    blocked = _own(reply, own).get("promptFeedback", {}).get("blockReason")
    found = [] if blocked else [_candidate(each, own) for each in (reply, *reply.alternatives)]
    return {"blocked": blocked, "choices": found}


def _candidate(answer: Response | Alternative, own: str) -> Facts:
    parts = _parts(answer)
    said, raw = _words(parts, [False] * len(parts)), _raw(parts)
    signed = [part.data if isinstance(part, Raw) else _own(part, own) for part in parts]
    results = [data["codeExecutionResult"] for data in raw if "codeExecutionResult" in data]
    codes = [data["executableCode"] for data in raw if "executableCode" in data]
    return {
        "text": said["text"],
        "thinking": said["thinking"],
        "calls": _calls(parts),
        "finish": answer.raw_finish_reason,
        "signatures": [data["thoughtSignature"] for data in signed if data.get("thoughtSignature")],
        "media": [part.data for part in parts if isinstance(part, Media)],
        "code": [[code["language"], code["code"]] for code in codes],
        "outcomes": [[result["outcome"], result.get("output", "")] for result in results],
        "logprobs": [[token.token, token.logprob] for token in answer.logprobs],
    }


def _parts(answer: Response | Alternative) -> tuple[Part, ...]:
    if isinstance(answer.content, str):
        return (Text(answer.content),) if answer.content else ()
    return answer.content


def _own(value: Any, own: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {} if isinstance(value, Raw) else value.opaque.get(own, {})
    return found


def _words(parts: Sequence[Part], refused: Sequence[bool]) -> Facts:
    """The words of an answer, those of a refusal apart, and the thoughts."""
    texts = [(part.text, no) for part, no in zip(parts, refused, strict=True) if isinstance(part, Text)]
    return {
        "text": "".join(text for text, no in texts if not no),
        "refusal": "".join(text for text, no in texts if no),
        "thinking": "".join(part.text for part in parts if isinstance(part, Reasoning)),
    }


def _calls(parts: Iterable[Part]) -> list[Any]:
    calls = [part for part in parts if isinstance(part, ToolCall)]
    return [[call.id, call.name, call.raw if call.invalid else dict(call.arguments)] for call in calls]


def _raw(parts: Iterable[Part]) -> list[Mapping[str, Any]]:
    return [part.data for part in parts if isinstance(part, Raw)]


def _tokens(logprobs: Iterable[TokenLogprob]) -> list[Any]:
    return [[each.token, each.logprob, [list(other) for other in each.alternatives]] for each in logprobs]


# ---- theirs --------------------------------------------------------------------------------------------------


def their_facts(api: str, answer: Mapping[str, Any]) -> Facts:
    """The oracle's answer with its usage counted as we count, and what stands within it where we have it."""
    usage = answer.get("usage")
    count = {"chat": _chat_usage, "responses": _responses_usage, "messages": _messages_usage, "generate": _google_usage}
    facts = {**answer, "usage": _counted(count[api](usage)) if usage else None}
    if "service_tier" not in facts:
        facts["service_tier"] = (usage or {}).get("service_tier")
    return facts


def _counted(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in usage.__struct_fields__}


def _number(usage: Mapping[str, Any], *path: str) -> int:
    value: Any = usage
    for name in path:
        value = (value or {}).get(name)
    return value or 0


def _chat_usage(usage: Mapping[str, Any]) -> Usage:
    """Compatible servers say elsewhere what was cached, Moonshot at the top, DeepSeek by another name; some, as their
    total tells, count thoughts beside the answer."""
    asked, said = _number(usage, "prompt_tokens"), _number(usage, "completion_tokens")
    thoughts = _number(usage, "completion_tokens_details", "reasoning_tokens")
    beside = thoughts if _number(usage, "total_tokens") == asked + said + thoughts else 0
    cached = [("prompt_tokens_details", "cached_tokens"), ("cached_tokens",), ("prompt_cache_hit_tokens",)]
    return Usage(
        asked,
        said + beside,
        next((count for path in cached if (count := _number(usage, *path))), 0),
        thoughts,
        _number(usage, "prompt_tokens_details", "cache_write_tokens"),
        0,
        _number(usage, "prompt_tokens_details", "audio_tokens"),
        _number(usage, "completion_tokens_details", "audio_tokens"),
    )


def _responses_usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        _number(usage, "input_tokens"),
        _number(usage, "output_tokens"),
        _number(usage, "input_tokens_details", "cached_tokens"),
        _number(usage, "output_tokens_details", "reasoning_tokens"),
        _number(usage, "input_tokens_details", "cache_write_tokens"),
    )


def _messages_usage(usage: Mapping[str, Any]) -> Usage:
    """What was read from a cache or written to one is counted beside the input."""
    cached, written = _number(usage, "cache_read_input_tokens"), _number(usage, "cache_creation_input_tokens")
    return Usage(
        _number(usage, "input_tokens") + cached + written,
        _number(usage, "output_tokens"),
        cached,
        _number(usage, "output_tokens_details", "thinking_tokens"),
        written,
        _number(usage, "cache_creation", "ephemeral_1h_input_tokens"),
    )


def _google_usage(usage: Mapping[str, Any]) -> Usage:
    """Thoughts are counted beside the answer, and what tools brought beside the prompt."""
    thoughts = _number(usage, "thoughts_token_count")
    return Usage(
        _number(usage, "prompt_token_count") + _number(usage, "tool_use_prompt_token_count"),
        _number(usage, "candidates_token_count") + thoughts,
        _number(usage, "cached_content_token_count"),
        thoughts,
        input_audio_tokens=_sound(usage, "prompt_tokens_details") + _sound(usage, "tool_use_prompt_tokens_details"),
        output_audio_tokens=_sound(usage, "candidates_tokens_details"),
    )


def _sound(usage: Mapping[str, Any], name: str) -> int:
    return sum(detail.get("token_count", 0) for detail in usage.get(name, []) if detail.get("modality") == "AUDIO")


# ---- side by side --------------------------------------------------------------------------------------------


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The smallest places where two facts differ, each with what stands there; what one lacks is None."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*ours, *theirs}):
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(mine, other, f"{path}[{at}]")
    elif not same_json(ours, theirs) and not _same_bytes(ours, theirs):
        yield path, ours, theirs


def _same_bytes(ours: Any, theirs: Any) -> bool:
    """Base64 in the two alphabets that Google uses: the SDK decodes it, and it is written again in one of them."""
    if not (isinstance(ours, str) and isinstance(theirs, str)) or ("-" not in ours and "_" not in ours):
        return False
    try:
        return base64.b64encode(base64.urlsafe_b64decode(ours)).decode() == theirs
    except ValueError:
        return False
