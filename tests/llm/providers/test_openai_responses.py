"""The Responses API: what a request becomes on the wire, and what an answer says, whole and streamed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    ModelConnectionError,
    ModelError,
    NotFoundError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.content import Audio, Document, Image, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    Message,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    StreamChunk,
    Thinking,
    TokenLogprob,
    Tool,
    Usage,
)
from agentflow.llm.providers.api import HTTPProvider
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.responses import ResponsesApi
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.sse import ServerSentEvent

API = ResponsesApi()
SOURCE = Source("openai", "gpt-5")
WEATHER = Tool("weather", "The weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
PNG = "data:image/png;base64,iVBORw0KGgo="


def body(*messages: Message, model: str = "gpt-5", **fields: Any) -> dict[str, Any]:
    return dict(API.write(Request(model, messages or (USER,), **fields), stream=False).body)


def items(*messages: Message, **fields: Any) -> list[Any]:
    return list(body(*messages, **fields)["input"])


def answer(*output: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "gpt-5-2025-08-07", "status": "completed", "error": None} | {
        "output": list(output),
        "usage": None,
        **fields,
    }


def read(*output: Any, **fields: Any) -> Response:
    return API.read(json.dumps(answer(*output, **fields)).encode(), SOURCE)


def message(*entries: Any, **facts: Any) -> dict[str, Any]:
    said = [entry if isinstance(entry, dict) else output_text(entry) for entry in entries]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", **facts, "content": said}


def output_text(text: str, **facts: Any) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], **facts, "text": text}


def reasoning(*summary: str, **facts: Any) -> dict[str, Any]:
    told = [{"type": "summary_text", "text": text} for text in summary]
    return {"id": "rs_1", "type": "reasoning", "summary": told, **facts}


def call(name: str = "weather", arguments: str = '{"city":"Oslo"}', number: int = 1, **facts: Any) -> dict[str, Any]:
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{number}",
        "name": name,
        "arguments": arguments,
        **facts,
    }


SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}
USER = Message("user", "Hello")


# ---- input ---------------------------------------------------------------------------------------------------


def test_a_request_is_written_as_items_below_the_responses_path() -> None:
    """A plain question is one item; nothing is sent that was not asked for."""
    wire = API.write(Request("gpt-5", (USER,)), stream=False)
    assert wire.path == "/responses"
    assert wire.body == {"model": "gpt-5", "input": [{"role": "user", "content": "Hello"}]}


def test_a_stream_is_asked_for_by_its_own_method_whatever_the_params_say() -> None:
    """`stream` is true for a stream, and is never true for a whole answer."""
    asked = Request("gpt-5", (USER,), params={"stream": True})
    refused = Request("gpt-5", (USER,), params={"stream": False})
    assert "stream" not in API.write(asked, stream=False).body
    assert API.write(refused, stream=True).body["stream"] is True
    assert API.write(refused, stream=False).body["stream"] is False


def test_a_leading_system_turn_becomes_the_instructions() -> None:
    """The first system turn is `instructions`, also an empty one; later ones and developer turns are items."""
    wire = body(Message("system", "Be brief."), Message("developer", "Use metres."), USER, Message("system", "Now!"))
    assert wire["instructions"] == "Be brief."
    assert [item["role"] for item in wire["input"]] == ["developer", "user", "system"]
    assert body(Message("system", ""), USER)["instructions"] == ""
    assert body(Message("system", (Text("Be "), Text("brief."))), USER)["instructions"] == "Be brief."


def test_a_system_turn_with_something_of_its_own_to_say_stays_an_item() -> None:
    """A cache mark, and the API's own data, have no place in the instructions."""
    marked = body(Message("system", (Text("Long.", cache="5m"),)), USER, model="gpt-5.6")
    assert "instructions" not in marked
    assert marked["input"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert body(Message("system", (Text("Long.", cache="5m"),)), USER)["instructions"] == "Long."
    own = Message("system", "Be brief.", opaque={"responses": {"item": {"type": "message"}}})
    assert items(own)[0] == {"role": "system", "type": "message", "content": "Be brief."}


def test_a_lone_question_may_ask_to_be_sent_as_a_text_alone() -> None:
    """The shorthand of the API is kept where a turn's opaque data says that it came so."""
    short = Message("user", "Hello", opaque={"responses": {"shorthand": True}})
    assert body(Message("system", "Be brief."), short)["input"] == "Hello"
    assert items(short, USER) == [{"role": "user", "content": "Hello"}] * 2


def test_what_the_model_said_before_goes_back_as_its_own_turn() -> None:
    """A plain assistant turn is the easy form, several texts are `output_text`, and an empty one is nothing."""
    assert items(USER, Message("assistant", "Hi"))[1] == {"role": "assistant", "content": "Hi"}
    assert items(USER, Message("assistant", (Text("H"), Text("i"))))[1] == {
        "role": "assistant",
        "content": [{"type": "output_text", "text": "H"}, {"type": "output_text", "text": "i"}],
    }
    assert items(USER, Message("assistant", "")) == [{"role": "user", "content": "Hello"}]
    assert items(Message("assistant", "Hm", opaque={"responses": {"item": {"phase": "commentary"}}}))[0]["phase"]


def test_pictures_are_sent_by_value_by_address_and_by_id() -> None:
    """`input_image` takes a data URI, an address or a file id, and a detail."""
    content = (
        Text("What is this?"),
        Image(b"\x89PNG", "image/png"),
        Image("https://x.test/cat.png", detail="low"),
        Image("file-id:file_1"),
        Image("data:;base64,AAAA", "image/webp"),
    )
    assert items(Message("user", content))[0]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw=="},
        {"type": "input_image", "image_url": "https://x.test/cat.png", "detail": "low"},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "input_image", "image_url": "data:image/webp;base64,AAAA"},
    ]


def test_documents_are_sent_with_a_name() -> None:
    """`input_file` takes bytes, which need a name, an address or a file id."""
    content = (
        Document(b"%PDF", "application/pdf", name="a.pdf"),
        Document(b"a,b", "text/csv"),
        Document("https://x.test/a.pdf"),
        Document("file-id:file_2"),
    )
    assert items(Message("user", content))[0]["content"] == [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "filename": "document.csv", "file_data": "data:text/csv;base64,YSxi"},
        {"type": "input_file", "file_url": "https://x.test/a.pdf"},
        {"type": "input_file", "file_id": "file_2"},
    ]


