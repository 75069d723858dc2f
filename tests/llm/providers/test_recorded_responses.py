"""Recorded traffic of the Responses API: what we read of every answer, and what we write of every request.

    answer bytes      ──ours──▶ Response ──▶ facts  =  facts ◀──json alone── the same bytes
    recorded request  ──reader below──▶ Request ──ours──▶ body  =  the recorded request

The plain readings below use no code of ours. The recordings lie outside the project; see `shared` in conftest.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.recordings import Comparison, Recording, Replay, recordings, same_json

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.content import Audio, Document, Image, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message, OutputFormat, PromptCache, Request, Response, Thinking, Tool
from agentflow.llm.providers.api import HTTPProvider
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.responses import ResponsesApi
from agentflow.llm.streaming.join import join

pytestmark = pytest.mark.shared

Tell = Callable[[Iterable[str]], None]
API = ResponsesApi()
SOURCE = Source("openai", "?")


def found(shared: Path, ending: str = "/responses") -> tuple[Recording, ...]:
    everything = recordings(shared / "cassettes", ending)
    assert everything, "the folder has no recordings of this API"
    return everything


def provider(recording: Recording, piece: int = 0) -> HTTPProvider:
    settings = ProviderSettings("openai", "openai")
    return HTTPProvider(settings, ResponsesApi(), base_url="https://x.test/v1", transport=Replay(recording, piece))


async def ours(recording: Recording, piece: int = 0) -> Response:
    """The answer as we read it; a stream is added up."""
    request, _ = read_request(recording.request)
    if not recording.streamed:
        return await provider(recording).execute(request)
    chunks = [chunk async for chunk in provider(recording, piece).execute_streaming(request)]
    return join(chunks, provider="openai", model=request.model)


# ---- answers -------------------------------------------------------------------------------------------------


async def test_every_recorded_answer_is_read_as_a_plain_reading_of_its_bytes_says(shared: Path, tell: Tell) -> None:
    """Text, calls, thoughts, usage, finish reason, model and id agree, whole and in pieces of 7 bytes and of 1."""
    comparison = Comparison("responses: answers, our reading and a plain one")
    for recording in found(shared):
        if failed(recording):
            continue
        expected = plain_stream(recording.events()) if recording.streamed else plain_answer(recording.json)
        for piece in (0, 7, 1) if recording.streamed else (0,):
            got = facts(await ours(recording, piece))
            wrong = [
                f"{name}: {got[name]!r:.80} is not {expected[name]!r:.80}"
                for name in expected
                if got[name] != expected[name]
            ]
            comparison.note(recording.file, not wrong, f"in pieces of {piece}: {'; '.join(wrong)}")
    tell(comparison.lines())
    assert comparison.share == 1.0


async def test_every_recorded_stream_adds_up_to_the_whole_answer_at_its_end(shared: Path) -> None:
    """The chunks of a stream join to what the same answer, read whole, is: opaque data included."""
    for recording in found(shared):
        if recording.streamed and not failed(recording):
            whole = API.read(json.dumps(whole_answer(recording)).encode(), SOURCE)
            assert replace(await ours(recording), request_id=None) == whole


KINDS = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    500: ServerError,
    503: OverloadedError,
}


async def test_every_recorded_refusal_raises_the_error_of_its_status(shared: Path, tell: Tell) -> None:
    """A recorded 400 is a BadRequestError, and so on; an error inside a 200 is one of ours too."""
    comparison = Comparison("responses: errors")
    for recording in found(shared):
        if not failed(recording):
            continue
        with pytest.raises(ModelError) as caught:
            await ours(recording)
        kind = KINDS.get(recording.status, ModelError)
        comparison.note(recording.file, isinstance(caught.value, kind), f"{caught.value!r} is no {kind.__name__}")
    tell(comparison.lines())
    assert comparison.share == 1.0


async def test_every_recorded_answer_goes_back_as_it_came(shared: Path, tell: Tell) -> None:
    """The items of an answer, put into the next request, are the items that were sent; also after a trip to JSON."""
    comparison = Comparison("responses: answers written back")
    for recording in found(shared):
        if failed(recording):
            continue
        sent = whole_answer(recording)["output"]
        reply = await ours(recording)
        for turn in (reply.message, Response.from_json(reply.to_json()).message):
            body = API.write(Request("gpt-5", (Message("user", "?"), turn)), stream=False).body
            written = body["input"][1:]  # type: ignore[index, call-overload]
            comparison.note(recording.file, same_json(written, sent), f"{written!r:.300}")
    tell(comparison.lines())
    assert comparison.share == 1.0


def whole_answer(recording: Recording) -> dict[str, Any]:
    """The answer in one piece. A stream's last event has other ciphers of the same thoughts than the items that are
    done, which come first and are kept."""
    if not recording.streamed:
        return dict(recording.json)
    events = recording.events()
    done, whole = done_items(events), last_of(events)["response"]
    return {**whole, "output": [done.get(index, item) for index, item in enumerate(whole["output"])]}


def failed(recording: Recording) -> bool:
    """Whether the answer is an error, by its status or inside a 200."""
    if recording.status != 200:
        return True
    if not recording.streamed:
        return bool(recording.json.get("error"))
    return not any(event.get("type") in LAST[:2] for event in recording.events())


def facts(response: Response) -> dict[str, Any]:
    """What is compared, from a response of ours."""
    usage = response.usage
    return {
        "text": response.text,
        "calls": [(call.name, dict(call.arguments)) for call in response.tool_calls],
        "thoughts": response.reasoning,
        "usage": usage
        and (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        ),
        "finish": response.finish_reason,
        "model": response.model,
        "id": response.id,
        "others": [part.data["type"] for part in response.parts if isinstance(part, Raw)],
    }


def plain_answer(body: dict[str, Any]) -> dict[str, Any]:
    """The same facts, read from the JSON of a whole answer."""
    items = body["output"]
    entries = [entry for item in items if item["type"] == "message" for entry in item["content"]]
    calls = [item for item in items if item["type"] == "function_call"]
    return {
        "text": "".join((entry.get("text", entry.get("refusal")) or "") for entry in entries),
        "calls": [(call["name"], plain_arguments(call["arguments"])) for call in calls],
        "thoughts": "".join(
            entry["text"]
            for item in items
            if item["type"] == "reasoning"
            for entry in [*(item.get("summary") or []), *(item.get("content") or [])]
        ),
        "usage": plain_usage(body.get("usage")),
        "finish": plain_finish(body, bool(calls), any(entry["type"] == "refusal" for entry in entries)),
        "model": body["model"],
        "id": body["id"],
        "others": [item["type"] for item in items if item["type"] not in ("message", "reasoning", "function_call")],
    }


def plain_stream(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The same facts, read from the deltas where there are some; the rest from the last event."""
    whole = plain_answer(last_of(events)["response"])
    words = "".join(event["delta"] for event in events if event["type"] in WORDS)
    thoughts = "".join(event["delta"] for event in events if event["type"] in THOUGHTS)
    arguments: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.function_call_arguments.delta":
            arguments[event["output_index"]] = arguments.get(event["output_index"], "") + event["delta"]
    called = [item["name"] for item in done_items(events).values() if item["type"] == "function_call"]
    calls = list(zip(called, [plain_arguments(text) for _, text in sorted(arguments.items())], strict=False))
    return {
        **whole,
        "text": words or whole["text"],
        "thoughts": thoughts or whole["thoughts"],
        "calls": calls or whole["calls"],
    }


