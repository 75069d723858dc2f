"""The Chat Completions adapter: what goes out, what comes back, what every failure becomes."""

from __future__ import annotations

import asyncio
import gc
import json
from types import MappingProxyType
from typing import Any

import pytest

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    ModelConnectionError,
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
from agentflow.llm.messages import Json, Message, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import LLMProvider, ProviderSettings, Secret
from agentflow.llm.providers.failures import Source, retry_after
from agentflow.llm.providers.openai import OpenAIProvider, read_chunk, read_response, to_wire
from agentflow.llm.streaming.stream import StreamingResponse

KEY = "sk-very-secret-key-1234567890"
HI = Request("gpt-4o", (Message("user", "Hi"),))
SOURCE = Source("lab", "gpt-4o", "r-1")


def provider(url: str, **options: Json) -> OpenAIProvider:
    return OpenAIProvider(ProviderSettings("lab", "openai", base_url=url, api_key=Secret(KEY), options=options))


def completion(content: Json = "Hello", finish: str | None = "stop", **message: Json) -> dict[str, Json]:
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def chunk(finish: str | None = None, usage: Json = None, **delta: Json) -> dict[str, Json]:
    return {
        "model": "gpt-4o-2024",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": usage,
    }


USAGE: dict[str, Json] = {"model": "gpt-4o-2024", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def answering(body: object, status: int = 200, **headers: str) -> Any:
    async def handler(exchange: Any) -> None:
        await exchange.respond(body, status=status, **headers)

    return handler


def streaming(*events: object, ended: bool = True, closed: bool = False, **headers: str) -> Any:
    """Answers with a stream of events; `closed` breaks the connection instead of ending the body."""

    async def handler(exchange: Any) -> None:
        await exchange.begin_stream(**headers)
        for event in events:
            await exchange.event(event)
        if ended and not closed:
            await exchange.end_stream()
        elif closed:
            exchange.writer.close()
        else:
            await asyncio.Event().wait()

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


async def until_error(client: OpenAIProvider) -> tuple[list[str], ModelError]:
    """What a stream says before it fails, and how it fails."""
    seen = []
    try:
        async for piece in client.execute_streaming(HI):
            seen.append(piece.content)
    except ModelError as error:
        return seen, error
    raise AssertionError("the stream did not fail")


# ---- requests ------------------------------------------------------------------------------------------------


def test_it_is_a_provider() -> None:
    assert isinstance(provider("https://host/v1"), LLMProvider)
    assert provider("https://host/v1").name == "lab"


def test_a_bare_request_says_model_and_messages_and_no_more() -> None:
    assert to_wire(HI, stream=False) == {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def test_every_set_parameter_is_sent() -> None:
    request = Request(
        "m",
        (Message("system", "Be brief."), Message("user", "Hi", name="ada")),
        temperature=0.0,
        top_p=0.5,
        max_tokens=9,
        stop=("a", "b"),
        seed=0,
    )
    body = to_wire(request, stream=False, max_tokens_field="max_completion_tokens")
    assert body.pop("messages") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "ada"},
    ]
    expected = {
        "model": "m",
        "temperature": 0.0,
        "top_p": 0.5,
        "max_completion_tokens": 9,
        "stop": ("a", "b"),
        "seed": 0,
    }
    assert body == expected


def test_params_win_and_unknown_ones_pass() -> None:
    request = Request("m", (), temperature=0.1, params={"temperature": 0.9, "thinking": {"type": "disabled"}})
    body = to_wire(request, stream=False)
    assert (body["temperature"], body["thinking"]) == (0.9, {"type": "disabled"})


