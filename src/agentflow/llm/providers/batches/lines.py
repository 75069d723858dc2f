"""Files of JSON lines, as batch APIs take and give them, and the forms they are uploaded in.

multipart([("purpose", None, "text/plain", b"batch"), ("file", "a.jsonl", …)])  ──▶  content type, body
lines_of(body)  ──▶  one JSON text after another, whatever ends them
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import msgspec

from agentflow.errors import ProtocolError
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source

__all__ = ["JSONL", "FormPart", "encode", "multipart_form", "multipart_related", "readable"]

T = TypeVar("T")

JSONL: Final = "application/jsonl"
_ENCODER: Final = msgspec.json.Encoder()


class FormPart(NamedTuple):
    """One field of a form; with a `filename` it is a file."""

    name: str
    content: bytes
    filename: str | None = None
    content_type: str | None = None


def encode(value: object) -> bytes:
    """JSON on one line; a body that is JSON already goes in as `msgspec.Raw`."""
    return _ENCODER.encode(value)


def readable(decoder: msgspec.json.Decoder[T], body: bytes, source: Source) -> Iterator[T]:
    """What the lines of a file say. One that cannot be read is passed over, as if it were missing: the others are good.

    A text may hold U+2028, which ends no line: only bytes are looked at.
    """
    for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if line and not line.isspace():
            with suppress(ProtocolError):
                yield decoded(decoder, line, source)


def multipart_form(parts: Sequence[FormPart]) -> tuple[str, bytes]:
    """RFC 7578: the content type and the body of a form."""
    made: list[tuple[bytes, bytes]] = []
    for part in parts:
        head = f'Content-Disposition: form-data; name="{part.name}"'
        if part.filename is not None:
            head += f'; filename="{part.filename}"'
        if part.content_type is not None:
            head += f"\r\nContent-Type: {part.content_type}"
        made.append((head.encode(), part.content))
    return _multipart("form-data", made)


def multipart_related(parts: Iterable[tuple[str, bytes]]) -> tuple[str, bytes]:
    """RFC 2387, as Google's uploads take it: pairs of a content type and its bytes."""
    return _multipart("related", [(f"Content-Type: {kind}".encode(), content) for kind, content in parts])


def _multipart(kind: str, parts: Sequence[tuple[bytes, bytes]]) -> tuple[str, bytes]:
    boundary = _boundary([content for _, content in parts])
    mark = b"--" + boundary
    pieces = [piece for head, content in parts for piece in (mark, b"\r\n", head, b"\r\n\r\n", content, b"\r\n")]
    return f"multipart/{kind}; boundary={boundary.decode()}", b"".join([*pieces, mark, b"--\r\n"])


def _boundary(contents: Sequence[bytes]) -> bytes:
    """A line that stands in none of them: a hash of them, and of as much more as it takes."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    while True:
        boundary = b"agentflow-" + digest.hexdigest()[:32].encode()
        if not any(boundary in content for content in contents):
            return boundary
        digest.update(boundary)
