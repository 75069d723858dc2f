"""Chat Completions without a server: what is written for each thing that can be asked, what is read of each that comes.

Bodies and events are invented, in the documented format and in the shapes that compatible servers send.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chat_wire import (
    SOURCE,
    api,
    call,
    chunks_in,
    completion,
    delta,
    read,
    read_stream,
    sent,
    turn,
    turns,
)

from agentflow.errors import (
    BadRequestError,
    ContentFilterError,
    ModelError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.content import Audio, Document, Image, Json, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    Alternative,
    Message,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    Thinking,
    TokenLogprob,
    Tool,
    Usage,
)
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.chat_answers import read_response
from agentflow.llm.providers.openai.chat_plain import read_plain
from agentflow.llm.providers.openai.dialects import DIALECTS
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.sse import ServerSentEvent

PNG = "data:image/png;base64,iVBORw0KGgo="
HI = (Message("user", "Hi"),)
WEATHER = Tool("weather", "How it is outside.", {"type": "object", "properties": {"city": {"type": "string"}}})
SERVED = [name for name in DIALECTS if name != "moonshot"]


# ---- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_bare_request_says_model_and_messages_and_no_more(dialect: str) -> None:
    """Whatever nobody asked for is left to the server."""
    assert sent(Request("m", HI), dialect) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_every_set_parameter_is_sent() -> None:
    request = Request(
        "m",
        (Message("system", "Be brief."), Message("user", "Hi", name="ada")),
        temperature=0.0,
        top_p=0.5,
        max_tokens=9,
        stop=("a", "b"),
        seed=0,
        n=2,
        logprobs=3,
        metadata={"team": "search"},
        params={"store": True},
    )
    assert sent(request) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "ada"}],
        "temperature": 0.0,
        "top_p": 0.5,
        "max_completion_tokens": 9,
        "stop": ["a", "b"],
        "seed": 0,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "metadata": {"team": "search"},
        "store": True,
    }


def test_labels_go_only_with_what_openai_may_keep() -> None:
    """It refuses them otherwise, and whether a prompt is kept is not ours to decide."""
    with pytest.raises(BadRequestError, match="store"):
        sent(Request("m", HI, metadata={"team": "search"}))


def test_no_alternatives_asks_for_the_chosen_tokens_alone() -> None:
    body = sent(Request("m", HI, logprobs=0))
    assert body["logprobs"] is True
    assert "top_logprobs" not in body


def test_params_win_and_go_deep() -> None:
    """A caller can always say anything in the server's own words; None is said as null."""
    request = Request(
        "m",
        HI,
        temperature=0.1,
        output=OutputFormat("answer", {"type": "object"}),
        params={"temperature": 0.9, "response_format": {"json_schema": {"strict": True}}, "stop": None, "new": [1]},
    )
    body = sent(request)
    assert (body["temperature"], body["stop"], body["new"]) == (0.9, None, [1])
    assert body["response_format"]["json_schema"] == {"name": "answer", "schema": {"type": "object"}, "strict": True}


def test_a_stream_always_asks_for_usage() -> None:
    request = Request("m", (), params={"stream": False, "stream_options": {"include_obfuscation": False}})
    body = sent(request, stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("dialect", ["zai", "mistral"])
def test_a_server_that_knows_no_stream_options_is_not_sent_any(dialect: str) -> None:
    assert sent(Request("m", HI), dialect, stream=True)["stream"] is True
    assert "stream_options" not in sent(Request("m", HI), dialect, stream=True)


def test_a_seed_goes_by_the_name_that_the_server_has_for_it() -> None:
    assert sent(Request("m", HI, seed=0), "mistral")["random_seed"] == 0
    assert sent(Request("m", HI, seed=0), "cerebras")["seed"] == 0


def test_a_call_that_does_not_stream_never_says_that_it_does() -> None:
    body = sent(Request("m", (), params={"stream": True, "stream_options": {}}))
    assert "stream" not in body
    assert "stream_options" not in body
    assert sent(Request("m", (), params={"stream": False}))["stream"] is False, "the opposite may be said"


def test_read_only_mappings_and_tuples_are_written() -> None:
    request = Request("m", HI, params=MappingProxyType({"a": MappingProxyType({"b": (1, 2)})}))
    assert sent(request)["a"] == {"b": [1, 2]}


@pytest.mark.parametrize(
    ("dialect", "cache", "said"),
    [
        ("openai", PromptCache(), {}),
        ("openai", PromptCache(key="docs"), {"prompt_cache_key": "docs"}),
        ("openai", PromptCache("24h", "docs"), {"prompt_cache_key": "docs", "prompt_cache_retention": "24h"}),
        ("azure", PromptCache("1h"), {"prompt_cache_retention": "in_memory"}),
        ("moonshot", PromptCache("24h", "docs"), {"prompt_cache_key": "docs"}),
        ("openrouter", PromptCache("5m", "docs"), {"cache_control": {"type": "ephemeral"}}),
        ("openrouter", PromptCache("24h"), {"cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        ("deepseek", PromptCache("5m", "docs"), {}),
        ("compatible", PromptCache("5m", "docs"), {}),
    ],
)
def test_cache_hints_go_to_who_knows_them(dialect: str, cache: PromptCache, said: dict[str, Json]) -> None:
    body = sent(Request("m", HI, cache=cache), dialect)
    assert {name: value for name, value in body.items() if "cache" in name} == said


def test_cache_marks_go_to_who_knows_them() -> None:
    """OpenRouter hands them on to Anthropic's models."""
    messages = (
        Message("system", (Text("Long.", cache="5m"),)),
        Message("tool", (ToolResult("call_a", "Also long.", cache="1h"),)),
    )
    request = Request("m", messages, tools=(Tool("weather", cache="1h"),))
    body = sent(request, "openrouter")
    system, result = body["messages"]
    assert system["content"] == [{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}]
    assert result["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in json.dumps(sent(request))


@pytest.mark.parametrize(
    ("dialect", "thinking", "said"),
    [
        ("openai", Thinking("minimal"), {"reasoning_effort": "minimal"}),
        ("openai", Thinking("none"), {"reasoning_effort": "none"}),
        ("openai", Thinking("brand-new"), {"reasoning_effort": "brand-new"}),
        ("openai", Thinking(budget=0), {"reasoning_effort": "none"}),
        ("openai", Thinking(budget=500), {"reasoning_effort": "low"}),
        ("openai", Thinking(budget=8192), {"reasoning_effort": "medium"}),
        ("openai", Thinking(budget=50_000), {"reasoning_effort": "high"}),
        ("openai", Thinking(show=True), {}),
        ("deepseek", Thinking("none"), {"thinking": {"type": "disabled"}}),
        ("deepseek", Thinking("medium"), {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("deepseek", Thinking("max"), {"thinking": {"type": "enabled"}, "reasoning_effort": "max"}),
        ("zai", Thinking("high"), {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("zai", Thinking(budget=0), {"thinking": {"type": "disabled"}}),
        ("openrouter", Thinking("high"), {"reasoning": {"effort": "high"}}),
        ("openrouter", Thinking(budget=2000, show=False), {"reasoning": {"max_tokens": 2000, "exclude": True}}),
        ("openrouter", Thinking(budget=0), {"reasoning": {"effort": "none"}}),
        ("openrouter", Thinking(show=True), {"reasoning": {"exclude": False}}),
        ("openrouter", Thinking(), {}),
        ("groq", Thinking("low", show=True), {"reasoning_effort": "low", "include_reasoning": True}),
        ("groq", Thinking(show=False), {"include_reasoning": False}),
        ("cerebras", Thinking("max"), {"reasoning_effort": "high"}),
        ("mistral", Thinking("high"), {"reasoning_effort": "high"}),
        ("ollama", Thinking("none"), {"reasoning_effort": "none"}),
        ("vllm", Thinking("none"), {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", Thinking("low"), {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"}),
    ],
)
def test_thinking_is_asked_for_in_the_servers_words(dialect: str, thinking: Thinking, said: dict[str, Json]) -> None:
    body = sent(Request("m", HI, thinking=thinking), dialect)
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == said


def test_a_schema_is_sent_where_it_is_kept() -> None:
    shape = OutputFormat("person", {"type": "object"}, strict=True, description="Who it is.")
    assert sent(Request("m", HI, output=shape))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": {"type": "object"}, "strict": True, "description": "Who it is."},
    }
    assert sent(Request("m", HI, output=OutputFormat("any")))["response_format"] == {"type": "json_object"}
    assert sent(Request("m", HI, output=OutputFormat("any")), "zai")["response_format"] == {"type": "json_object"}


REFUSED = [
    ("deepseek", {"output": OutputFormat("person", {"type": "object"})}, "ask for a tool call"),
    ("zai", {"tool_choice": "required", "tools": (WEATHER,)}, "chooses its tools itself"),
    ("zai", {"tool_choice": "weather", "tools": (WEATHER,)}, "chooses its tools itself"),
    ("together", {"logprobs": 1}, "has no logprobs"),
    ("xai", {"metadata": {"a": "b"}}, "has no metadata"),
    ("cerebras", {"metadata": {"a": "b"}}, "has no metadata"),
    ("openai", {"top_k": 5}, "has no top_k"),
    ("groq", {"n": 2}, "has no n"),
    ("groq", {"logprobs": 0}, "has no logprobs"),
    ("groq", {"metadata": {"a": "b"}}, "has no metadata"),
    ("moonshot", {"thinking": Thinking("high")}, "how it is told to think"),
]


@pytest.mark.parametrize(("dialect", "asked", "reason"), REFUSED)
def test_what_a_server_cannot_do_is_refused_before_anything_is_sent(dialect: str, asked: Any, reason: str) -> None:
    with pytest.raises(BadRequestError, match=reason) as caught:
        sent(Request("m", HI, **asked), dialect)
    assert caught.value.model == "m"


def test_hints_that_a_server_does_not_know_are_left_out() -> None:
    body = sent(Request("m", HI, seed=7, n=1, cache=PromptCache("1h", "k")), "deepseek")
    assert body.keys() == {"model", "messages"}


def test_top_k_goes_to_who_knows_it() -> None:
    assert sent(Request("m", HI, top_k=5), "vllm")["top_k"] == 5
    assert sent(Request("m", HI, top_k=5), "compatible")["top_k"] == 5


# ---- tools ---------------------------------------------------------------------------------------------------


def test_tools_are_functions_and_hosted_tools_go_as_they_are() -> None:
    hosted = Raw("openai", {"type": "custom", "custom": {"name": "sql"}})
    bare, strict = Tool("ping"), Tool("pong", parameters={"type": "object"}, strict=True)
    body = sent(Request("m", HI, tools=(WEATHER, bare, strict, hosted, Raw("google", {"googleSearch": {}}))))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "How it is outside.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        },
        {"type": "function", "function": {"name": "ping"}},
        {"type": "function", "function": {"name": "pong", "parameters": {"type": "object"}, "strict": True}},
        {"type": "custom", "custom": {"name": "sql"}},
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        (
            ("weather", "ping"),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "weather"}},
                        {"type": "function", "function": {"name": "ping"}},
                    ],
                },
            },
        ),
    ],
)
def test_the_choice_of_a_tool(choice: Any, said: Json) -> None:
    tools = (WEATHER, Tool("ping"), Tool("pong"))
    body = sent(Request("m", HI, tools=tools, tool_choice=choice, parallel_tool_calls=False))
    assert (body["tool_choice"], body["parallel_tool_calls"], len(body["tools"])) == (said, False, 3)


