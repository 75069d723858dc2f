"""OpenAI's provider over HTTP: what reaches the server, what comes back, what every failure becomes.

What is written and read in detail is in `test_openai_chat`, without a server.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
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
from agentflow.llm.content import Json
from agentflow.llm.messages import Message, ModelInfo, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider, ModelLister, ProviderSettings, Secret
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.stream import StreamingResponse

KEY = "sk-very-secret-key-1234567890"
HI = Request("gpt-4o", (Message("user", "Hi"),))


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
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": usage,
    }


USAGE: dict[str, Json] = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024",
    "choices": [],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


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
    client = provider("https://host/v1")
    assert isinstance(client, LLMProvider)
    assert isinstance(client, EmbeddingProvider)
    assert isinstance(client, ModelLister)
    assert client.name == "lab"


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
    assert client.api.write(Request("m", (), max_tokens=3), stream=False).body[field] == 3


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


async def test_azure_gets_the_key_as_its_own_header(serve: Any) -> None:
    server = await serve(answering(completion()))
    settings = ProviderSettings(
        "azure", "openai", base_url=server.url, api_key=Secret(KEY), options={"dialect": "azure"}, query={"v": "1"}
    )
    client = OpenAIProvider(settings)
    await client.execute(HI)
    (sent,) = server.requests
    assert (sent.headers["api-key"], sent.path) == (KEY, "/v1/chat/completions?v=1")
    assert "authorization" not in sent.headers
    client = OpenAIProvider(replace(settings, token=lambda: "fresh-token-1", api_key=None))
    await client.execute(HI)
    assert server.requests[1].headers["authorization"] == "Bearer fresh-token-1"
    await client.aclose()


@pytest.mark.parametrize("value", [object(), "\ud800", {"nested": [b"x", object()]}])
async def test_what_json_cannot_hold_is_a_bad_request(value: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be written as JSON"):
        await provider("https://host/v1").execute(Request("m", (), params={"x": value}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens_field", ""),
        ("max_tokens_field", 3),
        ("max_tokens_field", None),
        ("stream_options", "no"),
        ("thinking", "hard"),
        ("dialect", "klingon"),
        ("dialect", 3),
        ("api", "assistants"),
        ("organization", ""),
        ("project", 3),
    ],
)
def test_options_are_checked(option: str, value: Json) -> None:
    with pytest.raises(ConfigurationError, match=f"provider 'lab': {option}"):
        provider("https://host/v1", **{option: value})


async def test_the_option_api_chooses_responses(serve: Any) -> None:
    server = await serve(answering(b"no answer of this API", 404))
    client = provider(server.url, api="responses")
    with pytest.raises(NotFoundError):
        await client.execute(HI)
    assert server.requests[0].path == "/v1/responses"
    assert client.schemas
    await client.aclose()


def test_a_provider_says_whether_it_takes_a_schema() -> None:
    assert provider("https://api.openai.com/v1").schemas
    assert not provider("https://api.deepseek.com").schemas
    assert provider("https://api.deepseek.com", schema="json_schema").schemas, "an option, once it can"


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
        id="chatcmpl-1",
    )


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
        b'{"choices": [{"message": {"role": "assistant"}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b"\xff\xfe\x00",
    ],
)
async def test_an_answer_that_is_none_is_a_protocol_error_with_an_excerpt(serve: Any, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        await ask(serve, answering(body))
    shown = body.decode("utf-8", "replace").replace("\0", " ")  # what a terminal would obey is not shown
    excerpt = " ".join(shown.split()) or "an empty body"
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
    facts: dict[str, Any] = {"model": "gpt-4o-2024", "request_id": "req_1", "id": "chatcmpl-1"}
    assert chunks == [
        StreamChunk("Hel", **facts),
        StreamChunk("lo", **facts),
        StreamChunk(finish_reason="stop", raw_finish_reason="stop", **facts),
        StreamChunk(usage=Usage(5, 2), **facts),
    ]


async def test_streaming_and_not_add_up_to_the_same(serve: Any) -> None:
    client = provider((await serve(streaming(chunk(content="Hello"), chunk("stop"), USAGE, b"[DONE]"))).url)
    collected = await StreamingResponse(client.execute_streaming(HI), provider=client.name).collect()
    assert collected == await ask(serve, answering(completion()))
    await client.aclose()


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


async def test_a_server_that_does_not_stream_gives_its_answer_in_chunks(serve: Any) -> None:
    text, end = await stream(serve, answering(completion()))
    assert (text.content, end.finish_reason, end.usage) == ("Hello", "stop", Usage(5, 2))


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


# ---- models --------------------------------------------------------------------------------------------------


async def test_models_are_listed_with_what_the_server_says_of_them(serve: Any) -> None:
    data = [
        {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
        {"id": "kimi", "context_length": 262144, "supports_reasoning": True},
        {"id": "llama", "context_window": 131072, "max_completion_tokens": 32768, "created": "then"},
        {"id": "qwen", "max_model_len": 40960},
        {"id": "a/b", "name": "A: B", "context_length": 200000, "top_provider": {"max_completion_tokens": 64000}},
    ]
    server = await serve(answering({"object": "list", "data": data}))
    client = provider(server.url)
    assert await client.list_models() == (
        ModelInfo("gpt-4o", created=1715367049),
        ModelInfo("kimi", context=262144),
        ModelInfo("llama", context=131072, max_output=32768),
        ModelInfo("qwen", context=40960),
        ModelInfo("a/b", name="A: B", context=200000, max_output=64000),
    )
    assert (server.requests[0].path, server.requests[0].headers["authorization"]) == ("/v1/models", f"Bearer {KEY}")
    await client.aclose()


@pytest.mark.parametrize("body", [{}, [], {"data": "none"}, {"data": [{"name": "no id"}]}, b"<html>"])
async def test_a_list_of_models_that_is_none_is_a_protocol_error(serve: Any, body: object) -> None:
    client = provider((await serve(answering(body))).url)
    with pytest.raises(ProtocolError):
        await client.list_models()
    await client.aclose()
