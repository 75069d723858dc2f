"""Anthropic's Messages API: what requests become, what answers and streams become, and who carries them.

Most tests are pure: `written` is the JSON of a request, `read` a whole answer, `joined` the sum of a stream's chunks.
The JSON is invented after Anthropic's SDK types; recorded traffic stands in test_recorded_anthropic.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.content import Audio, Document, Image, Json, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    Message,
    ModelInfo,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    StreamChunk,
    Thinking,
    Tool,
    Usage,
)
from agentflow.llm.providers.anthropic.provider import AnthropicApi, AnthropicProvider
from agentflow.llm.providers.base import LLMProvider, ModelLister, ProviderSettings, Secret, TokenCounter
from agentflow.llm.providers.efforts import BUDGETS
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.history import WORD
from agentflow.llm.providers.http import Answer
from agentflow.llm.streaming.join import chunks_of, join
from agentflow.llm.streaming.sse import ServerSentEvent

API = AnthropicApi()
SOURCE = Source("anthropic", "claude-asked", "req_1")
OLD, BOTH, NEW, FOREIGN = "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-sonnet-5", "kimi-k2.6"
PIXEL = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def ask(*content: Any, model: str = OLD, **fields: Any) -> Request:
    """A request with one user turn of these parts, or of one text."""
    turn = Message("user", content[0] if len(content) == 1 and isinstance(content[0], str) else content)
    return Request(model, (turn,), **fields)


def written(request: Request, *, stream: bool = False) -> dict[str, Any]:
    """The body of a request, as JSON has it."""
    wire = API.write(request, stream=stream)
    assert wire.path == "/messages"
    return json.loads(json.dumps(wire.body, default=dict))


def turns(*messages: Message) -> list[dict[str, Any]]:
    return written(Request(OLD, messages))["messages"]


def block(part: Part) -> dict[str, Any]:
    (made,) = turns(Message("user", (part,)))[0]["content"]
    return made


def refused(request: Request) -> str:
    with pytest.raises(BadRequestError) as caught:
        API.write(request, stream=False)
    assert caught.value.model == request.model
    return str(caught.value)


def message(*content: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A whole answer as the API sends it."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 4},
        **fields,
    }


def read(body: Any) -> Response:
    return API.read(body if isinstance(body, bytes) else json.dumps(body).encode(), SOURCE)


def says(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def calls(name: str = "weather", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": "Oslo"}, **fields}


# ---- streams, for the tests ----------------------------------------------------------------------------------


def event(data: Any, name: str = "message") -> ServerSentEvent:
    return ServerSentEvent(data if isinstance(data, str) else json.dumps(data), name)


def chunks(events: Iterable[Any]) -> list[StreamChunk]:
    """What a stream of events is read as, up to its end mark or its end."""
    reading, found = API.reading(SOURCE), []
    for data in events:
        found.extend(reading.read(event(data)))
        if reading.done:
            return found
    return [*found, *reading.end()]


def joined(events: Iterable[Any]) -> Response:
    return join(chunks(events), provider="anthropic", model="claude-asked")


def starts(index: int, began: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": began}


def adds(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def stops(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


PING = {"type": "ping"}
STOP = {"type": "message_stop"}


def begins(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 12, "output_tokens": 1}
    return {"type": "message_start", "message": message(**{"stop_reason": None, "usage": usage, **fields})}


def ends(reason: str = "end_turn", usage: Mapping[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    fields = {"stop_reason": reason, "stop_sequence": None, **delta}
    return {"type": "message_delta", "delta": fields, "usage": usage or {"output_tokens": 4}}


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def events_of(whole: Mapping[str, Any], size: int = 3) -> list[dict[str, Any]]:
    """The events in which the API would have streamed an answer, its texts cut into pieces of `size`."""
    first = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    found = [{"type": "message_start", "message": first}, PING]
    for index, each in enumerate(whole["content"]):
        found += [*_block_events(index, each, size), stops(index)]
    delta = {name: whole.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
    return [*found, {"type": "message_delta", "delta": delta, "usage": whole["usage"]}, STOP]


def _block_events(index: int, whole: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    match whole["type"]:
        case "text":
            began = {**whole, "text": "", "citations": []} if whole.get("citations") else {**whole, "text": ""}
            cited = [adds(index, "citations_delta", citation=each) for each in whole.get("citations") or []]
            words = [adds(index, "text_delta", text=piece) for piece in pieces(whole["text"], size)]
            return [starts(index, began), *cited, *words]
        case "thinking":
            thoughts = [adds(index, "thinking_delta", thinking=piece) for piece in pieces(whole["thinking"], size)]
            signed = [adds(index, "signature_delta", signature=whole["signature"])]
            return [starts(index, {**whole, "thinking": "", "signature": ""}), *thoughts, *signed]
        case "tool_use" | "server_tool_use":
            text = json.dumps(whole["input"], separators=(",", ":"), ensure_ascii=False) if whole["input"] else ""
            given = [adds(index, "input_json_delta", partial_json=piece) for piece in ["", *pieces(text, size)]]
            return [starts(index, {**whole, "input": {}}), *given]
        case _:
            return [starts(index, whole)]


# ---- requests: settings --------------------------------------------------------------------------------------


def test_the_shortest_request_has_a_model_a_limit_and_a_turn():
    """`max_tokens` is required; without a word of the caller it is what every Claude model allows."""
    assert written(ask("Hello")) == {
        "model": OLD,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_a_stream_is_asked_for_by_the_call_and_not_by_params():
    """`stream` follows the method that was called; where params name it, it is set right."""
    assert written(ask("Hello"), stream=True)["stream"] is True
    assert "stream" not in written(ask("Hello"))
    assert written(ask("Hello", params={"stream": True}))["stream"] is False
    assert written(ask("Hello", params={"stream": False}), stream=True)["stream"] is True


def test_sampling_and_stops_have_their_places():
    """Temperature, top_p, top_k and stop sequences go out as they are."""
    body = written(ask("Hi", temperature=0.0, top_p=0.5, top_k=40, stop=("END", "\n\n"), max_tokens=0))
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.0, 0.5, 40)
    assert body["stop_sequences"] == ["END", "\n\n"]
    assert body["max_tokens"] == 0, "it warms the prompt cache up without an answer"


def test_what_the_api_has_no_word_for_is_left_out():
    """Seed, cache keys, a turn's name and parallel calls that are allowed anyway."""
    request = Request(
        OLD,
        (Message("user", "Hi", name="ann"),),
        seed=7,
        parallel_tool_calls=True,
        tools=(Tool("f"),),
    )
    wire = API.write(request, stream=False)
    assert set(wire.body) == {"model", "max_tokens", "messages", "tools"}
    assert wire.headers == {}
    assert wire.body["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"n": 2}, "one answer"),
        ({"logprobs": 0}, "log probabilities"),
        ({"output": OutputFormat("any")}, "schema"),
        ({"metadata": {"team": "search", "user_id": "u"}}, "not team"),
        ({"tool_choice": ("a", "b"), "tools": (Tool("a"), Tool("b"), Tool("c"))}, "one named tool"),
    ],
)
def test_what_would_be_lost_in_silence_is_refused(fields, word):
    """Several answers, log probabilities, JSON without a schema, other metadata, a choice among some tools."""
    assert word in refused(ask("Hi", **fields))


def test_one_answer_is_what_the_api_gives_anyway():
    """n=1 is no word on the wire."""
    assert "n" not in written(ask("Hi", n=1))


