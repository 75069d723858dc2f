"""Moonshot's provider: thoughts that go back, thinking by model, answers that go on a text, its usage and errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.chat_wire import SOURCE, call, completion, delta

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFilterError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.content import Json, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message, ModelInfo, OutputFormat, Request, Response, StreamChunk, Thinking, Usage
from agentflow.llm.providers.base import LLMProvider, ModelLister, ProviderSettings, Secret
from agentflow.llm.providers.moonshot import MoonshotApi, MoonshotProvider
from agentflow.llm.providers.openai.dialects import DIALECTS
from agentflow.llm.streaming.stream import StreamingResponse

KEY = "sk-moonshot-secret-1234567890"
HI = Request("kimi-k2.6", (Message("user", "Hi"),))
API = MoonshotApi(DIALECTS["moonshot"])
BEGUN = Request("kimi-k2.6", (Message("user", "As JSON."), Message("assistant", '{"a":')))


def provider(url: str | None = None, **options: Json) -> MoonshotProvider:
    return MoonshotProvider(ProviderSettings("kimi", "moonshot", base_url=url, api_key=Secret(KEY), options=options))


def sent(request: Request, *, stream: bool = False) -> Any:
    return API.write(request, stream=stream).body


def answering(body: object, status: int = 200) -> Any:
    async def handler(exchange: Any) -> None:
        await exchange.respond(body, status)

    return handler


def streaming(*events: object) -> Any:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        for event in (*events, b"[DONE]"):
            await exchange.event(event)
        await exchange.end_stream()

    return handler


async def ask(serve: Any, handler: Any, request: Request = HI) -> Response:
    client = provider((await serve(handler)).url)
    try:
        return await client.execute(request)
    finally:
        await client.aclose()


async def stream(serve: Any, handler: Any, request: Request = HI) -> list[StreamChunk]:
    client = provider((await serve(handler)).url)
    try:
        return [chunk async for chunk in client.execute_streaming(request)]
    finally:
        await client.aclose()


async def collect(serve: Any, handler: Any, request: Request = HI) -> Response:
    client = provider((await serve(handler)).url)
    try:
        return await StreamingResponse(client.execute_streaming(request), provider="kimi").collect()
    finally:
        await client.aclose()


# ---- settings ------------------------------------------------------------------------------------------------


def test_it_is_a_provider() -> None:
    client = provider()
    assert isinstance(client, LLMProvider)
    assert isinstance(client, ModelLister)
    assert (client.name, client.api.name, client.schemas) == ("kimi", "moonshot", True)


def test_its_dialect_is_its_own_also_behind_another_host() -> None:
    assert provider("https://proxy.example/v1").api.name == "moonshot"
    assert provider(max_tokens_field="max_tokens").api.write(HI, stream=False).path == "/chat/completions"
    with pytest.raises(ConfigurationError, match="max_tokens_field"):
        provider(max_tokens_field=3)


async def test_the_key_and_the_path_are_as_documented(serve: Any) -> None:
    server = await serve(answering(completion()))
    client = provider(server.url)
    await client.execute(HI)
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    await client.aclose()


async def test_models_are_listed(serve: Any) -> None:
    client = provider((await serve(answering({"data": [{"id": "kimi-k3", "context_length": 1048576}]}))).url)
    assert await client.list_models() == (ModelInfo("kimi-k3", context=1048576),)
    await client.aclose()


# ---- thinking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "thinking", "said"),
    [
        ("kimi-k2.6", Thinking("none"), {"thinking": {"type": "disabled"}}),
        ("kimi-k2.5", Thinking("high"), {"thinking": {"type": "enabled"}}),
        ("kimi-k2.6", Thinking(budget=0), {"thinking": {"type": "disabled"}}),
        ("kimi-k2.6", Thinking(show=True), {}),
        ("kimi-k2.7-code-highspeed", Thinking("high"), {}),
        ("kimi-k2-thinking", Thinking("low"), {}),
        ("kimi-k3", Thinking("minimal"), {"reasoning_effort": "low"}),
        ("kimi-k3", Thinking("medium"), {"reasoning_effort": "high"}),
        ("kimi-k3.1-pro", Thinking("max"), {"reasoning_effort": "max"}),
        ("kimi-k3", Thinking(budget=900), {"reasoning_effort": "low"}),
        ("kimi-k4", Thinking("high"), {"reasoning_effort": "high"}),
        ("moonshot-v1-8k", Thinking("none"), {}),
    ],
)
def test_thinking_is_asked_for_as_the_model_knows_it(model: str, thinking: Thinking, said: dict[str, Json]) -> None:
    body = sent(Request(model, HI.messages, thinking=thinking))
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == said


@pytest.mark.parametrize(
    ("model", "effort", "reason"),
    [
        ("kimi-k3", "none", "always thinks"),
        ("kimi-k2.7-code", "none", "always thinks"),
        ("moonshot-v1-32k", "low", "does not think"),
    ],
)
def test_a_model_that_cannot_is_not_asked(model: str, effort: str, reason: str) -> None:
    with pytest.raises(BadRequestError, match=reason):
        sent(Request(model, HI.messages, thinking=Thinking(effort)))


def test_old_thoughts_are_kept_by_a_parameter() -> None:
    request = Request("kimi-k2.6", HI.messages, thinking=Thinking("high"), params={"thinking": {"keep": "all"}})
    assert sent(request)["thinking"] == {"type": "enabled", "keep": "all"}


async def test_thoughts_go_back_with_the_calls_they_led_to(serve: Any) -> None:
    """Without them the next request is refused while thinking is on."""
    whole = completion("", "tool_calls", reasoning_content="I need the weather.", tool_calls=[call("weather:0")])
    events = [
        delta(role="assistant", content=""),
        delta(reasoning_content="I need "),
        delta(reasoning_content="the weather."),
        delta(tool_calls=[{"index": 0, **call("weather:0", arguments="")}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city":"Oslo"}'}}]),
        delta("tool_calls"),
    ]
    for reply in (await ask(serve, answering(whole)), await collect(serve, streaming(*events))):
        assert reply.content == (
            Reasoning("I need the weather."),
            ToolCall("weather:0", "weather", {"city": "Oslo"}, '{"city":"Oslo"}'),
        )
        again = Response.from_json(json.loads(json.dumps(reply.to_json())))
        result = Message("tool", (ToolResult("weather:0", "19 °C", "weather"),))
        assert sent(Request("kimi-k2.6", (*HI.messages, again.message, result)))["messages"][1:] == [
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "I need the weather.",
                "tool_calls": [call("weather:0")],
            },
            {"role": "tool", "tool_call_id": "weather:0", "content": "19 °C", "name": "weather"},
        ]


# ---- usage ---------------------------------------------------------------------------------------------------


async def test_usage_stands_in_the_last_choice_and_cached_tokens_at_its_top(serve: Any) -> None:
    usage = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 16}
    last = delta("stop")
    last["choices"][0]["usage"] = usage
    reply = await collect(serve, streaming(delta(content="3"), last))
    assert reply.usage == Usage(19, 13, 16)
    both = [delta(content="3"), last, {"choices": [], "usage": {**usage, "completion_tokens": 14}}]
    assert (await collect(serve, streaming(*both))).usage == Usage(19, 14, 16), "the last word counts"


# ---- answers that were begun ---------------------------------------------------------------------------------


def test_a_last_turn_of_the_assistants_is_partial() -> None:
    body = sent(Request("kimi-k2.6", (*HI.messages, Message("assistant", "I am", name="Kelsey"))))
    assert body["messages"][-1] == {"role": "assistant", "content": "I am", "name": "Kelsey", "partial": True}


@pytest.mark.parametrize(
    "messages",
    [
        (Message("assistant", "I am"), Message("user", "Who?")),
        (Message("assistant", (ToolCall("a", "f"),)),),
        (Message("assistant", ""),),
        (),
    ],
)
def test_other_turns_are_not(messages: tuple[Message, ...]) -> None:
    assert "partial" not in json.dumps(sent(Request("kimi-k2.6", messages)))


async def test_the_answer_begins_with_the_words_that_were_given(serve: Any) -> None:
    whole = await ask(serve, answering(completion("1}")), BEGUN)
    streamed = await collect(serve, streaming(delta(content="1"), delta(content="}"), delta("stop")), BEGUN)
    assert (whole.text, streamed.text) == ('{"a":1}', '{"a":1}')
    assert sent(Request("m", (whole.message, *HI.messages)))["messages"][0]["content"] == '{"a":1}'


async def test_the_given_words_come_first_and_once(serve: Any) -> None:
    events = [
        delta(reasoning_content="Hm."),
        delta(content="1"),
        delta(index=1, content="2"),
        delta(content="}"),
        delta("stop"),
        delta("stop", index=1),
    ]
    chunks = await stream(serve, streaming(*events), BEGUN)
    assert [(chunk.index, chunk.reasoning or chunk.content) for chunk in chunks] == [
        (0, "Hm."),
        (0, '{"a":'),
        (0, "1"),
        (1, '{"a":'),
        (1, "2"),
        (0, "}"),
        (0, ""),
        (1, ""),
    ]


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            {"content": "1}", "reasoning_content": "Hm."},
            (Reasoning("Hm."), Text('{"a":1}')),
        ),
        ({"content": "", "reasoning_content": "Hm."}, (Reasoning("Hm."), Text('{"a":'))),
        (
            {"content": None, "tool_calls": [call()]},
            (Text('{"a":'), ToolCall("call_a", "weather", {"city": "Oslo"}, '{"city":"Oslo"}')),
        ),
    ],
)
async def test_the_given_words_stand_before_the_first_words(serve: Any, message: Any, parts: Any) -> None:
    assert (await ask(serve, answering(completion(**message)), BEGUN)).content == parts
    events = [delta(**{name: value}) for name, value in message.items() if value and name != "content"]
    first = [event for event in events if "reasoning_content" in event["choices"][0]["delta"]]
    content = [delta(content=message["content"])] if message["content"] else []
    last = [event for event in events if event not in first]
    for event in last:
        event["choices"][0]["delta"]["tool_calls"] = [{"index": 0, **call()}]
    streamed = await collect(serve, streaming(*first, *content, *last, delta("stop")), BEGUN)
    assert streamed.content == parts


async def test_every_answer_begins_so(serve: Any) -> None:
    body = completion("1}")
    body["choices"].append({"index": 1, "message": {"content": "2}"}, "finish_reason": "stop"})
    reply = await ask(serve, answering(body), BEGUN)
    assert (reply.text, reply.alternatives[0].text) == ('{"a":1}', '{"a":2}')


def test_a_begun_answer_is_not_any_json_object_too() -> None:
    """Moonshot's documents warn of mixing the two."""
    with pytest.raises(BadRequestError, match="any JSON object"):
        sent(Request("m", BEGUN.messages, output=OutputFormat("any")))