def test_sound_is_sent_as_mp3_or_wav() -> None:
    """`input_audio` takes bytes of two formats."""
    content = (Audio(b"ID3", "audio/mpeg"), Audio(b"RIFF", "audio/x-wav"))
    assert items(Message("user", content))[0]["content"] == [
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    "turn",
    [
        Message("user", (Audio(b"OggS", "audio/ogg"),)),
        Message("user", (Audio("https://x.test/a.mp3", "audio/mpeg"),)),
        Message("user", (Image("cat.png", "image/png"),)),
        Message("tool", (Text("sunny"),)),
        Message("tool", "sunny"),
        Message("tool", ""),
    ],
)
def test_what_the_api_cannot_take_is_refused_and_not_dropped(turn: Message) -> None:
    """A part that has no place on the wire raises BadRequestError, which says what to do."""
    with pytest.raises(BadRequestError, match=":"):
        items(turn)


# ---- tools ---------------------------------------------------------------------------------------------------


def test_tools_are_flat_and_the_providers_own_stand_as_they_are() -> None:
    """A function is flat and may be strict; a Raw of this API is a hosted tool, one of another API is left out."""
    hosted = {"type": "web_search", "search_context_size": "low"}
    strict = Tool("now", parameters={"type": "object", "properties": {}, "additionalProperties": False}, strict=True)
    assert body(tools=(WEATHER, strict, Raw("responses", hosted), Raw("google", {"googleSearch": {}})))["tools"] == [
        {
            "type": "function",
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": WEATHER.parameters,
        },
        {"type": "function", "name": "now", "description": None, "parameters": strict.parameters, "strict": True},
        hosted,
    ]
    assert body(tools=(Tool("now"),))["tools"][0]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("weather", {"type": "function", "name": "weather"}),
        ("web_search", {"type": "web_search"}),
        ("wiki", {"type": "mcp", "server_label": "wiki"}),
        ("grep", {"type": "custom", "name": "grep"}),
        (
            ("weather", "web_search"),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}, {"type": "web_search"}],
            },
        ),
    ],
)
def test_the_choice_of_a_tool_is_forced_forbidden_or_free(choice: str | tuple[str, ...], wire: Any) -> None:
    """A name forces that tool, whoever runs it; several names allow these alone, and one must be called."""
    own = [{"type": "web_search"}, {"type": "mcp", "server_label": "wiki"}, {"type": "custom", "name": "grep"}]
    tools = (WEATHER, *[Raw("responses", tool) for tool in own])
    assert body(tools=tools, tool_choice=choice)["tool_choice"] == wire


def test_calls_and_results_are_items_that_belong_together_by_the_calls_id() -> None:
    """Parallel calls are items of their own; a result is a text, or content of several kinds."""
    calls = (ToolCall("call_1", "weather", {"city": "Oslo"}), ToolCall.parse("call_2", "weather", '{"city": "Rome"}'))
    seen = (Text("a map"), Image(PNG), Document("file-id:file_1"))
    turns = Message("tool", (ToolResult("call_1", "rain"), ToolResult("call_2", seen)))
    assert items(USER, Message("assistant", (Text("Let me look."), *calls)), turns)[1:] == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [
                {"type": "input_text", "text": "a map"},
                {"type": "input_image", "image_url": PNG},
                {"type": "input_file", "file_id": "file_1"},
            ],
        },
    ]


def test_calls_may_be_kept_one_at_a_time() -> None:
    """`parallel_tool_calls` is written as it is set."""
    assert body(parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body()


# ---- what else can be asked ----------------------------------------------------------------------------------


def test_sampling_and_limits_have_their_names() -> None:
    """`max_tokens` is `max_output_tokens` here; metadata goes along; a seed has no word and is left out."""
    wire = body(temperature=0.2, top_p=0.9, max_tokens=100, metadata={"team": "a"}, seed=7, n=1)
    assert wire == body() | {
        "temperature": 0.2,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "metadata": {"team": "a"},
    }


@pytest.mark.parametrize("fields", [{"n": 2}, {"stop": ("END",)}, {"top_k": 5}])
def test_what_the_api_has_no_word_for_is_refused(fields: dict[str, Any]) -> None:
    """Several answers, stop sequences and top_k do not exist here: silence would change the answer."""
    with pytest.raises(BadRequestError, match=next(iter(fields))):
        body(**fields)


def test_the_answer_can_be_held_to_a_schema_or_to_json() -> None:
    """A schema is `text.format`; without one it is JSON mode; verbosity stands beside it by params."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    wire = body(output=OutputFormat("person", schema, True, "Who it is."), params={"text": {"verbosity": "low"}})
    assert wire["text"] == {
        "format": {
            "type": "json_schema",
            "name": "person",
            "schema": schema,
            "strict": True,
            "description": "Who it is.",
        },
        "verbosity": "low",
    }
    assert body(output=OutputFormat("any"))["text"] == {"format": {"type": "json_object"}}
    assert "strict" not in body(output=OutputFormat("person", schema))["text"]["format"]


@pytest.mark.parametrize(
    ("thinking", "wire"),
    [
        (Thinking("high"), {"effort": "high"}),
        (Thinking("xhigh", show=True), {"effort": "xhigh", "summary": "auto"}),
        (Thinking(show=True), {"summary": "auto"}),
        (Thinking("low", show=False), {"effort": "low"}),
        (Thinking(budget=0), {"effort": "none"}),
        (Thinking(budget=1_000), {"effort": "low"}),
        (Thinking(budget=5_000), {"effort": "medium"}),
        (Thinking(budget=60_000), {"effort": "high"}),
    ],
)
def test_thinking_is_an_effort_and_may_be_summarised(thinking: Thinking, wire: Any) -> None:
    """A budget becomes the effort nearest to it."""
    assert body(thinking=thinking)["reasoning"] == wire


def test_thinking_that_says_nothing_writes_nothing() -> None:
    """`Thinking()` and `show=False` alone are the provider's habit."""
    assert "reasoning" not in body(thinking=Thinking())
    assert "reasoning" not in body(thinking=Thinking(show=False))


def test_encrypted_thoughts_are_asked_for_where_nothing_is_stored() -> None:
    """Without a store they are the only way to replay thoughts."""
    apart = {"store": False}
    assert body(thinking=Thinking("low"), params=apart)["include"] == ["reasoning.encrypted_content"]
    assert "include" not in body(thinking=Thinking("none"), params=apart)
    assert "include" not in body(thinking=Thinking("low"))
    asked = {"include": ["reasoning.encrypted_content"]}
    assert body(params=asked)["include"] == asked["include"]


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-5", True),
        ("gpt-5-mini-2025-08-07", True),
        ("openai/gpt-5.6", True),
        ("gpt-6-luna", True),
        ("o3", True),
        ("ft:o4-mini:acme", True),
        ("codex-mini-latest", True),
        ("gpt-5-chat-latest", False),
        ("gpt-5.1-chat", False),
        ("gpt-4o", False),
        ("gpt-4.1-mini", False),
        ("gpt-image-1", False),
        ("llama-3", False),
    ],
)
def test_a_model_that_reasons_unasked_gives_its_thoughts_in_cipher(model: str, reasons: bool) -> None:
    """Those that do not reason refuse the wish: "Encrypted content is not supported with this model"."""
    assert ("include" in body(model=model, params={"store": False})) is reasons
    assert "include" not in body(model=model)