@pytest.mark.parametrize(
    ("names", "said"), [(("ping", "pong"), "required"), (("ping",), {"type": "function", "function": {"name": "ping"}})]
)
def test_one_of_several_tools_is_said_by_showing_only_those(names: tuple[str, ...], said: Json) -> None:
    """Where a server knows no list of allowed tools."""
    body = sent(Request("m", HI, tools=(WEATHER, Tool("ping"), Tool("pong")), tool_choice=names), "compatible")
    assert (body["tool_choice"], [tool["function"]["name"] for tool in body["tools"]]) == (said, list(names))


# ---- content -------------------------------------------------------------------------------------------------


def test_what_a_user_shows_becomes_parts() -> None:
    message = Message(
        "user",
        (
            Text("Look:"),
            Image(PNG, detail="low"),
            Image("https://host/cat.jpg"),
            Image(b"\x89PNG", media_type="image/png"),
            Audio("data:audio/mpeg;base64,//uQ"),
            Audio("data:audio/x-wav;base64,UklG"),
            Document("data:application/pdf;base64,JVBERi0=", name="deed.pdf"),
            Document("data:text/plain;base64,SGk="),
            Document("file-id:file-7"),
        ),
    )
    assert turn(message)["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://host/cat.jpg"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "input_audio", "input_audio": {"data": "//uQ", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "deed.pdf"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,SGk=", "filename": "document.txt"}},
        {"type": "file", "file": {"file_id": "file-7"}},
    ]


def test_the_media_type_that_was_given_wins_over_the_one_in_the_address() -> None:
    image = Image("data:;base64,iVBORw0KGgo=", media_type="image/png")
    assert turn(Message("user", (image,)))["content"][0]["image_url"]["url"] == PNG


def test_a_text_document_goes_as_its_words_where_files_are_not_taken() -> None:
    document = Document("data:text/markdown;base64,IyBIaQ==", name="hi.md")
    assert turn(Message("user", (document,)), "deepseek")["content"] == [{"type": "text", "text": "# Hi"}]


@pytest.mark.parametrize(
    ("dialect", "part", "reason"),
    [
        ("deepseek", Image(PNG), "takes no images"),
        ("openai", Image("file-id:file-7"), "not as the id of a file"),
        ("openai", Audio("https://host/a.mp3"), "load it first"),
        ("groq", Audio("data:audio/wav;base64,AAAA"), "takes no audio"),
        ("openai", Document("https://host/a.pdf"), "load it first"),
        ("deepseek", Document("data:application/pdf;base64,JVBERi0="), "give the document's text"),
        ("deepseek", Document("data:text/plain;base64,/w=="), "no UTF-8 text"),
        ("openai", ToolCall("call_a", "weather"), "belong to the assistant's turn"),
    ],
)
def test_a_part_that_cannot_be_sent_says_what_to_do(dialect: str, part: Any, reason: str) -> None:
    with pytest.raises(BadRequestError, match=reason):
        turn(Message("user", (part,)), dialect)


def test_developer_is_a_role_of_openai_alone() -> None:
    message = Message("developer", "Be brief.")
    assert [turn(message, name)["role"] for name in ("openai", "azure", "groq")] == ["developer", "developer", "system"]


def test_an_assistants_turn_of_any_origin() -> None:
    """Thoughts and parts of other APIs are left out, words are one text, calls stand beside it."""
    message = Message(
        "assistant",
        (
            Reasoning("Hm.", opaque={"anthropic": {"signature": "s"}}),
            Text("Let me ", opaque={"google": {"thoughtSignature": "t"}}),
            Text("look."),
            Raw("anthropic", {"type": "server_tool_use"}),
            ToolCall("toolu_1", "weather", {"city": "Oslo"}),
        ),
        opaque={"anthropic": {"stop_details": {}}},
    )
    assert turn(message) == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
        ],
    }


