"""Anthropic's adapter against recorded traffic: every answer, every error and every request of it.

Two readers stand here that share no code with the adapter. One takes a recorded answer apart with nothing but `json`.
The other reads a recorded request into our `Request`, by the modelled field wherever there is one; what is not modelled
goes into a part's opaque data, a `Raw` or `params`. The adapter must then write the same JSON again.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.recordings import Comparison, Recording, Replay, recordings, same_json

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.content import Document, Image, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message, OutputFormat, PromptCache, Request, Response, Thinking, Tool
from agentflow.llm.providers.anthropic.provider import AnthropicApi, AnthropicProvider
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.streaming.join import Joiner

pytestmark = pytest.mark.shared

API = "anthropic"
SETTINGS = ProviderSettings(name="anthropic", kind="anthropic", api_key=Secret("test-key-of-nobody"))
ASK = Request("asked-for", (Message("user", "Hello"),))


def of_anthropic(shared: Path) -> tuple[Recording, ...]:
    return recordings(shared / "cassettes", "/v1/messages")


def provider(recording: Recording, piece: int = 0) -> AnthropicProvider:
    return AnthropicProvider(SETTINGS, Replay(recording, piece))


async def streamed(adapter: AnthropicProvider, request: Request = ASK) -> Response:
    joiner = Joiner()
    async for chunk in adapter.execute_streaming(request):
        joiner.add(chunk)
    return joiner.response(provider="anthropic", model="nobody said")


def failure(recording: Recording) -> dict[str, Any] | None:
    """The error that a recording holds, by its status or, after a good one, by an event of its stream."""
    if recording.status != 200:
        return recording.json["error"]
    events = recording.events() if recording.streamed else []
    return next((event["error"] for event in events if event["type"] == "error"), None)


def answered(recording: Recording) -> bool:
    return failure(recording) is None


# ---- answers: a plain reading --------------------------------------------------------------------------------


def plain_message(recording: Recording) -> dict[str, Any]:
    """The recorded message, put together from its events where it was streamed."""
    if not recording.streamed:
        return recording.json
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for event in recording.events():
        kind, index, delta = event["type"], event.get("index", 0), event.get("delta", {})
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            blocks[index], inputs[index] = dict(event["content_block"]), ""
        elif kind == "content_block_delta":
            what = delta["type"]
            if what == "text_delta":
                blocks[index]["text"] += delta["text"]
            elif what == "thinking_delta":
                blocks[index]["thinking"] += delta["thinking"]
            elif what == "signature_delta":
                blocks[index]["signature"] = delta["signature"]
            elif what == "input_json_delta":
                inputs[index] += delta["partial_json"]
            elif what == "citations_delta":
                blocks[index]["citations"] = [*(blocks[index].get("citations") or []), delta["citation"]]
            else:
                blocks[index].update({name: value for name, value in delta.items() if name != "type"})
        elif kind == "content_block_stop" and inputs[index]:
            blocks[index]["input"] = json.loads(inputs[index])
        elif kind == "message_delta":
            message.update({name: value for name, value in delta.items() if value is not None})
            message["usage"].update({name: value for name, value in event["usage"].items() if value is not None})
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}


def plain_facts(recording: Recording) -> dict[str, Any]:
    message = plain_message(recording)
    content, usage = message["content"], message["usage"]
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return {
        "text": "".join(block["text"] for block in content if block["type"] == "text"),
        "thoughts": "".join(block["thinking"] for block in content if block["type"] == "thinking"),
        "calls": [(block["id"], block["name"], block["input"]) for block in content if block["type"] == "tool_use"],
        "reason": message["stop_reason"],
        "model": message["model"],
        "id": message["id"],
        "tier": usage.get("service_tier"),
        "usage": [
            usage["input_tokens"] + read + written,
            usage["output_tokens"],
            read,
            (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
            written,
            (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0,
        ],
    }


def our_facts(answer: Response) -> dict[str, Any]:
    usage = answer.usage
    assert usage is not None
    return {
        "text": answer.text,
        "thoughts": answer.reasoning,
        "calls": [(call.id, call.name, dict(call.arguments)) for call in answer.tool_calls],
        "reason": answer.raw_finish_reason,
        "model": answer.model,
        "id": answer.id,
        "tier": answer.service_tier,
        "usage": [
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.cache_write_tokens,
            usage.cache_write_1h_tokens,
        ],
    }


@pytest.mark.parametrize("piece", [0, 7, 1])
async def test_every_recorded_answer_is_read_as_a_plain_reading_of_it_says(shared, tell, piece):
    """Text, thoughts, calls, usage, reason, model and id agree, however the bytes are cut."""
    comparison = Comparison(f"anthropic answers, {f'in pieces of {piece}' if piece else 'whole'}")
    for recording in of_anthropic(shared):
        if not answered(recording):
            continue
        answer = await streamed(provider(recording, piece))
        expected, found = plain_facts(recording), our_facts(answer)
        differing = [name for name in expected if expected[name] != found[name]]
        comparison.note(recording.file, not differing, ", ".join(differing))
    tell(comparison.lines())
    assert comparison.compared
    assert comparison.share == 1


async def test_an_answer_that_was_not_streamed_is_read_the_same_by_both_ways(shared):
    """`execute`, and `execute_streaming` on a server that does not stream, give one answer."""
    for recording in of_anthropic(shared):
        if answered(recording) and not recording.streamed:
            assert await provider(recording).execute(ASK) == await streamed(provider(recording)), recording.file


def sendable(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block without its nulls, which say nothing, as the API takes it back."""
    return (
        dict(block) if block["type"] not in ("text", "tool_use") else {k: v for k, v in block.items() if v is not None}
    )


