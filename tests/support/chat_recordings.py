"""Recorded Chat Completions, read twice without the adapter: requests into `Request`s, answers by a plain reader.

    as_request(recorded body)  →  Request   whatever has a field of ours is put there, the rest into params and opaque
    plain_reading(recording)   →  Plain     json and string operations alone

Who recorded the traffic had a client of their own with habits of its own (which name `max_tokens` has, whether a stream
is asked for usage, how a turn without words says so). Such habits are options of the provider here, so `api_for` sets
them; nothing else is left out of the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from agentflow.llm.content import Audio, Document, Image, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message, OutputFormat, PromptCache, Request, Response, Thinking, Tool
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.moonshot import MoonshotApi
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.dialects import Dialect, dialect_of

from .recordings import Recording

__all__ = [
    "CHAT",
    "Plain",
    "api_for",
    "as_plain",
    "as_request",
    "cut_or_failed",
    "habits",
    "is_chat",
    "plain_reading",
]

CHAT = "/chat/completions"


def is_chat(recording: Recording) -> bool:
    """Whether the answer is one of this API at all: some tests record what is none."""
    return recording.streamed or b'"choices"' in recording.body


# ---- the recorder's habits -----------------------------------------------------------------------------------


def habits(wire: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a provider of ours would have to write what that client wrote."""
    found: dict[str, Any] = {}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in wire:
            found["max_tokens_field"] = name
    if wire.get("stream"):
        found["stream_options"] = (wire.get("stream_options") or {}).get("include_usage") is True
    for message in wire["messages"]:
        if message["role"] == "assistant" and not message.get("content"):
            silent = message.get("content", "omit")
            found["empty_content"] = {None: "null", "": "empty"}.get(silent, "omit")
            if silent == "omit" or message.get("tool_calls"):
                break
    return found


def api_for(recording: Recording, *, tuned: bool = True) -> ChatApi:
    """The API that the recording's host speaks, with the habits of who recorded it."""
    base_url = recording.uri.partition(CHAT)[0]
    options = habits(recording.request) if tuned else {}
    dialect = dialect_of(ProviderSettings("recorded", "openai", base_url=base_url, options=options), base_url)
    return MoonshotApi(dialect) if dialect.name == "moonshot" else ChatApi(dialect)


# ---- requests ------------------------------------------------------------------------------------------------


@dataclass
class _Fields:
    """The fields of a request that are still to be read; what nobody takes goes into params."""

    left: dict[str, Any]
    set: dict[str, Any] = field(default_factory=dict)

    def take(self, name: str, kind: type | tuple[type, ...], ours: str = "") -> None:
        value = self.left.get(name)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            self.set[ours or name] = self.left.pop(name)


def as_request(wire: Mapping[str, Any], api: ChatApi) -> Request:
    """The request of a recorded body, as a user of ours would put it together."""
    dialect = api.dialect
    fields = _Fields({name: value for name, value in wire.items() if name not in ("model", "messages")})
    fields.take("temperature", (int, float))
    fields.take("top_p", (int, float))
    fields.take(dialect.max_tokens_field, int, "max_tokens")
    if dialect.seed:
        fields.take("seed", int)
    if dialect.n:
        fields.take("n", int)
    if dialect.top_k:
        fields.take("top_k", int)
    fields.take("parallel_tool_calls", bool)
    _take_lists(fields)
    _take_logprobs(fields, dialect)
    _take_tools(fields, dialect)
    _take_output(fields, dialect)
    _take_thinking(fields, dialect, str(wire["model"]))
    _take_cache(fields, dialect)
    metadata = fields.left.get("metadata")
    allowed = dialect.metadata and (not dialect.metadata_needs_store or fields.left.get("store") is True)
    if allowed and metadata and all(isinstance(value, str) for value in metadata.values()):
        fields.take("metadata", dict)
    _take_stream(fields)
    messages = tuple([_message(message, dialect) for message in wire["messages"]])
    return Request(wire["model"], messages, params=fields.left, **fields.set)