def test_a_stream_always_asks_for_usage() -> None:
    request = Request("m", (), params={"stream": False, "stream_options": {"include_obfuscation": False}})
    body = to_wire(request, stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_call_that_does_not_stream_never_says_so() -> None:
    body = to_wire(Request("m", (), params={"stream": True, "stream_options": {}}), stream=False)
    assert "stream" not in body
    assert "stream_options" not in body


def test_opaque_fields_of_a_message_go_back_unchanged() -> None:
    calls: Json = [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]
    message = Message("assistant", "", opaque={"reasoning_content": "hm", "tool_calls": calls, "content": None})
    (wire,) = to_wire(Request("m", (message,)), stream=False)["messages"]  # type: ignore[misc]
    assert wire == {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls}


@pytest.mark.parametrize(
    ("url", "options", "field"),
    [
        (None, {}, "max_completion_tokens"),
        ("https://api.openai.com/v1", {}, "max_completion_tokens"),
        ("https://me.openai.azure.com/openai/v1", {}, "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", {}, "max_tokens"),
        ("https://api.openai.com.evil.example/v1", {}, "max_tokens"),
        ("http://127.0.0.1:8000/v1", {"max_tokens_field": "max_output"}, "max_output"),
    ],
)
def test_the_name_of_max_tokens_follows_the_server_or_the_option(url: str | None, options: Any, field: str) -> None:
    client = OpenAIProvider(ProviderSettings("o", "openai", base_url=url, options=options))
    assert json.loads(client._encode(Request("m", (), max_tokens=3), stream=False))[field] == 3


async def test_the_request_reaches_the_server_whole(serve: Any) -> None:
    server = await serve(answering(completion()))
    client = provider(server.url, organization="org-1", project="p-1")
    await client.execute(Request("m", (Message("user", "Grüße 🌍"),), params=MappingProxyType({"metadata": {"a": 1}})))
    (sent,) = server.requests
    assert sent.path == "/v1/chat/completions"
    assert sent.json == {"model": "m", "messages": [{"role": "user", "content": "Grüße 🌍"}], "metadata": {"a": 1}}
    assert (sent.headers["authorization"], sent.headers["openai-organization"]) == (f"Bearer {KEY}", "org-1")
    assert sent.headers["openai-project"] == "p-1"
    await client.aclose()


async def test_without_a_key_no_authorization_is_sent(serve: Any) -> None:
    server = await serve(answering(completion()))
    client = OpenAIProvider(ProviderSettings("lab", "openai", base_url=server.url))
    await client.execute(HI)
    assert "authorization" not in server.requests[0].headers
    await client.aclose()


@pytest.mark.parametrize("value", [object(), "\ud800", {"nested": [b"x", object()]}])
async def test_what_json_cannot_hold_is_a_bad_request(value: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be written as JSON"):
        await provider("https://host/v1").execute(Request("m", (), params={"x": value}))


@pytest.mark.parametrize("value", ["", 3, None])
def test_options_are_checked(value: Json) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens_field"):
        provider("https://host/v1", max_tokens_field=value)


# ---- whole answers -------------------------------------------------------------------------------------------


async def test_an_answer_is_read(serve: Any) -> None:
    reply = await ask(serve, answering(completion(), x_request_id="req_1"))
    assert reply == Response(
        "Hello",
        "gpt-4o-2024",
        "lab",
        usage=Usage(5, 2),
        finish_reason="stop",
        raw_finish_reason="stop",
        request_id="req_1",
    )


def read(body: object) -> Response:
    return read_response(json.dumps(body).encode(), SOURCE)


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("error", "error"),
        ("brand_new", "brand_new"),
        ("", None),
        (None, None),
    ],
)
def test_finish_reasons_are_normalised_and_open(raw: str | None, ours: str | None) -> None:
    reply = read(completion(finish=raw))
    assert (reply.finish_reason, reply.raw_finish_reason) == (ours, raw or None)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(10, 7, 4, 3),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 7, "cached_tokens": 4}, Usage(10, 7, 4)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": None}, Usage(10, 7)),
        ({"prompt_tokens": 10}, Usage(10, 0)),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_read_wherever_it_stands(usage: Json, expected: Usage | None) -> None:
    body = completion()
    body["usage"] = usage
    assert read(body).usage == expected
    inside = completion()
    inside["usage"] = None
    inside["choices"][0]["usage"] = usage  # type: ignore[index,call-overload]
    assert read(inside).usage == expected, "Moonshot puts it into the choice"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_and_kept_for_the_next_request(field: str) -> None:
    reply = read(completion(**{field: "hm"}))
    assert (reply.reasoning, reply.opaque) == ("hm", {field: "hm"})