def test_metadata_is_the_users_id():
    """The one field that the API knows."""
    assert written(ask("Hi", metadata={"user_id": "u-1"}))["metadata"] == {"user_id": "u-1"}


def test_params_have_the_last_word_mapping_by_mapping():
    """What is not modelled goes through params, beside what is; None is written as null."""
    request = ask(
        "Hi",
        temperature=0.5,
        output=OutputFormat("x", SCHEMA),
        params={"temperature": None, "service_tier": "standard_only", "output_config": {"effort": "low"}},
    )
    body = written(request)
    assert body["temperature"] is None
    assert body["service_tier"] == "standard_only"
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}


def test_a_schema_is_asked_for_natively():
    """The description stands in the schema, which has a place for it; the schema's own wins."""
    assert written(ask("Hi", output=OutputFormat("x", SCHEMA)))["output_config"]["format"]["schema"] == SCHEMA
    described = OutputFormat("x", {**SCHEMA, "title": "City"}, description="Where it is")
    assert written(ask("Hi", output=described))["output_config"] == {
        "format": {"type": "json_schema", "schema": {"description": "Where it is", **SCHEMA, "title": "City"}}
    }


# ---- requests: thinking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "wish", "thinking", "effort"),
    [
        (OLD, Thinking(budget=2000), {"type": "enabled", "budget_tokens": 2000}, None),
        (OLD, Thinking("high"), {"type": "enabled", "budget_tokens": BUDGETS["high"]}, None),
        (OLD, Thinking("minimal"), {"type": "enabled", "budget_tokens": 1024}, None),
        (OLD, Thinking(), {"type": "enabled", "budget_tokens": BUDGETS["medium"]}, None),
        ("claude-3-7-sonnet-20250219", Thinking("low"), {"type": "enabled", "budget_tokens": BUDGETS["low"]}, None),
        ("claude-opus-4-20250514", Thinking("low"), {"type": "enabled", "budget_tokens": BUDGETS["low"]}, None),
        ("claude-opus-4-5", Thinking("low", 4000), {"type": "enabled", "budget_tokens": 4000}, "low"),
        (BOTH, Thinking(budget=2000), {"type": "enabled", "budget_tokens": 2000}, None),
        (BOTH, Thinking("high"), {"type": "adaptive"}, "high"),
        (BOTH, Thinking(), {"type": "adaptive"}, None),
        (NEW, Thinking("xhigh"), {"type": "adaptive"}, "xhigh"),
        (NEW, Thinking("minimal"), {"type": "adaptive"}, "low"),
        (NEW, Thinking(budget=1024), {"type": "adaptive"}, "low"),
        (NEW, Thinking(budget=9000), {"type": "adaptive"}, "high"),
        (NEW, Thinking(budget=200_000), {"type": "adaptive"}, "high"),
        ("anthropic/claude-opus-4.7", Thinking(budget=2048), {"type": "adaptive"}, "medium"),
        ("us.anthropic.claude-haiku-4-5-v1", Thinking("low"), {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-mythos-preview", Thinking("high"), {"type": "adaptive"}, "high"),
        (FOREIGN, Thinking("high"), {"type": "adaptive"}, "high"),
        (FOREIGN, Thinking(budget=5000), {"type": "enabled", "budget_tokens": 5000}, None),
        (OLD, Thinking("none"), {"type": "disabled"}, None),
        (NEW, Thinking(budget=0), {"type": "disabled"}, None),
        (OLD, Thinking("low", show=True), {"type": "enabled", "budget_tokens": 1024, "display": "summarized"}, None),
        (NEW, Thinking(show=False), {"type": "adaptive", "display": "omitted"}, None),
    ],
)
def test_thinking_is_asked_for_in_the_words_of_the_models_generation(model, wish, thinking, effort):
    """Budgets up to 4.5, efforts from 4.7 on, either for 4.6 and for what is no Claude."""
    body = written(ask("Hi", model=model, thinking=wish))
    assert body["thinking"] == thinking
    assert body.get("output_config", {}).get("effort") == effort


def test_thoughts_count_against_the_limit_so_the_usual_one_grows_by_them():
    """A budget must be smaller than `max_tokens`; what is left is what an answer gets without thinking."""
    assert written(ask("Hi", thinking=Thinking(budget=10_000)))["max_tokens"] == 14_096
    assert written(ask("Hi", model=NEW, thinking=Thinking("low")))["max_tokens"] == 4096 + BUDGETS["low"]
    assert written(ask("Hi", model=NEW, thinking=Thinking()))["max_tokens"] == 4096 + BUDGETS["high"]
    assert written(ask("Hi", thinking=Thinking("none")))["max_tokens"] == 4096


def test_a_budget_of_ours_fits_the_callers_limit():
    """An effort leaves half of `max_tokens` for the answer; a budget that the caller named is the caller's."""
    assert written(ask("Hi", thinking=Thinking("high"), max_tokens=8000))["thinking"]["budget_tokens"] == 4000
    assert written(ask("Hi", thinking=Thinking("high"), max_tokens=100))["thinking"]["budget_tokens"] == 1024
    assert written(ask("Hi", thinking=Thinking(budget=5000), max_tokens=100))["thinking"]["budget_tokens"] == 5000


def test_an_unknown_effort_is_no_budget():
    """A newer model takes any word, an older one needs a number."""
    assert written(ask("Hi", model=NEW, thinking=Thinking("utmost")))["output_config"] == {"effort": "utmost"}
    assert "budget" in refused(ask("Hi", thinking=Thinking("utmost")))


# ---- requests: turns -----------------------------------------------------------------------------------------


def test_the_first_system_turns_stand_before_the_conversation():
    """One text stays a text, several become blocks; a developer is a system, too."""
    hello = Message("user", "Hello")
    one = written(Request(OLD, (Message("system", "Be brief."), hello)))
    assert one["system"] == "Be brief."
    assert one["messages"] == [{"role": "user", "content": "Hello"}]
    two = written(Request(OLD, (Message("system", "Be brief."), Message("developer", (Text("Rhyme.", "1h"),)), hello)))
    assert two["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Rhyme.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert "system" not in written(Request(OLD, (Message("system", ""), hello)))


def test_a_system_turn_in_the_conversation_stays_where_it_is():
    """Newer models take such turns; what they say beside their content is kept."""
    addition = Raw("anthropic", {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}})
    later = Message("system", (addition,), opaque={"anthropic": {"clear_at": "never"}, "openai": {"x": 1}})
    assert turns(Message("user", "Hi"), later, Message("developer", "Rhyme."))[1:] == [
        {"role": "system", "content": [dict(addition.data)], "clear_at": "never"},
        {"role": "system", "content": "Rhyme."},
    ]


def test_turns_of_one_role_are_left_to_the_api_to_join():
    """It combines them by itself, so a conversation goes out turn by turn."""
    found = turns(Message("user", "a"), Message("user", "b"), Message("assistant", "c"), Message("user", (Text("d"),)))
    assert found == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": [{"type": "text", "text": "d"}]},
    ]


def test_the_results_of_parallel_calls_are_one_user_turn():
    """Several tool turns in a row become one, or the model would stop calling tools in parallel."""
    first = Message("tool", (ToolResult("toolu_1", "12 °C", name="weather"),))
    second = Message("tool", (ToolResult("toolu_2", "no such city", is_error=True), ToolResult("toolu_3")))
    assert turns(first, second, Message("user", "And?")) == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 °C"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such city", "is_error": True},
                {"type": "tool_result", "tool_use_id": "toolu_3"},
            ],
        },
        {"role": "user", "content": "And?"},
    ]