WORDS = ("response.output_text.delta", "response.refusal.delta")
THOUGHTS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
LAST = ("response.completed", "response.incomplete", "response.failed")


def last_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    return next((event for event in reversed(events) if event.get("type") in LAST), {})


def done_items(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}


def plain_arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def plain_usage(usage: dict[str, Any] | None) -> tuple[int, ...] | None:
    if not usage:
        return None
    taken, given = usage.get("input_tokens_details") or {}, usage.get("output_tokens_details") or {}
    return (
        usage["input_tokens"],
        usage["output_tokens"],
        taken.get("cached_tokens") or 0,
        taken.get("cache_write_tokens") or 0,
        given.get("reasoning_tokens") or 0,
    )


def plain_finish(body: dict[str, Any], called: bool, refused: bool) -> str:
    status = body["status"]
    if status == "incomplete":
        reason = (body["incomplete_details"] or {}).get("reason", status)
        return {"max_output_tokens": "length"}.get(reason, reason)
    if status in ("queued", "in_progress", "cancelled"):
        return "error" if status == "cancelled" else "paused"
    return "content_filter" if refused else "tool_calls" if called else "stop"


# ---- requests ------------------------------------------------------------------------------------------------


def test_recorded_requests_are_written_as_they_were_sent(shared: Path, tell: Tell) -> None:
    """A recorded request, read into a Request by the fields we model and written again, is the JSON that was sent."""
    comparison = Comparison("responses: requests, written again")
    modelled, raw = 0, 0
    for recording in found(shared):
        request, stream = read_request(recording.request)
        modelled += sum(isinstance(tool, Tool) for tool in request.tools)
        raw += sum(isinstance(tool, Raw) for tool in request.tools)
        written = API.write(request, stream=stream)
        assert written.path == "/responses"
        comparison.note(recording.file, *compared(recording.request, written.body))
    tell([*comparison.lines(), f'    tools: {modelled} as Tool, {raw} as Raw (hosted, or with a description of "")'])
    assert comparison.share >= 0.95