def _take_lists(fields: _Fields) -> None:
    stop = fields.left.get("stop")
    if isinstance(stop, list) and stop and all(isinstance(mark, str) for mark in stop):
        fields.set["stop"] = tuple(fields.left.pop("stop"))


def _take_logprobs(fields: _Fields, dialect: Dialect) -> None:
    if fields.left.get("logprobs") is True and dialect.logprobs:
        top = fields.left.get("top_logprobs", 0)
        if type(top) is int and (top > 0 or "top_logprobs" not in fields.left):
            del fields.left["logprobs"]
            fields.left.pop("top_logprobs", None)
            fields.set["logprobs"] = top


def _take_tools(fields: _Fields, dialect: Dialect) -> None:
    tools = fields.left.get("tools")
    if isinstance(tools, list) and tools:
        fields.set["tools"] = tuple([_tool(tool, dialect) for tool in fields.left.pop("tools")])
    choice = fields.left.get("tool_choice")
    match choice:
        case "auto" | "none":
            pass
        case "required" if dialect.forced_tools:
            pass
        case {"type": "function", "function": {"name": str(name)}} if len(choice) == 2 and dialect.forced_tools:
            choice = name
        case {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": list(allowed)}} if (
            dialect.allowed_tools
        ):
            names = [tool.get("function", {}).get("name") for tool in allowed]
            if not all(isinstance(name, str) for name in names):
                return
            choice = tuple(names)
        case _:
            return
    del fields.left["tool_choice"]
    fields.set["tool_choice"] = choice


def _tool(tool: dict[str, Any], dialect: Dialect) -> Tool | Raw:
    function = tool.get("function")
    cache = _cache_of(tool.get("cache_control")) if dialect.cache_marks else None
    outer = {"type", "function"} | ({"cache_control"} if cache else set())
    plain = tool.get("type") == "function" and isinstance(function, dict) and tool.keys() == outer
    if not plain or not function.keys() <= {"name", "description", "parameters", "strict"}:
        return Raw(dialect.name, tool)
    if not all(function.values()) and function.get("strict") is not False:
        return Raw(dialect.name, tool)  # an empty description or schema, which we would leave out
    return Tool(**function, cache=cache)


def _take_output(fields: _Fields, dialect: Dialect) -> None:
    shape = fields.left.get("response_format")
    if shape == {"type": "json_object"} and dialect.schema != "none":
        fields.set["output"] = OutputFormat("answer")
    elif isinstance(shape, dict) and shape.get("type") == "json_schema" and dialect.schema == "json_schema":
        inner = shape.get("json_schema") or {}
        if (
            None in inner.values()
            or not {"name", "schema"} <= inner.keys() <= {"name", "schema", "strict", "description"}
            or len(shape) > 2
        ):
            return
        fields.set["output"] = OutputFormat(**inner)
    else:
        return
    del fields.left["response_format"]


def _take_thinking(fields: _Fields, dialect: Dialect, model: str) -> None:
    effort, switch, reasoning = (fields.left.get(name) for name in ("reasoning_effort", "thinking", "reasoning"))
    kind = switch.get("type") if isinstance(switch, dict) else None
    if dialect.thinking == "effort" and isinstance(effort, str) and effort not in dialect.efforts:
        fields.set["thinking"] = Thinking(fields.left.pop("reasoning_effort"))
    elif dialect.thinking == "both" and kind == "enabled" and isinstance(effort, str):
        fields.set["thinking"] = Thinking(fields.left.pop("reasoning_effort"))
        fields.left["thinking"] = {name: value for name, value in switch.items() if name != "type"}
    elif kind == "disabled" and (dialect.thinking == "both" or model.startswith(("kimi-k2.5", "kimi-k2.6"))):
        fields.set["thinking"] = Thinking("none")
        fields.left["thinking"] = {name: value for name, value in switch.items() if name != "type"}
    elif dialect.name == "moonshot" and model.startswith("kimi-k3") and effort in ("low", "high", "max"):
        fields.set["thinking"] = Thinking(fields.left.pop("reasoning_effort"))
    elif dialect.thinking == "object" and isinstance(reasoning, dict):
        _take_reasoning(fields, reasoning)
    if fields.left.get("thinking") == {}:
        del fields.left["thinking"]