@pytest.mark.parametrize(
    ("dialect", "field"),
    [
        ("moonshot", "reasoning_content"),
        ("deepseek", "reasoning_content"),
        ("zai", "reasoning_content"),
        ("openrouter", "reasoning"),
        ("groq", "reasoning"),
        ("together", "reasoning"),
        ("cerebras", "reasoning"),
        ("fireworks", "reasoning_content"),
        ("mistral", None),
        ("openai", None),
        ("compatible", None),
    ],
)
def test_thoughts_of_other_models_go_where_there_is_a_field_for_any(dialect: str, field: str | None) -> None:
    wire = turn(Message("assistant", (Reasoning("Hm."), Text("Yes."))), dialect)
    assert wire == {"role": "assistant", "content": "Yes.", **({field: "Hm."} if field else {})}


@pytest.mark.parametrize(("mode", "said"), [("null", {"content": None}), ("empty", {"content": ""}), ("omit", {})])
def test_a_turn_of_calls_alone_says_that_it_has_no_words(mode: Any, said: dict[str, Json]) -> None:
    from msgspec.structs import replace

    dialect = replace(DIALECTS["compatible"], empty_content=mode)
    wire = turn(Message("assistant", (ToolCall("call_a", "ping"),)), dialect)
    wire.pop("tool_calls")
    assert wire == {"role": "assistant", **said}


def test_a_turn_in_which_nothing_is_left_is_left_out() -> None:
    """Mistral and Moonshot refuse an assistant's turn without words; nobody misses it."""
    assert turns(Message("assistant", "")) == []
    assert turns(Message("assistant", (Reasoning("Hm."),))) == []
    assert turns(Message("user", (Raw("google", {}),))) == []
    assert turn(Message("assistant", (Reasoning("Hm."),)), "deepseek")["reasoning_content"] == "Hm."


def test_results_of_tools_are_turns_of_their_own() -> None:
    message = Message(
        "user",
        (
            ToolResult("call_a", "19 °C", name="weather"),
            ToolResult("call_b", (Text("one"), Text("two")), is_error=True),
            Text("And now?"),
        ),
    )
    assert turns(message) == [
        {"role": "tool", "tool_call_id": "call_a", "content": "19 °C"},
        {
            "role": "tool",
            "tool_call_id": "call_b",
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        },
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    assert turns(Message("tool", (ToolResult("call_a", "x", "weather"),)), dialect="moonshot") == [
        {"role": "tool", "tool_call_id": "call_a", "content": "x", "name": "weather"}
    ]


def test_a_picture_as_the_result_of_a_tool_is_shown_by_the_user() -> None:
    """Results are texts here; the picture follows the last of them."""
    messages = (
        Message("assistant", (ToolCall("call_a", "look"), ToolCall("call_b", "look"))),
        Message("tool", (ToolResult("call_a", (Text("A cat:"), Image(PNG)), "look"),)),
        Message("tool", (ToolResult("call_b", "nothing"),)),
    )
    _, first, second, shown = turns(*messages)
    assert first == {"role": "tool", "tool_call_id": "call_a", "content": "A cat:"}
    assert second == {"role": "tool", "tool_call_id": "call_b", "content": "nothing"}
    assert shown["role"] == "user"
    assert shown["content"][-1] == {"type": "image_url", "image_url": {"url": PNG}}


def test_a_picture_stays_in_the_result_where_that_is_understood() -> None:
    (wire,) = turns(
        Message("tool", (ToolResult("abcDEF123", (Text("A cat:"), Image(PNG)), "look"),)), dialect="mistral"
    )
    assert wire == {
        "role": "tool",
        "tool_call_id": "abcDEF123",
        "name": "look",
        "content": [{"type": "text", "text": "A cat:"}, {"type": "image_url", "image_url": {"url": PNG}}],
    }


def test_what_another_model_drew_is_shown_by_the_user() -> None:
    """Its own turns hold only pictures of its own; the others follow the results of its calls."""
    drawn = Image(PNG, opaque={"google": {"thoughtSignature": "s"}})
    call_, result = ToolCall("call_a", "f"), Message("tool", (ToolResult("call_a", "1"),))
    answer, told, shown, asked = turns(
        Message("assistant", (Text("Here:"), drawn, call_)), result, Message("user", "More!")
    )
    assert (answer["content"], answer["tool_calls"][0]["id"], told["role"]) == ("Here:", "call_a", "tool")
    assert shown["role"] == "user"
    assert shown["content"][1:] == [{"type": "image_url", "image_url": {"url": PNG}}]
    assert asked["content"] == "More!"


def test_what_another_model_said_aloud_goes_as_its_words() -> None:
    sound = Audio("data:audio/wav;base64,AAAA", opaque={"openai": {"audio": {"id": "audio_1"}}})
    words = Text("Hello.", opaque={"openai": {"audio": {"id": "audio_1"}}})
    assert turns(Message("assistant", (words, sound)), dialect="groq") == [{"role": "assistant", "content": "Hello."}]


def test_a_tools_turn_without_a_result_says_what_to_do() -> None:
    with pytest.raises(BadRequestError, match="ToolResult"):
        turns(Message("tool", "19 °C"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ids_of_calls_are_changed_only_for_who_is_particular(dialect: str) -> None:
    """Mistral takes nine letters and digits; call and result keep saying the same."""
    call_, result = turns(
        Message("assistant", (ToolCall("functions.f:0", "f"),)),
        Message("tool", (ToolResult("functions.f:0", "1"),)),
        dialect=dialect,
    )
    made = call_["tool_calls"][0]["id"]
    assert result["tool_call_id"] == made
    assert (made == "functions.f:0") is (dialect != "mistral")
    assert dialect != "mistral" or (len(made) == 9 and made.isalnum())


CALLED = (
    Message("user", "?"),
    Message("assistant", (ToolCall("call_a", "f"),)),
    Message("tool", (ToolResult("call_a", "1"),)),
)


@pytest.mark.parametrize(
    ("asked", "blank"),
    [
        ({}, True),
        ({"thinking": Thinking("high")}, True),
        ({"thinking": Thinking("none")}, False),
        ({"thinking": Thinking(budget=0)}, False),
        ({"params": {"thinking": {"type": "disabled"}}}, False),
        ({"params": {"thinking": {"type": "enabled"}}}, True),
    ],
)
def test_calls_of_others_get_a_blank_thought_where_one_is_required(asked: Any, blank: bool) -> None:
    """DeepSeek refuses a turn with calls and without thoughts while it thinks, which it does unless told not to."""
    _, answer, _ = sent(Request("m", CALLED, **asked), "deepseek")["messages"]
    assert answer.get("reasoning_content") == (" " if blank else None)


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name not in ("deepseek", "moonshot")])
def test_nobody_else_gets_a_thought_that_was_not_thought(dialect: str) -> None:
    _, answer, _ = turns(*CALLED, dialect=dialect)
    assert not {"reasoning_content", "reasoning"} & answer.keys()


def test_thoughts_that_there_are_go_back_as_they_are() -> None:
    thinking = Message("assistant", (Reasoning("Hm."), ToolCall("call_a", "f")))
    assert turns(CALLED[0], thinking, CALLED[2], dialect="deepseek")[1]["reasoning_content"] == "Hm."
    assert "reasoning_content" not in turns(Message("assistant", "Yes."), dialect="deepseek")[0]


# ---- whole answers -------------------------------------------------------------------------------------------


def test_an_answer_is_read() -> None:
    body = completion() | {"service_tier": "flex", "system_fingerprint": "fp_1"}
    assert read(body) == Response(
        "Hello",
        "gpt-4o-2024",
        "lab",
        usage=Usage(5, 2),
        finish_reason="stop",
        raw_finish_reason="stop",
        request_id="r-1",
        id="chatcmpl-1",
        service_tier="flex",
        opaque={"openai": {"answer": {"system_fingerprint": "fp_1"}}},
    )


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("network_error", "error"),
        ("error", "error"),
        ("brand_new", "brand_new"),
        ("", None),
        (None, None),
    ],
)
def test_finish_reasons_are_normalised_and_open(raw: str | None, ours: str | None) -> None:
    reply = read(completion(finish=raw))
    assert (reply.finish_reason, reply.raw_finish_reason) == (ours, raw or None)
    streamed = read_stream([delta(content="Hello"), delta(raw)])
    assert (streamed.finish_reason, streamed.raw_finish_reason) == (ours, raw or None)