def test_what_is_included_by_params_is_joined_by_what_the_request_needs() -> None:
    """A list that the caller gives does not cost the log probabilities."""
    asked = {"include": ["file_search_call.results"]}
    assert body(logprobs=2, params=asked)["include"] == ["file_search_call.results", "message.output_text.logprobs"]


def test_log_probabilities_are_included_with_as_many_alternatives_as_asked() -> None:
    """0 asks for the chosen tokens alone."""
    assert body(logprobs=3) == body() | {"include": ["message.output_text.logprobs"], "top_logprobs": 3}
    assert body(logprobs=0) == body() | {"include": ["message.output_text.logprobs"]}


def test_the_cache_is_told_a_key_and_the_lifetimes_it_knows() -> None:
    """24 hours are a retention; 30 minutes are an option of newer models; else caching is automatic."""
    assert body(cache=PromptCache("24h", "team")) == body() | {
        "prompt_cache_key": "team",
        "prompt_cache_retention": "24h",
    }
    assert body(cache=PromptCache("30m"), model="gpt-5.6-sol")["prompt_cache_options"] == {"ttl": "30m"}
    for ttl in ("5m", "1h", "30m"):
        assert body(cache=PromptCache(ttl)) == body()


@pytest.mark.parametrize(
    ("model", "marked"),
    [
        ("gpt-5.6-sol", True),
        ("openai/gpt-5.6", True),
        ("gpt-6-astra", True),
        ("gpt-10", True),
        ("gpt-5.5", False),
        ("gpt-5", False),
        ("gpt-4.1-2025-04-14", False),
        ("o3", False),
    ],
)
def test_marks_of_what_to_cache_go_to_models_that_know_them(model: str, marked: bool) -> None:
    """Text, pictures, files and results may be marked; older models would refuse the field."""
    turn = Message("user", (Text("Long.", cache="1h"), Image(PNG, cache="12h"), Document("file-id:f", cache="5m")))
    results = Message("tool", (ToolResult("c", "x", cache="5m"), ToolResult("d", (Text("a"), Text("b")), cache="5m")))
    wire = items(turn, results, model=model)
    marks = [entry.get("prompt_cache_breakpoint") for entry in wire[0]["content"]]
    plain, later = {"mode": "explicit"}, {"mode": "explicit", "ttl": "12h"}
    assert marks == ([plain, later, plain] if marked else [None] * 3)
    assert wire[1]["output"] == (
        [{"type": "input_text", "text": "x", "prompt_cache_breakpoint": plain}] if marked else "x"
    )
    assert ("prompt_cache_breakpoint" in wire[2]["output"][1]) is marked


def test_params_have_the_last_word() -> None:
    """They are laid over the finished body, mapping by mapping; None writes null."""
    params = {
        "previous_response_id": "resp_0",
        "conversation": "conv_1",
        "background": True,
        "store": True,
        "truncation": "auto",
        "service_tier": "flex",
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "moderation": {"model": "omni-moderation-latest"},
        "reasoning": {"context": "all_turns"},
        "temperature": None,
    }
    wire = body(thinking=Thinking("low"), temperature=1.0, params=params)
    assert wire == body() | params | {"reasoning": {"effort": "low", "context": "all_turns"}}


def test_a_count_of_tokens_is_asked_with_what_of_a_request_counts() -> None:
    """Another path, and none of the fields that it does not know."""
    asked = Request("gpt-5", (Message("system", "Hm"), USER), temperature=1.0, tools=(WEATHER,), params={"store": True})
    wire = API.write_count(asked)
    assert wire.path == "/responses/input_tokens"
    assert wire.body.keys() == {"model", "instructions", "input", "tools"}
    assert API.read_count(b'{"object": "response.input_tokens", "input_tokens": 23}', SOURCE) == 23
    with pytest.raises(ProtocolError):
        API.read_count(b"{}", SOURCE)
    with pytest.raises(NotFoundError):
        API.read_count(b'{"error": {"code": "model_not_found", "message": "no"}}', SOURCE)


# ---- whole answers -------------------------------------------------------------------------------------------


def test_an_answer_says_text_model_id_and_tier() -> None:
    """Every fact of the answer has its field; what has none is opaque, what repeats the request is dropped."""
    reply = read(
        message("Hi"),
        service_tier="flex",
        created_at=1,
        conversation={"id": "conv_1"},
        tools=[{"type": "web_search"}],
        instructions="Be brief.",
        user=None,
    )
    assert (reply.text, reply.model, reply.id, reply.provider) == ("Hi", "gpt-5-2025-08-07", "resp_1", "openai")
    assert (reply.finish_reason, reply.raw_finish_reason) == ("stop", "completed")
    assert reply.service_tier == "flex"
    assert reply.usage is None
    assert reply.opaque == {"responses": {"created_at": 1, "conversation": {"id": "conv_1"}}}


def test_an_answer_is_made_of_parts_in_the_order_of_its_items() -> None:
    """Thoughts, hosted tools, words and calls stay in order; items that are not modelled are Raw."""
    reply = read(reasoning("One.", "Two."), SEARCH, message("Hi", "!"), call(), call(number=2))
    assert [type(part) for part in reply.parts] == [Reasoning, Reasoning, Raw, Text, Text, ToolCall, ToolCall]
    assert reply.reasoning == "One.Two."
    assert reply.text == "Hi!"
    assert [(found.id, found.name, found.arguments) for found in reply.tool_calls] == [
        ("call_1", "weather", {"city": "Oslo"}),
        ("call_2", "weather", {"city": "Oslo"}),
    ]
    assert reply.finish_reason == "tool_calls"


def test_thoughts_of_open_models_stand_in_the_items_content() -> None:
    """`reasoning_text` is read as summaries are."""
    assert read(reasoning(content=[{"type": "reasoning_text", "text": "Hm."}])).reasoning == "Hm."