def test_recorded_token_counts_are_asked_and_read(shared: Path) -> None:
    """The same request asks for its count of tokens, and the count is read."""
    for recording in recordings(shared / "cassettes", "/responses/input_tokens"):
        request, _ = read_request(recording.request)
        assert same_json(API.write_count(request).body, recording.request)
        assert API.read_count(recording.body, SOURCE) == recording.json["input_tokens"]


def compared(sent: dict[str, Any], written: Mapping[str, Any]) -> tuple[bool, str]:
    wrong = [name for name in {**sent, **written} if not same_json(sent.get(name, ...), written.get(name, ...))]
    return not wrong, "; ".join(
        f"{name}: {written.get(name, '—')!r:.200} is not {sent.get(name, '—')!r:.200}" for name in wrong
    )


def read_request(wire: Mapping[str, Any]) -> tuple[Request, bool]:
    """A request body as a Request, and whether it asks for a stream. What has no field of ours goes to params."""
    left = dict(wire)
    stream = left.get("stream") is True
    if stream:
        del left["stream"]
    model = left.pop("model")
    messages = [Message("system", left.pop("instructions"))] if isinstance(left.get("instructions"), str) else []
    messages += read_input(left.pop("input"), model)
    fields: dict[str, Any] = {
        "tools": tuple(read_tool(tool) for tool in (left.pop("tools") if left.get("tools") else ())),
        "tool_choice": read_choice(left),
        "output": read_format(left),
        "thinking": read_thinking(left),
        "cache": read_cache(left, model),
        "logprobs": read_logprobs(left),
    }
    for name, ours in (
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("max_output_tokens", "max_tokens"),
        ("parallel_tool_calls", "parallel_tool_calls"),
        ("metadata", "metadata"),
    ):
        if left.get(name) not in (None, {}):
            fields[ours] = left.pop(name)
    return Request(model, tuple(messages), params=left, **fields), stream


TOOL = {"type", "name", "description", "parameters"}


def read_tool(tool: dict[str, Any]) -> Tool | Raw:
    """A function; a null description is an empty one. What Tool has no field for makes it a tool as it came."""
    plain = TOOL <= tool.keys() <= TOOL | {"strict"}
    if tool["type"] != "function" or not plain or not tool["parameters"] or tool["description"] == "":
        return Raw("responses", tool)
    if tool.get("strict", True) is None:
        return Raw("responses", tool)
    return Tool(tool["name"], tool["description"] or "", tool["parameters"], tool.get("strict"))


