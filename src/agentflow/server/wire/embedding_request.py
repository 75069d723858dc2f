"""POST /v1/embeddings as it arrives: texts to turn into vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from agentflow.server.wire.reading import read, refuse

__all__ = ["EmbeddingQuestion", "read_embedding"]


@dataclass(frozen=True, slots=True)
class EmbeddingQuestion:
    """`packed` asks for base64 of 32-bit floats, as the official client does unasked."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None
    packed: bool


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[list[str], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


def read_embedding(body: bytes) -> EmbeddingQuestion:
    """Raises Refusal."""
    wire = read(body, Body)
    texts = (wire.input,) if isinstance(wire.input, str) else tuple(wire.input)
    if not all(texts):
        refuse("input", "an empty text has no vector")
    return EmbeddingQuestion(wire.model, texts, wire.dimensions, wire.encoding_format == "base64")
