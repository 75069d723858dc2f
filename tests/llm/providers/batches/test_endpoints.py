"""What each batch API hears and says on the wire, beyond what a whole job shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import (
    BadRequestError,
    ConfigurationError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    ServerError,
    UnsupportedError,
)
from agentflow.llm.messages import Message, Request
from agentflow.llm.providers.anthropic import AnthropicProvider
from agentflow.llm.providers.base import BatchProvider, ProviderSettings, Secret
from agentflow.llm.providers.batches.endpoint import Batch, BatchAnswer, BatchEndpoint, BatchItem, BatchOrder
from agentflow.llm.providers.batches.lines import FormPart, multipart_form, multipart_related, readable
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.google import GoogleProvider
from agentflow.llm.providers.moonshot import MoonshotProvider
from agentflow.llm.providers.openai.provider import OpenAIProvider
from agentflow.llm.providers.scripted import ScriptedProvider

KEY = "sk-a-key-that-nobody-may-see"
HELLO = Request("model-1", (Message("user", "Hello"),), max_tokens=5)


class Wire:
    """A server that keeps what it hears, and says what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict[str, str], bytes]] = []
        self.says: Callable[[web.Request], web.StreamResponse] = lambda request: web.json_response({})
        self.address = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return self.says(request)

    def told(self, body: object, status: int = 200, kind: str = "application/json") -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.says = lambda request: web.Response(body=text, status=status, content_type=kind)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.address = f"http://{host}:{port}"
    yield made
    await runner.cleanup()


def settings(wire: Wire, kind: str, version: str = "v1", **options: Any) -> ProviderSettings:
    return ProviderSettings(kind, kind, base_url=f"{wire.address}/{version}", api_key=Secret(KEY), options=options)


def order(endpoint: BatchEndpoint, *requests: Request) -> BatchOrder:
    items = [(f"id-{number}", endpoint.write(request)) for number, request in enumerate(requests or (HELLO,))]
    return BatchOrder("af-1-1-abcdef01", "model-1", items)


# ---- OpenAI and Moonshot -------------------------------------------------------------------------------------


async def test_openai_gets_a_form_with_a_file_of_lines(wire: Wire) -> None:
    provider = OpenAIProvider(settings(wire, "openai"))
    endpoint = provider.batches()
    wire.told({"id": "file-1"})
    assert await endpoint.upload(order(endpoint)) == "file-1"
    await provider.aclose()

    [(way, path, headers, body)] = wire.heard
    assert (way, path, headers["Authorization"]) == ("POST", "/v1/files", f"Bearer {KEY}")
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in body
    assert b'filename="af-1-1-abcdef01.jsonl"' in body
    line = json.loads(body.partition(b"application/jsonl\r\n\r\n")[2].partition(b"\n")[0])
    assert (line["custom_id"], line["method"], line["url"]) == ("id-0", "POST", "/v1/chat/completions")
    assert line["body"]["messages"] == [{"role": "user", "content": "Hello"}]


async def test_responses_go_to_their_own_endpoint(wire: Wire) -> None:
    provider = OpenAIProvider(settings(wire, "openai", api="responses"))
    endpoint = provider.batches()
    wire.told({"id": "batch_1", "status": "validating", "created_at": 5})
    batch = await endpoint.create(order(endpoint), "file-1")
    await provider.aclose()

    assert (batch.id, batch.outcome, batch.created) == ("batch_1", None, 5.0)
    told = json.loads(wire.heard[0][3])
    assert told == {
        "input_file_id": "file-1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"agentflow_batch": "af-1-1-abcdef01"},
    }


async def test_the_words_of_openai_s_error_file(wire: Wire) -> None:
    provider = OpenAIProvider(settings(wire, "openai"))
    endpoint = provider.batches()
    lines = [
        {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "…"}},
        {"custom_id": "b", "response": None, "error": {"code": "batch_cancelled", "message": "…"}},
        {"custom_id": "c", "response": {"status_code": 429, "body": {"error": {"code": "rate_limit_exceeded"}}}},
        {"custom_id": "d", "response": {"status_code": 400, "body": {"error": {"code": "context_length_exceeded"}}}},
        {"custom_id": "e", "response": {"status_code": 503, "body": {"error": {"message": "busy"}}}},
    ]
    wire.told("\n".join(map(json.dumps, lines)).encode(), kind="application/octet-stream")
    answers = [answer async for answer in endpoint.answers(Batch("batch_1", "completed", results=("file-2",)))]
    await provider.aclose()

    assert wire.heard[0][1] == "/v1/files/file-2/content"
    assert [answer.outcome for answer in answers] == ["expired", "cancelled", "failed", "failed", "failed"]
    for answer, kind in zip(answers[2:], (RateLimitError, ContextLengthError, OverloadedError), strict=True):
        with pytest.raises(kind):
            endpoint.read(answer, HELLO)


