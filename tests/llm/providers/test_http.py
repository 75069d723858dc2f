"""The transport against real sockets: what it sends, what every failure becomes, and that no connection is lost."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.robustness.deadline import Deadline
from agentflow.errors import ConfigurationError, ModelConnectionError, ModelTimeoutError, ProtocolError
from agentflow.llm.messages import Json
from agentflow.llm.providers.base import ProviderSettings, Secret, Timeouts
from agentflow.llm.providers.http import AiohttpTransport, ByteStream
from agentflow.llm.providers.http.unzip import Unzip

KEY = "sk-very-secret-key-1234567890"


def transport(
    url: str,
    *,
    timeouts: Timeouts | None = None,
    headers: dict[str, str] | None = None,
    allow_http: bool = False,
    query: dict[str, str] | None = None,
    max_body: int = 1024 * 1024,
    max_stream: int = 1024 * 1024,
    **options: Json,
) -> AiohttpTransport:
    settings = ProviderSettings(
        "lab",
        "openai",
        api_key=Secret(KEY),
        headers=headers or {},
        timeouts=timeouts or Timeouts(),
        allow_http=allow_http,
        query=query or {},
        options=options,
    )
    return AiohttpTransport(
        settings,
        base_url=url,
        headers={"authorization": f"Bearer {KEY}"},
        max_body=max_body,
        max_stream=max_stream,
        environ={},
    )


async def read_all(stream: ByteStream) -> bytes:
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    return b"".join(pieces)


async def forever() -> None:
    await asyncio.Event().wait()


async def hello(exchange: Any) -> None:
    await exchange.respond({"hello": 1}, x_request_id="r-1")


async def streamed(exchange: Any) -> None:
    await exchange.begin_stream()
    await exchange.piece(b"one ")
    await exchange.piece(b"two")
    await exchange.end_stream()


# ---- what is sent and what comes back ------------------------------------------------------------------------


async def test_a_post_sends_the_body_and_returns_the_whole_answer(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url)
    answer = await client.post("/chat", b'{"a":1}', model="m", total=5)
    assert (answer.status, answer.headers["x-request-id"], answer.body) == (200, "r-1", b'{"hello": 1}')
    assert (server.requests[0].path, server.requests[0].body) == ("/v1/chat", b'{"a":1}')
    await client.aclose()


async def test_headers_carry_the_key_and_those_of_the_settings_win(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url, headers={"X-Team": "search", "User-Agent": "mine"})
    await client.post("/chat", b"{}", model="m", total=5)
    sent = server.requests[0].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert (sent["x-team"], sent["user-agent"], sent["content-type"]) == ("search", "mine", "application/json")
    assert sent["accept-encoding"] == "identity", "a compressed stream would arrive late"
    assert "cookie" not in sent
    await client.aclose()


async def test_the_query_of_the_base_address_is_kept(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url + "/?api-version=7")
    await client.post("/chat", b"{}", model="m", total=5)
    assert server.requests[0].path == "/v1/chat?api-version=7"
    await client.aclose()


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/models/gemini:generateContent", "/v1/models/gemini:generateContent?api-version=7"),
        ("/models/x:stream?alt=sse", "/v1/models/x:stream?api-version=7&alt=sse"),
        ("/models/org%2Fmodel%20one", "/v1/models/org%2Fmodel%20one?api-version=7"),
        ("/files?api-version=8&a=1&a=2", "/v1/files?api-version=8&a=1&a=2"),
        ("/a b/ü/../#x", "/v1/a%20b/%C3%BC/../%23x?api-version=7"),
        ("/x\r\nhost: evil", "/v1/x%0D%0Ahost:%20evil?api-version=7"),
    ],
)
async def test_a_path_is_sent_as_it_is_with_its_query_before_that_of_the_settings(
    serve: Any, path: str, sent: str
) -> None:
    server = await serve(hello)
    client = transport(server.url, query={"api-version": "7"})
    await client.post(path, b"{}", model="m", total=5)
    assert server.requests[0].path == sent
    await client.aclose()


async def test_the_query_of_the_settings_is_encoded_and_wins_over_that_of_the_base_address(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url + "?api-version=6&tenant=t", query={"api-version": "a&b c"})
    for _ in range(2):
        await client.post("/chat", b"{}", model="m", total=5)
        assert server.requests[-1].path == "/v1/chat?tenant=t&api-version=a%26b%20c"
    await client.aclose()


async def test_a_get_has_no_body(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url)
    answer = await client.get("/models", model="m", total=5, headers={"x-page": "2"})
    assert (answer.status, answer.body) == (200, b'{"hello": 1}')
    (request,) = server.requests
    assert (request.path, request.body, request.headers["x-page"]) == ("/v1/models", b"", "2")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    await client.aclose()


async def test_the_headers_of_a_call_win_over_all_others_and_are_for_that_call_alone(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url, headers={"x-team": "search"})
    own = {"X-Team": "billing", "Authorization": "Bearer fresh", "Content-Type": "application/octet-stream"}
    await client.post("/chat", b"{}", model="m", total=5, headers=own)
    stream = await client.stream("/chat", b"{}", model="m", total=5, headers={"anthropic-beta": "files"})
    stream.close()
    first, second = (request.headers for request in server.requests)
    assert (first["x-team"], first["authorization"], first["content-type"]) == tuple(own.values())
    assert (second["x-team"], second["authorization"]) == ("search", f"Bearer {KEY}")
    assert (second["anthropic-beta"], "anthropic-beta" in first) == ("files", False)
    await client.aclose()


@pytest.mark.parametrize("name", ["x-key", "x key", "x-key:", "x-key\n", "x-schlüssel", ""])
async def test_a_header_of_a_call_is_checked_and_its_value_never_shown(name: str) -> None:
    client = transport("https://host/v1")
    value = "hidden\n" if name == "x-key" else "hidden"
    with pytest.raises(ConfigurationError, match="holds a character that HTTP cannot carry") as caught:
        await client.post("/chat", b"{}", model="m", total=5, headers={name: value})
    assert "hidden" not in str(caught.value)


async def test_a_name_beyond_ascii_is_looked_up_in_its_encoded_form() -> None:
    assert transport("https://münchen.invalid/v1")._target("/chat").url.raw_host == "xn--mnchen-3ya.invalid"


async def test_addresses_that_never_come_again_are_forgotten() -> None:
    client = transport("https://host/v1")
    for number in range(1000):
        client._target(f"/files/{number}")
    assert len(client._targets) <= 256


async def test_a_stream_gives_bytes_as_they_come(serve: Any) -> None:
    go_on = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"one")
        await go_on.wait()
        await exchange.piece(b"two")
        await exchange.end_stream()

    server = await serve(handler)
    client = transport(server.url)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    assert await stream.read() == b"one"
    go_on.set()
    assert await read_all(stream) == b"two"
    stream.close()
    await client.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(serve: Any, status: int) -> None:
    """Elsewhere the key would go with it."""
    elsewhere = await serve(hello)

    async def handler(exchange: Any) -> None:
        await exchange.respond({}, status=status, location=elsewhere.url)

    server = await serve(handler)
    client = transport(server.url)
    assert (await client.post("/chat", b"{}", model="m", total=5)).status == status
    assert (await client.get("/chat", model="m", total=5)).status == status
    assert (len(server.requests), len(elsewhere.requests)) == (2, 0)
    await client.aclose()


async def test_a_body_over_the_limit_is_refused(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.piece(b"x" * 1000)

    server = await serve(handler)
    client = transport(server.url, max_body=10_000)
    with pytest.raises(ProtocolError, match=r"more than 10,000 bytes"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()


async def test_a_stream_over_its_limit_is_refused(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.piece(b": still there\n\n" * 50)

    server = await serve(handler)
    client = transport(server.url, max_stream=10_000)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    with pytest.raises(ProtocolError, match=r"more than 10,000 bytes"):
        await read_all(stream)
    stream.close()
    await client.aclose()


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "text/event-stream"), (200, "text/html"), (200, "application/json")]
)
async def test_what_is_no_stream_may_only_be_as_long_as_a_body(serve: Any, status: int, kind: str) -> None:
    """Whoever asked for a stream and gets a document reads it whole, into memory."""

    async def handler(exchange: Any) -> None:
        await exchange.respond(b"x" * 20_000, status=status, content_type=kind)

    server = await serve(handler)
    client = transport(server.url, max_body=10_000)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    with pytest.raises(ProtocolError, match=r"more than 10,000 bytes"):
        await read_all(stream)
    stream.close()
    await client.aclose()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 " + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2_000,
    ],
    ids=["status line", "value", "name", "many"],
)
@pytest.mark.parametrize("ends", [True, False])
async def test_headers_without_measure_are_refused(serve: Any, head: bytes, ends: bool) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(head + (b"\r\n\r\n" if ends else b""))
        await forever()

    server = await serve(handler)
    client = transport(server.url)
    with pytest.raises(ProtocolError, match=r"more than 16,384 bytes|does not speak HTTP"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()


async def test_a_header_of_16_000_bytes_is_read(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.respond({}, x_policy="p" * 16_000)

    server = await serve(handler)
    client = transport(server.url)
    assert (await client.post("/chat", b"{}", model="m", total=5)).headers["x-policy"] == "p" * 16_000
    await client.aclose()


# ---- compressed answers, which we do not ask for -------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:99]) + gzip.compress(body[99:])),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
async def test_gzip_and_deflate_are_undone_all_the_same(serve: Any, encoding: str, packed: Any) -> None:
    body = bytes(range(256)) * 1000

    async def handler(exchange: Any) -> None:
        await exchange.respond(packed(body), content_encoding=encoding)

    server = await serve(handler)
    client = transport(server.url)
    assert (await client.post("/chat", b"{}", model="m", total=5)).body == body
    assert (await client.get("/chat", model="m", total=5)).body == body
    assert server.connections == 1
    await client.aclose()


async def test_a_compressed_stream_gives_bytes_as_they_come(serve: Any) -> None:
    go_on = asyncio.Event()

    async def handler(exchange: Any) -> None:
        packer = zlib.compressobj(wbits=31)
        await exchange.begin_stream(content_encoding="gzip")
        await exchange.piece(packer.compress(b"one") + packer.flush(zlib.Z_SYNC_FLUSH))
        await go_on.wait()
        await exchange.piece(packer.compress(b"two") + packer.flush())
        await exchange.end_stream()

    server = await serve(handler)
    client = transport(server.url)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    assert await stream.read() == b"one"
    go_on.set()
    assert await read_all(stream) == b"two"
    stream.close()
    await client.aclose()


@pytest.mark.parametrize("way", ["post", "stream"])
async def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(serve: Any, way: str) -> None:
    bomb = gzip.compress(b"\0" * 200 * 1024 * 1024, compresslevel=1)  # 200 MiB in less than 1

    async def handler(exchange: Any) -> None:
        await exchange.respond(bomb, content_encoding="gzip", content_type="text/event-stream")

    server = await serve(handler)
    client = transport(server.url)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="more than 1,048,576 bytes"):
        if way == "post":
            await client.post("/chat", b"{}", model="m", total=5)
        else:
            stream = await client.stream("/chat", b"{}", model="m", total=5)
            try:
                while piece := await stream.read():
                    assert len(piece) <= 64 * 1024
            finally:
                stream.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
    await client.aclose()


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("br", b"anything", "only gzip and deflate are understood"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), "only gzip and deflate"),
        ("gzip", b"not compressed", "incorrect header check"),
        ("gzip", gzip.compress(b"{}")[:-5], "it ends too early"),
        ("gzip", gzip.compress(b"{}") + b"garbage", "incorrect header check"),
    ],
    # Named, for gzip writes down the time: workers of one run would collect tests of different names.
    ids=["a coding nobody asked for", "two codings", "not packed", "cut short", "garbage behind it"],
)
async def test_what_cannot_be_undone_is_a_protocol_error(serve: Any, encoding: str, body: bytes, reason: str) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.respond(body, content_encoding=encoding)

    server = await serve(handler)
    client = transport(server.url)
    with pytest.raises(ProtocolError, match=f"answers compressed, which was not asked for.*{reason}"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()


@given(st.binary(max_size=300), st.integers(1, 1000), st.integers(1, 40), st.sampled_from([15, 31]))
def test_decompressing_gives_what_was_compressed_wherever_it_is_cut(
    seed: bytes, times: int, cut: int, wbits: int
) -> None:
    packer = zlib.compressobj(wbits=wbits)
    packed = packer.compress(seed * times) + packer.flush()
    unzip, pieces = Unzip("gzip"), []
    for start in range(0, len(packed), cut):
        unzip.feed(packed[start : start + cut])
        while unzip.has_more:
            pieces.append(unzip.next())
    unzip.end()
    assert b"".join(pieces) == seed * times
    assert max(map(len, pieces)) <= 64 * 1024


# ---- failures ------------------------------------------------------------------------------------------------


def closed_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection_names_the_address_and_a_remedy() -> None:
    port = closed_port()
    client = transport(f"http://127.0.0.1:{port}/v1?key=hidden")
    with pytest.raises(ModelConnectionError) as caught:
        await client.post("/chat", b"{}", model="m", total=5)
    error = caught.value
    assert f"http://127.0.0.1:{port}/v1/chat: the server refuses it; is it running" in str(error)
    assert str(error).startswith("lab/m: ")
    assert "hidden" not in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert error.retryable
    await client.aclose()


async def test_a_host_without_an_address_is_a_connection_error() -> None:
    client = transport("https://no-such-host.invalid/v1")
    with pytest.raises(ModelConnectionError, match=r"its host has no address; check base_url"):
        await client.post("/chat", b"{}", model="m", total=10)
    await client.aclose()


async def test_tls_to_a_server_without_it_is_a_connection_error() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    client = transport(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    with pytest.raises(ModelConnectionError, match="TLS failed"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()
    server.close()


async def test_a_server_that_does_not_speak_http_is_a_protocol_error(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    server = await serve(handler)
    client = transport(server.url)
    with pytest.raises(ProtocolError, match="does not speak HTTP"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()


async def test_a_server_that_closes_before_it_answers(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        exchange.writer.close()

    server = await serve(handler)
    client = transport(server.url)
    with pytest.raises(ModelConnectionError, match="closed the connection before it answered"):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_a_server_that_closes_in_the_middle(serve: Any, framing: str) -> None:
    async def handler(exchange: Any) -> None:
        if framing == "content-length":
            await exchange.head(content_length="100")
            await exchange.send(b"only this")
        else:
            await exchange.begin_stream()
            await exchange.piece(b"only this")
        exchange.writer.close()

    server = await serve(handler)
    client = transport(server.url)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    with pytest.raises(ModelConnectionError, match="broke before the answer was whole"):
        await read_all(stream)
    stream.close()
    await client.aclose()


async def test_broken_framing_in_the_middle_ends_by_the_idle_limit(serve: Any) -> None:
    """aiohttp tells a waiting reader nothing then, so the time limit has to."""
    go_on = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"one")
        await go_on.wait()
        await exchange.send(b"zz\r\nnot a chunk\r\n")
        await forever()

    server = await serve(handler)
    client = transport(server.url, timeouts=Timeouts(idle=0.1))
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    assert await stream.read() == b"one"
    go_on.set()
    with pytest.raises(ModelTimeoutError, match="idle"):
        await read_all(stream)
    stream.close()
    await client.aclose()


async def test_no_error_holds_the_key_in_any_form(serve: Any) -> None:
    """aiohttp's own exceptions show request headers in their repr, so they must not hang on ours."""

    async def handler(exchange: Any) -> None:
        await exchange.send(b"nonsense\r\n\r\n")

    server = await serve(handler)
    client = transport(server.url)
    with pytest.raises(ProtocolError) as caught:
        await client.post("/chat", b"{}", model="m", total=5)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error) + str(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    assert KEY not in repr(client)
    await client.aclose()


async def test_no_log_line_holds_the_key(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(exchange: Any) -> None:
        if len(server.requests) > 1:
            exchange.writer.close()
        else:
            await hello(exchange)

    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    server = await serve(handler)
    client = transport(server.url)
    await client.post("/chat", b"{}", model="m", total=5)
    with pytest.raises(ModelConnectionError):
        await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()
    assert KEY not in caplog.text


# ---- time limits ---------------------------------------------------------------------------------------------


async def test_waiting_for_a_place_is_no_connecting(serve: Any) -> None:
    """Models may take longer than a connection may: who waits for them to be done is bounded by the total alone."""
    begun = asyncio.Event()

    async def handler(exchange: Any) -> None:
        if not begun.is_set():
            begun.set()
            await exchange.begin_stream()
            await forever()
        await exchange.respond({"hello": 1})

    client = transport((await serve(handler)).url, timeouts=Timeouts(connect=0.05), max_connections=1)
    first = await client.stream("/chat", b"{}", model="m", total=None)
    asyncio.get_running_loop().call_later(0.2, first.close)
    assert (await client.post("/chat", b"{}", model="m", total=5)).status == 200
    await client.aclose()


async def test_total_limits_the_wait_for_a_place(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await forever()

    server = await serve(handler)
    client = transport(server.url, max_connections=1)
    first = await client.stream("/chat", b"{}", model="m", total=None)
    with pytest.raises(ModelTimeoutError) as caught:
        await client.post("/chat", b"{}", model="m", total=0.05)
    assert caught.value.operation == "total"
    first.close()
    await client.aclose()


def deadlines() -> list[Deadline]:
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is Deadline]  # isinstance would ask the objects


@pytest.mark.parametrize("headers", [{}, {"authorization": "a\nb"}])
async def test_a_call_that_is_never_sent_leaves_no_timer(serve: Any, headers: dict[str, str]) -> None:
    """It was cancelled while it waited for a place, or has a header that cannot be sent."""

    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await forever()

    before = deadlines()  # of other tests
    client = transport((await serve(handler)).url, max_connections=1)
    first = await client.stream("/chat", b"{}", model="m", total=None)
    waiting = [
        asyncio.ensure_future(client.post("/chat", b"{}", model="m", total=600, headers=headers)) for _ in range(20)
    ]
    await asyncio.sleep(0)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    first.close()
    await client.aclose()
    del waiting, call, first
    assert not [each for each in deadlines() if not any(each is other for other in before)]


async def test_first_byte_limits_the_wait_for_headers(serve: Any) -> None:
    server = await serve(lambda exchange: forever())
    client = transport(server.url, timeouts=Timeouts(first_byte=0.05))
    with pytest.raises(ModelTimeoutError) as caught:
        await client.post("/chat", b"{}", model="m", total=5)
    assert (caught.value.operation, caught.value.seconds) == ("first byte", 0.05)
    await client.aclose()


async def test_first_byte_limits_the_wait_for_a_body_behind_its_headers(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await forever()

    server = await serve(handler)
    client = transport(server.url, timeouts=Timeouts(first_byte=0.05))
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    with pytest.raises(ModelTimeoutError) as caught:
        await stream.read()
    assert caught.value.operation == "first byte"
    stream.close()
    await client.aclose()


async def test_idle_limits_silence_between_pieces_and_not_the_thinking_before(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await asyncio.sleep(0.15)
        await exchange.piece(b"one")
        await forever()

    server = await serve(handler)
    client = transport(server.url, timeouts=Timeouts(idle=0.05))
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    assert await stream.read() == b"one"
    with pytest.raises(ModelTimeoutError) as caught:
        await stream.read()
    assert (caught.value.operation, caught.value.seconds) == ("idle", 0.05)
    stream.close()
    await client.aclose()


async def test_a_slow_reader_is_not_an_idle_server(serve: Any) -> None:
    server = await serve(streamed)
    client = transport(server.url, timeouts=Timeouts(idle=0.05))
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    first = await stream.read()
    await asyncio.sleep(0.15)
    assert first + await read_all(stream) == b"one two"
    stream.close()
    await client.aclose()


@pytest.mark.parametrize("body_begun", [False, True])
async def test_total_limits_the_whole_call(serve: Any, body_begun: bool) -> None:
    async def handler(exchange: Any) -> None:
        if body_begun:
            await exchange.begin_stream()
            while True:
                await exchange.piece(b"x")
                await asyncio.sleep(0.01)
        await forever()

    server = await serve(handler)
    client = transport(server.url, timeouts=Timeouts(first_byte=3, idle=3))
    with pytest.raises(ModelTimeoutError) as caught:
        await client.post("/chat", b"{}", model="m", total=0.1)
    assert (caught.value.operation, caught.value.seconds, caught.value.provider) == ("total", 0.1, "lab")
    await client.aclose()


async def test_the_callers_own_cancellation_is_no_time_out(serve: Any) -> None:
    server = await serve(lambda exchange: forever())
    client = transport(server.url)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await client.post("/chat", b"{}", model="m", total=5)
    assert not isinstance(caught.value, ModelTimeoutError)
    await client.aclose()


# ---- connections ---------------------------------------------------------------------------------------------


async def test_calls_and_streams_that_ended_share_one_connection(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await (streamed if exchange.path.endswith("stream") else hello)(exchange)

    server = await serve(handler)
    client = transport(server.url)
    for _ in range(3):
        await client.post("/chat", b"{}", model="m", total=5)
        stream = await client.stream("/stream", b"{}", model="m", total=5)
        await read_all(stream)
        stream.close()
    assert (len(server.requests), server.connections) == (6, 1)
    await client.aclose()


async def test_a_connection_that_went_stale_is_replaced_without_an_error(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await hello(exchange)
        exchange.writer.close()  # without having said so

    server = await serve(handler)
    client = transport(server.url)
    for count in range(1, 4):
        assert (await client.post("/chat", b"{}", model="m", total=5)).status == 200
        await server.lost.wait()
        server.lost.clear()
        assert server.connections == count
    await client.aclose()


async def test_a_connection_that_goes_stale_as_it_is_used_is_an_error_that_may_be_tried_again(serve: Any) -> None:
    """Nobody can tell whether the server has begun to work on it, so the transport does not repeat a post by itself."""

    async def handler(exchange: Any) -> None:
        if len(server.requests) == 2:
            exchange.writer.close()
        else:
            await hello(exchange)

    server = await serve(handler)
    client = transport(server.url)
    await client.post("/chat", b"{}", model="m", total=5)
    with pytest.raises(ModelConnectionError, match="closed the connection before it answered") as caught:
        await client.post("/chat", b"{}", model="m", total=5)
    assert caught.value.retryable
    assert (await client.post("/chat", b"{}", model="m", total=5)).status == 200
    assert len(server.requests) == 3
    await client.aclose()


async def test_finish_reads_the_terminator_so_that_the_connection_serves_again(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"data: [DONE]\n\n")
        await asyncio.sleep(0.02)
        await exchange.end_stream()

    server = await serve(handler)
    client = transport(server.url)
    for _ in range(2):
        stream = await client.stream("/chat", b"{}", model="m", total=5)
        await stream.read()
        await stream.finish()
        stream.close()
    assert server.connections == 1
    await client.aclose()


async def test_finish_does_not_wait_for_a_server_that_never_ends(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"data: [DONE]\n\n")
        await forever()

    monkeypatch.setattr("agentflow.llm.providers.http.body._GRACE", 0.02)
    server = await serve(handler)
    client = transport(server.url)
    stream = await client.stream("/chat", b"{}", model="m", total=5)
    await stream.read()
    await stream.finish()
    stream.close()
    await server.lost.wait()
    assert server.open == 0
    await client.aclose()


async def test_an_early_close_drops_the_connection_and_frees_its_place(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"x")
        await forever()

    server = await serve(handler)
    client = transport(server.url, max_connections=1)
    for _ in range(3):
        stream = await client.stream("/chat", b"{}", model="m", total=5)
        assert await stream.read() == b"x"
        stream.close()
        stream.close()
    assert server.connections == 3
    await client.aclose()


async def test_a_forgotten_stream_frees_its_place(serve: Any) -> None:
    server = await serve(streamed)
    client = transport(server.url, timeouts=Timeouts(connect=2), max_connections=1)
    for _ in range(3):
        stream = await client.stream("/chat", b"{}", model="m", total=5)
        await stream.read()
        del stream
        gc.collect()
    assert (await client.post("/chat", b"{}", model="m", total=5)).body == b"one two"
    await client.aclose()


async def test_cancelling_a_call_at_any_turn_frees_its_place(serve: Any) -> None:
    """With one connection allowed, a single leak would block every later call."""
    server = await serve(hello)
    client = transport(server.url, timeouts=Timeouts(connect=2), max_connections=1)
    for turns in range(25):
        task = asyncio.create_task(client.post("/chat", b"{}", model="m", total=5))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await client.post("/chat", b"{}", model="m", total=5)).status == 200
    await client.aclose()


async def test_after_aclose_nothing_is_open_and_a_later_call_opens_anew(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url)
    await client.post("/chat", b"{}", model="m", total=5)
    await client.aclose()
    await client.aclose()
    await server.lost.wait()
    assert server.open == 0
    assert (await client.post("/chat", b"{}", model="m", total=5)).status == 200
    await client.aclose()


async def test_forgetting_the_transport_closes_its_connections(serve: Any) -> None:
    server = await serve(hello)
    client = transport(server.url)
    await client.post("/chat", b"{}", model="m", total=5)
    del client
    gc.collect()
    await server.lost.wait()
    assert server.open == 0


class ThreadedServer:
    """A keep-alive server in a thread, for tests that bring their own event loops."""

    def __init__(self) -> None:
        import socket

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: Any) -> None:
        with connection:
            while data := connection.recv(65536):
                if data.endswith(b"{}"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    def close(self) -> None:
        import socket

        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture
def threaded_server() -> Any:
    server = ThreadedServer()
    yield server
    server.close()


def test_one_transport_serves_one_event_loop_after_another(threaded_server: ThreadedServer) -> None:
    """Each `asyncio.run` gets a session of its own, closed when it ends: an unclosed one would warn, and so fail."""
    client = transport(threaded_server.url)
    for _ in range(3):
        answer = asyncio.run(client.post("/chat", b"{}", model="m", total=5))
        assert answer.body == b"{}"
    assert len(client._sessions) == 1, "sessions of ended loops are forgotten"
    gc.collect()


def test_one_transport_serves_several_event_loops_at_once(threaded_server: ThreadedServer) -> None:
    client = transport(threaded_server.url)
    together, bodies = threading.Barrier(3), []

    async def call() -> None:
        for _ in range(5):
            answer = await client.post("/chat", b"{}", model="m", total=5)
            bodies.append(answer.body)
        together.wait()  # all loops are alive here

    threads = [threading.Thread(target=lambda: asyncio.run(call())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"{}"] * 15


def test_a_loop_that_is_closed_without_ceremony_leaves_no_session(threaded_server: ThreadedServer) -> None:
    """Nothing tells the session that such a loop ends, so the next use, or forgetting the transport, tidies up."""
    client = transport(threaded_server.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.post("/chat", b"{}", model="m", total=5))
    (left,) = client._sessions.values()
    # Its socket is the loop's; whoever closes a loop like this has to close that first.
    loop.run_until_complete(left.client.connector.close())
    loop.close()
    assert asyncio.run(client.post("/chat", b"{}", model="m", total=5)).body == b"{}"
    assert left.client.closed


async def test_aclose_reaches_the_session_of_another_running_loop(serve: Any, threaded_server: ThreadedServer) -> None:
    client = transport(threaded_server.url)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    call = asyncio.run_coroutine_threadsafe(client.post("/chat", b"{}", model="m", total=5), other)
    assert (await asyncio.wrap_future(call)).status == 200
    (session,) = client._sessions.values()
    await client.aclose()
    deadline = time.monotonic() + 5
    while not session.client.closed and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    assert session.client.closed
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()


# ---- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://localhost:1/v1", "http://127.9.9.9/v1", "http://[::1]:8000/v1"]
)
def test_https_and_loopback_addresses_are_accepted(url: str) -> None:
    transport(url)


def test_plain_http_to_another_machine_is_refused_unless_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"unencrypted.*allow_http"):
        transport("http://10.0.0.7:8000/v1")
    with pytest.raises(ConfigurationError, match="unencrypted"):
        transport("http://localhost.evil.example/v1")
    transport("http://10.0.0.7:8000/v1", allow_http=True)


@pytest.mark.parametrize("url", ["", "api.openai.com/v1", "ftp://host/v1", "https:///v1", "https://host:x/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        transport(url)


@pytest.mark.parametrize("url", ["https://me:hunter2@host/v1", "https://me:hunter2/v1", "https://me:hunter2[host/v1"])
def test_a_password_in_the_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        transport(url)
    assert "hunter2" not in str(caught.value)


def test_the_key_is_refused_in_an_address() -> None:
    for url, query in [(f"https://host/v1?key={KEY}", {}), (f"https://host/{KEY}", {}), ("https://host", {"key": KEY})]:
        with pytest.raises(ConfigurationError, match="addresses end up in logs: send it in a header") as caught:
            transport(url, query=query)
        assert KEY not in str(caught.value)


def test_a_word_in_place_of_a_key_may_stand_in_an_address() -> None:
    """A server that wants no key is often given its own name."""
    settings = ProviderSettings("lab", "openai", api_key=Secret("ollama"))
    AiohttpTransport(settings, base_url="https://ollama.example/v1", headers={}, environ={})


@pytest.mark.parametrize("value", ["abc\n", "abc\r\nx: y", "schlüssel", "a\0b"])
def test_a_header_that_http_cannot_carry_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match="'x-key' holds a character") as caught:
        transport("https://host/v1", headers={"x-key": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, "many", True])
def test_max_connections_is_checked(value: Json) -> None:
    with pytest.raises(ConfigurationError, match="max_connections"):
        transport("https://host/v1", max_connections=value)


def test_importing_the_transport_does_not_load_aiohttp() -> None:
    code = (
        "import sys, agentflow.llm.providers.http, agentflow.llm.providers.openai.provider as o\n"
        "from agentflow.llm.providers.base import ProviderSettings\n"
        "o.OpenAIProvider(ProviderSettings('openai', 'openai'))\n"
        "sys.exit('aiohttp' in sys.modules or 'yarl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