async def test_every_recorded_answer_goes_back_as_the_blocks_it_came_in(shared, tell):
    """Thoughts with their signatures, hosted tools and calls are written as they were sent, also after JSON."""
    comparison = Comparison("anthropic answers sent back")
    for recording in of_anthropic(shared):
        if not answered(recording):
            continue
        answer = await streamed(provider(recording))
        expected = [sendable(block) for block in plain_message(recording)["content"] if block.get("text") != ""]
        if [set(block) for block in expected] == [{"type", "text"}]:
            expected = expected[0]["text"]  # the API's own short form
        for turn in (answer.message, Response.from_json(json.loads(json.dumps(answer.to_json()))).message):
            written = AnthropicApi().write(Request("m", (Message("user", "?"), turn)), stream=False).body["messages"]
            comparison.note(recording.file, same_json(written[1:], [{"role": "assistant", "content": expected}]))
    tell(comparison.lines())
    assert comparison.share == 1


BY_TYPE: dict[str, type[ModelError]] = {
    "invalid_request_error": BadRequestError,
    "authentication_error": AuthenticationError,
    "billing_error": QuotaExceededError,
    "permission_error": PermissionDeniedError,
    "not_found_error": NotFoundError,
    "request_too_large": BadRequestError,
    "rate_limit_error": RateLimitError,
    "api_error": ServerError,
    "timeout_error": ServerError,
    "overloaded_error": OverloadedError,
}


async def test_every_recorded_error_is_raised_as_what_it_is(shared, tell):
    """The class follows the type, with any status, and the message is quoted."""
    comparison = Comparison("anthropic errors")
    for recording in of_anthropic(shared):
        said = failure(recording)
        if said is None:
            continue
        for call in (streamed(provider(recording)), streamed(provider(recording, 7))):
            with pytest.raises(ModelError) as caught:
                await call
            error = caught.value
            right = isinstance(error, BY_TYPE[said["type"]]) and error.status == recording.status
            comparison.note(recording.file, right and said["message"].rstrip(".") in str(error), repr(error))
    tell(comparison.lines())
    assert comparison.share == 1


# ---- requests: read into our values --------------------------------------------------------------------------


def read_request(sent: Mapping[str, Any]) -> tuple[Request, bool]:
    """A recorded request as ours, and whether it asks for a stream. `left` is what no field of ours says."""
    left = dict(sent)
    fields: dict[str, Any] = {"model": left.pop("model"), "max_tokens": left.pop("max_tokens", None)}
    for name in ("temperature", "top_p", "top_k"):
        if left.get(name) is not None:
            fields[name] = left.pop(name)
    if left.get("stop_sequences"):
        fields["stop"] = tuple(left.pop("stop_sequences"))
    if set(left.get("metadata") or {}) == {"user_id"} and isinstance(left["metadata"]["user_id"], str):
        fields["metadata"] = left.pop("metadata")
    if left.get("tools"):
        fields["tools"] = tuple(read_tool(tool) for tool in left.pop("tools"))
    if mark := read_mark(left.get("cache_control"), {None: None, "5m": "5m", "1h": "1h"}):
        fields["cache"] = PromptCache(*mark)
        del left["cache_control"]
    system = [Message("system", read_content(left.pop("system")))] if left.get("system") else []
    turns = list(read_turns(left.pop("messages")))
    stream = bool(left.get("stream"))
    if stream:
        del left["stream"]
    fields |= read_choice(left) | read_output_and_thinking(left)
    return Request(messages=(*system, *turns), params=left, **fields), stream


