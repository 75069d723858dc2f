"""Parts and messages as values: what they say of themselves, and the trip to JSON and back."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError, SerializationError
from agentflow.llm.content import (
    Audio,
    Document,
    Image,
    Part,
    Raw,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    content_of,
    parts_of,
)
from agentflow.llm.messages import Alternative, Message, Request, Response, StreamChunk, TokenLogprob, Usage

words = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
opaque = st.dictionaries(st.sampled_from(["openai", "google"]), st.dictionaries(words, json_values, max_size=2))
cache = st.sampled_from([None, "5m", "1h"])
media = st.one_of(
    st.builds(Image, st.sampled_from(["https://example.org/a.png", "a.png", "file-id:f1"]), opaque=opaque, cache=cache),
    st.builds(Document, st.binary(min_size=1, max_size=9), st.just("application/pdf"), name=st.just("a.pdf")),
    st.builds(Audio, st.binary(min_size=1, max_size=9)),
)
parts = st.one_of(
    st.builds(Text, words, cache=cache, opaque=opaque),
    st.builds(Reasoning, words, opaque=opaque),
    st.builds(ToolCall, words, words, st.dictionaries(words, json_values, max_size=2), opaque=opaque),
    st.builds(ToolResult, words, st.one_of(words, st.lists(media, max_size=2).map(tuple)), name=words, cache=cache),
    st.builds(Raw, words, st.dictionaries(words, json_values, max_size=2)),
    media,
)
contents = st.one_of(words, st.lists(parts, max_size=4).map(tuple))


@given(st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), contents, opaque=opaque))
def test_a_message_survives_the_trip_to_json(message: Message) -> None:
    """Opaque provider data included, through the text of real JSON."""
    assert Message.from_json(json.loads(json.dumps(message.to_json())), allow_paths=True) == message


@given(contents)
def test_a_response_survives_the_trip_to_json(content: str | tuple[Part, ...]) -> None:
    response = Response(
        content,
        "m",
        "lab",
        usage=Usage(1, 2, cached_tokens=1),
        finish_reason="stop",
        logprobs=(TokenLogprob("a", -0.5, (("b", -1.5),)),),
        turns=(Message("user", "hi"),),
        cost=0.25,
    )
    assert Response.from_json(json.loads(json.dumps(response.to_json())), allow_paths=True) == response


@pytest.mark.parametrize(
    "data", [{}, {"role": 1}, {"role": "user", "content": [{"type": "nonsense"}]}, {"content": "x"}]
)
def test_what_is_no_message_is_a_typed_error(data: dict[str, object]) -> None:
    with pytest.raises(SerializationError, match="Message"):
        Message.from_json(data)  # type: ignore[arg-type]  # the mistake


stored_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "tool_call", "tool_result", "raw", "odd"])},
    optional=dict.fromkeys(("text", "source", "id", "name", "content", "arguments", "opaque", "raw"), json_values),
)


@given(
    st.fixed_dictionaries(
        {"role": st.just("user") | json_values}, optional={"content": st.lists(stored_parts, max_size=3) | json_values}
    )
)
def test_whatever_stands_in_json_is_a_message_or_a_typed_error(data: dict[str, Any]) -> None:
    with contextlib.suppress(SerializationError):
        message = Message.from_json(data)
        assert Message.from_json(message.to_json()) == message


PATHS = ["/proc/self/environ", "cat.png", "~/.ssh/id_rsa", "file:///etc/passwd", "FILE:///etc/passwd", "", "ftp://x/y"]
STORED = Image("/proc/self/environ", "image/png")
TURN = Message("tool", (Text("look"), ToolResult("1", (Text("here"), STORED))))


@pytest.mark.parametrize("source", PATHS)
def test_json_names_no_file_of_this_machine(source: str) -> None:
    """A request would read it and send it away, so whoever stores messages could ask for any file."""
    stored: dict[str, Any] = {"role": "user"}
    stored["content"] = [{"type": "document", "source": source, "media_type": "text/plain"}]
    with pytest.raises(SerializationError, match="allow_paths=True"):
        Message.from_json(stored)


@pytest.mark.parametrize(
    "value",
    [
        TURN,
        Request("m", (Message("user", "hi"), TURN)),
        Response("hi", "m", "lab", turns=(TURN,)),
        Response("hi", "m", "lab", alternatives=(Alternative((STORED,)),)),
        StreamChunk(part=STORED),
        StreamChunk(turn=TURN),
    ],
)
def test_no_file_is_named_anywhere_in_json_unless_the_caller_allows_it(
    value: Message | Request | Response | StreamChunk,
) -> None:
    """Not in the results of tools, not in earlier turns, not in other answers."""
    stored = value.to_json()
    with pytest.raises(SerializationError, match="/proc/self/environ"):
        type(value).from_json(stored)
    assert type(value).from_json(stored, allow_paths=True) == value


@pytest.mark.parametrize(
    "source", ["https://x.org/a.png", "gs://b/a", "s3://b/a", "file-id:1", "DATA:image/png;base64,AA=="]
)
def test_addresses_ids_and_bytes_come_back_from_json(source: str) -> None:
    message = Message("user", (Image(source),))
    assert Message.from_json(message.to_json()) == message


@pytest.mark.parametrize(
    "message", [Message("user", "\ud800"), Message("user", opaque={"lab": {"x": cast(Any, object())}})]
)
def test_what_json_cannot_hold_is_a_typed_error(message: Message) -> None:
    with pytest.raises(SerializationError, match="Message: JSON cannot hold it"):
        message.to_json()


def test_what_is_impossible_has_a_number_that_json_can_hold() -> None:
    """JSON has no infinity."""
    token = TokenLogprob("a", -math.inf, (("b", -math.inf), ("c", -1.0)))
    assert (token.logprob, token.alternatives) == (-9999.0, (("b", -9999.0), ("c", -1.0)))
    assert TokenLogprob.from_json(token.to_json()) == token


@pytest.mark.parametrize("make", [lambda c: Message("user", c), lambda c: Response(c, "m", "lab"), Alternative])
def test_a_list_of_texts_and_parts_is_content(make: Callable[[Any], Message | Response | Alternative]) -> None:
    """It is kept as a tuple of parts, so that all the rest understands it."""
    made = make(["see", Image("file-id:1")])
    assert made.content == (Text("see"), Image("file-id:1"))
    assert made.text == "see"
    assert made == make((Text("see"), Image("file-id:1")))


@pytest.mark.parametrize("content", [None, 7, {"type": "text"}, [None], [{"type": "text", "text": "a"}], (b"a",)])
@pytest.mark.parametrize(
    "make", [lambda c: Message("user", c), lambda c: Response(c, "m", "lab"), Alternative, lambda c: ToolResult("1", c)]
)
def test_what_is_neither_text_nor_parts_is_refused_by_name(make: Callable[[Any], object], content: object) -> None:
    with pytest.raises(ConfigurationError, match=r"(Message|Response|Alternative|ToolResult): (its )?content"):
        make(content)


def test_a_result_holds_what_a_result_can_hold() -> None:
    assert ToolResult("1", [Text("a")]).content == (Text("a"),)  # type: ignore[arg-type]  # kept as a tuple
    with pytest.raises(ConfigurationError, match=r"content\[0\] is ToolCall"):
        ToolResult("1", (ToolCall("2", "f"),))  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("source", [None, 7, ["a.png"], Path])
def test_a_source_that_is_none_is_a_typed_error(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="Image: its source is bytes, a path or a text"):
        Image(source)


def test_calls_are_equal_if_they_ask_for_the_same() -> None:
    """Whoever wrote the arguments, and with whatever blanks."""
    call = ToolCall("1", "f", {"a": 1})
    assert call == ToolCall.parse("1", "f", '{ "a": 1 }')
    assert hash(call) == hash(ToolCall.parse("1", "f", '{ "a": 1 }'))
    assert ToolCall("1", "f") == ToolCall.parse("1", "f", "{}") == ToolCall.parse("1", "f", "")
    assert call != ToolCall("1", "f", {"a": 2})
    assert call != ToolCall("2", "f", {"a": 1})
    assert call != ToolCall("1", "f", {"a": 1}, opaque={"lab": {}})
    assert ToolCall.parse("1", "f", '{"a": ') != ToolCall.parse("1", "f", "{")
    assert ToolCall.parse("1", "f", '{"a": ') != ToolCall("1", "f")
    assert call != "call"
    assert not operator.ne(call, ToolCall.parse("1", "f", '{ "a": 1 }'))
    assert Message("assistant", (call,)) == Message("assistant", (ToolCall.parse("1", "f", '{"a":1}'),))


def test_a_source_says_what_it_is() -> None:
    address, stored, path = Image("https://example.org/a.png"), Document("gs://bucket/a.pdf"), Image(Path("a.png"))
    inline, uploaded = Image(b"abc", "image/png"), Document("file-id:file-7")
    assert (address.url, address.path, address.data) == ("https://example.org/a.png", None, None)
    assert stored.url == "gs://bucket/a.pdf"
    assert (Image("file:///a.png").url, Image("FTP://x/a.png").url, Image("HTTPS://x/a").url) == (
        None,
        None,
        "HTTPS://x/a",
    )
    assert (path.path, path.url, path.data, path.kind) == ("a.png", None, None, None)
    assert (inline.data, inline.kind, inline.path) == (base64.b64encode(b"abc").decode(), "image/png", None)
    assert (uploaded.file_id, uploaded.path, uploaded.url) == ("file-7", None, None)
    assert Image("data:image/gif;base64,AAAA").kind == "image/gif"


@given(st.lists(parts, max_size=4))
def test_content_has_one_shortest_form(many: list[Part]) -> None:
    """Parts are the same again after the trip, except that a plain text alone is a str."""
    content = content_of(many)
    if len(many) == 1 and many[0] == Text(""):
        assert content == ""
    elif many:
        assert parts_of(content) == tuple(many)
    else:
        assert content == ""


@pytest.mark.parametrize(
    ("raw", "arguments", "invalid"),
    [
        ("", {}, None),
        ("  ", {}, None),
        ('{"a": 1}', {"a": 1}, None),
        ('{"a": ', {}, "no JSON"),
        ("[1]", {}, "no object"),
        ("null", {}, "no object"),
    ],
)
def test_a_call_parses_its_arguments_and_says_why_it_cannot(
    raw: str, arguments: dict[str, object], invalid: str | None
) -> None:
    call = ToolCall.parse("1", "f", raw)
    assert (call.arguments, call.raw) == (arguments, raw)
    assert (call.invalid is None) if invalid is None else (invalid in str(call.invalid))


def test_a_call_keeps_the_models_own_text_of_its_arguments() -> None:
    assert ToolCall.parse("1", "f", '{"a":   1}').json == '{"a":   1}'
    assert ToolCall("1", "f", {"a": 1}).json == '{"a":1}'


def test_text_and_reasoning_are_told_apart() -> None:
    reply = Response((Reasoning("hm"), Text("a"), ToolCall("1", "f"), Text("b")), "m", "lab")
    assert (reply.text, reply.reasoning, [call.name for call in reply.tool_calls]) == ("ab", "hm", ["f"])
    assert reply.message == Message("assistant", reply.content)


@given(st.lists(st.integers(0, 1000), min_size=8, max_size=8), st.lists(st.integers(0, 1000), min_size=8, max_size=8))
def test_usage_adds_up_field_by_field(one: list[int], two: list[int]) -> None:
    total = Usage(*one) + Usage(*two)
    assert [getattr(total, name) for name in Usage.__struct_fields__] == [a + b for a, b in zip(one, two, strict=True)]
    assert total.total_tokens == total.input_tokens + total.output_tokens