def test_stop_with_tool_calls_is_tool_calls() -> None:
    """Compatible servers say so, and OpenAI does for a forced call."""
    body = completion(None, "stop", tool_calls=[call()])
    streamed = read_stream([delta(tool_calls=[{"index": 0, **call()}]), delta("stop")])
    for reply in (read(body), streamed):
        assert (reply.finish_reason, reply.raw_finish_reason) == ("tool_calls", "stop")


def test_groq_says_usage_of_its_own_accord_in_a_field_of_its_own() -> None:
    last = {**delta("stop"), "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 18, "completion_tokens": 439}}}
    assert read_stream([delta(content="Hi"), last]).usage == Usage(18, 439)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2, "cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
            },
            Usage(10, 7, 4, 3, 3, 0, 2, 1),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 7, "cached_tokens": 4}, Usage(10, 7, 4)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "prompt_cache_hit_tokens": 4}, Usage(10, 7, 4)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": None}, Usage(10, 7)),
        ({"prompt_tokens": 10, "completion_tokens": 7.0}, Usage(10, 7)),
        ({"prompt_tokens": 10}, Usage(10, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 30, "reasoning_tokens": 20}, Usage(10, 30, 0, 20)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 30,
                "reasoning_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            Usage(10, 30, 4, 20),
        ),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 103, 0, 94),
        ),
        ({"prompt_tokens": 29, "completion_tokens": 10, "total_tokens": 241}, Usage(29, 212)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 3}, Usage(10, 7)),
        ({"prompt_tokens": "10", "completion_tokens": 7, "cost": {"usd": 1}}, Usage(10, 7)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": []}, Usage(10, 7)),
        ({"prompt_tokens": 10, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": {}}}, Usage(10)),
        ([], None),
        ("free", None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_read_wherever_it_stands(usage: Json, expected: Usage | None) -> None:
    """At the top, in the choice (Moonshot), and in a stream on any chunk, where the last one counts."""
    body = completion()
    body["usage"] = usage
    assert read(body).usage == expected
    inside = completion()
    inside["usage"] = None
    inside["choices"][0]["usage"] = usage
    assert read(inside).usage == expected
    early = delta(usage={"prompt_tokens": 1, "completion_tokens": 1}, content="Hel")
    last = delta("stop")
    last["choices"][0]["usage"] = usage
    assert read_stream([delta(content="Hi"), last]).usage == expected
    assert read_stream([early, delta("stop", usage)]).usage == (expected or Usage(1, 1))
    alone = {"id": "chatcmpl-1", "choices": [], "usage": usage}
    assert read_stream([delta("stop"), alone]).usage == expected


def test_what_openrouter_says_a_call_cost_is_its_cost() -> None:
    body = completion()
    body["usage"]["cost"] = 0.0014
    assert read(body, "openrouter").cost == 0.0014
    assert read_stream([delta("stop", body["usage"], content="x")], "openrouter").cost == 0.0014
    assert read(body).cost is None, "what others mean by it nobody says"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("dialect", SERVED)
def test_thoughts_are_read_and_go_back_where_they_came_from(dialect: str, field: str) -> None:
    whole = read(completion(**{field: "Hm."}), dialect)
    streamed = read_stream(
        [delta(**{field: "H"}), delta(**{field: "m."}), delta(content="Hello"), delta("stop")], dialect
    )
    for reply in (whole, streamed):
        assert (reply.reasoning, reply.text) == ("Hm.", "Hello")
        assert turn(reply.message, dialect) == {"role": "assistant", "content": "Hello", field: "Hm."}


def test_what_is_not_modelled_is_kept_and_what_says_nothing_is_not() -> None:
    notes: Json = [{"type": "url_citation", "url_citation": {"url": "https://host"}}]
    reply = read(completion(refusal=None, annotations=notes, empty=[], tool_calls=None))
    assert reply.opaque == {"openai": {"annotations": notes}}
    assert turn(reply.message)["annotations"] == notes
    assert "annotations" not in turn(reply.message, "azure"), "another server gets nothing of it"


def test_what_tells_of_the_answer_alone_does_not_go_back() -> None:
    body = completion() | {"citations": ["https://host"], "prompt_filter_results": [{"prompt_index": 0}]}
    body["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    body["usage"]["completion_tokens_details"] = {"accepted_prediction_tokens": 3, "reasoning_tokens": 0}
    reply = read(body, "azure")
    assert reply.opaque == {
        "azure": {
            "answer": {
                "citations": ["https://host"],
                "prompt_filter_results": [{"prompt_index": 0}],
                "content_filter_results": {"hate": {"filtered": False}},
                "usage": {"completion_tokens_details": {"accepted_prediction_tokens": 3}},
            }
        }
    }
    assert turn(reply.message, "azure") == {"role": "assistant", "content": "Hello"}


def test_a_refusal_is_the_text_and_a_content_filter_and_goes_back_as_what_it_was() -> None:
    whole = read(completion(None, refusal="I cannot help with that."))
    streamed = read_stream(
        [
            delta(role="assistant", content=None, refusal=""),
            delta(refusal="I cannot "),
            delta(refusal="help with that."),
            delta("stop"),
        ]
    )
    for reply in (whole, streamed):
        assert (reply.text, reply.finish_reason) == ("I cannot help with that.", "content_filter")
        assert reply.raw_finish_reason == "stop"
        assert turn(reply.message) == {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        assert turn(reply.message, "groq") == {"role": "assistant", "content": "I cannot help with that."}


def test_a_refusal_without_a_reason_is_a_content_filter_too() -> None:
    assert read_stream([delta(refusal="No.")]).finish_reason == "content_filter"


def test_a_blocked_answer_keeps_what_text_there_is() -> None:
    reply = read(completion("The first", "content_filter"))
    assert (reply.text, reply.finish_reason) == ("The first", "content_filter")
    assert read(completion("", "content_filter")).text == ""


def test_content_in_parts_is_text_thoughts_and_the_rest() -> None:
    """Mistral's thinking models answer in parts, which go back as they came."""
    parts: Json = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Hel"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "lo"},
    ]
    reply = read(completion(parts), "compatible")
    assert (reply.text, reply.reasoning) == ("Hello", "Hm.")
    assert turn(reply.message, "compatible") == {"role": "assistant", "content": parts}
    streamed = read_stream(
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "H"}]}]),
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "m."}]}]),
            delta(content="Hel"),
            delta(content="lo"),
            delta("stop"),
        ],
        "compatible",
    )
    assert (streamed.text, streamed.reasoning) == ("Hello", "Hm.")
    assert turn(streamed.message, "compatible")["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Hello"},
    ]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([[{"type": "text", "text": "H"}], [{"type": "text", "text": "m."}]], [{"type": "text", "text": "Hm."}]),
        (["H", "m."], "Hm."),
        (
            [
                [{"type": "text", "text": "H"}],
                [{"type": "reference", "reference_ids": [1]}],
                [{"type": "text", "text": "m."}],
            ],
            [
                {"type": "text", "text": "H"},
                {"type": "reference", "reference_ids": [1]},
                {"type": "text", "text": "m."},
            ],
        ),
    ],
)
def test_a_thought_that_came_in_pieces_goes_back_whole(pieces: list[Json], whole: Json) -> None:
    """Whichever of Mistral's shapes it has, nothing of it is lost on the way, nor what stands beside it."""
    events = [delta(content=[{"type": "thinking", "thinking": piece}]) for piece in pieces]
    closed = delta(content=[{"type": "thinking", "thinking": [] if isinstance(whole, list) else "", "closed": True}])
    streamed = read_stream([*events, closed, delta(content="Yes."), delta("stop")], "mistral")
    item: Json = {"type": "thinking", "thinking": whole, "closed": True}
    at_once = read(completion([item, {"type": "text", "text": "Yes."}]), "mistral")
    for reply in (streamed, at_once):
        assert (reply.reasoning, reply.text) == ("Hm.", "Yes.")
        assert turn(reply.message, "mistral")["content"] == [item, {"type": "text", "text": "Yes."}]


