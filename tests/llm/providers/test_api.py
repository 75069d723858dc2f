"""What all adapters have in common, tried with the smallest API: when an answer has begun, and when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.recordings import Recording, Replay

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelConnectionError,
    OverloadedError,
    ProtocolError,
    StreamInterruptedError,
)
from agentflow.llm.messages import Message, Request, Response, StreamChunk
from agentflow.llm.providers.api import HTTPProvider, Wire, decoded, merged
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.failures import Source
from agentflow.llm.streaming.sse import ServerSentEvent
from agentflow.llm.streaming.stream import StreamingResponse

ANY = msgspec.json.Decoder(dict[str, Any])
REQUEST = Request("m", (Message("user", "Hi"),))


class PlainReading:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.finished = self.done = False

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        fields = decoded(ANY, event.data, self.source)
        if "fail" in fields:
            raise OverloadedError("busy", provider="lab")
        self.finished = self.finished or "end" in fields
        yield StreamChunk(
            fields.get("say", ""), model=fields.get("model"), finish_reason="stop" if "end" in fields else None
        )

    def end(self) -> Iterable[StreamChunk]:
        return ()


class PlainApi:
    name = "plain"

    def write(self, request: Request, *, stream: bool) -> Wire:
        return Wire("/say", merged({"say": request.prompt}, request.params))

    def read(self, body: bytes, source: Source) -> Response:
        return Response(decoded(ANY, body, source)["say"], source.model, source.provider, finish_reason="stop")

    def reading(self, source: Source) -> PlainReading:
        return PlainReading(source)


def provider(body: str, kind: str = "text/event-stream", **settings: Any) -> HTTPProvider:
    recording = Recording("-", "http://x/say", {}, 200, {"content-type": kind}, body.encode())
    return HTTPProvider(
        ProviderSettings("lab", "plain", **settings), PlainApi(), base_url="http://x", transport=Replay(recording)
    )


def events(*fields: Any) -> str:
    return "".join(f"data: {json.dumps(field)}\n\n" for field in fields)


async def read(body: str, kind: str = "text/event-stream") -> list[StreamChunk]:
    return [chunk async for chunk in provider(body, kind).execute_streaming(REQUEST)]


# ---- when an answer has begun --------------------------------------------------------------------------------


async def test_what_only_opens_an_answer_comes_with_its_first_word() -> None:
    """Nothing is delivered before it, so a failure there may be tried again."""
    chunks = await read(events({"model": "m-1"}, {"say": "Hi"}, {"end": 1}))
    assert [chunk.content for chunk in chunks] == ["", "Hi", ""]
    stream = provider(events({"model": "m-1"}, {"fail": 1})).execute_streaming(REQUEST)
    with pytest.raises(OverloadedError):
        await anext(stream)


async def test_a_stream_that_ends_before_its_first_word_may_be_tried_again() -> None:
    with pytest.raises(ModelConnectionError, match="before the answer began") as caught:
        await read(events({"model": "m-1"}))
    assert caught.value.retryable


async def test_a_stream_that_ends_after_its_first_word_keeps_what_came() -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        await read(events({"say": "Hel"}, {"say": "lo"}))
    assert caught.value.partial == "Hello"


async def test_an_error_in_a_stream_says_what_had_come() -> None:
    with pytest.raises(OverloadedError) as caught:
        await read(events({"say": "Hel"}, {"fail": 1}))
    assert caught.value.partial == "Hel"


async def test_an_answer_without_a_word_is_whole_when_it_ends() -> None:
    reply = await StreamingResponse(provider(events({"model": "m-1"}, {"end": 1})).execute_streaming(REQUEST)).collect()
    assert (reply.text, reply.model, reply.finish_reason) == ("", "m-1", "stop")


async def test_what_is_no_stream_at_all_is_said_to_be_none() -> None:
    with pytest.raises(ProtocolError, match="no event stream"):
        await read("<html></html>")


# ---- oddities of servers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["data:\n\n", "data: \n\n", ": alive\n\n", "event: ping\ndata:\n\n"])
async def test_signs_of_life_are_no_events(blank: str) -> None:
    chunks = await read(blank + events({"say": "Hi"}) + blank + events({"end": 1}) + blank)
    assert "".join(chunk.content for chunk in chunks) == "Hi"


async def test_a_stream_under_the_name_of_json_is_a_stream() -> None:
    chunks = await read(events({"say": "Hi"}, {"end": 1}), "application/json")
    assert "".join(chunk.content for chunk in chunks) == "Hi"


async def test_a_whole_answer_to_the_wish_for_a_stream_is_taken() -> None:
    chunks = await read('{"say": "Hi"}', "application/json")
    assert "".join(chunk.content for chunk in chunks) == "Hi"


async def test_an_event_may_be_as_large_as_a_picture() -> None:
    large = "x" * (20 * 1024 * 1024)
    chunks = await read(events({"say": large}, {"end": 1}))
    assert len(chunks[0].content) == len(large)


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (r'{"say": "\ud83d"}', "�"),
        (r'{"say": "a\ude00b"}', "a�b"),
        (r'{"say": "\ud83d\ude00"}', "😀"),
        (r'{"say": "\ud83d\ud83d\ude00"}', "�😀"),
        (r'{"say": "\\ud83d"}', r"\ud83d"),
    ],
)
def test_half_a_surrogate_pair_costs_one_letter_and_not_the_answer(text: str, read_as: str) -> None:
    """Gateways cut texts by UTF-16; Python's own JSON takes the halves as well."""
    assert decoded(ANY, text, Source("lab", "m"))["say"] == read_as
    assert decoded(ANY, text.encode(), Source("lab", "m"))["say"] == read_as


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        decoded(ANY, body, Source("lab", "m"))


# ---- requests and credentials --------------------------------------------------------------------------------


def test_params_are_laid_over_the_body_mapping_by_mapping() -> None:
    body = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(body, {"a": {"c": 3}, "d": [2], "e": None}) == {"a": {"b": 1, "c": 3}, "d": [2], "e": None}


@pytest.mark.parametrize("value", [object(), float("nan"), 2**70 and {1: object()}])
async def test_what_json_cannot_say_is_a_bad_request(value: Any) -> None:
    asked = Request("m", (Message("user", "Hi"),), params={"x": value})
    if value != value:
        assert (await provider('{"say": "x"}').execute(asked)).text == "x"  # written as null, as msgspec does
        return
    with pytest.raises(BadRequestError, match="cannot be written as JSON"):
        await provider('{"say": "x"}').execute(asked)


async def test_params_that_never_end_are_a_bad_request() -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    with pytest.raises(BadRequestError):
        await provider('{"say": "x"}').execute(Request("m", (Message("user", "Hi"),), params=endless))


@pytest.mark.parametrize("token", [None, "", 3])
async def test_a_token_callable_that_gives_none_is_an_authentication_error(token: Any) -> None:
    with pytest.raises(AuthenticationError, match="token callable failed"):
        await provider('{"say": "x"}', token=lambda: token).execute(REQUEST)


async def test_what_a_token_callable_raises_is_named_without_its_text() -> None:
    def fail() -> str:
        raise OSError("secret-refresh-token")

    with pytest.raises(AuthenticationError, match="OSError") as caught:
        await provider('{"say": "x"}', token=fail).execute(REQUEST)
    assert "secret-refresh-token" not in str(caught.value)


async def test_a_token_callable_may_be_awaited() -> None:
    async def fresh() -> str:
        return "t"

    assert (await provider('{"say": "x"}', token=fresh).execute(REQUEST)).text == "x"
