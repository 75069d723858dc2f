"""Requests in the documented shapes of many servers, invented: read into a `Request` and written again as they were.

The reader is the one of the recorded traffic, so this is what it can do beyond the recordings at hand.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.chat_recordings import api_for, as_request
from tests.support.recordings import Recording, same_json

from agentflow.llm.content import Raw
from agentflow.llm.providers.api import _ENCODER

OPENAI = "https://api.openai.com/v1/chat/completions"
OPENROUTER = "https://openrouter.ai/api/v1/chat/completions"
GROQ = "https://api.groq.com/openai/v1/chat/completions"
MISTRAL = "https://api.mistral.ai/v1/chat/completions"
MOONSHOT = "https://api.moonshot.ai/v1/chat/completions"
DEEPSEEK = "https://api.deepseek.com/chat/completions"
AZURE = "https://me.openai.azure.com/openai/v1/chat/completions"
HI: dict[str, Any] = {"role": "user", "content": "Hi"}
PNG = "data:image/png;base64,iVBORw0KGgo="
CALL: dict[str, Any] = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


CASES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "all that can be set",
        OPENAI,
        {
            "temperature": 0,
            "top_p": 1,
            "max_completion_tokens": 9,
            "n": 2,
            "stop": ["a"],
            "seed": 0,
            "logprobs": True,
            "top_logprobs": 2,
            "logit_bias": {"50256": -100},
            "presence_penalty": 0.5,
            "reasoning_effort": "low",
            "verbosity": "low",
            "service_tier": "flex",
            "store": True,
            "user": "u",
            "metadata": {"a": "b"},
            "prompt_cache_key": "k",
            "prompt_cache_retention": "24h",
            "stream": False,
            "modalities": ["text", "audio"],
            "audio": {"voice": "alloy", "format": "wav"},
            "prediction": None,
            "safety_identifier": "s",
            "web_search_options": {},
        },
    ),
    ("the old name of a limit", OPENAI, {"max_tokens": 5, "stop": "end", "logprobs": False}),
    ("a limit that is null", OPENAI, {"max_tokens": None, "temperature": None, "stop": None}),
    ("alternatives alone", OPENAI, {"top_logprobs": 3}),
    ("no alternatives", OPENAI, {"logprobs": True, "top_logprobs": 0}),
    ("a stream", OPENAI, {"stream": True}),
    ("a stream with usage", OPENAI, {"stream": True, "stream_options": {"include_usage": True}}),
    ("a stream with more", OPENAI, {"stream": True, "stream_options": {"include_usage": True, "a": False}}),
    ("a stream without usage", OPENAI, {"stream": True, "stream_options": {"include_usage": False}}),
    ("a stream with null options", OPENAI, {"stream": True, "stream_options": None}),
    (
        "tools of every kind",
        OPENAI,
        {
            "tools": [
                TOOL,
                {"type": "function", "function": {"name": "g", "strict": True, "parameters": {"type": "object"}}},
                {"type": "function", "function": {"name": "h", "description": "", "parameters": {}}},
                {"type": "function", "function": {"name": "i", "strict": None}},
                {"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}},
            ],
            "parallel_tool_calls": False,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ),
    (
        "allowed tools",
        OPENAI,
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
    ),
    (
        "allowed tools that are not required",
        OPENAI,
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
    ),
    ("functions of the first days", OPENAI, {"functions": [{"name": "f"}], "function_call": {"name": "f"}}),
    ("any text", OPENAI, {"response_format": {"type": "text"}}),
    ("any JSON", OPENAI, {"response_format": {"type": "json_object"}}),
    (
        "a schema",
        OPENAI,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": False}}},
    ),
    (
        "a schema with nulls",
        OPENAI,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": None}}},
    ),
    (
        "messages of every kind",
        OPENAI,
        {
            "messages": [
                {"role": "developer", "content": [text("Be brief.")]},
                {"role": "system", "content": "Be kind.", "name": "boss"},
                {
                    "role": "user",
                    "content": [
                        text("Look:"),
                        {"type": "image_url", "image_url": {"url": PNG}},
                        {"type": "image_url", "image_url": {"url": "https://host/a.png", "detail": "high"}},
                        {"type": "image_url", "image_url": {"url": "cats/a.png"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                        {"type": "file", "file": {"file_id": "file-1"}},
                        {
                            "type": "file",
                            "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                        },
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}},
                        {"type": "video_url", "video_url": {"url": "https://host/a.mp4"}},
                    ],
                },
                {"role": "assistant", "content": None, "refusal": "No."},
                {"role": "assistant", "content": [text("Yes."), {"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": [], "tool_calls": None},
                {"role": "assistant", "content": "Let me.", "tool_calls": [CALL], "name": "bot"},
                {"role": "tool", "tool_call_id": "call_a", "content": "1"},
                {"role": "tool", "tool_call_id": "call_a", "content": [text("1"), text("2")]},
                {"role": "tool", "tool_call_id": "call_a", "content": "1", "name": "f"},
                {"role": "assistant", "content": "Old.", "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "1"},
            ]
        },
    ),
    (
        "calls with null for words",
        OPENAI,
        {"messages": [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    ),
    ("calls with empty words", OPENAI, {"messages": [HI, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}),
    ("calls without words", OPENAI, {"messages": [HI, {"role": "assistant", "tool_calls": [CALL]}]}),
    (
        "a custom call",
        OPENAI,
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}],
                }
            ]
        },
    ),
    ("a spoken turn", OPENAI, {"messages": [HI, {"role": "assistant", "audio": {"id": "audio_1"}}]}),
    ("arguments that are no JSON", OPENAI, {"messages": [{**CALL, "role": "assistant", "content": "x"}]}),
    (
        "reasoning and caching",
        OPENROUTER,
        {
            "max_tokens": 10,
            "reasoning": {"effort": "high", "exclude": True},
            "usage": {"include": True},
            "provider": {"order": ["x"]},
            "plugins": [{"id": "web"}],
            "cache_control": {"type": "ephemeral"},
            "top_k": 5,
            "messages": [
                {"role": "system", "content": [text("Long.", cache_control={"type": "ephemeral"})]},
                {"role": "user", "content": [text("x", cache_control={"type": "ephemeral", "ttl": "1h"}), text("y")]},
                {"role": "user", "content": [text("x", cache_control={"type": "ephemeral", "ttl": "5m"})]},
                {
                    "role": "assistant",
                    "content": "Yes.",
                    "reasoning": "Hm.",
                    "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}],
                },
                {"role": "assistant", "content": "Yes.", "reasoning_details": [{"type": "reasoning.encrypted"}]},
            ],
            "tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}],
        },
    ),
    ("a budget", OPENROUTER, {"reasoning": {"max_tokens": 2000}}),
    ("a switch", OPENROUTER, {"reasoning": {"enabled": True}}),
    (
        "its own fields",
        GROQ,
        {
            "max_completion_tokens": 5,
            "reasoning_format": "parsed",
            "include_reasoning": True,
            "n": 1,
            "metadata": {"a": "b"},
            "logprobs": True,
            "messages": [HI, {"role": "assistant", "content": "x", "reasoning": "Hm."}],
        },
    ),
    (
        "parts and prefixes",
        MISTRAL,
        {
            "tool_choice": "any",
            "safe_prompt": True,
            "random_seed": 7,
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": [text("Hm.")]}, text("Yes.")],
                },
                {"role": "assistant", "content": "x", "prefix": True},
            ],
        },
    ),
    (
        "thinking and partial",
        MOONSHOT,
        {
            "model": "kimi-k2.6",
            "max_completion_tokens": 5,
            "thinking": {"type": "disabled", "keep": "all"},
            "prompt_cache_key": "k",
            "temperature": 0.6,
            "messages": [
                HI,
                {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_a", "name": "f", "content": "1"},
                {"role": "assistant", "content": "{", "partial": True},
            ],
        },
    ),
    ("thinking that is on", MOONSHOT, {"model": "kimi-k2.5", "thinking": {"type": "enabled"}}),
    ("effort", MOONSHOT, {"model": "kimi-k3", "reasoning_effort": "max"}),
    ("thinking", DEEPSEEK, {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
    ("a switch", DEEPSEEK, {"thinking": {"type": "disabled"}, "max_tokens": 7, "n": 1}),
    ("a schema it does not keep", DEEPSEEK, {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
    ("data sources", AZURE, {"data_sources": [{"type": "azure_search"}], "max_completion_tokens": 3}),
]


def recording(uri: str, fields: dict[str, Any]) -> Recording:
    return Recording("invented", uri, {"model": "m", "messages": [HI], **fields}, 200, {}, b"")


@pytest.mark.parametrize(("uri", "fields"), [case[1:] for case in CASES], ids=[f"{c[1][8:20]} {c[0]}" for c in CASES])
def test_a_request_is_written_as_it_was(uri: str, fields: dict[str, Any]) -> None:
    wire = recording(uri, fields)
    api = api_for(wire)
    request = as_request(wire.request, api)
    written = json.loads(_ENCODER.encode(api.write(request, stream=wire.request.get("stream") is True).body))
    assert same_json(written, wire.request), (written, wire.request)


def test_what_has_a_field_of_ours_is_put_there() -> None:
    """The reader does not take the easy way of parameters alone."""
    fields = CASES[0][2] | {"tools": [TOOL], "response_format": {"type": "json_object"}, "tool_choice": "f"}
    wire = recording(OPENAI, fields)
    request = as_request(wire.request, api_for(wire))
    assert set(request.params) == {
        *("logit_bias", "presence_penalty", "verbosity", "service_tier", "store", "user", "stream", "modalities"),
        *("audio", "prediction", "safety_identifier", "web_search_options", "tool_choice"),
    }
    everything = recording(OPENAI, CASES[18][2])
    messages = as_request(everything.request, api_for(everything)).messages
    raw = [part for message in messages for part in message.parts if isinstance(part, Raw)]
    assert len(raw) == 4, "a path, a file without a name, a video, and a refusal among parts"