async def test_moonshot_s_answers_go_on_with_the_words_they_were_given(wire: Wire) -> None:
    provider = MoonshotProvider(settings(wire, "moonshot"))
    endpoint = provider.batches()
    asked = Request("kimi-k2.6", (Message("user", "JSON?"), Message("assistant", "{")))
    assert json.loads(endpoint.write(asked).body)["messages"][-1]["partial"] is True
    whole = {"choices": [{"message": {"role": "assistant", "content": '"a": 1}'}, "finish_reason": "stop"}]}
    response = endpoint.read(BatchAnswer("a", "answered", json.dumps(whole).encode()), asked)
    await provider.aclose()
    assert response.text == '{"a": 1}'
    assert endpoint.limits.bytes == 100_000_000


# ---- Anthropic -----------------------------------------------------------------------------------------------


async def test_anthropic_gets_one_body_and_its_own_headers(wire: Wire) -> None:
    provider = AnthropicProvider(settings(wire, "anthropic", beta="output-300k"))
    endpoint = provider.batches()
    wire.told({"id": "msgbatch_1", "processing_status": "in_progress", "created_at": "2026-11-27T00:00:00Z"})
    batch = await endpoint.create(order(endpoint, HELLO, HELLO), None)
    await provider.aclose()

    [(way, path, headers, body)] = wire.heard
    assert (way, path, batch.created) == ("POST", "/v1/messages/batches", 1795737600.0)
    assert (headers["x-api-key"], headers["anthropic-beta"]) == (KEY, "output-300k")
    requests = json.loads(body)["requests"]
    assert [each["custom_id"] for each in requests] == ["id-0", "id-1"]
    assert requests[0]["params"] == {
        "model": "model-1",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hello"}],
    }