def test_a_result_may_hold_pictures_and_documents():
    """The blocks inside are those of a turn."""
    image, pdf = Image(f"data:image/png;base64,{PIXEL}"), Document("https://host/a.pdf")
    assert block(ToolResult("t", (Text("see"), image, pdf), cache="5m")) == {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            {"type": "document", "source": {"type": "url", "url": "https://host/a.pdf"}},
        ],
        "cache_control": {"type": "ephemeral"},
    }


def test_a_tools_turn_is_made_of_results():
    """Words alone answer no call."""
    assert "ToolResult" in refused(Request(OLD, (Message("tool", "12 °C"),)))
    assert "ToolResult" in refused(Request(OLD, (Message("tool", ""),)))


def test_an_assistant_turn_in_which_this_api_finds_nothing_is_left_out():
    """The API refuses empty turns, and what another API thought is nothing here."""
    foreign = Message("assistant", (Reasoning("hm", opaque={"google": {}}), Raw("openai", {"type": "web_search"})))
    found = turns(Message("user", "a"), foreign, Message("assistant", ""), Message("user", "b"))
    assert found == [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]


@pytest.mark.parametrize("name", ["functions.get_weather:0", "R-1.0", "", "call|fc_1", "x" * 200])
def test_an_id_that_another_provider_gave_is_made_one_that_this_api_takes(name):
    """It takes letters, digits, - and _, and answers others with a 400; the result must have the same."""
    call = Message("assistant", (ToolCall(name, "weather", {"city": "Oslo"}),))
    _, called, told = turns(Message("user", "?"), call, Message("tool", (ToolResult(name, "12 °C"),)))
    given = called["content"][0]["id"]
    assert re.fullmatch("[a-zA-Z0-9_-]+", given)
    assert told["content"][0]["tool_use_id"] == given


def test_a_picture_that_another_model_drew_is_shown_by_the_user():
    """This API takes none in an assistant's turn."""
    drawn = Message("assistant", (Text("Here."), Image(f"data:image/png;base64,{PIXEL}")))
    answered, shown, _ = turns(drawn, Message("user", "Bluer!"))
    assert answered == {"role": "assistant", "content": "Here."}
    assert [shown["role"], *[each["type"] for each in shown["content"]]] == ["user", "text", "image"]


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_texts_without_words_are_not_sent(blank):
    """The API refuses them; Gemini ends its streams with one that has a signature, and users type them."""
    signed = Text(blank, opaque={"google": {"thoughtSignature": "s"}})
    found = turns(Message("user", blank), Message("user", "q"), Message("assistant", (Text("a"), signed)))
    assert found == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert "system" not in written(Request(OLD, (Message("system", blank), Message("user", "q"))))


# ---- requests: parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Text("hi"), {"type": "text", "text": "hi"}),
        (
            Image(f"data:image/webp;base64,{PIXEL}", detail="low"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PIXEL}},
        ),
        (Image("https://host/a.png"), {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}}),
        (Image("file-id:file_1"), {"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
        (
            Document("data:application/pdf;base64,JVBERg==", name="a.pdf", cache="1h"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            },
        ),
        (
            Document("größer\n".encode(), "text/markdown"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "größer\n"}},
        ),
        (
            Document("file-id:file_2", opaque={"anthropic": {"citations": {"enabled": True}, "context": "old"}}),
            {
                "type": "document",
                "source": {"type": "file", "file_id": "file_2"},
                "citations": {"enabled": True},
                "context": "old",
            },
        ),
        (
            ToolCall("toolu_1", "f", {"a": 1}, '{"a": 1}', opaque={"anthropic": {"caller": {"type": "direct"}}}),
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
        ),
        (
            ToolCall("toolu_1", "f", {}, "[1"),
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"INVALID_JSON": "[1"}},
        ),
        (
            Reasoning("hm", opaque={"anthropic": {"signature": "Ev"}}),
            {"type": "thinking", "thinking": "hm", "signature": "Ev"},
        ),
        (
            Reasoning(opaque={"anthropic": {"type": "redacted_thinking", "data": "Em"}}),
            {"type": "redacted_thinking", "data": "Em"},
        ),
        (Raw("anthropic", {"type": "search_result", "x": [1]}), {"type": "search_result", "x": [1]}),
        (Text("hi", opaque={"openai": {"annotations": []}}), {"type": "text", "text": "hi"}),
    ],
)
def test_a_part_is_written_as_a_block(part, expected):
    """By value, by address and by the id of an upload; opaque data of this API lies on top, others' is not there."""
    assert block(part) == expected


@pytest.mark.parametrize(
    ("part", "word"),
    [
        (Audio(b"RIFF", "audio/wav"), "sound"),
        (Audio("https://host/a.mp3"), "sound"),
        (Image("data:;base64,AAAA"), "media_type"),
        (Document("data:;base64,AAAA"), "PDF and text"),
        (Document(b"PK", "application/zip"), "application/zip"),
        (Document(b"\xff\xfe\xff", "text/plain"), "UTF-8"),
        (Document("data:text/plain;base64,!", "text/plain"), "base64"),
        (Image("cat.png"), "media_type"),
    ],
)
def test_a_part_that_the_api_cannot_take_is_refused(part, word):
    """With a word on what to do, and wherever it stands."""
    assert word in refused(ask(part))
    assert word in refused(Request(OLD, (Message("tool", (ToolResult("t", (part,)),)),)))