def test_missing_and_unknown_fields_do_no_harm() -> None:
    reply = read({"choices": [{"message": {"content": "Hi"}, "new": None}], "newer": {}})
    assert (reply.text, reply.model, reply.usage, reply.finish_reason, reply.id) == ("Hi", "gpt-4o", None, None, None)


def test_several_answers_are_the_first_and_its_alternatives() -> None:
    body = completion("one")
    others = [completion(text, "length")["choices"][0] | {"index": at} for at, text in ((2, "three"), (1, "two"))]
    body["choices"] = [*others, *body["choices"]]
    events = [
        delta(index=1, content="tw"),
        delta(content="o"),
        {"choices": [{"index": 2, "delta": {"content": "three"}}, {"index": 1, "delta": {"content": "o"}}]},
        delta(content="ne"),
        delta("stop"),
        delta("length", index=1),
        delta("length", {"prompt_tokens": 5, "completion_tokens": 2}, index=2),
    ]
    for reply in (read(body), read_stream(events)):
        assert (reply.text, reply.finish_reason) == ("one", "stop")
        assert reply.alternatives == (Alternative("two", "length", "length"), Alternative("three", "length", "length"))
        assert reply.usage == Usage(5, 2)


def test_a_stream_of_several_answers_is_finished_when_all_are() -> None:
    reading = ChatApi().reading(SOURCE)
    states = []
    for event in (delta(content="a"), delta(index=1, content="b"), delta("stop"), delta("stop", index=1)):
        list(reading.read(ServerSentEvent(json.dumps(event))))
        states.append(reading.finished)
    assert states == [False, False, False, True]


def test_logprobs_are_read() -> None:
    logprobs: Json = {
        "content": [
            {
                "token": "Hel",
                "logprob": -0.1,
                "bytes": [72],
                "top_logprobs": [{"token": "Hel", "logprob": -0.1}, {"token": "Hi", "logprob": -2.5}],
            },
            {"token": "lo", "logprob": -1, "top_logprobs": []},
        ],
        "refusal": None,
    }
    expected = (TokenLogprob("Hel", -0.1, (("Hel", -0.1), ("Hi", -2.5))), TokenLogprob("lo", -1.0))
    body = completion()
    body["choices"][0]["logprobs"] = logprobs
    assert read(body).logprobs == expected
    events = [delta(content="Hel"), delta(content="lo"), delta("stop")]
    for event, token in zip(events, [*logprobs["content"]], strict=False):  # type: ignore[index,call-overload]
        event["choices"][0]["logprobs"] = {"content": [token]}
    assert read_stream(events).logprobs == expected


SPOKEN: Json = {"id": "audio_1", "data": "AAAABBBB", "transcript": "Hello there.", "expires_at": 1790003600}


def test_a_spoken_answer_is_words_and_sound_and_goes_back_by_its_id() -> None:
    whole = read(completion(None, audio=SPOKEN) | {"usage": None})
    streamed = read_stream(
        [
            delta(role="assistant", audio={"id": "audio_1", "transcript": "Hello"}),
            delta(audio={"data": "AAAA"}),
            delta(audio={"transcript": " there."}),
            delta(audio={"data": "BBBB"}),
            delta(audio={"expires_at": 1790003600}),
            delta("stop"),
        ]
    )
    assert streamed == whole
    assert whole.text == "Hello there."
    assert [part.data for part in whole.parts if isinstance(part, Audio)] == ["AAAABBBB"]
    assert whole.opaque == {"openai": {"answer": {"audio": {"expires_at": 1790003600}}}}
    assert turn(whole.message) == {"role": "assistant", "audio": {"id": "audio_1"}}
    assert turn(whole.message, "groq") == {"role": "assistant", "content": "Hello there."}


def test_pieces_of_sound_end_where_they_like() -> None:
    """Each is base64 of its own, or the whole was cut anywhere."""
    for pieces, expected in ((["QQ==", "QkM="], "QUJD"), (["QU", "JD"], "QUJD")):
        reply = read_stream([*[delta(audio={"id": "a", "data": piece}) for piece in pieces], delta("stop")])
        assert [part.data for part in reply.parts if isinstance(part, Audio)] == [expected]
        assert turn(reply.message) == {"role": "assistant", "audio": {"id": "a"}}


@pytest.mark.parametrize("audio", [{"id": "a"}, {"transcript": "Hi"}, {"data": "AAAA"}, {}, [], "x", {"id": 7}])
def test_a_spoken_answer_may_lack_anything(audio: Json) -> None:
    body = completion(None, audio=audio) | {"usage": None}
    assert read_stream([delta(audio=audio), delta("stop")]) == read(body)


def test_pictures_that_were_drawn_are_read_and_go_back() -> None:
    images: Json = [{"type": "image_url", "index": 0, "image_url": {"url": PNG}}]
    whole = read(completion("Here:", images=images), "openrouter")
    streamed = read_stream([delta(content="Here:"), delta(images=images), delta("stop")], "openrouter")
    for reply in (whole, streamed):
        assert [part.uri for part in reply.parts if isinstance(part, Image)] == [PNG]
        assert turn(reply.message, "openrouter") == {"role": "assistant", "content": "Here:", "images": images}


def test_a_drawn_picture_is_never_a_file_of_this_machine() -> None:
    """Its address comes from outside, and a path would be opened when it goes back."""
    images: Json = [{"image_url": {"url": "/etc/passwd"}}, {"image_url": "x"}, 7, {"image_url": {"url": 7}}]
    assert read(completion("Here:", images=images)).parts == (Text("Here:"),)


DETAILS: list[Json] = [
    {"type": "reasoning.summary", "summary": "Think ", "index": 0, "format": "openai-responses-v1"},
    {"type": "reasoning.summary", "summary": "hard.", "index": 0},
    {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "index": 0},
    {"type": "reasoning.text", "text": "Step ", "index": 1, "signature": None},
    {"type": "reasoning.text", "text": "two.", "index": 1},
    {"type": "reasoning.text", "text": "", "signature": "c2ln", "index": 1},
]
MERGED: list[Json] = [
    {"type": "reasoning.summary", "summary": "Think hard.", "index": 0, "format": "openai-responses-v1"},
    {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "index": 0},
    {"type": "reasoning.text", "text": "Step two.", "index": 1, "signature": "c2ln"},
]


def test_openrouters_details_of_thoughts_are_merged_and_go_back() -> None:
    """Pieces of one number and kind are one; ciphers stay what they are."""
    events = [delta(reasoning=text, reasoning_details=[piece]) for text, piece in zip("abcdef", DETAILS, strict=True)]
    reply = read_stream([*events, delta(content="Yes."), delta("stop")], "openrouter")
    assert reply == read(
        completion("Yes.", reasoning="abcdef", reasoning_details=MERGED) | {"usage": None}, "openrouter"
    )
    assert turn(reply.message, "openrouter") == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning": "abcdef",
        "reasoning_details": MERGED,
    }
    assert turn(reply.message, "groq") == {"role": "assistant", "content": "Yes.", "reasoning": "abcdef"}