def read_choice(left: dict[str, Any]) -> str | tuple[str, ...] | None:
    choice = left.get("tool_choice")
    if isinstance(choice, str):
        return str(left.pop("tool_choice"))
    if isinstance(choice, dict) and choice.keys() == {"type", "name"} and choice["type"] == "function":
        return str(left.pop("tool_choice")["name"])
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools" and choice.get("mode") == "required":
        tools = choice["tools"]
        if all(tool.keys() == {"type", "name"} and tool["type"] == "function" for tool in tools):
            del left["tool_choice"]
            return tuple(tool["name"] for tool in tools)
    return None


def read_format(left: dict[str, Any]) -> OutputFormat | None:
    text = left.get("text")
    form = dict(text.get("format") or {}) if isinstance(text, dict) else {}
    if form == {"type": "json_object"}:
        found = OutputFormat("object")
    elif form.get("type") == "json_schema" and None not in form.values():
        found = OutputFormat(form["name"], form["schema"], form.get("strict"), form.get("description"))
    else:
        return None
    left["text"] = {name: value for name, value in left["text"].items() if name != "format"}
    if not left["text"]:
        del left["text"]
    return found


def read_thinking(left: dict[str, Any]) -> Thinking | None:
    wire = left.get("reasoning")
    if not isinstance(wire, dict):
        return None
    rest = dict(wire)
    effort = rest.pop("effort") if isinstance(rest.get("effort"), str) else None
    show = True if isinstance(rest.get("summary"), str) else None
    if rest.get("summary") == "auto":
        del rest["summary"]
    if effort is None and show is None:
        return None
    left["reasoning"] = rest
    if not rest:
        del left["reasoning"]
    return Thinking(effort, show=show)


def read_cache(left: dict[str, Any], model: str) -> PromptCache | None:
    key = left.pop("prompt_cache_key") if isinstance(left.get("prompt_cache_key"), str) else None
    ttl = left.pop("prompt_cache_retention") if isinstance(left.get("prompt_cache_retention"), str) else None
    options = left.get("prompt_cache_options")
    if ttl is None and isinstance(options, dict) and options.get("ttl") and takes_marks(model):
        ttl = options["ttl"]
        left["prompt_cache_options"] = {name: value for name, value in options.items() if name != "ttl"}
        if not left["prompt_cache_options"]:
            del left["prompt_cache_options"]
    return PromptCache(ttl, key) if key or ttl else None


def takes_marks(model: str) -> bool:
    return "gpt-5.6" in model or "gpt-6" in model


def read_logprobs(left: dict[str, Any]) -> int | None:
    """The alternatives that are asked for; the wish to have them included stays in params, beside the others."""
    if "message.output_text.logprobs" not in (left.get("include") or ()):
        return None
    return int(left.pop("top_logprobs")) if left.get("top_logprobs") else 0


# ---- items of a request --------------------------------------------------------------------------------------


def read_input(wire: Any, model: str) -> list[Message]:
    """Turns: what the model said in a row is one, results in a row are one, and every other message is one."""
    if isinstance(wire, str):
        return [Message("user", wire, opaque={"responses": {"shorthand": True}})]
    turns: list[tuple[str, list[Part]]] = []
    messages: list[Message] = []

    def flush() -> None:
        messages.extend(Message(role, tuple(parts)) for role, parts in turns)
        turns.clear()

    for item in wire:
        kind = item.get("type", "message")
        said = item.get("role") == "assistant" and item.get("id") and isinstance(item.get("content"), list)
        if kind == "message" and not (said and item["content"]):
            flush()
            messages.append(read_message(item, model))
            continue
        role = "tool" if kind == "function_call_output" else "assistant"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].extend(read_item(item, kind, model))
    flush()
    return messages


def read_message(item: dict[str, Any], model: str) -> Message:
    facts = {name: value for name, value in item.items() if name not in ("role", "content")}
    content = item.get("content") or ""
    opaque = {"responses": {"item": facts}} if facts or item["role"] == "system" or not content else {}
    if isinstance(content, str):
        return Message(item["role"], content, opaque=opaque)
    kind = "output_text" if item["role"] == "assistant" else "input_text"
    return Message(item["role"], tuple(read_entry(entry, model, kind) for entry in content), opaque=opaque)