@given(st.text(min_size=1))
def test_a_text_document_goes_out_as_its_text(text):
    """Whatever its characters are."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    assert block(Document(raw, "text/plain"))["source"]["data"] == text


# ---- requests: tools -----------------------------------------------------------------------------------------


def test_tools_are_functions_or_what_the_provider_runs():
    """A hosted tool goes out as it stands; one of another API stays away."""
    tools = (
        Tool("weather", "The weather.", SCHEMA, strict=True, cache="1h"),
        Raw("anthropic", {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
        Raw("openai", {"type": "web_search"}),
        Tool("now"),
    )
    assert written(ask("Hi", tools=tools))["tools"] == [
        {
            "name": "weather",
            "description": "The weather.",
            "input_schema": SCHEMA,
            "strict": True,
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"name": "now", "description": "", "input_schema": {"type": "object"}},
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("auto", True, {"type": "auto", "disable_parallel_tool_use": False}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", None, {"type": "none"}),
        ("none", False, {"type": "none"}),
        ("f", None, {"type": "tool", "name": "f"}),
        (("g",), None, {"type": "tool", "name": "g"}),
        (("g", "f", "hosted"), None, {"type": "any"}),
    ],
)
def test_a_choice_of_tools_is_written(choice, parallel, expected):
    """By word, by name, as all names there are; one at a time is said inside the choice."""
    tools = (Tool("f"), Tool("g"), Raw("anthropic", {"type": "x_1", "name": "hosted"}))
    assert (
        written(ask("Hi", tools=tools, tool_choice=choice, parallel_tool_calls=parallel)).get("tool_choice") == expected
    )


def test_one_call_at_a_time_needs_tools_to_be_said():
    """Without tools the API refuses a choice."""
    assert "tool_choice" not in written(ask("Hi", parallel_tool_calls=False))


# ---- requests: the prompt cache ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (PromptCache(), {"type": "ephemeral"}),
        (PromptCache("5m", key="team"), {"type": "ephemeral", "ttl": "5m"}),
        (PromptCache("1h"), {"type": "ephemeral", "ttl": "1h"}),
        (PromptCache("24h"), {"type": "ephemeral", "ttl": "1h"}),
    ],
)
def test_a_request_that_will_be_asked_again_is_marked_as_a_whole(cache, expected):
    """The API finds the last block that can bear the mark; a day is an hour here, the longest there is."""
    assert written(ask("Hi", cache=cache))["cache_control"] == expected


def test_four_marks_are_the_most():
    """On tools, on the system, on parts and on the request itself, counted together."""
    marked = [Text(str(n), "5m") for n in range(2)]
    request = Request(OLD, (Message("system", (Text("s", "1h"),)), Message("user", tuple(marked))))
    four = Request(OLD, request.messages, tools=(Tool("f", cache="5m"),))
    assert json.dumps(written(four)).count("ephemeral") == 4
    assert "5" in refused(Request(OLD, request.messages, tools=(Tool("f", cache="5m"),), cache=PromptCache()))
    inside = Message("tool", (ToolResult("t", (Text("a", "5m"), Text("b", "5m")), cache="5m"),))
    assert "here are 6" in refused(Request(OLD, (*request.messages, inside)))


# ---- answers -------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_read():
    """Text, names, reason and the id of the request."""
    assert read(message(says("Hello"), usage={"input_tokens": 3, "output_tokens": 2, "service_tier": "priority"})) == (
        Response(
            "Hello",
            "claude-served",
            "anthropic",
            usage=Usage(3, 2),
            finish_reason="stop",
            raw_finish_reason="end_turn",
            request_id="req_1",
            id="msg_1",
            service_tier="priority",
        )
    )


def test_blocks_are_parts_in_their_order():
    """Thoughts, words, calls, and what is not modelled."""
    hosted = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    cited = {**says("It rains."), "citations": [{"type": "char_location", "cited_text": "rain"}]}
    answer = read(
        message(
            {"type": "thinking", "thinking": "Hm.", "signature": "Ev"},
            {"type": "redacted_thinking", "data": "Em"},
            hosted,
            says(""),
            cited,
            calls(caller={"type": "direct"}),
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}, "toolset_name": None},
            stop_reason="tool_use",
        )
    )
    assert answer.parts == (
        Reasoning("Hm.", opaque={"anthropic": {"signature": "Ev"}}),
        Reasoning(opaque={"anthropic": {"type": "redacted_thinking", "data": "Em"}}),
        Raw("anthropic", hosted),
        Text("It rains.", opaque={"anthropic": {"citations": cited["citations"]}}),
        ToolCall(
            "toolu_1",
            "weather",
            {"city": "Oslo"},
            '{"city":"Oslo"}',
            opaque={"anthropic": {"caller": {"type": "direct"}}},
        ),
        ToolCall("toolu_2", "now", {}, "{}"),
    )
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("It rains.", "Hm.", "tool_calls")


REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "paused",
    "compaction": "paused",
    "refusal": "content_filter",
    "gone_fishing": "gone_fishing",
    None: None,
}


@pytest.mark.parametrize(("raw", "reason"), REASONS.items())
def test_a_reason_has_our_word_and_keeps_its_own(raw, reason):
    """Unknown ones pass as they are, whole and streamed."""
    for answer in (read(message(says("x"), stop_reason=raw)), joined([begins(), ends(raw), STOP])):
        assert (answer.finish_reason, answer.raw_finish_reason) == (reason, raw)


def test_a_refusal_keeps_its_words_and_why():
    """A blocked answer is an answer: there may be text, or none, and the details are kept."""
    details = {"type": "refusal", "category": "bio", "explanation": None}
    silent = read(message(stop_reason="refusal", stop_details=details))
    assert (silent.text, silent.finish_reason) == ("", "content_filter")
    assert silent.opaque["anthropic"] == {"answer": {"stop_details": details}}
    broken_off = joined(
        [
            begins(),
            starts(0, says("")),
            adds(0, "text_delta", text="First,"),
            stops(0),
            ends("refusal", stop_details=details),
            STOP,
        ]
    )
    assert (broken_off.text, broken_off.finish_reason) == ("First,", "content_filter")
    assert broken_off.opaque == silent.opaque


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"input_tokens": 12, "output_tokens": 4}, Usage(12, 4)),
        (
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 200,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
                "output_tokens": 50,
                "output_tokens_details": {"thinking_tokens": 40},
            },
            Usage(240, 50, 200, 40, 30, 20),
        ),
        (
            {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}},
            Usage(6, 0, 0, 0, 5, 3),
        ),
        ({"input_tokens": None, "output_tokens": "x", "cache_read_input_tokens": -1}, Usage()),
        ({"output_tokens": 3.0}, Usage(0, 3)),
        ({}, None),
        (None, None),
        ("many", None),
    ],
)
def test_usage_is_inclusive(wire, usage):
    """The API counts what came from a cache, or went to one, beside the input; ours counts nothing twice."""
    assert read(message(says("x"), usage=wire)).usage == usage


COMPACTED = {
    "input_tokens": 10,
    "output_tokens": 5,
    "iterations": [
        {"type": "compaction", "input_tokens": 1000, "cache_read_input_tokens": 200, "output_tokens": 300},
        {"type": "message", "input_tokens": 10, "output_tokens": 5},
        {"type": "advisor_message", "model": "another", "input_tokens": 7, "output_tokens": 7},
        "?",
    ],
}


def test_what_summing_up_a_conversation_took_is_counted():
    """It is billed, and not in the counts of the answer; another model's tokens have another price, and are not."""
    assert read(message(says("x"), usage=COMPACTED)).usage == Usage(1210, 305, 200)
    assert joined([begins(), ends(usage=COMPACTED), STOP]).usage == Usage(1210, 305, 200)


def test_a_model_that_takes_over_gives_the_answer_its_name():
    """A whole answer says it itself, and a stream where the other model begins."""
    handed = {"type": "fallback", "from": {"model": "claude-a"}, "to": {"model": "claude-b"}, "trigger": None}
    answer = joined([begins(model="claude-a"), starts(0, handed), stops(0), starts(1, says("Hi")), ends(), STOP])
    assert answer.model == "claude-b"
    assert answer.parts == (Raw("anthropic", handed), Text("Hi"))
    assert joined([begins(model="claude-a"), starts(0, {"type": "fallback"}), ends(), STOP]).model == "claude-a"