async def test_only_batches_of_that_size_and_time_may_be_ours_at_anthropic(wire: Wire) -> None:
    provider = AnthropicProvider(settings(wire, "anthropic"))
    endpoint = provider.batches()

    def listed(id: str, size: int, created: str, status: str = "in_progress") -> dict[str, Any]:
        counts = {"processing": size, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        return {"id": id, "processing_status": status, "created_at": created, "request_counts": counts}

    first = [listed("new", 2, "2026-11-27T02:00:00Z"), listed("large", 3, "2026-11-27T01:00:00Z")]
    second = [listed("ours", 2, "2026-11-27T00:30:00Z"), listed("old", 2, "2026-11-26T00:00:00Z")]
    pages = iter([{"data": page, "has_more": True, "last_id": page[-1]["id"]} for page in (first, second)])
    wire.says = lambda request: web.json_response(next(pages))
    found = await endpoint.find(order(endpoint, HELLO, HELLO), since=1795737600.0)
    await provider.aclose()
    assert [(batch.id, batch.certain) for batch in found] == [("ours", False), ("new", False)]
    assert wire.heard[1][1] == "/v1/messages/batches?limit=100&after_id=large"


async def test_what_anthropic_says_of_a_request_that_failed(wire: Wire) -> None:
    provider = AnthropicProvider(settings(wire, "anthropic"))
    endpoint = provider.batches()
    kinds = ("api_error", "overloaded_error", "invalid_request_error")
    lines = [
        {"custom_id": kind, "result": {"type": "errored", "error": {"type": "error", "error": {"type": kind}}}}
        for kind in kinds
    ]
    wire.told("\n".join(map(json.dumps, lines)).encode(), kind="application/x-jsonl")
    answers = [answer async for answer in endpoint.answers(Batch("msgbatch_1", "completed"))]
    await provider.aclose()
    for answer, kind in zip(answers, (ServerError, OverloadedError, BadRequestError), strict=True):
        with pytest.raises(kind) as failed:
            endpoint.read(answer, HELLO)
        assert failed.value.retryable is (kind is not BadRequestError)


# ---- Google --------------------------------------------------------------------------------------------------


async def test_google_s_files_go_to_an_address_of_their_own_under_our_name(wire: Wire) -> None:
    provider = GoogleProvider(settings(wire, "google", "v1beta", batch_inline=0))
    endpoint = provider.batches()
    asked = order(endpoint)
    wire.told({"file": {"name": "files/af-1-1-abcdef01"}})
    assert endpoint.takes_file(asked)
    assert await endpoint.upload(asked) == "files/af-1-1-abcdef01"
    wire.told({"name": "batches/1", "metadata": {"state": "BATCH_STATE_PENDING"}})
    await endpoint.create(asked, "files/af-1-1-abcdef01")
    await provider.aclose()

    (_, path, headers, body), (_, second, _, created) = wire.heard
    assert (path, headers["x-goog-api-key"]) == ("/upload/v1beta/files", KEY)
    assert headers["Content-Type"].startswith("multipart/related; boundary=")
    assert b'"name":"files/af-1-1-abcdef01"' in body
    assert b'{"key":"id-0","request":{"contents":' in body
    assert second == "/v1beta/models/model-1:batchGenerateContent"
    assert json.loads(created)["batch"]["inputConfig"] == {"fileName": "files/af-1-1-abcdef01"}


async def test_google_s_errors_are_told_by_the_numbers_of_its_rpc(wire: Wire) -> None:
    provider = GoogleProvider(settings(wire, "google", "v1beta"))
    endpoint = provider.batches()
    codes = {3: BadRequestError, 8: RateLimitError, 13: ServerError, 14: OverloadedError, 5: NotFoundError}
    responses = [{"metadata": {"key": str(code)}, "error": {"code": code, "message": "no"}} for code in codes]
    wire.told({"name": "batches/1", "done": True, "response": {"inlinedResponses": {"inlinedResponses": responses}}})
    batch = await endpoint.check("batches/1")
    answers = [answer async for answer in endpoint.answers(batch)]
    await provider.aclose()
    assert batch.outcome == "completed"
    for answer in answers:
        with pytest.raises(codes[int(answer.custom_id)]):
            endpoint.read(answer, HELLO)


def test_vertex_and_options_that_make_no_sense_are_refused() -> None:
    vertex = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google"
    with pytest.raises(UnsupportedError, match="buckets"):
        GoogleProvider(ProviderSettings("vertex", "google", base_url=vertex)).batches()
    with pytest.raises(ConfigurationError, match="batch_inline"):
        GoogleProvider(ProviderSettings("google", "google", options={"batch_inline": "much"})).batches()


# ---- all -----------------------------------------------------------------------------------------------------


def test_who_has_batches() -> None:
    for kind in (OpenAIProvider, AnthropicProvider, GoogleProvider, MoonshotProvider):
        assert isinstance(kind(ProviderSettings("x", "x", api_key=Secret(KEY))), BatchProvider)
    scripted: BatchProvider = ScriptedProvider(["Hi"])
    endpoint: BatchEndpoint = scripted.batches()
    assert endpoint.limits.requests > 0


async def test_answers_may_be_longer_than_any_single_answer(wire: Wire) -> None:
    """A file of answers is read like a stream: a whole body may have 64 MiB."""
    provider = AnthropicProvider(settings(wire, "anthropic"))
    line = json.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": {"content": "x" * 1024}}})
    wire.told((line + "\n").encode() * (66 * 1024), kind="application/x-jsonl")
    count = 0
    async for answer in provider.batches().answers(Batch("msgbatch_1", "completed")):
        count += answer.outcome == "answered"
    await provider.aclose()
    assert count == 66 * 1024


def test_no_error_of_a_batch_shows_the_key() -> None:
    endpoint = OpenAIProvider(ProviderSettings("openai", "openai", api_key=Secret(KEY))).batches()
    told = json.dumps({"message": f"the key {KEY} is wrong", "code": "server_error"}).encode()
    with pytest.raises(Exception, match="the key … is wrong"):
        endpoint.read(BatchAnswer("a", "failed", told, 500), HELLO)


# ---- lines and forms -----------------------------------------------------------------------------------------


class _Line(msgspec.Struct):
    a: str


LINE = msgspec.json.Decoder(_Line)


@given(st.lists(st.text(max_size=12), max_size=6), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_lines_hold_whatever_a_text_may(texts: list[str], end: str, mark: bool) -> None:
    """U+2028 and its like, which end no line of JSON, among them."""
    body = end.join(json.dumps({"a": text}, ensure_ascii=False) for text in [*texts, "\u2028\x85"])
    whole = (b"\xef\xbb\xbf" if mark else b"") + body.encode("utf-8", "surrogatepass")
    if "\ud800" <= max("".join(texts), default="") <= "\udfff":
        return
    assert [line.a for line in readable(LINE, whole, Source("x", "y"))] == [*texts, "\u2028\x85"]


def test_a_line_that_is_none_is_passed_over() -> None:
    body = b'{"a": "1"}\n{"a": \n[]\n{"a": "2"}'
    assert [line.a for line in readable(LINE, body, Source("x", "y"))] == ["1", "2"]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=3))
def test_no_content_can_end_its_own_part_of_a_form(contents: list[bytes]) -> None:
    kind, body = multipart_form([FormPart("f", content) for content in contents])
    boundary = kind.partition("boundary=")[2].encode()
    assert body.count(b"--" + boundary) == len(contents) + 1
    kind, body = multipart_related([("text/plain", boundary + content) for content in contents])
    assert kind.partition("boundary=")[2].encode() != boundary


def test_an_item_is_what_a_direct_call_would_send() -> None:
    endpoint = OpenAIProvider(ProviderSettings("openai", "openai")).batches()
    item = endpoint.write(HELLO)
    assert item == BatchItem(
        "/chat/completions",
        b'{"model":"model-1","messages":[{"role":"user","content":"Hello"}],"max_completion_tokens":5}',
    )