def test_a_refusal_is_text_whose_reason_is_the_content_filter() -> None:
    """The words of a refusal are the answer's words."""
    reply = read(message({"type": "refusal", "refusal": "I cannot."}))
    assert (reply.text, reply.finish_reason, reply.raw_finish_reason) == ("I cannot.", "content_filter", "completed")


@pytest.mark.parametrize(
    ("fields", "finish", "raw"),
    [
        ({}, "stop", "completed"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
            "max_output_tokens",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            "content_filter",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, "steered", "steered"),
        ({"status": "incomplete", "incomplete_details": None}, "incomplete", "incomplete"),
        ({"status": "queued"}, "paused", "queued"),
        ({"status": "in_progress"}, "paused", "in_progress"),
        ({"status": "cancelled"}, "error", "cancelled"),
        ({"status": "thinking_hard"}, "thinking_hard", "thinking_hard"),
        ({"status": None}, None, None),
    ],
)
def test_why_an_answer_ended_is_said_in_our_words_and_in_its_own(fields: Any, finish: str, raw: str) -> None:
    """A status or reason we do not know passes as it is."""
    reply = read(message("Hi"), **fields)
    assert (reply.finish_reason, reply.raw_finish_reason) == (finish, raw)
    assert reply.text == "Hi"


def test_usage_counts_everything_once() -> None:
    """Cached and written tokens are part of the input, reasoning is part of the output; a cost is taken over."""
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 140,
        "cost": 0.002,
    }
    reply = read(message("Hi"), usage=usage)
    assert reply.usage == Usage(100, 40, cached_tokens=60, reasoning_tokens=25, cache_write_tokens=30)
    assert reply.usage.total_tokens == usage["total_tokens"]
    assert reply.cost == 0.002
    assert read(message("Hi"), usage={"input_tokens": 1, "output_tokens": 2.0}).usage == Usage(1, 2)
    assert read(message("Hi"), usage={"input_tokens": "x", "input_tokens_details": 3}).usage == Usage()
    assert read(message("Hi"), usage={"total_tokens": 3}).usage is None


def test_log_probabilities_are_those_of_all_texts() -> None:
    """Each token has its own and its alternatives'."""
    chosen = {"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": [{"token": "Ho", "logprob": -2}]}
    reply = read(message(output_text("Hi", logprobs=[chosen])))
    assert reply.logprobs == (TokenLogprob("Hi", -0.1, (("Ho", -2.0),)),)


def test_arguments_that_are_no_json_object_are_kept_and_said_to_be_invalid() -> None:
    """Broken arguments do not cost the call; none at all stand for an empty object."""
    broken, none = read(call(arguments='{"city":'), call(arguments="", number=2)).tool_calls
    assert broken.raw == '{"city":'
    assert broken.invalid
    assert none.arguments == {}
    assert none.invalid is None
    (parsed,) = read(call(arguments={"city": "Oslo"})).tool_calls  # type: ignore[arg-type]
    assert parsed.arguments == {"city": "Oslo"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "server_error", "message": "no"}, ServerError),
        ({"code": "rate_limit_exceeded", "message": "no"}, RateLimitError),
        ({"code": "insufficient_quota", "message": "no"}, QuotaExceededError),
        ({"code": "invalid_prompt", "message": "no"}, ContentFilterError),
        ({"code": "bio_policy", "message": "no"}, ContentFilterError),
        ({"code": "context_length_exceeded", "message": "no"}, ContextLengthError),
        ({"code": "vector_store_timeout", "message": "no"}, ServerError),
        ({"code": "image_too_large", "message": "no"}, BadRequestError),
        ({"code": 503, "message": "no"}, OverloadedError),
        ({"type": "invalid_request_error", "code": None, "message": "no"}, BadRequestError),
        ({"code": "something_new", "message": "no"}, ModelError),
        (None, ServerError),
    ],
)
def test_an_answer_that_failed_raises_what_it_says(error: Any, kind: type[ModelError]) -> None:
    """Status 200 and `failed`: the code decides, in a whole answer and in a stream."""
    with pytest.raises(kind) as caught:
        read(status="failed", error=error)
    assert type(caught.value) is kind
    with pytest.raises(kind) as streamed:
        list(chunks([{"type": "response.failed", "response": answer(status="failed", error=error)}]))
    assert type(streamed.value) is kind


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"{}", b'"x"', b'{"output": 3}', b'{"output": null, "status": "completed"}', b"\xff"]
)
def test_a_body_that_is_no_answer_is_a_protocol_error(raw: bytes) -> None:
    """HTML, other JSON, a body without items: all say that this is not the API."""
    with pytest.raises(ProtocolError):
        API.read(raw, SOURCE)


def test_fields_of_unexpected_types_are_ignored_or_kept() -> None:
    """A strange item does not cost the answer."""
    strange = [
        7,
        {"type": ["message"]},
        {"type": "message", "content": "Hi"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]},
        {"type": "reasoning", "summary": [3], "content": None},
        message({"type": ["x"]}, {"type": "picture", "url": "x"}, "Hi"),
    ]
    reply = read(*strange, model=3, id=[], service_tier={}, usage=[], incomplete_details=4, status=[])
    assert reply.text == "Hi"
    assert (reply.model, reply.id, reply.usage, reply.finish_reason) == ("gpt-5", None, None, None)
    assert items(USER, reply.message)[1:] == strange[1:]


# ---- the round trip ------------------------------------------------------------------------------------------


def test_thoughts_go_back_right_before_the_call_they_led_to() -> None:
    """Reasoning and tools: the items of the answer are the items of the next request, ciphers and ids included."""
    output = [reasoning("Look it up.", encrypted_content="gAAA"), message("One moment.", phase="commentary"), call()]
    reply = read(*output)
    result = Message("tool", (ToolResult(reply.tool_calls[0].id, "rain"),))
    wire = items(USER, reply.message, result, params={"store": False}, thinking=Thinking("low"))
    assert wire[1:-1] == output
    assert wire[-1] == {"type": "function_call_output", "call_id": "call_1", "output": "rain"}


def test_thoughts_without_a_cipher_are_named_by_their_id_while_they_are_stored() -> None:
    """Where nothing is stored they could not be found, and are left out; open models' texts stay."""
    bare, opened = reasoning(), reasoning(content=[{"type": "reasoning_text", "text": "Hm."}], id="rs_2")
    turn = read(bare, opened, call()).message
    assert items(USER, turn)[1:] == [bare, opened, call()]
    nameless = {name: value for name, value in call().items() if name != "id"}
    assert items(USER, turn, params={"store": False})[1:] == [opened, nameless]