def _take_reasoning(fields: _Fields, reasoning: dict[str, Any]) -> None:
    show = not reasoning["exclude"] if "exclude" in reasoning else None
    match {name: value for name, value in reasoning.items() if name != "exclude"}:
        case {"effort": str(effort), **rest} if not rest:
            fields.set["thinking"] = Thinking(effort, show=show)
        case {"max_tokens": int(budget), **rest} if not rest and budget > 0:
            fields.set["thinking"] = Thinking(budget=budget, show=show)
        case _:
            return
    del fields.left["reasoning"]


def _take_cache(fields: _Fields, dialect: Dialect) -> None:
    key, retention = (fields.left.get(name) for name in ("prompt_cache_key", "prompt_cache_retention"))
    mark = _cache_of(fields.left.get("cache_control")) if dialect.cache_marks else None
    ttl = {"24h": "24h", "in_memory": "5m"}.get(str(retention)) if dialect.cache_retention else mark
    if ttl:
        del fields.left["cache_control" if mark else "prompt_cache_retention"]
    if not (dialect.cache_key and isinstance(key, str) and key):
        key = None
    else:
        del fields.left["prompt_cache_key"]
    if key or ttl:
        fields.set["cache"] = PromptCache(ttl, key)


def _take_stream(fields: _Fields) -> None:
    """That it streams is how the request is written; what it asks of the stream besides usage is a parameter."""
    if fields.left.get("stream") is True:
        del fields.left["stream"]
        options = fields.left.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") is True:
            del fields.left["stream_options"]
            rest = {name: value for name, value in options.items() if name != "include_usage"}
            if rest:
                fields.left["stream_options"] = rest


# ---- messages ------------------------------------------------------------------------------------------------


def _message(wire: Mapping[str, Any], dialect: Dialect) -> Message:
    left = {name: value for name, value in wire.items() if name != "role"}
    if wire["role"] == "tool":
        return _tool_message(left, dialect)
    name = left.pop("name") if isinstance(left.get("name"), str) else None
    content = left.get("content")
    if wire["role"] == "assistant":
        parts = _assistant(left, dialect)
    elif isinstance(content, str):
        del left["content"]
        return Message(wire["role"], content, name, _opaque(left, dialect))
    else:
        parts = [_part(item, dialect) for item in left.pop("content")] if content else []
    return Message(wire["role"], tuple(parts), name, _opaque(left, dialect))


def _tool_message(left: dict[str, Any], dialect: Dialect) -> Message:
    content = left.get("content")
    kept: Any = content
    if isinstance(content, list) and content and all(item.get("type") == "text" for item in content):
        kept = tuple([_part(item, dialect) for item in content])
    if isinstance(kept, str | tuple):
        del left["content"]
    id_ = left.pop("tool_call_id", "")
    name = left.pop("name", "") if dialect.tool_names else ""
    part = ToolResult(id_, kept if isinstance(kept, str | tuple) else "", name, opaque=_opaque(left, dialect))
    return Message("tool", (part,))


def _assistant(left: dict[str, Any], dialect: Dialect) -> list[Part]:
    parts: list[Part] = []
    for name in ("reasoning_content", "reasoning"):
        if isinstance(left.get(name), str) and left[name]:
            own: dict[str, Any] = {} if name == dialect.reasoning_field else {"field": name}
            if left.get("reasoning_details"):
                own["reasoning_details"] = left.pop("reasoning_details")
            parts.append(Reasoning(left.pop(name), opaque=_opaque(own, dialect)))
            break
    content = left.get("content")
    if isinstance(content, str) and content:
        parts.append(Text(left.pop("content")))
    elif isinstance(content, list) and content:
        parts += [_listed(item, dialect) for item in left.pop("content")]
    refusal = left.get("refusal")
    if isinstance(refusal, str) and refusal and content is None:
        parts.append(Text(left.pop("refusal"), opaque=_opaque({"type": "refusal"}, dialect)))
        left.pop("content", None)
    calls = left.get("tool_calls")
    if isinstance(calls, list) and calls:
        parts += [_call(call, dialect) for call in left.pop("tool_calls")]
        silent = {"null": None, "empty": ""}.get(dialect.empty_content, "said")
        if not content and left.get("content", "said") == silent:
            left.pop("content", None)
    elif content == "":
        del left["content"]
    return parts


