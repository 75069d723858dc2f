"""What tells two questions apart: every field of a request, unless somebody has decided that it changes no answer.

A field that is added to `Request`, or to anything in it, fails here until it has a strategy below.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from tests.support.costly import Costly, asked

from agentflow.errors import ConfigurationError, SerializationError
from agentflow.llm.content import Audio, Document, Image, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    EmbeddingRequest,
    Message,
    OutputFormat,
    PromptCache,
    Request,
    Thinking,
    Tool,
)
from agentflow.mcp.performance.caching import ResponseCache, secret_from_file, secret_from_text
from agentflow.mcp.performance.caching.canonical import DROPPED, canonical, canonical_text
from agentflow.mcp.performance.caching.keys import Keyring

words = st.text(max_size=6)
names = st.text("abc", min_size=1, max_size=3)
maybe = st.none() | words
numbers = st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False, width=32)
json = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(names, json, max_size=2)
sources = st.binary(max_size=4) | names.map("https://host/{}".format) | names.map("file-id:{}".format)
kinds = st.sampled_from([None, "image/png", "audio/wav", "application/pdf"])
texts = st.builds(Text, text=words, cache=st.sampled_from([None, "5m"]), opaque=objects)
images = st.builds(Image, sources, kinds, cache=maybe, detail=maybe, opaque=objects)
documents = st.builds(Document, sources, kinds, cache=maybe, name=maybe, opaque=objects)
sounds = st.builds(Audio, sources, kinds, cache=maybe, opaque=objects)
results = st.builds(
    ToolResult, names, content=words | st.lists(texts | images, max_size=2).map(tuple), name=words,
    is_error=st.booleans(), cache=maybe, opaque=objects,
)  # fmt: skip
calls = st.builds(ToolCall, names, names, objects, raw=st.sampled_from(["", "{}", "{", '{"a": 1}']), opaque=objects)
raws = st.builds(Raw, names, objects)
thoughts = st.builds(Reasoning, text=words, opaque=objects)
parts = texts | images | documents | sounds | results | calls | raws | thoughts
PARTS: dict[type, st.SearchStrategy[Any]] = {
    Text: texts, Image: images, Document: documents, Audio: sounds, ToolResult: results, ToolCall: calls, Raw: raws,
    Reasoning: thoughts,
}  # fmt: skip
messages = st.builds(Message, names, words | st.lists(parts, max_size=2).map(tuple), name=maybe, opaque=objects)
tools = st.builds(
    Tool, names, words, objects, strict=st.none() | st.booleans(), cache=st.sampled_from([None, "1h"])
)  # fmt: skip

FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "model": words,
    "messages": st.lists(messages, min_size=1, max_size=3).map(tuple),
    "temperature": st.none() | st.floats(0, 2),
    "top_p": st.none() | st.floats(0, 1),
    "max_tokens": st.none() | st.integers(1, 9),
    "stop": st.lists(words, max_size=2).map(tuple),
    "seed": st.none() | st.integers(0, 9),
    "params": objects,
    "timeout": st.none() | st.floats(1, 9),
    "top_k": st.none() | st.integers(1, 9),
    "tools": st.lists(tools | raws, max_size=2).map(tuple),
    "tool_choice": st.none() | names | st.lists(names, max_size=2).map(tuple),
    "parallel_tool_calls": st.none() | st.booleans(),
    "output": st.none() | st.builds(OutputFormat, names, st.none() | objects, st.none() | st.booleans(), maybe),
    "thinking": st.none() | st.builds(Thinking, maybe, st.none() | st.integers(0, 9), st.none() | st.booleans()),
    "cache": st.none() | st.builds(PromptCache, maybe, maybe),
    "n": st.none() | st.integers(1, 3),
    "logprobs": st.none() | st.integers(0, 3),
    "metadata": st.dictionaries(names, words, max_size=2),
}
requests = st.fixed_dictionaries(dict(FIELDS)).map(lambda fields: Request(**fields))

FULL = Request(
    "m", (Message("system", "Be brief."), Message("user", (Text("What is it?"), Image(b"x", "image/png")))), 0.5, 0.9,
    9, ("end",), 7, {"x": 1}, 5.0, 3, (Tool("t", "d", {"type": "object"}),), "auto", True, OutputFormat("o", {"a": 1}),
    Thinking("low"), PromptCache("5m"), 2, 1, {"team": "a"},
)  # fmt: skip


def print_of(request: Request, provider: str = "lab", variant: str = "") -> bytes:
    return canonical(request, provider, variant)


def bare(value: object) -> object:
    """What counts of a value, types included: True, 1 and 1.0 are three things here, unlike in Python."""
    if isinstance(value, Struct):
        kept = {name: bare(getattr(value, name)) for name in value.__struct_fields__}
        return type(value).__name__, tuple(sorted((name, kept[name]) for name in kept))
    if isinstance(value, Mapping):
        return "object", tuple(sorted((str(name), repr(bare(inner))) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return "list", tuple([bare(inner) for inner in value])
    return type(value).__name__, repr(value)


# ---- fields --------------------------------------------------------------------------------------------------


def test_somebody_has_decided_on_every_field() -> None:
    """A new field of a request, or of what is in it, has no strategy here yet, and so nobody knows what it does to the
    key. What is dropped is a field."""
    assert set(FIELDS) == set(Request.__struct_fields__)
    assert set(FIELDS) >= DROPPED
    assert set(Message.__struct_fields__) == {"role", "content", "name", "opaque"}
    assert set(Tool.__struct_fields__) == {"name", "description", "parameters", "strict", "cache"}
    assert set(OutputFormat.__struct_fields__) == {"name", "schema", "strict", "description"}
    assert set(Thinking.__struct_fields__) == {"effort", "budget", "show"}
    fields = {kind: set(kind.__struct_fields__) for kind in PARTS}  # type: ignore[attr-defined]
    media = {"source", "media_type", "cache", "opaque"}
    assert fields == {
        Text: {"text", "cache", "opaque"},
        Image: media | {"detail"},
        Document: media | {"name"},
        Audio: media,
        Reasoning: {"text", "opaque"},
        ToolCall: {"id", "name", "arguments", "raw", "opaque"},
        ToolResult: {"id", "content", "name", "is_error", "cache", "opaque"},
        Raw: {"api", "data"},
    }
    assert set(EmbeddingRequest.__struct_fields__) == {"model", "inputs", "dimensions", "params", "timeout"}


@pytest.mark.parametrize("field", sorted(set(FIELDS) - DROPPED))
@settings(max_examples=50)
@given(data=st.data())
def test_a_request_that_differs_in_one_field_has_another_key(field: str, data: st.DataObject) -> None:
    """However small the difference is."""
    one, other = (replace(FULL, **{field: data.draw(FIELDS[field])}) for _ in range(2))
    assert (print_of(one) == print_of(other)) == (bare(getattr(one, field)) == bare(getattr(other, field)))


@pytest.mark.parametrize("field", sorted(DROPPED))
@settings(max_examples=20)
@given(data=st.data())
def test_what_changes_no_answer_changes_no_key(field: str, data: st.DataObject) -> None:
    assert print_of(FULL) == print_of(replace(FULL, **{field: data.draw(FIELDS[field])}))


@settings(max_examples=50)
@given(requests, requests)
def test_two_requests_with_one_key_are_one_request(one: Request, other: Request) -> None:
    counts = dict.fromkeys(DROPPED)
    if print_of(one) == print_of(other):
        assert bare({**_fields(one), **counts}) == bare({**_fields(other), **counts})


@settings(max_examples=80)
@given(st.sampled_from(list(PARTS.values())).flatmap(lambda kind: st.tuples(kind, kind)))
def test_parts_that_differ_have_other_keys(pair: tuple[Any, Any]) -> None:
    """Texts, pictures, calls of tools and their results, down to what a provider wants back unread."""
    one, other = (print_of(Request("m", (Message("user", (part,)),))) for part in pair)
    assert (one == other) == (bare(pair[0]) == bare(pair[1]))


def _fields(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


@settings(max_examples=40)
@given(requests, st.sampled_from(sorted(set(FIELDS) - DROPPED)), st.data())
def test_no_answer_is_given_to_another_question(one: Request, field: str, data: st.DataObject) -> None:
    """The cache itself, allowed to cache everything: a question that was changed in any field is asked anew."""
    other = replace(one, **{field: data.draw(FIELDS[field])})
    model = Costly()

    async def ask() -> tuple[str, str]:
        cache = ResponseCache(model, ttl=60, temperature="any", tools="always", addresses=True)
        return (await cache.execute(one)).text, (await cache.execute(other)).text

    first, second = asyncio.run(ask())
    assert (first == second) == (bare(getattr(one, field)) == bare(getattr(other, field)))


# ---- what else counts ----------------------------------------------------------------------------------------


def test_provider_and_variant_count() -> None:
    request = asked()
    assert len({print_of(request), print_of(request, "other"), print_of(request, "lab", "v2")}) == 3


def test_the_order_of_a_mapping_does_not_count() -> None:
    """Two programs build the same parameters in another order."""
    one, other = asked(params={"a": 1, "b": {"x": 1, "y": 2}}), asked(params={"b": {"y": 2, "x": 1}, "a": 1})
    assert print_of(one) == print_of(other)


def test_a_temperature_is_a_number_however_it_is_written() -> None:
    assert print_of(asked(temperature=0)) == print_of(asked(temperature=0.0))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["temperature", "params", "messages"])
def test_a_number_that_json_has_not_is_not_taken_for_null(field: str, number: float) -> None:
    value: Any = {"temperature": number, "params": {"deep": [{"x": number}]}}.get(field)
    if field == "messages":
        value = (Message("user", "x", opaque={"x": number}),)
    with pytest.raises(SerializationError):
        print_of(replace(asked(), **{field: value}))


async def test_a_question_that_has_no_key_is_asked_every_time() -> None:
    model = Costly()
    cache = ResponseCache(model, ttl=60)
    request = asked(params={"x": float("nan")})
    await cache.execute(request)
    await cache.execute(request)
    assert len(model.calls) == 2
    assert cache.statistics().misses == {"unkeyable": 2}


async def test_a_file_counts_by_what_it_holds(tmp_path: Path) -> None:
    """By its path, its bytes or its data: URI it is the same picture; another one at the same path is another."""
    model, path = Costly(), tmp_path / "a.png"
    cache = ResponseCache(model, ttl=60)
    data = b"\x89PNG\r\n\x1a\n" + b"1"

    async def ask(source: object) -> str:
        return (await cache.execute(Request("m", (Message("user", (Image(source),)),), temperature=0.0))).text  # type: ignore[arg-type]

    path.write_bytes(data)
    first = await ask(str(path))
    path.write_bytes(data + b"2")
    second = await ask(str(path))
    path.write_bytes(data)
    assert await ask(str(path)) == first != second
    assert len(model.calls) == 2
    assert all(call.messages[0].content[0].data for call in model.calls)  # type: ignore[union-attr]  # files are read once


def test_a_key_does_not_grow_with_a_file() -> None:
    big = Image("data:image/png;base64," + base64.b64encode(bytes(1_000_000)).decode())
    assert len(print_of(Request("m", (Message("user", (big,)),)))) < 400


@given(words, words, st.none() | st.integers(1, 9), objects)
def test_a_vector_is_of_its_text_model_and_size(one: str, other: str, size: int | None, params: dict[str, Any]) -> None:
    request = EmbeddingRequest("e", (), size, params)
    assert (canonical_text(request, one, "lab", "") == canonical_text(request, other, "lab", "")) == (one == other)
    changed = replace(request, dimensions=(size or 0) + 1)
    assert canonical_text(request, one, "lab", "") != canonical_text(changed, one, "lab", "")


# ---- tenants and secrets -------------------------------------------------------------------------------------

tenants = st.none() | st.text(max_size=5)


@given(tenants, tenants, st.binary(max_size=20))
def test_tenants_have_other_names_for_the_same_question(one: str | None, other: str | None, text: bytes) -> None:
    ring = Keyring(b"0123456789abcdef")
    assert (ring.name(one, text) == ring.name(other, text)) == (one == other)
    assert (ring.prompt_label(one, "x") == ring.prompt_label(other, "x")) == (one == other)
    assert (ring.tenant_label(one) == ring.tenant_label(other)) == (one == other)


def test_tenants_that_share_are_one() -> None:
    ring = Keyring(b"0123456789abcdef", shared=True)
    assert ring.name("a", b"x") == ring.name("b", b"x") == ring.name(None, b"x")


def test_another_secret_makes_other_names() -> None:
    """Without one, every cache has its own."""
    assert Keyring(b"0123456789abcdef").name(None, b"x") != Keyring(b"0123456789abcdeg").name(None, b"x")
    assert Keyring().name(None, b"x") != Keyring().name(None, b"x")


def test_a_secret_that_could_be_guessed_is_refused() -> None:
    """And not repeated."""
    for make in (lambda: Keyring(b"short-secret"), lambda: secret_from_text("short-secret", "here")):
        with pytest.raises(ConfigurationError, match="at least 16") as caught:
            make()
        assert "short-secret" not in str(caught.value)


def test_the_file_of_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.key"
    assert secret_from_file(path) == secret_from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["cache.key"]
    path.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="no secret"):
        secret_from_file(path)
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        secret_from_file(path / "below")