def read_mark(mark: Any, known: Mapping[str | None, str | None]) -> list[str | None]:
    """What our `cache` says of a mark, in a list; an empty one where it cannot say it."""
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or set(mark) - {"type", "ttl"}:
        return []
    return [known[mark.get("ttl")]] if mark.get("ttl") in known and (mark.get("ttl") or "ttl" not in mark) else []


def read_block_mark(rest: dict[str, Any]) -> str | None:
    """Take a mark out of a block's rest. One that names the five minutes which it has anyway is kept as it stands."""
    for mark in read_mark(rest.get("cache_control"), {None: "5m", "1h": "1h"}):
        del rest["cache_control"]
        return mark
    return None


def read_tool(tool: dict[str, Any]) -> Tool | Raw:
    """A function where nothing but a function's fields are there; else the tool as it stands."""
    rest = dict(tool)
    function = [rest.pop("name", None), rest.pop("description", None), rest.pop("input_schema", None)]
    cache, strict = read_block_mark(rest), rest.pop("strict", None)
    if rest or not function[2] or function[1] is None or ("strict" in tool and strict is None):
        return Raw(API, tool)
    return Tool(*function, strict=strict, cache=cache)


def read_choice(left: dict[str, Any]) -> dict[str, Any]:
    choice = dict(left.get("tool_choice") or {})
    kind, single = choice.pop("type", None), choice.pop("disable_parallel_tool_use", None)
    name = choice.pop("name", None) if kind == "tool" else {"auto": "auto", "any": "required", "none": "none"}.get(kind)
    if choice or not name or (kind == "tool" and name in ("auto", "required", "none")):
        return {}
    if kind == "none" and single is not None:
        return {}
    del left["tool_choice"]
    return {"tool_choice": name, "parallel_tool_calls": None if single is None else not single}


def read_output_and_thinking(left: dict[str, Any]) -> dict[str, Any]:
    """An effort without thinking is no wish to think: it is how much a model takes pains altogether."""
    fields: dict[str, Any] = {}
    config, thinking = dict(left.get("output_config") or {}), dict(left.get("thinking") or {})
    shape = config.get("format")
    if isinstance(shape, dict) and set(shape) == {"type", "schema"} and shape["type"] == "json_schema":
        fields["output"] = OutputFormat("answer", config.pop("format")["schema"])
    kind = thinking.pop("type", None)
    if kind == "disabled":
        fields["thinking"] = Thinking(effort="none")
    elif kind in ("enabled", "adaptive"):
        show = {"summarized": True, "omitted": False}.get(thinking.get("display") or "")
        if show is not None:
            del thinking["display"]
        fields["thinking"] = Thinking(config.pop("effort", None), thinking.pop("budget_tokens", None), show)
    for name, rest, modelled in (("output_config", config, "output"), ("thinking", thinking, "thinking")):
        if modelled in fields or rest != (left.get(name) or {}):
            del left[name]
            left |= {name: rest} if rest else {}
    return fields


def read_turns(messages: list[dict[str, Any]]) -> Iterator[Message]:
    """Turns; one of tool results alone is a tool's, unless the one before was, too, which we would join."""
    before = ""
    for message in messages:
        rest = dict(message)
        role, content = rest.pop("role"), rest.pop("content", None)
        results = isinstance(content, list) and content and all(block["type"] == "tool_result" for block in content)
        role = "tool" if role == "user" and results and before != "tool" and not rest else role
        before = role
        yield Message(role, read_content(content), opaque={API: rest} if rest else {})


def read_content(content: Any) -> str | tuple[Part, ...]:
    return tuple(read_block(block) for block in content) if isinstance(content, list) else content or ""


def read_block(block: dict[str, Any]) -> Part:
    rest = dict(block)
    readers = {
        "text": read_text,
        "image": read_media,
        "document": read_media,
        "tool_use": read_call,
        "tool_result": read_result,
        "thinking": read_thinking,
        "redacted_thinking": lambda rest: Reasoning(opaque={API: block}),
    }
    kind = rest.pop("type", None)
    if kind not in readers:
        return Raw(API, block)
    return (readers[kind](rest) if kind not in ("image", "document") else read_media(rest, kind)) or Raw(API, block)


def kept(rest: dict[str, Any]) -> dict[str, Any]:
    return {API: rest} if rest else {}


def read_text(rest: dict[str, Any]) -> Part:
    cache = read_block_mark(rest)
    return Text(rest.pop("text"), cache, opaque=kept(rest))


def read_thinking(rest: dict[str, Any]) -> Part:
    return Reasoning(rest.pop("thinking"), opaque={API: rest})