@pytest.mark.parametrize("led", [call(), message("Hi")])
def test_what_followed_thoughts_that_stay_away_has_no_id(led: dict[str, Any]) -> None:
    """By its id the API would know that its thoughts are missing, and refuse it; the next turn is free of that."""
    turns = [read(reasoning(), led).message, USER, read(led).message]
    first, *_, last = items(USER, *turns, params={"store": False})[1:]
    assert first == {name: value for name, value in led.items() if name != "id"}
    assert last == led
    assert items(USER, *turns)[2] == led


@pytest.mark.parametrize(("mine", "theirs"), [("openai", "azure"), ("azure", "openai"), ("openrouter", "azure")])
def test_ids_and_ciphers_go_back_to_the_server_that_made_them_and_to_no_other(mine: str, theirs: str) -> None:
    """Another server knows no such id and cannot read the cipher; words and calls move on."""
    output = [
        reasoning("Hm.", encrypted_content="gAAA"),
        message("Hi"),
        {"type": "web_search_call", "id": "ws_1"},
        call(),
    ]
    here, there = ResponsesApi(mine), ResponsesApi(theirs)
    assert here.name != there.name
    reply = here.read(json.dumps(answer(*output)).encode(), SOURCE)

    def sent(api: ResponsesApi) -> Any:
        return api.write(Request("gpt-5", (USER, reply.message)), stream=False).body["input"]

    reading = here.reading(SOURCE)
    found = [reading.read(ServerSentEvent(json.dumps(event))) for event in events_of(answer(*output))]
    assert join([chunk for each in found for chunk in each], provider="openai", model="gpt-5") == reply
    assert sent(here)[1:] == output
    assert sent(there)[1:] == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'},
    ]


def test_a_hosted_tool_is_one_of_the_api_whoever_serves_it() -> None:
    """Its name is that of the wire format, which Azure and OpenRouter speak as well."""
    hosted = {"type": "web_search"}
    for api in (API, ResponsesApi("azure")):
        tools = (Raw("responses", hosted), Raw("openai", {"type": "x"}))
        wire = api.write(Request("gpt-5", (USER,), tools=tools, tool_choice="web_search"), stream=False).body
        assert (wire["tools"], wire["tool_choice"]) == ([hosted], hosted)


@pytest.mark.parametrize("name", ["x" * 65, "functions.weather:0", ""])
def test_an_id_that_another_provider_gave_is_made_one_that_this_api_takes(name: str) -> None:
    """It takes 64 characters, and answers longer ones and empty ones with a 400."""
    turns = (Message("assistant", (ToolCall(name, "weather"),)), Message("tool", (ToolResult(name, "rain"),)))
    asked, told = items(USER, *turns)[1:]
    assert asked["call_id"] == told["call_id"]
    assert 0 < len(asked["call_id"]) <= 64


def test_a_picture_that_another_model_drew_is_shown_by_the_user() -> None:
    """This API takes none in an assistant's turn."""
    drawn = Message("assistant", (Text("Here."), Image(PNG)))
    assert items(USER, drawn, Message("user", "Bluer!"))[1:] == [
        {"role": "assistant", "content": "Here."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "The answer held this:"},
                {"type": "input_image", "image_url": PNG},
            ],
        },
        {"role": "user", "content": "Bluer!"},
    ]


def test_empty_texts_are_not_sent() -> None:
    """Gemini ends its streams with one that has a signature. Blanks are text."""
    signed = Text("", opaque={"google": {"thoughtSignature": "s"}})
    assert items(Message("user", ""), Message("user", " "), Message("assistant", (Text("a"), signed))) == [
        {"role": "user", "content": " "},
        {"role": "assistant", "content": "a"},
    ]


def test_what_belongs_to_another_api_is_not_sent_to_this_one() -> None:
    """Foreign thoughts, Raws and opaque data stay at home; words and calls move on."""
    foreign = (
        Reasoning("Hm.", opaque={"anthropic": {"signature": "x"}}),
        Raw("anthropic", {"type": "server_tool_use"}),
        Text("Hi", opaque={"anthropic": {"citations": []}}),
        ToolCall("toolu_1", "weather", {}, opaque={"google": {"thoughtSignature": "x"}}),
    )
    assert items(USER, Message("assistant", foreign, opaque={"anthropic": {"container": "c"}}))[1:] == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "toolu_1", "name": "weather", "arguments": "{}"},
    ]


