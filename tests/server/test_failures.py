"""What goes wrong reaches OpenAI's client as the exception that its users catch, and says no more than it should."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import aiohttp
import openai
import pytest
from tests.support.served import Running, registry_of, running

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    LimiterError,
    LoadShedError,
    ModelConnectionError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    UnsupportedError,
)
from agentflow.llm.messages import Request, StreamChunk
from agentflow.llm.providers.scripted import ScriptedProvider

ONCE = "defaults: {retry: {max_attempts: 1}}\n"
SECRET = "the-reason-that-nobody-is-told"

FAILURES = [
    (BadRequestError("no such option"), openai.BadRequestError, 400, None),
    (ContextLengthError("too long"), openai.BadRequestError, 400, "context_length_exceeded"),
    (ContentFilterError("blocked"), openai.BadRequestError, 400, "content_filter"),
    (UnsupportedError("it cannot see"), openai.BadRequestError, 400, "unsupported_value"),
    (NotFoundError(SECRET), openai.NotFoundError, 404, "model_not_found"),
    (RateLimitError(SECRET, retry_after=7.2), openai.RateLimitError, 429, "rate_limit_exceeded"),
    (LimiterError("limiter", SECRET, retry_after=3), openai.RateLimitError, 429, "rate_limit_exceeded"),
    (LoadShedError("shedder", SECRET), openai.RateLimitError, 429, "rate_limit_exceeded"),
    (QuotaExceededError(SECRET), openai.RateLimitError, 429, "insufficient_quota"),
    (AuthenticationError(SECRET), openai.InternalServerError, 502, "upstream_error"),
    (PermissionDeniedError(SECRET), openai.InternalServerError, 502, "upstream_error"),
    (ServerError(SECRET), openai.InternalServerError, 502, "upstream_error"),
    (ModelConnectionError(SECRET), openai.InternalServerError, 502, "upstream_error"),
    (ProtocolError(SECRET), openai.InternalServerError, 502, "upstream_error"),
    (OverloadedError(SECRET), openai.InternalServerError, 503, "overloaded"),
    (CircuitOpenError("breaker", SECRET, retry_after=20), openai.InternalServerError, 503, "overloaded"),
    (ModelTimeoutError("total", 1.0), openai.InternalServerError, 504, "upstream_error"),
    (ConfigurationError(SECRET), openai.InternalServerError, 500, "internal_error"),
    (ZeroDivisionError(SECRET), openai.InternalServerError, 500, "internal_error"),
]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("error", "kind", "status", "code"), FAILURES, ids=lambda value: type(value).__name__)
async def test_each_failure_is_the_clients_own_exception(
    tmp_path: Path, error: Exception, kind: type[openai.APIStatusError], status: int, code: str | None, streaming: bool
) -> None:
    """With its status and code, whole and streamed alike, and without what only the server's owner may know."""

    def fail(request: Request) -> str:
        raise error

    registry = registry_of(tmp_path, ONCE, toy=ScriptedProvider(fail))
    async with running(registry, "toy/m") as server, server.client() as client:
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(
                model="toy/m", messages=[{"role": "user", "content": "Hi"}], stream=streaming
            )
    assert type(raised.value) is kind
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert SECRET not in raised.value.response.text
    after = getattr(error, "retry_after", None)
    if after is not None:
        assert int(raised.value.response.headers["retry-after"]) >= after
    if isinstance(error, QuotaExceededError):
        assert raised.value.response.headers["x-should-retry"] == "false"


async def test_the_log_has_what_the_client_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under the number that stands in the client's error."""

    def fail(request: Request) -> str:
        raise ZeroDivisionError(SECRET)

    registry = registry_of(tmp_path, ONCE, toy=ScriptedProvider(fail))
    with caplog.at_level(logging.ERROR, "agentflow.server"):
        async with running(registry, "toy/m") as server, server.client() as client:
            with pytest.raises(openai.InternalServerError) as raised:
                await client.chat.completions.create(model="toy/m", messages=[{"role": "user", "content": "Hi"}])
    assert raised.value.request_id is not None
    assert raised.value.request_id in caplog.text
    assert raised.value.request_id in raised.value.message
    assert SECRET in caplog.text