def test_what_is_not_modelled_is_kept_and_what_says_nothing_is_not() -> None:
    calls: Json = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    reply = read(completion(None, "tool_calls", refusal=None, annotations=[], tool_calls=calls))
    assert (reply.text, reply.opaque, reply.finish_reason) == ("", {"tool_calls": calls}, "tool_calls")


def test_a_refusal_is_the_text_and_a_content_filter() -> None:
    reply = read(completion(None, refusal="I cannot help with that."))
    assert (reply.text, reply.finish_reason) == ("I cannot help with that.", "content_filter")
    assert reply.raw_finish_reason == "stop"


def test_content_in_parts_is_joined_and_kept() -> None:
    parts: Json = [
        {"type": "thinking", "thinking": "…"},
        {"type": "text", "text": "Hel"},
        {"type": "text", "text": "lo"},
    ]
    reply = read(completion(parts))
    assert (reply.text, reply.opaque) == ("Hello", {"content": parts})


def test_missing_and_unknown_fields_do_no_harm() -> None:
    reply = read({"choices": [{"message": {"content": "Hi"}, "new": 1}], "newer": {}})
    assert (reply.text, reply.model, reply.usage, reply.finish_reason) == ("Hi", "gpt-4o", None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>Welcome to nginx</body></html>",
        b'{"choices": [{"message": {"content": "cut',
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": "x"}, "finish_reason": 7}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b"\xff\xfe\x00",
    ],
)
async def test_an_answer_that_is_none_is_a_protocol_error_with_an_excerpt(serve: Any, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        await ask(serve, answering(body))
    excerpt = " ".join(body.decode("utf-8", "replace").split()) or "an empty body"
    assert str(caught.value).endswith(f"is base_url right? It begins: {excerpt}")


async def test_html_is_quoted_shortly(serve: Any) -> None:
    with pytest.raises(ProtocolError, match=r"It begins: <html> Welcome x+…") as caught:
        await ask(serve, answering(b"<html>\n\n Welcome " + b"x" * 5000))
    assert len(str(caught.value)) < 450


async def test_an_error_with_status_200_is_raised(serve: Any) -> None:
    with pytest.raises(RateLimitError):
        await ask(serve, answering({"error": {"message": "slow down", "code": 429}}))


# ---- streams -------------------------------------------------------------------------------------------------


async def test_a_stream_is_read(serve: Any) -> None:
    chunks = await stream(
        serve,
        streaming(
            chunk(role="assistant", content=""),
            chunk(content="Hel"),
            chunk(content="lo"),
            chunk("stop"),
            USAGE,
            b"[DONE]",
            x_request_id="req_1",
        ),
    )
    model, request_id = "gpt-4o-2024", "req_1"
    assert chunks == [
        StreamChunk("Hel", model=model, request_id=request_id),
        StreamChunk("lo", model=model, request_id=request_id),
        StreamChunk(finish_reason="stop", raw_finish_reason="stop", model=model, request_id=request_id),
        StreamChunk(usage=Usage(5, 2), model=model, request_id=request_id),
    ]


async def test_streaming_and_not_add_up_to_the_same(serve: Any) -> None:
    client = provider((await serve(streaming(chunk(content="Hello"), chunk("stop"), USAGE, b"[DONE]"))).url)
    collected = await StreamingResponse(client.execute_streaming(HI), provider=client.name).collect()
    assert collected == await ask(serve, answering(completion()))
    await client.aclose()


async def test_the_last_usage_wins(serve: Any) -> None:
    usages = [{"prompt_tokens": n, "completion_tokens": n} for n in (1, 2)]
    inside = chunk("stop")
    inside["choices"][0]["usage"] = {"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 4}  # type: ignore[index,call-overload]
    events = [chunk(usage=usages[0], content="a"), chunk(usage=usages[1], content="b"), inside]
    assert [chunk.usage for chunk in await stream(serve, streaming(*events, b"[DONE]"))] == [
        Usage(1, 1),
        Usage(2, 2),
        Usage(9, 3, 4),
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_streams_beside_the_content(serve: Any, field: str) -> None:
    chunks = await stream(serve, streaming(chunk(**{field: "hm"}), chunk(content="Hi"), chunk("stop"), b"[DONE]"))
    assert [(chunk.reasoning, chunk.content) for chunk in chunks] == [("hm", ""), ("", "Hi"), ("", "")]


async def test_a_streamed_refusal_ends_as_a_content_filter(serve: Any) -> None:
    chunks = await stream(serve, streaming(chunk(refusal="I can"), chunk(refusal="not."), chunk("stop"), b"[DONE]"))
    assert "".join(chunk.content for chunk in chunks) == "I cannot."
    assert (chunks[-1].finish_reason, chunks[-1].raw_finish_reason) == ("content_filter", "stop")


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], "prompt_filter_results": []},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": ""}], "usage": None},
        {},
    ],
)
def test_an_event_that_says_nothing_is_no_chunk(event: Json) -> None:
    assert read_chunk(json.dumps(event), SOURCE) is None