def test_thoughts_whose_beginning_was_taken_away_are_left_out() -> None:
    """An item without its id would be refused; words can do without."""
    turn = read(reasoning("One.", "Two."), message("H", "i")).message
    assert items(USER, Message("assistant", (turn.parts[1], turn.parts[3])))[1:] == [
        {"role": "assistant", "content": [output_text("i")]}
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
EXTRA = st.dictionaries(st.sampled_from(["phase", "namespace", "encrypted_content", "x"]), JSON, max_size=2)


@st.composite
def output_items(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The items of an answer, of every kind, with fields that nobody knows."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["message", "reasoning", "open", "call", "other"]))
        extra = {**draw(EXTRA), "id": f"item_{number}"}
        said = draw(st.lists(WORDS, max_size=3))
        if kind == "message":
            texts = [output_text(text, annotations=draw(st.lists(JSON, max_size=1))) for text in said]
            refusal = [{"type": "refusal", "refusal": draw(WORDS)}] if draw(st.booleans()) else []
            new = [{"type": "new", "x": draw(JSON)}] if draw(st.booleans()) else []
            found.append(message(*texts, *refusal, *new, **extra))
        elif kind == "reasoning":
            found.append(reasoning(*said, **extra))
        elif kind == "open":
            texts = [{"type": "reasoning_text", "text": text} for text in said]
            found.append(reasoning(*draw(st.lists(WORDS, max_size=2)), content=texts, **extra))
        elif kind == "call":
            arguments = draw(st.sampled_from(["", "{}", '{"a": 1}', '{"a"', "[1]"]))
            found.append(call(arguments=arguments, number=number, **extra))
        else:
            found.append({**extra, "type": draw(st.sampled_from(["web_search_call", "compaction", "brand_new"]))})
    return found


@settings(deadline=None)
@given(output_items())
def test_an_answer_goes_back_exactly_as_it_came(output: list[dict[str, Any]]) -> None:
    """The items of any answer are the items of the next request, also when it was stored as JSON in between."""
    reply = read(*output)
    assert items(USER, reply.message)[1:] == output
    assert items(USER, Response.from_json(json.loads(json.dumps(reply.to_json()))).message)[1:] == output


# ---- streams -------------------------------------------------------------------------------------------------


def chunks(events: Iterable[Mapping[str, Any]]) -> Iterator[StreamChunk]:
    reading = API.reading(SOURCE)
    for number, event in enumerate(events):
        yield from reading.read(
            ServerSentEvent(json.dumps({**event, "sequence_number": number}), event.get("type", ""))
        )
    yield from reading.end()


def streamed(events: Iterable[Mapping[str, Any]]) -> Response:
    return join(chunks(events), provider="openai", model="gpt-5")


def events_of(
    whole: Mapping[str, Any], cut: int = 3, *, deltas: bool = True, done: bool = True, last: bool = True
) -> Iterator[dict[str, Any]]:
    """The events that OpenAI sends for an answer; some servers leave deltas, finished items or the last output out."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        at = {"output_index": index, "item_id": item.get("id")}
        empty = {name: [] if isinstance(value, list) else value for name, value in item.items()}
        yield {"type": "response.output_item.added", "output_index": index, "item": empty | {"arguments": ""}}
        if deltas:
            yield from _deltas(item, at, cut)
        if done:
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
    status = whole["status"]
    yield {"type": f"response.{status}", "response": whole if last else {**whole, "output": []}}


def _deltas(item: Mapping[str, Any], at: Mapping[str, Any], cut: int) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        for piece in _cut(item["arguments"], cut):
            yield {"type": "response.function_call_arguments.delta", **at, "delta": piece, "obfuscation": "x"}
        yield {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}
    for field, where, part in (
        ("summary", "summary_index", "reasoning_summary_part"),
        ("content", "content_index", ""),
    ):
        for index, entry in enumerate(item.get(field) or []):
            here = {**at, where: index}
            kind = "reasoning_summary_text" if entry["type"] == "summary_text" else entry["type"]
            words = entry.get("refusal", entry.get("text"))
            yield {"type": f"response.{part or 'content_part'}.added", **here, "part": entry}
            for piece in _cut(words or "", cut):
                yield {"type": f"response.{kind}.delta", **here, "delta": piece, "logprobs": [], "obfuscation": "k3f"}
            yield {"type": f"response.{kind}.done", **here, "text": words}
            yield {"type": f"response.{part or 'content_part'}.done", **here, "part": entry}


def _cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


USAGE = {"input_tokens": 9, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}


def test_a_stream_hands_on_words_thoughts_and_arguments_as_they_come() -> None:
    """Deltas are chunks at once; each call has an index of its own, and its id and name once."""
    whole = answer(reasoning("Hmm."), message("Hello"), call(), call("now", "{}", 2), usage=USAGE)
    got = list(chunks(events_of(whole)))
    assert [chunk.reasoning for chunk in got if chunk.reasoning] == ["Hmm", "."]
    assert [chunk.content for chunk in got if chunk.content] == ["Hel", "lo"]
    deltas = [delta for chunk in got for delta in chunk.tool_calls]
    assert [(delta.index, delta.id, delta.name) for delta in deltas if delta.id or delta.name] == [
        (0, "call_1", "weather"),
        (1, "call_2", "now"),
    ]
    assert "".join(delta.arguments for delta in deltas if delta.index == 0) == '{"city":"Oslo"}'
    assert (got[-1].finish_reason, got[-1].usage) == ("tool_calls", Usage(9, 4, reasoning_tokens=1))


def test_a_stream_tells_id_and_model_first_and_nothing_else_before_a_word() -> None:
    """The first events come before anything is known to work."""
    reading = API.reading(Source("openai", "gpt-5", "req_1"))
    events = [ServerSentEvent(json.dumps(event)) for event in events_of(answer(message("Hi")))]
    begun = StreamChunk(model="gpt-5-2025-08-07", request_id="req_1", id="resp_1")
    assert [list(reading.read(event)) for event in events[:4]] == [[begun], [], [], []]
    (first,) = reading.read(events[4])
    assert first.content == "Hi"
    assert not reading.finished
    for event in events[5:]:
        list(reading.read(event))
    assert reading.finished
    assert reading.done


@settings(max_examples=200, deadline=None)
@given(output_items(), st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_a_stream_adds_up_to_the_answer_read_whole(
    output: list[dict[str, Any]], cut: int, deltas: bool, done: bool, last: bool
) -> None:
    """However it is cut, and whatever of deltas, finished items and the last output a server leaves out. What no event
    has told in its turn comes last: an empty entry, and all that is silent where items are not said to be done."""
    whole = answer(*output, usage=USAGE, service_tier="default", created_at=3)
    events = events_of(whole, cut, deltas=deltas, done=done or not last, last=last or not done)
    got, expected = streamed(events), read(*output, usage=USAGE, service_tier="default", created_at=3)
    assert in_any_order(got) == in_any_order(expected)
    if (done or not last) and all(part.text for part in expected.parts if isinstance(part, Text | Reasoning)):
        assert got == expected


def in_any_order(response: Response) -> Response:
    return replace(response, content=tuple(sorted(response.parts, key=repr)))


def test_log_probabilities_come_with_the_words_and_only_once() -> None:
    """Those of the deltas are not repeated by the item that is done; those that no delta had are added."""
    entries = [{"token": token, "logprob": -1, "top_logprobs": []} for token in ("Hel", "lo")]
    whole = answer(message(output_text("Hello", logprobs=entries)))
    events = list(events_of(whole))
    for event, entry in zip([e for e in events if e["type"] == "response.output_text.delta"], entries, strict=True):
        event["logprobs"] = [entry]
    assert streamed(events) == read(*whole["output"])
    assert streamed(events_of(whole)).logprobs == read(*whole["output"]).logprobs != ()


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "cancelled"}, "error"),
    ],
)
def test_a_stream_that_ends_early_says_why(fields: Any, finish: str) -> None:
    """`response.incomplete` ends a stream as `response.completed` does."""
    assert streamed(events_of(answer(message("Hel"), **fields))).finish_reason == finish


def test_a_streamed_refusal_ends_for_the_content_filter() -> None:
    """Its words are content."""
    reply = streamed(events_of(answer(message({"type": "refusal", "refusal": "I cannot."})), last=False))
    assert (reply.text, reply.finish_reason) == ("I cannot.", "content_filter")


def test_summaries_without_events_of_their_parts_are_told_apart_by_their_index() -> None:
    """The end of a summary's text is enough to know that the next one begins."""

    def told(index: int, text: str) -> list[dict[str, Any]]:
        place = {"item_id": "rs_1", "output_index": 0, "summary_index": index}
        return [
            {"type": "response.reasoning_summary_text.delta", **place, "delta": text},
            {"type": "response.reasoning_summary_text.done", **place, "text": text},
        ]

    whole = answer(reasoning("First.", "Then."), message(output_text("Hi")))
    events = [*told(0, "First."), *told(1, "Then."), {"type": "response.completed", "response": whole}]
    assert [part.text for part in streamed(events).parts if isinstance(part, Reasoning)] == ["First.", "Then."]


def test_events_that_are_not_known_pass() -> None:
    """Hosted tools, steering, annotations and what is yet to come say nothing that the items do not."""
    whole = answer(SEARCH, message("Hi"))
    new = [
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1"},
        {"type": "response.output_text.annotation.added", "output_index": 1, "annotation": {"type": "url_citation"}},
        {"type": "response.steer.failed", "error": {"code": "x", "message": "y"}},
        {"type": "response.brand_new.delta", "delta": {"x": 1}},
        {"type": "keepalive"},
        {},
    ]
    *events, end = events_of(whole)
    assert streamed([*events, *new, end]) == read(SEARCH, message("Hi"))


def test_deltas_that_count_on_belong_to_the_part_that_is_open() -> None:
    """vLLM counted `content_index` up with every delta; its items are whole nevertheless."""
    whole = answer(reasoning(content=[{"type": "reasoning_text", "text": "abc"}], summary=[]))
    *events, _, end = events_of(whole, 1)
    for number, event in enumerate(event for event in events if event["type"] == "response.reasoning_text.delta"):
        event["content_index"] = 7 + number
    done = {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]}
    assert streamed([*events, done, end]) == read(*whole["output"])


def test_items_without_an_index_go_by_their_id() -> None:
    """Two calls whose events name no `output_index` stay two."""
    whole = answer(call(), call("now", "{}", 2))
    events = [{name: value for name, value in event.items() if name != "output_index"} for event in events_of(whole)]
    assert streamed(events) == read(*whole["output"])


def test_items_that_all_have_the_index_0_go_by_their_id() -> None:
    """A server that counts nothing still has its items told apart."""
    whole = answer(reasoning("Hm."), message("Hi"), call())
    events = [{**event, "output_index": 0} if "output_index" in event else event for event in events_of(whole)]
    assert streamed(events) == read(*whole["output"])


def test_ids_that_change_with_every_event_are_no_ids() -> None:
    """A server that gives an item another id each time has it told by its index."""
    whole = answer(reasoning("Hm."), message("Hi"), call())
    events = list(events_of(whole))
    for number, event in enumerate(events):
        if "item_id" in event:
            event["item_id"] = f"id_{number}"
        if event["type"] == "response.output_item.added":
            event["item"] = {**event["item"], "id": f"id_{number}"}
    assert streamed(events) == read(*whole["output"])


def test_items_that_are_done_late_and_renamed_at_the_end_are_the_same_items() -> None:
    """OpenRouter says that thoughts are done after the words, and its last event gives them a new id."""
    thoughts = reasoning(content=[{"type": "reasoning_text", "text": "Hmm."}])
    *events, end = events_of(answer(thoughts, message("Hi")))
    late = [event for event in events if event["type"].endswith(".done") and event["output_index"] == 0]
    end = {**end, "response": answer({**thoughts, "id": "rs_other"}, message("Hi"), output_text="Hi")}
    assert streamed([*[event for event in events if event not in late], *late, end]) == read(thoughts, message("Hi"))


def test_words_and_thoughts_are_told_apart_without_any_index() -> None:
    """The barest of servers sends deltas alone, and an answer without items."""
    events = [
        {"type": "response.output_text.delta", "delta": "he"},
        {"type": "response.reasoning_text.delta", "delta": "plan"},
        {"type": "response.output_text.delta", "delta": "llo"},
        {"type": "response.completed", "response": {"output_text": "hello"}},
    ]
    reply = streamed(events)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("hello", "plan", "stop")


def test_an_item_that_is_done_twice_counts_once() -> None:
    """Opaque data is not laid over itself."""
    events = list(events_of(answer(SEARCH, message(output_text("Hi", annotations=[1])), call())))
    twice = [copy for event in events for copy in [event] * (2 if event["type"].endswith("item.done") else 1)]
    assert streamed(twice) == streamed(events)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (
            {"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"}},
            QuotaExceededError,
        ),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}, RateLimitError),
        ({"type": "error", "code": None, "message": "m"}, ModelError),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "code": "unsupported", "message": "m"}},
            BadRequestError,
        ),
        ({"error": {"code": 502, "message": "m"}}, ServerError),
    ],
)
def test_an_error_event_raises_what_it_says(event: dict[str, Any], kind: type[ModelError]) -> None:
    """Nested and flat, and without a type of its own."""
    with pytest.raises(kind, match="m") as caught:
        list(chunks([event]))
    assert type(caught.value) is kind