@pytest.mark.parametrize("details", [MERGED, MERGED[1:2]])
def test_details_without_a_text_beside_them_say_their_own(details: list[Json]) -> None:
    streamed = read_stream([delta(reasoning_details=details), delta(content="Yes."), delta("stop")], "openrouter")
    whole = read(completion("Yes.", reasoning_details=details) | {"usage": None}, "openrouter")
    assert streamed == whole
    assert whole.reasoning == ("Think hard.Step two." if len(details) > 1 else "")
    assert turn(whole.message, "openrouter") == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning_details": details,
    }


def test_what_had_no_words_goes_back_without_words() -> None:
    """Some servers want back the very field that was empty; DeepSeek wants it after calls without a thought, and with
    something in it."""
    whole = read(completion("", "tool_calls", reasoning_content="", tool_calls=[call()]), "deepseek")
    streamed = read_stream(
        [
            delta(role="assistant", content="", reasoning_content=""),
            delta("tool_calls", tool_calls=[{"index": 0, **call()}]),
        ],
        "deepseek",
    )
    for reply in (whole, streamed):
        assert turn(reply.message, "deepseek") == {
            "role": "assistant",
            "content": "",
            "reasoning_content": " ",
            "tool_calls": [call()],
        }


# ---- tool calls ----------------------------------------------------------------------------------------------


def test_calls_are_read_whole_and_go_back_as_they_came() -> None:
    signed = call("call_b", extra_content={"google": {"thought_signature": "sig"}})
    wire = [call(), signed, call("call_c", arguments="{not json"), call("call_d", arguments="")]
    reply = read(completion(None, "tool_calls", tool_calls=wire), "compatible")
    assert [one.arguments for one in reply.tool_calls] == [{"city": "Oslo"}, {"city": "Oslo"}, {}, {}]
    assert [bool(one.invalid) for one in reply.tool_calls] == [False, False, True, False]
    assert reply.tool_calls[1].opaque == {"compatible": {"extra_content": {"google": {"thought_signature": "sig"}}}}
    back = turn(reply.message, "compatible")["tool_calls"]
    assert back[:3] == wire[:3]
    assert back[3]["function"]["arguments"] == "{}"
    assert "extra_content" not in turn(reply.message, "openai")["tool_calls"][1]


def test_arguments_that_are_an_object_are_read() -> None:
    reply = read(completion(None, tool_calls=[call(arguments={"city": "Oslo"})]))
    assert reply.tool_calls[0].arguments == {"city": "Oslo"}


def test_a_call_to_a_custom_tool_keeps_its_words() -> None:
    wire: Json = [{"id": "call_a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]
    whole = read(completion(None, "tool_calls", tool_calls=wire))
    streamed = read_stream(
        [
            delta(tool_calls=[{"index": 0, "id": "call_a", "type": "custom", "custom": {"name": "sql", "input": ""}}]),
            delta(tool_calls=[{"index": 0, "custom": {"input": "SELECT"}}]),
            delta(tool_calls=[{"index": 0, "custom": {"input": " 1"}}]),
            delta("tool_calls"),
        ]
    )
    for reply in (whole, streamed):
        (one,) = reply.tool_calls
        assert (one.id, one.name, one.raw) == ("call_a", "sql", "SELECT 1")
        assert turn(reply.message)["tool_calls"] == wire


def test_the_first_days_function_call_is_a_call_like_any_other() -> None:
    """It has no id, so one is made; its result goes back as the role `function`."""
    function: Json = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    whole = read(completion(None, "function_call", function_call=function))
    streamed = read_stream(
        [
            delta(function_call={"name": "weather", "arguments": ""}),
            delta(function_call={"arguments": '{"city":'}),
            delta(function_call={"arguments": '"Oslo"}'}),
            delta("function_call"),
        ]
    )
    for reply in (whole, streamed):
        (one,) = reply.tool_calls
        assert (one.name, one.arguments, reply.finish_reason) == ("weather", {"city": "Oslo"}, "tool_calls")
        assert one.id == whole.tool_calls[0].id
        assert turns(reply.message, Message("tool", (ToolResult(one.id, "19 °C"),))) == [
            {"role": "assistant", "content": None, "function_call": function},
            {"role": "function", "name": "weather", "content": "19 °C"},
        ]
        assert turns(reply.message, dialect="groq")[0]["tool_calls"][0]["id"] == one.id


# ---- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], "prompt_filter_results": []},
        {"choices": [{"index": 1, "delta": {}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": []}}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": ""}], "usage": None},
        {"choices": None},
        {},
        "",
        "  ",
    ],
)
def test_an_event_that_says_nothing_is_no_chunk(event: Any) -> None:
    data = event if isinstance(event, str) else json.dumps(event)
    assert list(ChatApi().reading(SOURCE).read(ServerSentEvent(data))) == []


def test_an_end_mark_between_blanks_is_one() -> None:
    reading = ChatApi().reading(SOURCE)
    list(reading.read(ServerSentEvent(json.dumps(delta(content="Hi")))))
    assert list(reading.read(ServerSentEvent(" [DONE] "))) == []
    assert (reading.done, reading.finished) == (True, True)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [delta(role="assistant")],
        [delta(role="assistant", content="")],
        [{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}],
    ],
)
def test_an_end_mark_alone_is_no_answer(events: list[Any]) -> None:
    """As its twin that comes whole is none: nothing was said, and not why."""
    with pytest.raises(ProtocolError, match="without an answer"):
        chunks_in(events)
    for message in ({"role": "assistant"}, {"role": "assistant", "content": ""}):
        with pytest.raises(ProtocolError, match="says nothing"):
            read({"choices": [{"message": message}], "system_fingerprint": "fp"})


@pytest.mark.parametrize(
    "event", [delta("stop"), delta(content="x"), delta(reasoning="x"), delta(tool_calls=[call()]), delta(refusal="x")]
)
def test_whatever_is_said_is_an_answer(event: Any) -> None:
    """Also where a server gives no reason for the end."""
    assert chunks_in([event])