def _call(call: dict[str, Any], dialect: Dialect) -> ToolCall:
    """A call, with what it has beyond ours; one to a custom tool carries its words as they are."""
    field, words = ("custom", "input") if call.get("type") == "custom" else ("function", "arguments")
    function = dict(call.get(field) or {})
    name, arguments = function.pop("name", ""), function.pop(words, "")
    own = {name: value for name, value in call.items() if name not in ("id", field)}
    if own.get("type") == "function":
        del own["type"]
    if function:
        own[field] = function
    return ToolCall.parse(call.get("id") or "", name, arguments, opaque=_opaque(own, dialect))


def _listed(item: dict[str, Any], dialect: Dialect) -> Part:
    if item.get("type") == "text" and isinstance(item.get("text"), str):
        return Text(item["text"], opaque=_opaque({k: v for k, v in item.items() if k != "text"}, dialect))
    return Raw(dialect.name, item)


def _part(item: dict[str, Any], dialect: Dialect) -> Part:
    """A part of what goes in. What has fields beyond ours keeps them beside it."""
    cache = _cache_of(item.get("cache_control")) if dialect.cache_marks else None
    if cache is not None:
        part = _part({name: value for name, value in item.items() if name != "cache_control"}, dialect)
        return Raw(dialect.name, item) if isinstance(part, Raw) else replace(part, cache=cache)
    match item:
        case {"type": "text", "text": str(text), **rest}:
            return Text(text, opaque=_opaque(rest, dialect))
        case {"type": "image_url", "image_url": {"url": str(url), **inner}, **rest} if _address(url) and not rest:
            detail = inner.pop("detail") if isinstance(inner.get("detail"), str) else None
            return Image(url, detail=detail, opaque=_opaque({"image_url": inner} if inner else {}, dialect))
        case {
            "type": "input_audio",
            "input_audio": {"data": str(data), "format": str(format_), **inner},
            **rest,
        } if not (rest or inner):
            return Audio(f"data:audio/{format_};base64,{data}")
        case {"type": "file", "file": {"file_data": str(data), "filename": str(name), **inner}, **rest} if (
            _address(data) and not rest and not inner and dialect.files
        ):
            return Document(data, name=name)
        case {"type": "file", "file": {"file_id": str(id_), **inner}, **rest} if (
            not rest and not inner and dialect.files
        ):
            return Document(f"file-id:{id_}")
        case _:
            return Raw(dialect.name, item)


def _cache_of(mark: Any) -> str | None:
    """How long a mark asks to keep the prompt, where it says it in our words."""
    if mark == {"type": "ephemeral"}:
        return "5m"
    return "1h" if mark == {"type": "ephemeral", "ttl": "1h"} else None


def _address(url: str) -> bool:
    return url.startswith(("data:", "https://", "http://"))