async def test_a_stream_that_breaks_says_so(tmp_path: Path) -> None:
    """What had come stays, then the client raises; no stream seems whole that is not."""
    toy = ScriptedProvider([["One ", "two ", ServerError(SECRET)]])
    async with running(registry_of(tmp_path, ONCE, toy=toy), "toy/m") as server, server.client() as client:
        stream = await client.chat.completions.create(
            model="toy/m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        words = []
        with pytest.raises(openai.APIError) as raised:
            async for chunk in stream:
                words.append(chunk.choices[0].delta.content or "")
    assert "".join(words) == "One two "
    assert SECRET not in str(raised.value.body)
    assert raised.value.code == "upstream_error"


async def test_a_stream_that_begins_anew_is_broken_off(tmp_path: Path) -> None:
    """What was sent cannot be taken back."""
    toy = ScriptedProvider([["One ", StreamChunk("Uno ", restart=True)]])
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        stream = await client.chat.completions.create(
            model="toy/m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        with pytest.raises(openai.APIError, match="anew"):
            async for _ in stream:
                pass


async def test_too_few_answers_are_said(tmp_path: Path) -> None:
    """A model that takes no notice of `n` is not taken for one that does."""
    toy = ScriptedProvider(["one", "one"])
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        with pytest.raises(openai.BadRequestError, match="1 answer to a question, not 3") as raised:
            await client.chat.completions.create(model="toy/m", messages=[{"role": "user", "content": "Hi"}], n=3)
        assert raised.value.param == "n"
        with pytest.raises(openai.APIError, match="1 answer to a question, not 3"):
            stream = await client.chat.completions.create(
                model="toy/m", messages=[{"role": "user", "content": "Hi"}], n=3, stream=True
            )
            async for _ in stream:
                pass


# ---- what no client of good will sends -----------------------------------------------------------------------

HI = {"model": "toy/m", "messages": [{"role": "user", "content": "Hi"}]}


def part(**fields: object) -> dict[str, object]:
    return {**HI, "messages": [{"role": "user", "content": [fields]}]}


WRONG = [
    ({}, "model", "missing_required_parameter"),
    ({**HI, "model": ""}, "model", None),
    ({**HI, "model": "gpt-4o"}, "model", "model_not_found"),
    ({**HI, "messages": []}, "messages", None),
    ({**HI, "messages": "Hi"}, "messages", None),
    ({**HI, "messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role", None),
    ({**HI, "messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({**HI, "messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
    ({**HI, "messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call", None),
    (part(type="video", video=1), "messages[0].content[0].type", None),
    (part(type="image_url", image_url={"url": "/etc/passwd"}), "messages[0].content[0].image_url.url", None),
    (part(type="image_url", image_url={"url": "file:///etc/passwd"}), "messages[0].content[0].image_url.url", None),
    (part(type="image_url", image_url={"url": "file-id:f1"}), "messages[0].content[0].image_url.url", None),
    (part(type="image_url", image_url={"url": "data:image/png;base64,!"}), None, "invalid_file"),
    (part(type="file", file={"file_id": "f1"}), "messages[0].content[0].file.file_id", None),
    (part(type="file", file={"file_data": "notes.txt"}), "messages[0].content[0].file.file_data", None),
    (part(type="file", file={}), "messages[0].content[0].file.file_data", "missing_required_parameter"),
    ({**HI, "temperature": 3}, "temperature", None),
    ({**HI, "temperature": "warm"}, "temperature", None),
    ({**HI, "top_p": -1}, "top_p", None),
    ({**HI, "max_tokens": 0}, "max_tokens", None),
    ({**HI, "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", None),
    ({**HI, "stop": [""]}, "stop", None),
    ({**HI, "stop": ["a"] * 17}, "stop", None),
    ({**HI, "n": 0}, "n", None),
    ({**HI, "top_logprobs": 3}, "top_logprobs", None),
    ({**HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
    ({**HI, "stream_options": {"include_usage": True}}, "stream_options", None),
    ({**HI, "response_format": {"type": "xml"}}, "response_format.type", None),
    (
        {**HI, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
    ),
    ({**HI, "tools": [{"type": "custom", "custom": {}}]}, "tools[0].type", None),
    ({**HI, "tools": [{"type": "function", "function": {"name": "a"}}] * 2}, "tools[1].function.name", None),
    ({**HI, "tool_choice": "required"}, "tool_choice", None),
    ({**HI, "tool_choice": {"type": "function", "function": {"name": "a"}}}, "tool_choice", None),
    ({**HI, "reasoning_effort": ""}, "reasoning_effort", None),
    ({**HI, "functions": []}, "functions", "unsupported_parameter"),
    ({**HI, "temprature": 1}, "temprature", "unknown_parameter"),
    ({**HI, "metadata": {"a": 1}}, "metadata[...]", None),
]


@pytest.mark.parametrize(("body", "param", "code"), WRONG, ids=lambda value: str(value)[:60])
async def test_a_wrong_parameter_is_named(
    served: Running, body: dict[str, object], param: str | None, code: str | None
) -> None:
    """With 400 (404 for the model), and nothing reaches a model."""
    status, error = await post(served, body)
    assert (status, error["type"]) == (404 if code == "model_not_found" else 400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"]


@pytest.fixture
async def served(tmp_path: Path) -> object:
    async with running(registry_of(tmp_path, toy=ScriptedProvider([])), "toy/m") as server:
        yield server


async def post(
    server: Running, body: object, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, object]]:
    """The status and the error of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with aiohttp.ClientSession() as session, session.post(server.url + path, data=data, headers=sent) as answer:
        found = json.loads(await answer.read())
        return answer.status, found["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}", b'{"model": "\\ud800"}'],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_what_is_no_json_object_is_refused(served: Running, body: bytes, path: str) -> None:
    """However it is broken."""
    status, error = await post(served, body, path)
    assert (status, error["type"]) == (400, "invalid_request_error")


async def test_other_paths_and_methods_are_refused_in_the_same_shape(served: Running) -> None:
    """Also what aiohttp itself would answer in words of its own."""
    status, error = await post(served, {}, "/v1/nothing")
    assert (status, error["code"]) == (404, "unknown_url")
    status, error = await post(served, {}, "/v1/models")
    assert (status, error["type"]) == (405, "invalid_request_error")


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """With 413, before it is read to its end."""
    async with running(registry_of(tmp_path, toy=ScriptedProvider([])), "toy/m", largest_body=1000) as server:
        status, error = await post(server, {**HI, "user": "a" * 2000})
    assert (status, error["code"]) == (413, "request_too_large")