@pytest.mark.parametrize(
    ("place", "odd"),
    [
        ("usage", []),
        ("usage", "free"),
        ("usage", {"prompt_tokens": {}, "cost": {"total": 1}}),
        ("id", 7),
        ("model", {}),
        ("service_tier", 1),
        ("created", "today"),
        ("system_fingerprint", 7),
    ],
)
@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
def test_an_odd_field_beside_it_does_no_harm_to_a_good_answer(dialect: str, place: str, odd: Json) -> None:
    assert read(completion() | {place: odd}, dialect).text == "Hello"
    events = [delta(content="Hel") | {place: odd}, delta("stop", content="lo") | {place: odd}]
    reply = read_stream(events, dialect)
    assert (reply.text, reply.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize(
    ("place", "odd"),
    [("finish_reason", 7), ("index", "0"), ("logprobs", 7), ("usage", []), ("logprobs", {"content": 1})],
)
def test_an_odd_field_of_a_choice_does_no_harm_to_a_good_answer(place: str, odd: Json) -> None:
    body, event = completion(), delta(content="Hello")
    body["choices"][0][place] = event["choices"][0][place] = odd
    assert read(body).text == read_stream([event, delta("stop")]).text == "Hello"


def test_a_probability_beyond_all_numbers_is_none() -> None:
    body = completion()
    entries = [{"token": "a", "logprob": int("9" * 400)}, {"token": "b", "logprob": -1}]
    body["choices"][0]["logprobs"] = {"content": entries}
    assert read(body).logprobs == (TokenLogprob("b", -1.0),)


def test_a_server_that_is_strict_gets_back_only_what_it_knows() -> None:
    """Groq refuses the very fields that its answers hold; they are kept with what tells of the answer."""
    message: Any = {
        "executed_tools": [{"index": 0}],
        "annotations": [{"type": "document_citation"}],
        "reasoning": "Hm.",
    }
    whole = read(completion("Yes.", **message) | {"usage": None}, "groq")
    streamed = read_stream(
        [delta(reasoning="Hm."), delta(content="Yes.", **message | {"reasoning": None}), delta("stop")], "groq"
    )
    assert streamed == whole
    assert turn(whole.message, "groq") == {"role": "assistant", "content": "Yes.", "reasoning": "Hm."}
    assert whole.opaque == {
        "groq": {"answer": {"executed_tools": [{"index": 0}], "annotations": [{"type": "document_citation"}]}}
    }


def test_long_answers_in_many_pieces_are_read_in_time_that_grows_with_them() -> None:
    """Twice the pieces take about twice the time, whatever they are pieces of."""

    def seconds(pieces: int) -> float:
        events = [
            json.dumps(event)
            for _ in range(pieces)
            for event in (
                delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "x" * 20}]}]),
                delta(audio={"data": "AAAA" * 10, "transcript": "x"}),
                delta(reasoning_details=[{"type": "reasoning.text", "text": "x" * 20}]),
                delta(tool_calls=[{"function": {"name": "f", "arguments": "{}}"[: 1 + _ % 2] * 4}}]),
                delta(citations=[1]),
            )
        ]
        begun = time.process_time()
        read_stream(events, "compatible")
        return time.process_time() - begun

    seconds(100)
    assert seconds(8000) < 30 * seconds(1000) + 1


def test_azures_filter_results_are_kept_wherever_they_come() -> None:
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    annotated = delta()
    annotated["choices"][0] |= {"content_filter_results": {"hate": {"severity": "safe"}}}
    reply = read_stream([first, delta(content="Hi"), annotated, delta("stop")], "azure")
    assert reply.text == "Hi"
    assert reply.opaque == {
        "azure": {
            "answer": {
                "prompt_filter_results": [{"prompt_index": 0}],
                "content_filter_results": {"hate": {"severity": "safe"}},
            }
        }
    }


def test_what_is_gathered_also_comes_without_an_end_mark() -> None:
    reading = ChatApi().reading(SOURCE)
    chunks = [
        *reading.read(ServerSentEvent(json.dumps(delta(content="Hi", annotations=[{"a": 1}])))),
        *reading.read(ServerSentEvent(json.dumps(delta("stop")))),
    ]
    assert reading.finished
    reply = join([*chunks, *reading.end(), *reading.end()], provider="lab", model="m")
    assert reply.opaque == {"openai": {"annotations": [{"a": 1}]}}


def test_unicode_separators_pass_through() -> None:
    text = "a\u2028b\u2029c\x85d"
    assert read_stream([json.dumps(delta(content=text), ensure_ascii=False)]).text == text


# ---- errors in answers that had begun well -------------------------------------------------------------------


ERRORS = [
    ({"error": {"message": "boom", "type": "server_error", "code": None}}, ServerError),
    ({"error": {"message": "boom", "type": "insufficient_quota"}}, QuotaExceededError),
    ({"error": {"message": "boom", "code": 502, "metadata": {}}}, ServerError),
    ({"error": {"message": "boom", "code": "1113"}}, QuotaExceededError),
    ({"error": {"message": "boom", "code": "1301"}}, ContentFilterError),
    ({"error": {"message": "boom", "code": 429}, "choices": []}, RateLimitError),
    ({"error": {"message": "boom", "code": "429"}}, RateLimitError),
    ({"error": {"message": "boom", "code": "503", "type": "whatever"}}, OverloadedError),
    ({"error": {"message": "boom", "status_code": 429}}, RateLimitError),
    ({"object": "error", "message": "boom", "code": "1300", "raw_status_code": 429}, RateLimitError),
    ({"error": {"message": "boom", "type": "invalid_request_error"}}, BadRequestError),
    ({"error": {"message": "boom", "code": "content_filter"}}, ContentFilterError),
    ({"error": {"message": "boom", "type": "engine_overloaded_error"}}, OverloadedError),
    ({"error": "boom"}, ModelError),
    ({"error": {"message": {"nested": "boom"}}}, ModelError),
    (
        {"choices": [{"index": 0, "delta": {}, "message": {}, "error": {"message": "boom", "code": 503}}]},
        OverloadedError,
    ),
]


@pytest.mark.parametrize(("body", "expected"), ERRORS)
def test_an_error_with_status_200_is_raised_as_what_it_is(body: Json, expected: type[ModelError]) -> None:
    """Whole and in a stream, at the top and in the choice (OpenRouter)."""
    for reading in (read, lambda error: read_stream([delta(content="Hel"), error])):
        with pytest.raises(ModelError, match="boom") as caught:
            reading(body)
        assert type(caught.value) is expected


@pytest.mark.parametrize(
    "event", [{"message": "boom", "type": "server_error"}, {"error": {"message": "boom", "type": "server_error"}}]
)
def test_an_event_that_is_named_error_is_one(event: Json) -> None:
    with pytest.raises(ServerError, match="boom"):
        chunks_in([event], name="error")


def test_an_error_without_an_envelope_is_one() -> None:
    with pytest.raises(ServerError, match="boom"):
        read_stream([{"object": "error", "message": "boom", "type": "server_error"}])


@pytest.mark.parametrize("nothing", [None, {}, "", False])
def test_an_error_that_says_nothing_is_none(nothing: Json) -> None:
    assert read(completion() | {"error": nothing}).text == "Hello"
    assert read_stream([delta(content="Hi") | {"error": nothing}]).text == "Hi"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": []}]}',
        b'{"choices": {"message": {"content": "x"}}}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}',
        b'{"code": 500, "msg": "404 NOT_FOUND", "success": false}',
    ],
)
def test_an_answer_that_is_none_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="is base_url right"):
        read(body)


@pytest.mark.parametrize(
    "data", ["[", "[]", "7", "null", "x", '{"choices": 1}', '{"choices": [{"delta": []}]}', '{"a":' * 5000]
)
def test_an_event_that_is_none_is_a_protocol_error(data: str) -> None:
    with pytest.raises(ProtocolError):
        chunks_in([data])


# ---- the laws ------------------------------------------------------------------------------------------------


words = st.text(max_size=12)
said = st.text(min_size=1, max_size=20)
objects = st.dictionaries(st.text(max_size=5), st.integers() | words, max_size=3)


@st.composite
def spoken(draw: st.DrawFn) -> dict[str, Any]:
    """A message of an answer, with what servers put into one."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | said)}
    if draw(st.booleans()):
        message[draw(st.sampled_from(["reasoning_content", "reasoning"]))] = draw(said)
    if draw(st.booleans()):
        message["refusal"] = draw(said)
    if draw(st.booleans()):
        message["annotations"] = draw(st.lists(objects.filter(bool), min_size=1, max_size=3))
    names = draw(st.lists(st.sampled_from(["f", "g"]), max_size=4))
    if names:
        message["tool_calls"] = [
            call(
                f"call{at:05}",
                name,
                json.dumps(draw(objects)),
                **draw(st.sampled_from([{}, {"extra_content": {"a": 1}}])),
            )
            for at, name in enumerate(names)
        ]
    return message


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces."""
    at = sorted(draw(st.lists(st.integers(1, max(1, len(text) - 1)), max_size=3, unique=True)))
    return [piece for piece in map(lambda a, b: text[a:b], [0, *at], [*at, len(text)]) if piece]