def _opaque(left: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    return {dialect.name: dict(left)} if left else {}


# ---- the plain reading of answers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """What an answer says, as far as both readings can tell."""

    texts: tuple[str, ...]
    reasoning: str
    calls: tuple[tuple[str, str, Any], ...]
    finish: str | None
    usage: tuple[int, ...] | None
    model: str | None
    id: str | None
    tier: str | None


def plain_reading(recording: Recording) -> Plain:
    """Only json and string operations: what anyone would write who looks at the recorded body."""
    if recording.streamed:
        return _reading_of(recording.events(), "delta")
    return _reading_of([recording.json], "message")


def _reading_of(bodies: list[dict[str, Any]], key: str) -> Plain:
    words: dict[int, list[str]] = {}
    thoughts, finish, usage, facts = [], None, None, dict[str, Any]()
    calls: dict[Any, list[str]] = {}
    for body in bodies:
        facts.update({name: body[name] for name in ("model", "id", "service_tier") if body.get(name)})
        usage = body.get("usage") or usage
        for choice in body.get("choices") or []:
            said, index = choice.get(key) or {}, choice.get("index", 0)
            index = index or 0
            words.setdefault(index, []).append(_words(said.get("content"), "text") + (said.get("refusal") or ""))
            usage = choice.get("usage") or usage
            if index:
                continue
            shown = said.get("reasoning_content") or said.get("reasoning") or _details(said.get("reasoning_details"))
            thoughts.append(shown or _words(said.get("content"), "thinking"))
            finish = choice.get("finish_reason") or finish
            for at, call in enumerate(said.get("tool_calls") or []):
                number = call.get("index", at) if key == "delta" else at
                known, function = calls.setdefault(number, ["", "", ""]), call.get("function") or {}
                known[0] = call.get("id") or known[0]
                known[1] = function.get("name") or known[1]
                known[2] += function.get("arguments") or ""
    return Plain(
        tuple(["".join(words[index]) for index in sorted(words)]),
        "".join(thoughts),
        tuple([(id_, name, _object(arguments)) for id_, name, arguments in calls.values()]),
        finish,
        _usage_of(usage) if usage else None,
        facts.get("model"),
        facts.get("id"),
        facts.get("service_tier"),
    )


def _words(content: Any, kind: str) -> str:
    """Text as it is, or what the parts of a list say (Mistral)."""
    if not isinstance(content, list):
        return content or "" if kind == "text" else ""
    found = [item[kind] for item in content if item.get("type") == kind]
    return "".join([_words(words, "text") if isinstance(words, list) else words for words in found])


def _details(details: Any) -> str:
    """What a list of thoughts says where no text stands beside it (OpenRouter)."""
    return "".join([item.get("text") or item.get("summary") or "" for item in details or []])


def _object(arguments: str) -> Any:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _usage_of(usage: Mapping[str, Any]) -> tuple[int, ...]:
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    asked, said = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    thought = completion.get("reasoning_tokens") or 0
    return (
        asked,
        said + thought if thought and usage.get("total_tokens") == asked + said + thought else said,
        prompt.get("cached_tokens") or usage.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0,
        thought,
        prompt.get("cache_write_tokens") or 0,
        prompt.get("audio_tokens") or 0,
        completion.get("audio_tokens") or 0,
    )


def cut_or_failed(recording: Recording) -> bool:
    """Whether a recorded stream has no end, or an error in it, and so is no answer."""
    events = recording.events() if recording.streamed else [recording.json]
    choices = [choice for event in events for choice in event.get("choices") or []]
    if any(one.get("error") for one in [*events, *choices]):
        return True
    if not recording.streamed:
        return False
    ended = any(choice.get("finish_reason") for choice in choices)
    return not ended and b"[DONE]" not in recording.body


def as_plain(reply: Response, plain: Plain) -> Plain:
    """Our reading, in the same words. Where the server gave a call no id, ours counts for none."""
    used = reply.usage
    named = [id_ for id_, _, _ in plain.calls] + [""] * len(reply.tool_calls)
    return Plain(
        (reply.text, *[other.text for other in reply.alternatives]),
        reply.reasoning,
        tuple(
            [
                (call.id if id_ else "", call.name, call.arguments)
                for call, id_ in zip(reply.tool_calls, named, strict=False)
            ]
        ),
        reply.raw_finish_reason,
        used
        and (
            used.input_tokens,
            used.output_tokens,
            used.cached_tokens,
            used.reasoning_tokens,
            used.cache_write_tokens,
            used.input_audio_tokens,
            used.output_audio_tokens,
        ),
        reply.model or None,
        reply.id,
        reply.service_tier,
    )