async def test_leaving_a_begun_stream_frees_its_connection(serve: Any) -> None:
    async def endless(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(delta(content="1"))
        await asyncio.Event().wait()

    server = await serve(endless)
    client = provider(server.url, max_connections=1)
    for _ in range(3):
        async with StreamingResponse(client.execute_streaming(BEGUN)) as chunks:
            assert (await anext(chunks)).content == '{"a":'
    assert server.connections == 3
    await client.aclose()


# ---- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "content_filter", ContentFilterError),
        (400, "invalid_request_error", BadRequestError),
        (401, "invalid_authentication_error", AuthenticationError),
        (401, "incorrect_api_key_error", AuthenticationError),
        (403, "permission_denied_error", PermissionDeniedError),
        (404, "resource_not_found_error", NotFoundError),
        (429, "engine_overloaded_error", OverloadedError),
        (429, "rate_limit_reached_error", RateLimitError),
        (429, "exceeded_current_quota_error", QuotaExceededError),
        (500, "server_error", ServerError),
        (500, "unexpected_output", ServerError),
    ],
)
async def test_errors_are_told_by_their_type(serve: Any, status: int, kind: str, expected: type[ModelError]) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(serve, answering({"error": {"message": "It went wrong.", "type": kind}}, status))
    assert type(caught.value) is expected
    assert caught.value.retryable is (expected in (OverloadedError, RateLimitError, ServerError))


def test_its_answers_are_read_without_a_server() -> None:
    reply = API.read(json.dumps(completion(reasoning_content="Hm.")).encode(), SOURCE)
    assert (reply.reasoning, reply.text, reply.opaque) == ("Hm.", "Hello", {})


@pytest.mark.parametrize(
    ("model", "asked", "blank"),
    [
        ("kimi-k3", {}, True),
        ("kimi-k2.6", {}, True),
        ("kimi-k2.6", {"thinking": Thinking("none")}, False),
        ("kimi-k2.6", {"params": {"thinking": {"type": "disabled"}}}, False),
        ("moonshot-v1-8k", {}, False),
    ],
)
def test_calls_of_others_get_a_blank_thought_unless_it_does_not_think(model: str, asked: Any, blank: bool) -> None:
    """It refuses a turn with calls and without thoughts."""
    messages = (
        Message("user", "?"),
        Message("assistant", (ToolCall("f:0", "f"),)),
        Message("tool", (ToolResult("f:0", "1"),)),
    )
    api = MoonshotApi(DIALECTS["moonshot"])
    written: Any = api.write(Request(model, messages, **asked), stream=False).body["messages"]
    assert written[1].get("reasoning_content") == (" " if blank else None)