def test_unicode_separators_pass_through() -> None:
    text = "a\u2028b\u2029c\x85d"
    found = read_chunk(json.dumps(chunk(content=text), ensure_ascii=False), SOURCE)
    assert found is not None
    assert found.content == text


async def test_a_stream_without_done_is_whole_when_it_gave_its_reason(serve: Any) -> None:
    assert len(await stream(serve, streaming(chunk(content="Hi"), chunk("stop")))) == 2


async def test_a_stream_without_a_reason_is_whole_when_it_is_done(serve: Any) -> None:
    assert len(await stream(serve, streaming(chunk(content="Hi"), b"[DONE]"))) == 1


async def test_a_last_line_without_an_end_still_counts(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(chunk(content="Hi"))
        await exchange.piece(b"data: [DONE]")
        await exchange.end_stream()

    assert [chunk.content for chunk in await stream(serve, handler)] == ["Hi"]


async def test_a_stream_that_just_ends_is_interrupted_and_keeps_its_text(serve: Any) -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        await stream(serve, streaming(chunk(content="Hel"), chunk(content="lo")))
    assert (caught.value.partial, caught.value.provider) == ("Hello", "lab")


async def test_a_last_event_that_is_cut_is_an_interruption(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(chunk(content="Hel"))
        await exchange.piece(b'data: {"choices": [{"delta": {"cont')
        await exchange.end_stream()

    with pytest.raises(StreamInterruptedError) as caught:
        await stream(serve, handler)
    assert caught.value.partial == "Hel"


async def test_a_connection_that_breaks_in_the_middle_is_an_interruption(serve: Any) -> None:
    client = provider((await serve(streaming(chunk(content="Hel"), closed=True))).url)
    seen, error = await until_error(client)
    assert seen == ["Hel"]
    assert isinstance(error, StreamInterruptedError)
    assert error.partial == "Hel"
    assert isinstance(error.__cause__, ModelConnectionError)
    await client.aclose()


async def test_a_connection_that_breaks_before_the_first_word_may_be_retried(serve: Any) -> None:
    with pytest.raises(ModelConnectionError) as caught:
        await stream(serve, streaming(closed=True))
    assert caught.value.retryable


async def test_a_connection_that_breaks_after_the_reason_costs_no_text(serve: Any) -> None:
    chunks = await stream(serve, streaming(chunk(content="Hi"), chunk("stop"), closed=True))
    assert [chunk.finish_reason for chunk in chunks] == [None, "stop"]


async def test_html_instead_of_a_stream_is_a_protocol_error(serve: Any) -> None:
    with pytest.raises(ProtocolError, match=r"begins: <html>"):
        await stream(serve, answering(b"<html>", content_type="text/html"))


async def test_plain_text_instead_of_a_stream_is_a_protocol_error(serve: Any) -> None:
    with pytest.raises(ProtocolError, match=r"begins: It works!"):
        await stream(serve, answering(b"It works!", content_type="text/plain"))


async def test_an_empty_stream_is_a_protocol_error(serve: Any) -> None:
    with pytest.raises(ProtocolError, match="an empty body"):
        await stream(serve, streaming())


async def test_broken_json_in_a_stream_is_a_protocol_error(serve: Any) -> None:
    with pytest.raises(ProtocolError, match="JSON is malformed"):
        await stream(serve, streaming(chunk(content="Hi"), b'{"choices": [}'))


async def test_a_server_that_does_not_stream_gives_one_chunk(serve: Any) -> None:
    (only,) = await stream(serve, answering(completion()))
    assert (only.content, only.finish_reason, only.usage) == ("Hello", "stop", Usage(5, 2))


# ---- errors --------------------------------------------------------------------------------------------------


def error_body(**fields: Json) -> dict[str, Json]:
    return {"error": {"message": "It went wrong.", **fields}}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (400, {"type": "invalid_request_error", "code": "unsupported_parameter"}, BadRequestError),
        (400, {"type": "invalid_request_error", "code": "context_length_exceeded"}, ContextLengthError),
        (400, {"code": "content_filter"}, ContentFilterError),
        (400, {"type": "content_filter"}, ContentFilterError),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, AuthenticationError),
        (402, {}, QuotaExceededError),
        (403, {"type": "insufficient_quota"}, QuotaExceededError),
        (403, {}, PermissionDeniedError),
        (404, {"type": "invalid_request_error", "code": "model_not_found"}, NotFoundError),
        (408, {}, ServerError),
        (409, {}, ServerError),
        (413, {}, BadRequestError),
        (422, {}, BadRequestError),
        (429, {"type": "tokens", "code": "rate_limit_exceeded"}, RateLimitError),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, QuotaExceededError),
        (429, {"type": "exceeded_current_quota_error"}, QuotaExceededError),
        (429, {"type": "engine_overloaded_error"}, OverloadedError),
        (500, {"type": "server_error"}, ServerError),
        (502, {}, ServerError),
        (503, {}, OverloadedError),
        (529, {}, OverloadedError),
    ],
)
async def test_status_and_code_become_one_kind_of_error(
    serve: Any, streamed: bool, status: int, fields: dict[str, Json], expected: type[ModelError]
) -> None:
    handler = answering(error_body(**fields), status, x_request_id="req_1")
    with pytest.raises(ModelError) as caught:
        await (stream(serve, handler) if streamed else ask(serve, handler))
    error = caught.value
    assert type(error) is expected
    assert (error.status, error.request_id, error.provider, error.model) == (status, "req_1", "lab", "gpt-4o")
    assert error.code == (fields.get("code") or fields.get("type"))
    assert "It went wrong" in str(error)
    retried = expected in (RateLimitError, OverloadedError, ServerError)
    assert error.retryable is retried


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"error": {"message": "boom", "type": "server_error", "code": None}}, ServerError),
        ({"error": {"message": "boom", "type": "insufficient_quota"}}, QuotaExceededError),
        ({"error": {"message": "boom", "code": 502, "metadata": {}}}, ServerError),
        ({"error": {"message": "boom", "type": "invalid_request_error"}}, BadRequestError),
        ({"error": "boom"}, ModelError),
        ({"message": "boom", "type": "server_error"}, ServerError),
        ({"error": {"message": {"nested": "boom"}}}, ModelError),
    ],
)
async def test_an_error_inside_a_stream_is_raised_as_what_it_is(
    serve: Any, error: Json, expected: type[ModelError]
) -> None:
    client = provider((await serve(streaming(chunk(content="Hel"), error, chunk("stop"), b"[DONE]"))).url)
    seen, error = await until_error(client)
    assert seen == ["Hel"]
    assert type(error) is expected
    assert "boom" in str(error)
    await client.aclose()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"object": "error", "message": "no such model"}, "no such model"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        (b"<html>404 page</html>", "<html>404 page</html>"),
        (b"", "an empty body"),
        (["odd"], "odd"),
    ],
)
async def test_error_bodies_of_every_shape_are_quoted(serve: Any, body: object, text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        await ask(serve, answering(body, 404))
    assert text in str(caught.value)
    assert "check the model id and base_url" in str(caught.value)


async def test_a_redirect_says_what_to_do(serve: Any) -> None:
    with pytest.raises(ProtocolError, match="redirects, which is not followed: set base_url"):
        await ask(serve, answering(b"", 308, location="https://elsewhere/"))


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_a_key_that_the_server_echoes_is_taken_out(serve: Any, status: int) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(serve, answering(error_body(code=KEY, type=KEY) | {"hint": KEY}, status))
    assert KEY not in str(caught.value) + repr(vars(caught.value))
    with pytest.raises(ModelError) as caught:
        await ask(serve, answering(f"Incorrect API key: {KEY}".encode(), status))
    assert KEY not in str(caught.value)
    assert "…" in str(caught.value)


async def test_a_long_error_is_cut(serve: Any) -> None:
    with pytest.raises(ServerError) as caught:
        await ask(serve, answering({"error": {"message": "x\n" * 5000}}, 500))
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "in a while"}, None),
    ],
)
def test_retry_after_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=60.0) == seconds


