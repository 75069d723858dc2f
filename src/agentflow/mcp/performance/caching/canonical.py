"""What makes two questions the same: one text of everything that may change the answer, the same in every process.

    Request ──files by the hash of what they hold──▶ canonical JSON (keys sorted, no spaces) ──▶ bytes for the key

After RFC 8785 (JSON Canonicalization Scheme), with two differences, both on the safe side: keys are sorted by their
UTF-8 bytes, and 1 and 1.0 are told apart wherever a provider would be sent the one or the other. What JSON cannot say,
such as NaN, which would be written as null, is refused.

How long a call may take, what is noted about it and whether the provider is to keep the prompt change no answer, and
are left out: see `DROPPED`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentflow.errors import SerializationError
from agentflow.llm.content import Audio, Document, Image, Media, Part, ToolResult, plain
from agentflow.llm.messages import EmbeddingRequest, Message, Request

__all__ = ["DROPPED", "SCHEMA", "canonical", "canonical_text", "has_address", "has_path"]

SCHEMA: Final = 1
"""Counts up when the key is made otherwise, or what is kept changes its form: what was kept before is found no more."""

DROPPED: Final = frozenset({"timeout", "metadata", "cache"})
"""The fields of a `Request` that change no answer. Every other one counts, those to come included."""

M = TypeVar("M", bound=Image | Document | Audio)

_encoder: Final = msgspec.json.Encoder(enc_hook=plain, order="sorted")
_MEDIA: Final = (Image, Document, Audio)
_NULL: Final = b"null"


def canonical(request: Request, provider: str, variant: str) -> bytes:
    """The text of a question. Files must have been read. Raises SerializationError for what JSON cannot hold.

    `variant` is whatever else decides the answer, such as the address of the server.
    """
    bare = request
    if request.timeout is not None or request.metadata or request.cache is not None:
        bare = replace(request, timeout=None, metadata={}, cache=None)
    if any(type(message.content) is tuple for message in request.messages):
        bare = replace(bare, messages=tuple([_hashed(message) for message in bare.messages]))
    heats: tuple[object, object] = (bare.temperature, bare.top_p)
    if int in map(type, heats):  # the fields are floats, whatever the caller wrote
        bare = replace(bare, temperature=_float(bare.temperature), top_p=_float(bare.top_p))
    return _text("chat", provider, variant, bare)


def canonical_text(request: EmbeddingRequest, text: str, provider: str, variant: str) -> bytes:
    """The text of a question for one vector."""
    return _text("vector", provider, variant, request.model, text, request.dimensions, request.params)


def has_address(request: Request) -> bool:
    """Whether a part of it is only named by an address: what is found there may change, and the key would not."""
    return any(media.url is not None for media in _all_media(request.messages))


def has_path(request: Request) -> bool:
    """Whether it names a file that is still to be read."""
    return any(media.path is not None for media in _all_media(request.messages))


def _text(*facts: object) -> bytes:
    try:
        text = _encoder.encode((SCHEMA, *facts))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(str(facts[0]), f"JSON cannot hold what is asked: {error}") from error
    if _NULL in text:  # seldom: what nobody has set is left out
        for fact in facts:
            _refuse_endless(fact)
    return text


def _refuse_endless(value: object) -> None:
    """NaN and the infinities are written as null, and would be taken for nothing."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SerializationError("Request", f"JSON has no {value}")
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            _refuse_endless(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            _refuse_endless(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for inner in value:
            _refuse_endless(inner)


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)


# ---- files ---------------------------------------------------------------------------------------------------


def _hashed(message: Message) -> Message:
    """The same turn, its files named by what they hold."""
    if isinstance(message.content, str) or not any(isinstance(part, (*_MEDIA, ToolResult)) for part in message.content):
        return message
    return replace(message, content=tuple([_named(part) for part in message.content]))


def _named(part: Part) -> Part:
    if isinstance(part, ToolResult) and not isinstance(part.content, str):
        inner = tuple([_digest(each) if isinstance(each, _MEDIA) else each for each in part.content])
        return replace(part, content=inner)
    return _digest(part) if isinstance(part, _MEDIA) else part


def _digest(part: M) -> M:
    """Bytes are named by their hash; a path cannot look like that, for files have been read."""
    if part.data is None:
        return part
    return replace(part, source="sha256:" + hashlib.sha256(part.uri.encode("utf-8", "surrogatepass")).hexdigest())


def _all_media(messages: Sequence[Message]) -> list[Media]:
    found: list[Media] = []
    for message in messages:
        if isinstance(message.content, str):
            continue
        for part in message.content:
            inner = part.content if isinstance(part, ToolResult) and not isinstance(part.content, str) else (part,)
            found.extend([each for each in inner if isinstance(each, Media)])
    return found