def test_what_an_answer_says_beside_is_kept_and_never_sent_back():
    """The stop sequence, the container, what hosted tools did: for the caller, but no fields of a turn."""
    container = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    usage = {"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 3}, "speed": None}
    answer = read(
        message(says("x"), stop_reason="stop_sequence", stop_sequence="END", container=container, usage=usage)
    )
    kept = {
        "stop_sequence": "END",
        "container": container,
        "usage": {"server_tool_use": {"web_search_requests": 3}},
    }
    assert answer.opaque == {"anthropic": {"answer": kept}}
    assert turns(answer.message) == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"[]",
        b"null",
        b'"text"',
        b'{"id": "msg_1"}',
        b'{"content": "text"}',
        b'{"content": {}}',
        b"\xff\xfe",
        b'{"a":' * 100_000,
        b'{"content": ' + b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_message_is_a_protocol_error(body):
    """Another page, other JSON, a missing field, broken bytes, a pit without a bottom."""
    with pytest.raises(ProtocolError) as caught:
        read(body)
    assert (caught.value.provider, caught.value.request_id) == ("anthropic", "req_1")


def test_fields_of_an_unexpected_type_count_as_absent():
    """An answer is read as far as it makes sense."""
    answer = read(
        message(
            {"type": "text", "text": 5},
            {"type": "thinking", "thinking": None},
            {"type": "tool_use", "id": 1, "name": None, "input": "x"},
            {"type": ["odd"]},
            "no block",
            id=3,
            model=None,
            stop_reason={"a": 1},
        )
    )
    assert (answer.id, answer.model, answer.finish_reason) == (None, "claude-asked", None)
    assert [type(part) for part in answer.parts] == [Reasoning, ToolCall, Raw]


# ---- streams -------------------------------------------------------------------------------------------------


def test_a_stream_brings_words_as_they_come():
    """One chunk a piece; the beginning brings names and usage, the end the reason, pings nothing."""
    reading = API.reading(SOURCE)

    def of(data: Any) -> list[StreamChunk]:
        return list(reading.read(event(data)))

    assert of(PING) == []
    assert of(begins()) == [
        StreamChunk(usage=Usage(12, 1), model="claude-served", request_id="req_1", id="msg_1"),
    ]
    assert of(starts(0, says(""))) == []
    assert of(adds(0, "text_delta", text="Hel")) == [StreamChunk("Hel", slot=0)]
    assert of(PING) == []
    assert of(adds(0, "text_delta", text="lo")) == [StreamChunk("lo", slot=0)]
    assert of(stops(0)) == []
    assert not reading.finished
    assert of(ends()) == [
        StreamChunk(finish_reason="stop", raw_finish_reason="end_turn", usage=Usage(12, 4), request_id="req_1")
    ]
    assert (reading.finished, reading.done) == (True, False)
    assert of(STOP) == []
    assert reading.done


def test_thoughts_and_their_signature_come_in_pieces():
    """The signature comes last, and belongs to the thought before it."""
    answer = joined(
        [
            begins(),
            starts(0, {"type": "thinking", "thinking": "", "signature": ""}),
            adds(0, "thinking_delta", thinking="Let me "),
            adds(0, "thinking_delta", thinking="see."),
            adds(0, "signature_delta", signature="EvAB"),
            stops(0),
            starts(1, {"type": "redacted_thinking", "data": "Em"}),
            stops(1),
            starts(2, says("")),
            adds(2, "text_delta", text="Yes."),
            stops(2),
            ends(),
            STOP,
        ]
    )
    assert answer.parts == (
        Reasoning("Let me see.", opaque={"anthropic": {"signature": "EvAB"}}),
        Reasoning(opaque={"anthropic": {"type": "redacted_thinking", "data": "Em"}}),
        Text("Yes."),
    )


def test_calls_come_in_pieces_and_one_without_arguments_is_an_empty_object():
    """Each call keeps its index; an input of nothing but "" is {}."""
    found = chunks(
        [
            begins(),
            starts(0, says("")),
            adds(0, "text_delta", text="Wait."),
            stops(0),
            starts(1, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}),
            adds(1, "input_json_delta", partial_json=""),
            adds(1, "input_json_delta", partial_json='{"city": "Os'),
            adds(1, "input_json_delta", partial_json='lo"}'),
            stops(1),
            starts(2, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}, "caller": {"type": "direct"}}),
            adds(2, "input_json_delta", partial_json=""),
            stops(2),
            ends("tool_use"),
            STOP,
        ]
    )
    deltas = [delta for chunk in found for delta in chunk.tool_calls]
    assert [(delta.index, delta.id, delta.name, delta.arguments) for delta in deltas] == [
        (1, "toolu_1", "weather", ""),
        (1, "", "", '{"city": "Os'),
        (1, "", "", 'lo"}'),
        (2, "toolu_2", "now", ""),
        (2, "", "", "{}"),
    ]
    answer = join(found, provider="anthropic", model="m")
    assert answer.parts == (
        Text("Wait."),
        ToolCall("toolu_1", "weather", {"city": "Oslo"}, '{"city": "Oslo"}'),
        ToolCall("toolu_2", "now", {}, "{}", opaque={"anthropic": {"caller": {"type": "direct"}}}),
    )
    assert answer.finish_reason == "tool_calls"


def test_a_call_whose_input_came_with_its_start_is_whole():
    """Some servers do not cut it into pieces."""
    answer = joined([begins(), starts(0, calls()), stops(0), ends("tool_use"), STOP])
    assert answer.tool_calls == (ToolCall("toolu_1", "weather", {"city": "Oslo"}, '{"city":"Oslo"}'),)


@pytest.mark.parametrize("pieces", [['{"city":', '"Bergen"}'], ["", '{"city":"Bergen"}']])
def test_an_input_that_is_said_at_the_start_and_again_in_pieces_counts_once(pieces):
    """The pieces win, as in a stream of the API's own, where the start is empty."""
    said = [adds(0, "input_json_delta", partial_json=piece) for piece in pieces]
    answer = joined([begins(), starts(0, calls()), *said, stops(0), ends("tool_use"), STOP])
    assert answer.tool_calls == (ToolCall("toolu_1", "weather", {"city": "Bergen"}, '{"city":"Bergen"}'),)


def test_usage_in_the_middle_of_a_call_does_not_end_it():
    """Some servers restate the counts while a block is open; only a reason ends the answer."""
    counts = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}}
    halves = [adds(0, "input_json_delta", partial_json=piece) for piece in ('{"city":', '"Oslo"}')]
    began = {**calls(), "input": {}}
    for at in range(3):
        said: list[Any] = [*halves[:at], counts, *halves[at:]]
        answer = joined([begins(), starts(0, began), *said, stops(0), ends("tool_use"), STOP])
        assert answer.tool_calls == (ToolCall("toolu_1", "weather", {"city": "Oslo"}, '{"city":"Oslo"}'),)


def test_blocks_that_all_have_one_index_are_told_apart():
    """Some servers number every block 0."""
    first = {"type": "tool_use", "id": "toolu_1", "name": "a", "input": {}}
    second = {**first, "id": "toolu_2", "name": "b"}
    answer = joined(
        [
            starts(0, says("")),
            adds(0, "text_delta", text="Both:"),
            starts(0, first),
            adds(0, "input_json_delta", partial_json='{"x": 1}'),
            stops(0),
            starts(0, second),
            ends("tool_use"),
            STOP,
        ]
    )
    assert answer.text == "Both:"
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("toolu_1", "a", {"x": 1}),
        ("toolu_2", "b", {}),
    ]


def test_hosted_tools_are_put_together_as_parts_of_their_own():
    """Their input comes in pieces, their results whole, and a compaction in a delta of its own."""
    began = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]}
    answer = joined(
        [
            begins(),
            starts(0, began),
            adds(0, "input_json_delta", partial_json=""),
            adds(0, "input_json_delta", partial_json='{"query": "rain'),
            adds(0, "input_json_delta", partial_json='"}'),
            stops(0),
            starts(1, result),
            stops(1),
            starts(2, {"type": "compaction", "content": None}),
            adds(2, "compaction_delta", content="We spoke of rain.", encrypted_content=None),
            stops(2),
            starts(3, {**began, "id": "srvtoolu_2"}),
            adds(3, "input_json_delta", partial_json='{"query": '),
            ends("pause_turn"),
            STOP,
        ]
    )
    assert answer.parts == (
        Raw("anthropic", {**began, "input": {"query": "rain"}}),
        Raw("anthropic", result),
        Raw("anthropic", {"type": "compaction", "content": "We spoke of rain."}),
        Raw("anthropic", {**began, "id": "srvtoolu_2"}),
    )
    assert answer.finish_reason == "paused"