@st.composite
def streamed(draw: st.DrawFn, message: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """The events that a message comes in: its fields in the order in which parts stand, each in pieces; the pieces of
    several calls in any order, as long as they begin in theirs."""
    events = [delta(index=index, role="assistant", content=draw(st.sampled_from([None, ""])))]
    for name in ("reasoning_content", "reasoning", "content", "refusal"):
        if message.get(name):
            events += [delta(index=index, **{name: piece}) for piece in draw(cut(message[name]))]
    for note in message.get("annotations", []):
        events.append(delta(index=index, annotations=[note]))
    calls = message.get("tool_calls", [])
    pieces = []
    for at, wire in enumerate(calls):
        head = {"index": at, **wire, "function": {"name": wire["function"]["name"], "arguments": ""}}
        events.append(delta(index=index, tool_calls=[head]))
        pieces += [(at, order, piece) for order, piece in enumerate(draw(cut(wire["function"]["arguments"])))]
    left = draw(st.permutations(pieces))
    while left:  # the pieces of one call stay in their order
        at = left[0][0]
        piece = min(one for one in left if one[0] == at)
        left.remove(piece)
        events.append(delta(index=index, tool_calls=[{"index": at, "function": {"arguments": piece[2]}}]))
    return events


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A whole answer, and a stream of the same."""
    messages = draw(st.lists(spoken(), min_size=1, max_size=3))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    usage = {"prompt_tokens": draw(st.integers(0, 99)), "completion_tokens": draw(st.integers(0, 99))}
    body = completion() | {"usage": usage, "system_fingerprint": "fp"}
    body["choices"] = [
        {"index": at, "message": message, "finish_reason": reason} for at, message in enumerate(messages)
    ]
    queues = [[*draw(streamed(message, at)), delta(reason, index=at)] for at, message in enumerate(messages)]
    events = []
    while any(queues):
        events.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    end = {"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": [], "usage": usage, "system_fingerprint": "fp"}
    return body, [*events, end]


def without_silence(reply: Response, dialect: str) -> Response:
    """Whether a turn of calls alone had `null` or an empty text for its words is no difference."""
    from msgspec.structs import replace

    def bare(opaque: Any) -> dict[str, Any]:
        own = {name: value for name, value in opaque.get(dialect, {}).items() if value != ""}
        return {name: value for name, value in {**opaque, dialect: own}.items() if value}

    others = tuple([replace(other, opaque=bare(other.opaque)) for other in reply.alternatives])
    return replace(reply, opaque=bare(reply.opaque), alternatives=others)


@given(answers(), st.sampled_from(SERVED))
def test_a_stream_adds_up_to_the_whole_answer(answer: Any, dialect: str) -> None:
    """However it is cut, and however several answers are mixed."""
    body, events = answer
    whole, added = read(body, dialect), read_stream(events, dialect)
    assert without_silence(added, dialect) == without_silence(whole, dialect)


@given(answers(), st.sampled_from(SERVED))
def test_an_answer_goes_back_as_it_came(answer: Any, dialect: str) -> None:
    """Read, through JSON and back, whole and streamed: what is written is what the server had sent."""
    body, events = answer
    for reply in (read(body, dialect), read_stream(events, dialect)):
        again = Response.from_json(json.loads(json.dumps(reply.to_json())))
        assert again == reply
        request = Request("m", (again.message,), thinking=Thinking("none"))  # so that none needs a thought
        back = dict(*sent(request, dialect)["messages"]) or {"role": "assistant"}  # nothing said is no turn
        message = dict(body["choices"][0]["message"])
        if DIALECTS[dialect].returned is not None:
            message.pop("annotations", None)
        assert {name: value for name, value in back.items() if value} == {
            name: value for name, value in message.items() if value
        }


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["content", "refusal", "tool_calls", "function_call", "reasoning", "reasoning_details", "images", "audio"]
PLACES = ["choices", "usage", "error", "id", "model", "service_tier", "message", "created"]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A body or an event with something else in one of its places."""
    shape: dict[str, Any] = draw(st.sampled_from([completion(tool_calls=[call()]), delta(tool_calls=[call()])]))
    body: Any = json.loads(json.dumps(shape))
    junk = draw(JUNK)
    match draw(st.integers(0, 3)):
        case 0:
            body[draw(st.sampled_from(PLACES))] = junk
        case 1:
            body["choices"][0][draw(st.sampled_from(["delta", "message", "index", "logprobs", "usage", "error"]))] = (
                junk
            )
        case 2:
            for place in ("message", "delta"):
                if place in body["choices"][0]:
                    body["choices"][0][place][draw(st.sampled_from(NAMES))] = junk
        case _:
            for place in ("message", "delta"):
                if place in body["choices"][0]:
                    one = body["choices"][0][place]["tool_calls"][0]
                    one[draw(st.sampled_from(["id", "index", "type", "function", "custom"]))] = junk
                    if isinstance(one.get("function"), dict):
                        one["function"][draw(st.sampled_from(["name", "arguments"]))] = draw(JUNK)
    return body


@given(
    st.binary(max_size=80)
    | JUNK.map(lambda value: json.dumps(value).encode())
    | mutated().map(lambda v: json.dumps(v).encode())
)
def test_whatever_comes_is_an_answer_or_a_model_error(data: bytes) -> None:
    """No bytes make the adapter raise anything else, whole or in a stream, and what it reads can be sent back."""
    for dialect in ("openai", "openrouter", "compatible"):
        try:
            reply = read(data, dialect)
            Response.from_json(reply.to_json())
            sent(Request("m", (reply.message,)), dialect)
        except ModelError:
            pass
        reading = api(dialect).reading(SOURCE)
        chunks = []
        try:
            for name in ("message", "error"):
                chunks += list(reading.read(ServerSentEvent(data.decode("utf-8", "replace"), name)))
        except ModelError:
            pass
        with suppress(ModelError):
            chunks += reading.end()
        reply = join(chunks, provider="lab", model="m")
        Response.from_json(reply.to_json())
        with suppress(ModelError):
            sent(Request("m", (reply.message,)), dialect)


# ---- the short way -------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 10_000)
PLAIN_BODIES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "gpt-4o-2024-08-06"]),
        "choices": st.fixed_dictionaries(
            {"message": st.fixed_dictionaries({"role": st.just("assistant"), "content": st.text(min_size=1)})},
            optional={"index": st.just(0), "finish_reason": st.sampled_from(["stop", "length", None])},
        ).map(lambda choice: [choice]),
    },
    optional={
        "id": st.sampled_from(["c1", ""]),
        "usage": st.fixed_dictionaries(
            {"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS},
            optional={"prompt_tokens_details": st.sampled_from([None, {"cached_tokens": 3, "audio_tokens": 0}])},
        ),
        "service_tier": st.sampled_from(["default", None]),
        "system_fingerprint": st.sampled_from(["fp", None, ""]),
    },
)


@given(PLAIN_BODIES)
def test_the_short_way_says_what_the_long_one_does(body: dict[str, Any]) -> None:
    """For every answer that it takes; the others it leaves alone."""
    raw = json.dumps(body).encode()
    short = read_plain(raw, SOURCE, "openai")
    if short is not None:
        assert short == read_response(raw, SOURCE, DIALECTS["openai"])


@pytest.mark.parametrize(
    "odd",
    [
        {"surprise": 1},
        {"choices": [{"message": {"role": "assistant", "content": "x", "reasoning": "hm"}}]},
        {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "eos"}]},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 9}},
        {"error": {"message": "no"}},
    ],
)
def test_what_is_more_than_words_goes_the_long_way(odd: dict[str, Any]) -> None:
    whole = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "x"}}], **odd}
    assert read_plain(json.dumps(whole).encode(), SOURCE, "openai") is None
