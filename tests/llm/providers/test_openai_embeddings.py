"""Embeddings of OpenAI and compatible servers: what is asked, and which vector belongs to which text."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ModelError, ProtocolError, RateLimitError
from agentflow.llm.content import Json
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.providers.openai.embeddings import read_embeddings, write_embeddings

SOURCE = Source("lab", "text-embedding-3-small", "r-1")


def read(body: Json | bytes, count: int = 2) -> Embeddings:
    return read_embeddings(body if isinstance(body, bytes) else json.dumps(body).encode(), SOURCE, count)


def body(*vectors: Json, **fields: Json) -> dict[str, Any]:
    data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return {
        "object": "list",
        "data": data,
        "model": "small",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
        **fields,
    }


def packed(*floats: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(floats)}f", *floats)).decode()


def test_all_texts_go_in_one_call() -> None:
    wire = write_embeddings(EmbeddingRequest("m", ("a", "b")))
    assert wire.path == "/embeddings"
    assert wire.body == {"model": "m", "input": ("a", "b"), "encoding_format": "float"}


def test_dimensions_and_params_are_sent_and_params_win() -> None:
    request = EmbeddingRequest("m", ("a",), dimensions=256, params={"encoding_format": "base64", "user": "u"})
    assert write_embeddings(request).body == {
        "model": "m",
        "input": ("a",),
        "encoding_format": "base64",
        "dimensions": 256,
        "user": "u",
    }


def test_vectors_are_read() -> None:
    assert read(body([0.5, -1], [0.25, 2])) == Embeddings(
        ((0.5, -1.0), (0.25, 2.0)), "small", "lab", usage=Usage(8), request_id="r-1"
    )


def test_vectors_stand_in_the_order_of_their_texts() -> None:
    shuffled = body([1], [2])
    shuffled["data"].reverse()
    assert read(shuffled).vectors == ((1.0,), (2.0,))


def test_without_numbers_the_order_is_as_it_came() -> None:
    unnumbered = body([1], [2])
    for item in unnumbered["data"]:
        del item["index"]
    assert read(unnumbered).vectors == ((1.0,), (2.0,))


def test_base64_is_understood() -> None:
    assert read(body(packed(0.5, -1.0), [2])).vectors == ((0.5, -1.0), (2.0,))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8)),
        ({"total_tokens": 9}, Usage(9)),
        ({"prompt_tokens": 0, "total_tokens": 9}, Usage(0)),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_the_tokens_of_the_texts(usage: Json, expected: Usage | None) -> None:
    assert read(body([1], [2], usage=usage)).usage == expected


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"<html>",
        b"[]",
        {},
        {"data": None},
        body([1]),
        body([1], [2], [3]),
        body([1], "no base64!"),
        body([1], "AAA="),
        body([1], ["x"]),
        body([1], None),
    ],
)
def test_what_is_no_answer_is_a_protocol_error(wrong: Any) -> None:
    with pytest.raises(ProtocolError):
        read(wrong)


def test_an_error_with_status_200_is_raised() -> None:
    with pytest.raises(RateLimitError):
        read({"error": {"message": "slow down", "code": 429}})


async def test_the_provider_embeds(serve: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.respond(body([0.5], [1.5]), x_request_id="req_1")

    server = await serve(handler)
    client = OpenAIProvider(ProviderSettings("lab", "openai", base_url=server.url))
    reply = await client.embed(EmbeddingRequest("small", ("a", "b")))
    assert (reply.vectors, reply.request_id, reply.usage) == (((0.5,), (1.5,)), "req_1", Usage(8))
    assert server.requests[0].path == "/v1/embeddings"
    assert server.requests[0].json == {"model": "small", "input": ["a", "b"], "encoding_format": "float"}
    await client.aclose()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "embedding", "x"]), inner),
    max_leaves=6,
)


@given(st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()), JUNK, st.text(max_size=12))
def test_whatever_comes_is_vectors_or_a_model_error(data: bytes, junk: Any, text: str) -> None:
    for wrong in (data, json.dumps(body(junk, text)).encode(), json.dumps(body([1], [2], usage=junk)).encode()):
        with suppress(ModelError):
            assert len(read(wrong).vectors) == 2


@pytest.mark.parametrize("odd", [[], "free", {"prompt_tokens": {}}, {"prompt_tokens": None}])
def test_an_odd_field_beside_them_does_no_harm_to_good_vectors(odd: Json) -> None:
    body = {"data": [{"embedding": [1.0], "index": "first"}], "usage": odd, "model": 7}
    found = read_embeddings(json.dumps(body).encode(), SOURCE, 1)
    assert (found.vectors, found.usage, found.model) == (((1.0,),), None, SOURCE.model)