def test_citations_belong_to_the_text_they_come_with():
    """Before its first word, after it, or without any."""
    one, two = {"type": "page_location", "cited_text": "a"}, {"type": "page_location", "cited_text": "b"}
    answer = joined(
        [
            begins(),
            starts(0, {**says(""), "citations": []}),
            adds(0, "citations_delta", citation=one),
            adds(0, "text_delta", text="It "),
            adds(0, "text_delta", text="rains."),
            adds(0, "citations_delta", citation=two),
            stops(0),
            starts(1, {**says(""), "citations": None}),
            adds(1, "citations_delta", citation=one),
            stops(1),
            ends(),
            STOP,
        ]
    )
    assert answer.parts == (
        Text("It rains.", opaque={"anthropic": {"citations": [one, two]}}),
        Text("", opaque={"anthropic": {"citations": [one]}}),
    )


def test_usage_in_a_stream_is_restated_and_never_added():
    """The last value of each count wins; what the end does not name stays as the start said."""
    first = {
        "input_tokens": 43,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 30},
        "output_tokens": 1,
        "service_tier": "standard",
    }
    last = {"input_tokens": 61, "output_tokens": 48, "output_tokens_details": {"thinking_tokens": 9}, "iterations": [1]}
    found = chunks([begins(usage=first), ends(usage=last), STOP])
    assert [chunk.usage for chunk in found if chunk.usage] == [
        Usage(173, 1, 100, 0, 30, 30),
        Usage(191, 48, 100, 9, 30, 30),
    ]
    answer = join(found, provider="anthropic", model="m")
    assert answer.usage == Usage(191, 48, 100, 9, 30, 30)
    assert answer.service_tier == "standard"
    assert answer.opaque == {"anthropic": {"answer": {"usage": {"iterations": [1]}}}}


def test_unknown_events_and_deltas_pass():
    """The API promises to add some; what has no opening event is taken as what it looks like."""
    answer = joined(
        [
            {"type": "message_thaw", "x": 1},
            {},
            begins(),
            adds(0, "text_delta", text="Hi"),
            adds(0, "sparkle_delta", sparkle="✨"),
            adds(7, "input_json_delta", partial_json="{}"),
            adds(8, "thinking_delta", thinking="hm"),
            {"type": "content_block_delta"},
            {"type": "content_block_start"},
            {"type": "message_start"},
            stops(99),
            ends(),
            STOP,
        ]
    )
    assert answer.parts == (Text("Hi"), Reasoning("hm"))
    assert answer.finish_reason == "stop"


def test_the_name_of_an_event_stands_in_for_its_type():
    """And the end mark of other APIs is an end mark here."""
    reading = API.reading(SOURCE)
    assert list(reading.read(event({"delta": {"type": "text_delta", "text": "x"}}, "content_block_delta")))
    assert not reading.done
    assert list(reading.read(event("[DONE]"))) == []
    assert reading.done


@pytest.mark.parametrize("data", ["{", "[]", "5", '{"type": 1}', '{"index": "x"}', '{"delta": []}', '{"a":' * 100_000])
def test_an_event_that_is_none_is_a_protocol_error(data):
    """Broken JSON, other JSON, a field of another type."""
    with pytest.raises(ProtocolError):
        list(API.reading(SOURCE).read(event(data)))


# ---- both ways are one ---------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=3)
texts = words.filter(bool)
caller = st.sampled_from([{}, {"caller": {"type": "direct"}}, {"toolset_name": None}])
blocks = st.one_of(
    st.builds(says, texts),
    st.builds(lambda text, cited: {**says(text), "citations": cited}, words, st.lists(objects, min_size=1, max_size=2)),
    st.builds(lambda a, b: {"type": "thinking", "thinking": a, "signature": b}, words, words),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, words),
    st.builds(
        lambda id, name, given, extra: {"type": "tool_use", "id": id, "name": name, "input": given, **extra},
        st.from_regex(WORD.pattern, fullmatch=True),  # another id the API does not give, and would not take back
        texts,
        objects,
        caller,
    ),
    st.builds(
        lambda id, given: {"type": "server_tool_use", "id": id, "name": "web_search", "input": given}, words, objects
    ),
    st.builds(lambda content: {"type": "web_search_tool_result", "content": content}, values),
)
messages = st.builds(
    lambda content, reason, sequence, usage: message(
        *content, stop_reason=reason, stop_sequence=sequence, stop_details=None, usage=usage
    ),
    st.lists(blocks, max_size=5),
    st.sampled_from([reason for reason in REASONS if reason]),
    st.none() | texts,
    st.fixed_dictionaries(
        {"input_tokens": st.integers(0, 10**6), "output_tokens": st.integers(0, 10**6)},
        optional={"cache_read_input_tokens": st.integers(0, 10**6), "server_tool_use": st.none() | objects},
    ),
)


@given(messages, st.integers(1, 20))
def test_a_stream_adds_up_to_what_the_whole_answer_says(whole, size):
    """Every field of the response, however the words are cut."""
    assert joined(events_of(whole, size)) == read(whole)


@given(messages)
def test_an_answer_cut_into_chunks_of_ours_is_the_same_again(whole):
    """As a server that does not stream is read."""
    answer = read(whole)
    assert join(chunks_of(answer), provider=answer.provider, model=answer.model) == answer


def blocks_sent(whole: Mapping[str, Any]) -> Any:
    """The content as the API takes it back: without nulls and blank texts, and one plain text in its short form."""
    silent = ("text", "tool_use")
    content = [
        {name: value for name, value in each.items() if value is not None} if each["type"] in silent else each
        for each in whole["content"]
    ]
    content = [each for each in content if set(each) != {"type", "text"} or each["text"].strip()]
    return content[0]["text"] if [set(each) for each in content] == [{"type", "text"}] else content


@given(messages, st.booleans())
def test_an_answer_goes_back_as_it_came(whole, streamed):
    """In the order and to the letter, streamed or not, and after a stay in JSON."""
    answer = joined(events_of(whole)) if streamed else read(whole)
    stored = Response.from_json(json.loads(json.dumps(answer.to_json())))
    assert stored == answer
    expected = blocks_sent(whole)
    for turn in (answer.message, stored.message):
        assert turns(Message("user", "?"), turn)[1:] == (
            [{"role": "assistant", "content": expected}] if expected else []
        )


