"""Embeddings as OpenAI and compatible servers give them: texts in, vectors out, as pure functions each way.

    {"model": …, "input": ["a", "b"], "encoding_format": "float"}  ──POST /embeddings──▶
    {"data": [{"index": 1, "embedding": […]}, {"index": 0, …}], "usage": {"prompt_tokens": 2}}

Vectors are sorted by their index. A server that sends them in base64, asked or not, is understood too.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from sys import byteorder
from typing import Any, Final

import msgspec
from msgspec import Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.llm.providers.api import Wire, decoded, merged
from agentflow.llm.providers.failures import Source, no_answer, wire_error

__all__ = ["read_embeddings", "write_embeddings"]


class _Vector(Struct):
    embedding: list[float] | str
    index: int | None = None


class _Usage(Struct):
    prompt_tokens: float | None = None
    total_tokens: float | None = None


class _Body(Struct):
    data: list[_Vector] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


_BODY: Final = msgspec.json.Decoder(_Body)


def write_embeddings(request: EmbeddingRequest) -> Wire:
    """All texts in one call. `request.params` win."""
    body: dict[str, Json] = {"model": request.model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return Wire("/embeddings", merged(body, request.params))


def read_embeddings(body: bytes, source: Source, count: int) -> Embeddings:
    """The vectors of `count` texts. Raises ProtocolError where it is not that many, or what an error in it says."""
    wire = decoded(_BODY, body, source)
    if wire.error:
        raise wire_error(wire.error, source)
    if wire.data is None or len(wire.data) != count:
        raise no_answer(f"it has {len(wire.data or ())} vectors for {count} texts", body, source)
    ordered = sorted(enumerate(wire.data), key=lambda item: item[0] if item[1].index is None else item[1].index)
    try:
        vectors = tuple([_floats(vector.embedding) for _, vector in ordered])
    except ValueError as error:
        raise no_answer(f"a vector is no base64 of floats: {error}", body, source) from None
    return Embeddings(
        vectors,
        wire.model or source.model,
        source.provider,
        usage=_usage(wire.usage),
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


def _usage(wire: _Usage | None) -> Usage | None:
    tokens = None if wire is None else wire.prompt_tokens if wire.prompt_tokens is not None else wire.total_tokens
    return None if tokens is None else Usage(int(tokens))
