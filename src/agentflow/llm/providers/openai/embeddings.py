"""Embeddings as OpenAI and compatible servers give them: texts in, vectors out, as pure functions each way.

    {"model": …, "input": ["a", "b"], "encoding_format": "float"}  ──POST /embeddings──▶
    {"data": [{"index": 1, "embedding": […]}, {"index": 0, …}], "usage": {"prompt_tokens": 2}}

Vectors are sorted by their index. A server that sends them in base64, asked or not, is understood too.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections.abc import Mapping
from sys import byteorder
from typing import Any, Final

import msgspec
from msgspec import Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.llm.providers.api import Wire, decoded, merged
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.lenient import count, mapping, number, text

__all__ = ["read_embeddings", "write_embeddings"]


class _Vector(Struct):
    embedding: list[float] | str
    index: object = None


class _Body(Struct):
    data: list[_Vector] | None = None
    model: object = None
    usage: object = None
    error: object = None


_BODY: Final = msgspec.json.Decoder(_Body)


def write_embeddings(request: EmbeddingRequest) -> Wire:
    """All texts in one call. `request.params` win."""
    body: dict[str, Json] = {"model": request.model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return Wire("/embeddings", merged(body, request.params))


def read_embeddings(body: bytes, source: Source, expected: int) -> Embeddings:
    """The vectors of `expected` texts. Raises ProtocolError where it is not that many, or what an error in it says."""
    wire = decoded(_BODY, body, source)
    if wire.error:
        raise wire_error(wire.error, source)
    if wire.data is None or len(wire.data) != expected:
        raise no_answer(f"it has {len(wire.data or ())} vectors for {expected} texts", body, source)
    ordered = sorted(
        enumerate(wire.data), key=lambda item: item[0] if number(item[1].index) is None else count(item[1].index)
    )
    try:
        vectors = tuple([_floats(vector.embedding) for _, vector in ordered])
    except ValueError as error:
        raise no_answer(f"a vector is no base64 of floats: {error}", body, source) from None
    return Embeddings(
        vectors,
        text(wire.model) or source.model,
        source.provider,
        usage=_usage(mapping(wire.usage)),
        request_id=source.request_id,
    )


def _floats(embedding: list[float] | str) -> tuple[float, ...]:
    """Numbers as they are, or base64 of 32-bit floats, little-endian."""
    if not isinstance(embedding, str):
        return tuple(embedding)
    try:
        floats = array("f", base64.b64decode(embedding, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if byteorder == "big":
        floats.byteswap()
    return tuple(floats)


def _usage(wire: Mapping[str, Any]) -> Usage | None:
    tokens = next(
        (wire[name] for name in ("prompt_tokens", "total_tokens") if number(wire.get(name)) is not None), None
    )
    return None if tokens is None else Usage(count(tokens))