def test_thinking_and_tools_go_on_where_they_stopped():
    """The turn with its signed thought, then the result: what the API insists on."""
    thought = {"type": "thinking", "thinking": "Oslo, then.", "signature": "EvAB"}
    answer = joined(events_of(message(thought, says("One moment."), calls(), stop_reason="tool_use")))
    result = Message("tool", (ToolResult(answer.tool_calls[0].id, "12 °C"),))
    assert turns(Message("user", "Weather?"), answer.message, result)[1:] == [
        {"role": "assistant", "content": [thought, says("One moment."), calls()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 °C"}]},
    ]


# ---- errors --------------------------------------------------------------------------------------------------

ERRORS = [
    ("invalid_request_error", 400, BadRequestError, False),
    ("authentication_error", 401, AuthenticationError, False),
    ("billing_error", 402, QuotaExceededError, False),
    ("permission_error", 403, PermissionDeniedError, False),
    ("not_found_error", 404, NotFoundError, False),
    ("conflict_error", 409, ServerError, True),
    ("request_too_large", 413, BadRequestError, False),
    ("rate_limit_error", 429, RateLimitError, True),
    ("api_error", 500, ServerError, True),
    ("timeout_error", 504, ServerError, True),
    ("overloaded_error", 529, OverloadedError, True),
]


def failure(kind: str, **fields: Any) -> dict[str, Any]:
    error = {"type": kind, "message": "It failed.", **fields}
    return {"type": "error", "error": error, "request_id": "req_body"}


class Canned:
    """A transport that gives one answer to everything, or one after the other, and remembers what was asked."""

    def __init__(self, *bodies: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.bodies = list(bodies)
        self.status = status
        self.headers = headers or {}
        self.asked: list[tuple[str, Any]] = []

    async def post(self, path, body, *, model, total, headers=None):
        self.asked.append((path, json.loads(body)))
        return self._answer()

    async def get(self, path, *, model, total, headers=None):
        self.asked.append((path, None))
        return self._answer()

    async def stream(self, path, body, *, model, total, headers=None):
        raise AssertionError("nothing is streamed here")

    async def aclose(self) -> None:
        """Nothing is open."""

    def _answer(self) -> Answer:
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        return Answer(self.status, self.headers, json.dumps(body).encode())


def canned(*bodies: Any, **fields: Any) -> tuple[AnthropicProvider, Canned]:
    transport = Canned(*bodies, **fields)
    return AnthropicProvider(settings(), transport), transport


def settings(**fields: Any) -> ProviderSettings:
    return ProviderSettings(**{"name": "anthropic", "kind": "anthropic", "api_key": Secret("sk-ant-test-1"), **fields})


@pytest.mark.parametrize(("kind", "status", "expected", "retryable"), ERRORS)
async def test_an_error_is_told_by_its_type_with_any_status(kind, status, expected, retryable):
    """As an answer of its own, inside a whole answer, and inside a stream that had begun well."""
    provider, _ = canned(failure(kind), status=status, headers={"request-id": "req_9", "retry-after": "7"})
    with pytest.raises(expected) as caught:
        await provider.execute(ask("Hi"))
    error = caught.value
    assert (error.status, error.code, error.request_id, error.retry_after) == (status, kind, "req_9", 7.0)
    with pytest.raises(expected) as inside:
        read(failure(kind))
    with pytest.raises(expected) as streamed:
        chunks([begins(), failure(kind)])
    for error in (caught.value, inside.value, streamed.value):
        assert type(error) is expected
        assert error.retryable is retryable
        assert "It failed" in str(error)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("enforced_spend_limit_reached", QuotaExceededError),
        ("contract_spend_limit_reached", QuotaExceededError),
        ("ramp_limit_exceeded", RateLimitError),
        ("not_invented_yet", RateLimitError),
    ],
)
async def test_a_limit_on_spending_is_not_waited_for(code, expected):
    """The code in `details` tells it from going too fast; an unknown one counts as its type."""
    provider, _ = canned(failure("rate_limit_error", details={"error_code": code}), status=429)
    with pytest.raises(RateLimitError) as caught:
        await provider.execute(ask("Hi"))
    assert type(caught.value) is expected
    assert caught.value.code == code
    with pytest.raises(expected):
        chunks([failure("rate_limit_error", details={"error_code": code})])


def test_an_unknown_error_in_a_stream_is_an_error():
    """Also one without words; the id that only the event tells is kept."""
    with pytest.raises(ModelError) as caught:
        list(API.reading(Source("anthropic", "m")).read(event(failure("sulking_error"))))
    assert (caught.value.code, caught.value.request_id) == ("sulking_error", "req_body")
    with pytest.raises(ModelError):
        chunks([{"type": "error"}])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"error": {"type": "overloaded_error", "message": "busy"}}, OverloadedError),
        ({"error": {"code": "429", "message": "slow down"}}, RateLimitError),
        ({"error": "it broke"}, ModelError),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}, RateLimitError),
        ({"type": "error", "code": 529, "message": "busy"}, OverloadedError),
        ({"type": "message_start", "error": {"type": "api_error", "message": "broke"}}, ServerError),
    ],
)
def test_an_error_of_another_shape_in_a_stream_is_raised_as_what_it_is(data, expected):
    """Gateways leave the type out, or write everything into one flat object."""
    with pytest.raises(ModelError) as caught:
        chunks([begins(), data])
    assert type(caught.value) is expected


# ---- fuzz ----------------------------------------------------------------------------------------------------


def survives(body: bytes) -> None:
    try:
        answer = API.read(body, SOURCE)
        assert Response.from_json(json.loads(json.dumps(answer.to_json())))
        API.write(Request("m", (answer.message,)), stream=True)
    except ModelError:
        pass