def test_an_event_that_is_no_json_of_this_api_is_a_protocol_error() -> None:
    """`[DONE]` is none of this API's, and passes: compatible servers send it."""
    reading = API.reading(SOURCE)
    assert list(reading.read(ServerSentEvent("[DONE]"))) == []
    for data in ("{", "[]", '{"type": 3}', '{"output_index": "x"}'):
        with pytest.raises(ProtocolError):
            list(reading.read(ServerSentEvent(data)))


# ---- over a socket -------------------------------------------------------------------------------------------


def provider(url: str) -> HTTPProvider:
    asked = ProviderSettings("openai", "openai", base_url=url, api_key=Secret("sk-test-123456"), allow_http=True)
    return HTTPProvider(asked, ResponsesApi(), base_url=url)


async def test_a_question_is_posted_and_its_answer_read(serve: Any) -> None:
    """The request that arrives has the path, the key and the items; the answer has the request's id."""
    server = await serve(lambda exchange: exchange.respond(answer(message("Hi")), x_request_id="req_1"))
    lab = provider(server.url)
    reply = await lab.execute(Request("gpt-5", (USER,)))
    await lab.aclose()
    (asked,) = server.requests
    assert asked.path == "/v1/responses"
    assert asked.headers["authorization"] == "Bearer sk-test-123456"
    assert asked.json["input"] == [{"role": "user", "content": "Hello"}]
    assert (reply.text, reply.request_id) == ("Hi", "req_1")


