"""Parts and messages as values: what they say of themselves, and the trip to JSON and back."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import SerializationError
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
from agentflow.llm.messages import Message, Response, TokenLogprob, Usage

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
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message


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
    assert Response.from_json(json.loads(json.dumps(response.to_json()))) == response


@pytest.mark.parametrize(
    "data", [{}, {"role": 1}, {"role": "user", "content": [{"type": "nonsense"}]}, {"content": "x"}]
)
def test_what_is_no_message_is_a_typed_error(data: dict[str, object]) -> None:
    with pytest.raises(SerializationError, match="Message"):
        Message.from_json(data)  # type: ignore[arg-type]  # the mistake


def test_reading_json_reads_no_file(tmp_path: Path) -> None:
    """A path in a stored message is a path, until a request is made with it."""
    stored = {"role": "user", "content": [{"type": "image", "source": str(tmp_path / "missing.png")}]}
    [image] = Message.from_json(stored).parts
    assert isinstance(image, Image)
    assert image.path == str(tmp_path / "missing.png")


def test_a_source_says_what_it_is() -> None:
    address, stored, path = Image("https://example.org/a.png"), Document("gs://bucket/a.pdf"), Image(Path("a.png"))
    inline, uploaded = Image(b"abc", "image/png"), Document("file-id:file-7")
    assert (address.url, address.path, address.data) == ("https://example.org/a.png", None, None)
    assert stored.url == "gs://bucket/a.pdf"
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