async def test_the_error_says_when_to_come_back(serve: Any) -> None:
    with pytest.raises(RateLimitError) as caught:
        await ask(serve, answering(error_body(), 429, retry_after="3"))
    assert caught.value.retry_after == 3.0


# ---- connections ---------------------------------------------------------------------------------------------


ENDLESS = streaming(chunk(content="Hi"), ended=False)


async def test_whole_streams_share_one_connection(serve: Any) -> None:
    server = await serve(streaming(chunk(content="Hi"), chunk("stop"), b"[DONE]"))
    client = provider(server.url)
    for _ in range(3):
        async for _ in client.execute_streaming(HI):
            pass
    assert server.connections == 1
    await client.aclose()


@pytest.mark.parametrize("how", ["leave", "cancel", "forget", "aclose"])
async def test_an_abandoned_stream_gives_its_place_back(serve: Any, how: str) -> None:
    """With one connection allowed, three abandoned streams would block for good if any leaked."""
    server = await serve(ENDLESS)
    client = provider(server.url, max_connections=1)
    for _ in range(3):
        answer = StreamingResponse(client.execute_streaming(HI))
        assert (await anext(answer)).content == "Hi"
        if how == "leave":
            async with answer:
                pass
        elif how == "aclose":
            await answer.aclose()
        elif how == "cancel":
            task = asyncio.create_task(answer.collect())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        del answer
        gc.collect()
    assert server.connections == 3
    await client.aclose()


async def test_cancelling_a_stream_at_any_turn_leaks_nothing(serve: Any) -> None:
    server = await serve(streaming(chunk(content="Hi"), chunk("stop"), b"[DONE]"))
    client = provider(server.url, max_connections=1)
    for turns in range(25):
        task = asyncio.create_task(StreamingResponse(client.execute_streaming(HI)).collect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await StreamingResponse(client.execute_streaming(HI)).text() == "Hi"
    await client.aclose()


async def test_many_calls_at_once(serve: Any) -> None:
    client = provider((await serve(answering(completion()))).url, max_connections=8)
    replies = await asyncio.gather(*[client.execute(HI) for _ in range(100)])
    assert {reply.text for reply in replies} == {"Hello"}
    await client.aclose()