def survives_streamed(events: Iterable[str]) -> None:
    reading, found = API.reading(SOURCE), []
    try:
        for data in events:
            found.extend(reading.read(event(data)))
    except ModelError:
        pass
    found.extend(reading.end())
    answer = join(found, provider="anthropic", model="m")
    assert answer.to_json()
    API.write(Request("m", (answer.message,)), stream=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_model_error(body):
    """Nothing else is ever raised."""
    survives(body)
    survives_streamed([body.decode("utf-8", "replace")])


@given(values, st.lists(values, max_size=4))
def test_any_json_is_an_answer_or_a_model_error(value, events):
    """Nothing else is ever raised."""
    survives(json.dumps(value).encode())
    survives_streamed(json.dumps(each) for each in events)


def mutations(value: Any) -> st.SearchStrategy[Any]:
    """`value` with some of what stands in it replaced by anything."""
    if isinstance(value, dict):
        kept = {name: mutations(inner) for name, inner in value.items()}
        return st.one_of(st.fixed_dictionaries({}, optional=kept), st.fixed_dictionaries(kept), values)
    if isinstance(value, list) and value:
        return st.one_of(st.tuples(*map(mutations, value)).map(list), values)
    return st.one_of(st.just(value), st.just(value), st.just(value), values)


FULL = message(
    {"type": "thinking", "thinking": "Hm.", "signature": "Ev"},
    {"type": "redacted_thinking", "data": "Em"},
    {**says("It rains."), "citations": [{"type": "char_location"}]},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
    calls(caller={"type": "direct"}),
    stop_details={"type": "refusal"},
    usage={
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 3,
        "cache_creation": {"ephemeral_1h_input_tokens": 4},
        "output_tokens_details": {"thinking_tokens": 1},
    },
)


@given(mutations(FULL))
def test_a_spoilt_answer_is_an_answer_or_a_model_error(body):
    """Fields left out, or of any other type."""
    survives(json.dumps(body).encode())


@given(st.tuples(*map(mutations, events_of(FULL))), st.randoms(use_true_random=False))
def test_a_spoilt_stream_is_an_answer_or_a_model_error(events, random):
    """Fields left out or of any other type, events lost or out of order."""
    spoilt = [each for each in events if random.random() > 0.1]
    if random.random() > 0.5:
        random.shuffle(spoilt)
    survives_streamed(json.dumps(each) for each in spoilt)


# ---- the provider --------------------------------------------------------------------------------------------


def served(server: Any, **fields: Any) -> AnthropicProvider:
    return AnthropicProvider(settings(base_url=server.url, allow_http=True, **fields))


async def test_a_provider_counts_tokens_and_lists_models():
    """It is found to do so by its methods."""
    provider, _ = canned({})
    assert isinstance(provider, LLMProvider)
    assert isinstance(provider, TokenCounter)
    assert isinstance(provider, ModelLister)
    assert (provider.name, provider.api.name) == ("anthropic", "anthropic")


async def test_the_key_and_the_version_are_headers(serve):
    """The key stands bare in x-api-key, and what is in beta is named."""

    async def answer(exchange):
        await exchange.respond(message(says("Hello")), request_id="req_77")

    server = await serve(answer)
    provider = served(server, options={"beta": ["context-1m-2025-08-07", "fast-mode-2026-02-01"]})
    reply = await provider.execute(ask("Hi"))
    await provider.aclose()
    assert (reply.text, reply.request_id) == ("Hello", "req_77")
    sent = server.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.headers["x-api-key"] == "sk-ant-test-1"
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert sent.headers["anthropic-beta"] == "context-1m-2025-08-07,fast-mode-2026-02-01"
    assert "authorization" not in sent.headers
    assert sent.json["max_tokens"] == 4096


async def test_version_and_beta_can_be_said_otherwise(serve):
    """By option, or as a header, which wins."""

    async def answer(exchange):
        await exchange.respond(message(says("Hello")))

    server = await serve(answer)
    for fields in (
        {"options": {"version": "2027-01-01", "beta": "x"}},
        {"headers": {"anthropic-version": "2027-01-01", "anthropic-beta": "x"}},
    ):
        provider = served(server, **fields)
        await provider.execute(ask("Hi"))
        await provider.aclose()
    for sent in server.requests:
        assert (sent.headers["anthropic-version"], sent.headers["anthropic-beta"]) == ("2027-01-01", "x")


@pytest.mark.parametrize("options", [{"beta": 5}, {"beta": ["a", ""]}, {"version": ""}, {"version": []}, {"beta": {}}])
def test_an_option_of_another_type_is_a_configuration_error(options):
    """Told when the provider is built."""
    with pytest.raises(ConfigurationError, match=r"beta|version"):
        AnthropicProvider(settings(options=options), Canned({}))


async def test_a_stream_over_http_is_read_and_its_error_keeps_the_text(serve):
    """Events as the API writes them, padded with blanks; an overload in the middle is an overload."""

    async def answer(exchange):
        assert exchange.json["stream"] is True
        await exchange.begin_stream(request_id="req_5")
        body = events_of(message(says("Hello"), calls(), stop_reason="tool_use"))
        if len(server.requests) == 2:
            body = [*body[:4], failure("overloaded_error")]
        for each in body:
            await exchange.piece(f"event: {each['type']}\ndata: {json.dumps(each)}   \n\n".encode())
        await exchange.end_stream()

    server = await serve(answer)
    provider = served(server)
    whole = join([chunk async for chunk in provider.execute_streaming(ask("Hi"))], provider="anthropic", model="m")
    assert (whole.text, whole.finish_reason, whole.request_id) == ("Hello", "tool_calls", "req_5")
    with pytest.raises(OverloadedError) as caught:
        async for _ in provider.execute_streaming(ask("Hi")):
            pass
    await provider.aclose()
    assert caught.value.partial == "Hel"
    assert caught.value.request_id == "req_5"


async def test_a_stream_that_is_cut_before_its_reason_is_interrupted(serve):
    """After the reason only the end mark is lost, and that is no loss."""

    async def answer(exchange):
        body = events_of(message(says("Hello"), stop_sequence="END", stop_reason="stop_sequence"))
        kept = body[:-1] if len(server.requests) == 1 else body[:-2]
        await exchange.begin_stream()
        for each in kept:
            await exchange.event(each)
        await exchange.end_stream()

    server = await serve(answer)
    provider = served(server)
    whole = join([chunk async for chunk in provider.execute_streaming(ask("Hi"))], provider="anthropic", model="m")
    assert (whole.text, whole.opaque) == ("Hello", {"anthropic": {"answer": {"stop_sequence": "END"}}})
    with pytest.raises(StreamInterruptedError) as caught:
        async for _ in provider.execute_streaming(ask("Hi")):
            pass
    await provider.aclose()
    assert caught.value.partial == "Hello"


async def test_tokens_are_counted_without_what_only_an_answer_needs():
    """The same request, as far as it is read: no limit, no sampling, no stops."""
    provider, transport = canned({"input_tokens": 2095})
    request = Request(
        NEW,
        (Message("system", "Be brief."), Message("user", "Hi")),
        temperature=0.5,
        stop=("END",),
        metadata={"user_id": "u"},
        tools=(Tool("f"),),
        tool_choice="auto",
        thinking=Thinking("low"),
        cache=PromptCache(),
        params={"service_tier": "auto", "mcp_servers": []},
    )
    assert await provider.count_tokens(request) == 2095
    ((path, body),) = transport.asked
    assert path == "/messages/count_tokens"
    assert set(body) == {
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
        "mcp_servers",
    }


async def test_a_count_that_is_none_is_a_protocol_error():
    """A body without the number, or with another thing in its place."""
    for body in ({}, {"input_tokens": "many"}, []):
        provider, _ = canned(body)
        with pytest.raises(ProtocolError):
            await provider.count_tokens(ask("Hi"))


async def test_models_are_listed_page_by_page():
    """Each page says where the next begins; an unknown date or limit is None."""
    first = {
        "id": "claude-new",
        "type": "model",
        "display_name": "Claude New",
        "created_at": "2026-02-19T00:00:00Z",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }
    second = {"id": "claude-old", "display_name": "Claude Old", "created_at": "1970-01-01T00:00:00Z"}
    provider, transport = canned(
        {"data": [first], "has_more": True, "first_id": "claude-new", "last_id": "claude/new"},
        {"data": [second, {"id": "claude-bare", "created_at": "long ago"}], "has_more": False},
    )
    assert await provider.list_models() == (
        ModelInfo("claude-new", "Claude New", 200_000, 64_000, 1771459200),
        ModelInfo("claude-old", "Claude Old"),
        ModelInfo("claude-bare"),
    )
    assert [path for path, _ in transport.asked] == ["/models?limit=1000", "/models?limit=1000&after_id=claude%2Fnew"]


@pytest.mark.parametrize(
    "page", [{}, {"data": [], "has_more": True, "last_id": "x"}, {"data": [{"id": "a"}], "has_more": True}]
)
async def test_a_list_that_never_ends_is_a_protocol_error(page):
    """It goes on, but leads nowhere."""
    provider, _ = canned(page)
    with pytest.raises(ProtocolError):
        await provider.list_models()


def test_bytes_and_base64_are_the_same_picture():
    """Bytes are written as base64."""
    raw = base64.b64decode(PIXEL)
    assert block(Image(raw, "image/png")) == block(Image(f"data:image/png;base64,{PIXEL}"))


def test_no_value_is_changed_by_writing_it():
    """A request can be sent again: params and opaque data stay as they were."""
    opaque: dict[str, Json] = {"anthropic": {"citations": {"enabled": True}}}
    params: dict[str, Json] = {"output_config": {"effort": "low"}, "stream": True}
    request = ask(Document("https://h/a", opaque=opaque), output=OutputFormat("x", SCHEMA), params=params)
    first = written(request)
    assert written(request) == first
    assert opaque == {"anthropic": {"citations": {"enabled": True}}}
    assert params == {"output_config": {"effort": "low"}, "stream": True}