def read_item(item: dict[str, Any], kind: str, model: str) -> list[Part]:
    if kind == "message":
        facts = rest(item, "content")
        return [Text(text=words(entry), opaque=own(facts, index, entry)) for index, entry in enumerate(item["content"])]
    if kind == "reasoning":
        facts = rest(item, "type", *[name for name in ("summary", "content") if item.get(name)])
        entries = [(name, entry) for name in ("summary", "content") for entry in item.get(name) or []]
        if not entries:
            return [Reasoning(opaque={"responses": {"item": facts}})]
        return [
            Reasoning(text=words(entry), opaque={"responses": {"in": name, **own(facts, index, entry)["responses"]}})
            for index, (name, entry) in enumerate(entries)
        ]
    if kind == "function_call":
        facts = rest(item, "type", "call_id", "name", "arguments")
        opaque = {"responses": {"item": facts}} if facts else {}
        return [ToolCall.parse(item["call_id"], item["name"], item["arguments"], opaque=opaque)]
    if kind == "function_call_output":
        facts = rest(item, "type", "call_id", "output")
        opaque = {"responses": {"item": facts}} if facts else {}
        output = item["output"]
        content = output if isinstance(output, str) else tuple(read_entry(entry, model) for entry in output)
        return [ToolResult(id=item["call_id"], content=content, opaque=opaque)]
    return [Raw("responses", item)]


def own(facts: dict[str, Any], index: int, entry: dict[str, Any]) -> dict[str, Any]:
    whose = {"of": facts.get("id")} if index else {"item": facts}
    return {"responses": {**whose, "part": rest(entry, "refusal" if entry.get("type") == "refusal" else "text")}}


def words(entry: dict[str, Any]) -> str:
    return str(entry["refusal"] if entry.get("type") == "refusal" else entry.get("text", ""))


def rest(item: dict[str, Any], *taken: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in taken}


def read_entry(entry: dict[str, Any], model: str, text: str = "input_text") -> Any:
    """An entry of a message or a result. What we do not model of it goes to its opaque data."""
    left = dict(entry)
    cache = read_mark(left, model)
    kind = left.pop("type")
    if kind in ("input_text", "output_text", "refusal"):
        said = left.pop("refusal" if kind == "refusal" else "text")
        return Text(text=said, cache=cache, opaque=opaque_of(left if kind == text else {"type": kind, **left}))
    if kind == "input_image" and (left.get("image_url") or left.get("file_id")):
        source = left.pop("image_url") if left.get("image_url") else f"file-id:{left.pop('file_id')}"
        detail = left.pop("detail") if isinstance(left.get("detail"), str) else None
        return Image(source=source, detail=detail, cache=cache, opaque=opaque_of(left))
    if kind == "input_file" and any(left.get(key) for key in ("file_id", "file_url", "file_data")):
        name = left.pop("filename") if isinstance(left.get("filename"), str) else None
        by = next(key for key in ("file_id", "file_url", "file_data") if left.get(key))
        value = left.pop(by)
        source = f"file-id:{value}" if by == "file_id" else value
        if by == "file_data" and not value.startswith("data:"):
            source, left = f"data:application/octet-stream;base64,{value}", {**left, "file_data": value}
        return Document(source=source, name=name, cache=cache, opaque=opaque_of(left))
    if kind == "input_audio" and left["input_audio"].get("format") in ("mp3", "wav"):
        sound = left.pop("input_audio")
        form = {"mp3": "audio/mpeg", "wav": "audio/wav"}[sound["format"]]
        return Audio(source=f"data:{form};base64,{sound['data']}", opaque=opaque_of(left))
    return Text(text="", opaque={"responses": {"part": entry}})


def read_mark(left: dict[str, Any], model: str) -> str | None:
    mark = left.get("prompt_cache_breakpoint")
    if not isinstance(mark, dict) or mark.get("mode") != "explicit" or not takes_marks(model):
        return None
    del left["prompt_cache_breakpoint"]
    return str(mark.get("ttl", "5m"))


def opaque_of(left: dict[str, Any]) -> dict[str, Any]:
    return {"responses": {"part": left}} if left else {}