def read_call(rest: dict[str, Any]) -> Part:
    return ToolCall(rest.pop("id"), rest.pop("name"), rest.pop("input"), opaque=kept(rest))


def read_result(rest: dict[str, Any]) -> Part:
    """`is_error: false` says nothing, so we do not write it; where a recorder did, it stays as the block's own word."""
    cache, name = read_block_mark(rest), rest.pop("tool_use_id")
    failed = rest.get("is_error") is True and rest.pop("is_error")
    content: Any = rest.get("content") or ""
    parts = read_content(content) if isinstance(content, list) else content
    if isinstance(parts, tuple) and not all(isinstance(part, Text | Image | Document) for part in parts):
        parts = ""
    if parts:
        del rest["content"]
    return ToolResult(name, parts, is_error=failed, cache=cache, opaque=kept(rest))


def read_media(rest: dict[str, Any], kind: str = "image") -> Part | None:
    source = read_source(rest.pop("source"))
    if source is None:
        return None
    cache = read_block_mark(rest)
    if kind == "image":
        return Image(source, cache=cache, opaque=kept(rest))
    name = rest.pop("title") if isinstance(rest.get("title"), str) else None
    return Document(source, cache=cache, name=name, opaque=kept(rest))


def read_source(source: dict[str, Any]) -> str | None:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data), **rest} if not rest:
            return f"data:{kind};base64,{data}"
        case {"type": "text", "media_type": "text/plain", "data": str(data), **rest} if not rest:
            return f"data:text/plain;base64,{base64.b64encode(data.encode()).decode()}"
        case {"type": "url", "url": str(url), **rest} if not rest:
            return url
        case {"type": "file", "file_id": str(name), **rest} if not rest:
            return f"file-id:{name}"
    return None


def unmodelled(request: Request) -> Iterator[str]:
    """What the reader had to leave to params, to `Raw` and to opaque data, by name."""
    yield from (f"params.{name}" for name in request.params)
    for tool in request.tools:
        if isinstance(tool, Raw):
            extra = set(tool.data) - {"name", "description", "input_schema", "strict"}
            yield f"tool of {tool.data['type']}" if "type" in tool.data else f"tool with {', '.join(sorted(extra))}"
    for part in (part for message in request.messages for part in message.parts):
        if isinstance(part, Raw):
            yield f"block {part.data['type']}"
        else:
            yield from (f"{type(part).__name__}.{name}" for name in part.opaque.get(API, {}))


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*ours, *theirs}):
            if name not in ours or name not in theirs:
                yield f"{path}.{name} {'is not sent' if name in theirs else 'is sent'}"
            else:
                yield from differences(ours[name], theirs[name], f"{path}.{name}")
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(mine, other, f"{path}[{at}]")
    elif not same_json(ours, theirs):
        yield f"{path}: {str(ours)[:60]} instead of {str(theirs)[:60]}"


async def test_every_recorded_request_is_written_as_it_was_sent(shared, tell):
    """At least 95 of 100 requests, read into our fields, come out as the same JSON."""
    comparison, left = Comparison("anthropic requests"), Counter()
    for recording in of_anthropic(shared):
        try:
            request, stream = read_request(recording.request)
            wire = AnthropicApi().write(request, stream=stream)
        except (LookupError, TypeError, AttributeError, ModelError) as error:  # not of the documented shape
            comparison.note(recording.file, False, repr(error))
            continue
        left.update(unmodelled(request))
        path, body = wire.path, msgspec.json.decode(msgspec.json.encode(wire.body))
        found = list(differences(body, recording.request))
        comparison.note(recording.file, path == "/messages" and same_json(body, recording.request), "; ".join(found))
    tell([*comparison.lines(), f"    not modelled: {', '.join(f'{name} ×{n}' for name, n in sorted(left.items()))}"])
    assert comparison.compared
    assert comparison.share >= 0.95


async def test_a_recorded_count_of_tokens_is_asked_for_and_read_as_it_was(shared, tell):
    """`count_tokens` sends what the recorder sent, without what only an answer needs."""
    comparison = Comparison("anthropic counts of tokens")
    for recording in recordings(shared / "cassettes", "/messages/count_tokens"):
        request, _ = read_request(recording.request)
        transport = Replay(recording)
        counted = await AnthropicProvider(SETTINGS, transport).count_tokens(request)
        ((path, body),) = transport.sent
        agrees = path == "/messages/count_tokens" and same_json(body, recording.request)
        comparison.note(recording.file, agrees and counted == recording.json["input_tokens"])
    tell(comparison.lines())
    assert comparison.share == 1