async def test_a_stream_is_read_as_it_comes_and_ends_with_its_last_event(serve: Any) -> None:
    """Events carry a name and data; the last one ends the stream."""
    whole = answer(reasoning("Hmm."), message("Hello"), call(), usage=USAGE)

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        for event in events_of(whole):
            await exchange.piece(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        await exchange.end_stream()

    server = await serve(stream)
    lab = provider(server.url)
    got = [chunk async for chunk in lab.execute_streaming(Request("gpt-5", (USER,)))]
    await lab.aclose()
    assert join(got, provider="openai", model="gpt-5") == read(*whole["output"], usage=USAGE)
    assert server.requests[0].json["stream"] is True


async def test_a_stream_that_is_cut_says_how_far_it_came(serve: Any) -> None:
    """Without its last event an answer is a part of one, and its error has the words."""

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        for event in list(events_of(answer(message("Hello"))))[:6]:
            await exchange.event(event)
        await exchange.end_stream()

    server = await serve(stream)
    lab = provider(server.url)
    with pytest.raises(StreamInterruptedError) as caught:
        async for _ in lab.execute_streaming(Request("gpt-5", (USER,))):
            pass
    await lab.aclose()
    assert caught.value.partial == "Hello"


async def test_an_error_in_a_stream_has_the_words_that_came_before_it(serve: Any) -> None:
    """The error is what the event says."""

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        for event in list(events_of(answer(message("Hello"))))[:5]:
            await exchange.event(event)
        await exchange.event({"type": "error", "code": "server_error", "message": "oops"})
        await exchange.end_stream()

    server = await serve(stream)
    lab = provider(server.url)
    with pytest.raises(ServerError, match="oops") as caught:
        async for _ in lab.execute_streaming(Request("gpt-5", (USER,))):
            pass
    await lab.aclose()
    assert caught.value.partial == "Hel"


async def test_a_connection_that_breaks_before_the_first_word_may_be_tried_again(serve: Any) -> None:
    """`response.created` alone is no answer yet: the error is a retryable one."""

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(next(events_of(answer(message("Hello")))))
        exchange.writer.transport.abort()

    server = await serve(stream)
    lab = provider(server.url)
    with pytest.raises(ModelConnectionError):
        async for _ in lab.execute_streaming(Request("gpt-5", (USER,))):
            pass
    await lab.aclose()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"type": "invalid_request_error", "code": "unsupported_parameter", "message": "m"}, BadRequestError),
        (400, {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "m"}, ContextLengthError),
        (400, {"type": "invalid_request_error", "code": "invalid_prompt", "message": "m"}, ContentFilterError),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key", "message": "m"}, AuthenticationError),
        (404, {"type": "invalid_request_error", "code": "model_not_found", "message": "m"}, NotFoundError),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"}, QuotaExceededError),
        (429, {"type": "requests", "code": "rate_limit_exceeded", "message": "m"}, RateLimitError),
        (500, {"type": "server_error", "code": None, "message": "m"}, ServerError),
        (503, {"type": "server_error", "code": None, "message": "m"}, OverloadedError),
    ],
)
async def test_a_refused_request_raises_the_error_of_its_status_and_code(
    serve: Any, status: int, error: Any, kind: type[ModelError]
) -> None:
    """The code decides, else the status."""
    server = await serve(lambda exchange: exchange.respond({"error": error}, status))
    lab = provider(server.url)
    with pytest.raises(kind) as caught:
        await lab.execute(Request("gpt-5", (USER,)))
    await lab.aclose()
    assert type(caught.value) is kind
    assert caught.value.status == status


async def test_a_whole_answer_to_a_wish_for_a_stream_is_read_all_the_same(serve: Any) -> None:
    """Some servers do not stream: the answer comes in chunks nevertheless."""
    whole = answer(reasoning("Hmm."), message("Hello"), call(), usage=USAGE)
    server = await serve(lambda exchange: exchange.respond(whole))
    lab = provider(server.url)
    got = [chunk async for chunk in lab.execute_streaming(Request("gpt-5", (USER,)))]
    await lab.aclose()
    assert join(got, provider="openai", model="gpt-5") == read(*whole["output"], usage=USAGE)


# ---- whatever comes ------------------------------------------------------------------------------------------

ANYTHING = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good answer or event with one of its values replaced, wherever it stands."""
    whole = answer(reasoning("Hm."), SEARCH, message("Hi"), call(), usage=USAGE)
    value: Any = draw(st.sampled_from([whole, *events_of(whole)]))
    value = json.loads(json.dumps(value))
    spot, inside = value, list(_spots(value))
    spot, key = draw(st.sampled_from(inside))
    spot[key] = draw(JSON | st.just(1e300) | st.just(10**400) | st.just("[" * 3000))
    return json.dumps(value).encode()


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


@settings(max_examples=300, deadline=None)
@given(ANYTHING | mutated())
def test_whatever_a_server_sends_is_an_answer_or_an_error_of_ours(data: bytes) -> None:
    """No body and no event raises anything but a ModelError; what is read can be written again."""
    try:
        reply = API.read(data, SOURCE)
        body(USER, reply.message)
        Response.from_json(reply.to_json())
    except ModelError:
        pass
    reading = API.reading(SOURCE)
    for name in ("", "response.output_text.delta", "error", "response.completed"):
        try:
            for chunk in reading.read(ServerSentEvent(data.decode("utf-8", "replace"), name)):
                StreamChunk.from_json(chunk.to_json())
        except ModelError:
            pass


@settings(max_examples=200, deadline=None)
@given(st.lists(mutated(), max_size=6))
def test_a_mixture_of_good_and_broken_events_is_read_without_a_surprise(events: list[bytes]) -> None:
    """What was noted of one event does not make another fail."""
    reading = API.reading(SOURCE)
    got = []
    for data in events:
        with contextlib.suppress(ModelError):
            got.extend(reading.read(ServerSentEvent(data.decode())))
    join(got, provider="openai", model="gpt-5")


@pytest.mark.parametrize("depth", [300, *range(900, 1000, 3), 100_000])
@pytest.mark.parametrize(
    "body",
    [
        '{"type":"error","message":DEEP}',
        '{"output":[{"type":"function_call","name":"f","call_id":"1","arguments":DEEP}]}',
        '{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","arguments":DEEP}}',
    ],
)
def test_what_is_nested_deeply_is_read_or_a_protocol_error(body: str, depth: int) -> None:
    """What can be decoded may still be too deep to be written as a text."""
    whole = body.replace("DEEP", "[" * depth + "]" * depth)
    with contextlib.suppress(ModelError):
        API.read(whole.encode(), SOURCE)
    with contextlib.suppress(ModelError):
        list(API.reading(SOURCE).read(ServerSentEvent(whole)))
