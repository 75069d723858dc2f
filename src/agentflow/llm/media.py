"""Files and bytes made ready to send: paths are read, media types told, sizes checked, before any byte leaves.

    Image("cat.png")  ──loaded──▶  Image("data:image/png;base64,…")      addresses and file ids stay as they are

The media type is what the bytes begin with; else what the caller said, else what the name ends with.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import os
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from agentflow.errors import DocumentError
from agentflow.llm.content import Audio, Document, Image, Media, Part, ToolResult, data_uri
from agentflow.llm.messages import Message

__all__ = ["LARGEST", "attachment", "loaded", "media_type", "needs_loading"]

M = TypeVar("M", bound=Image | Document | Audio)

LARGEST: Final = 32 * 1024 * 1024
"""Bytes of one file that travel inside a request; what is larger is uploaded first and named by its id."""

_HEAD: Final = 64  # bytes that are enough to tell what a file is

# What files begin with: an offset, the bytes, the type. From the formats' own specifications.
_MAGIC: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheif", "image/heif"),
    (4, b"ftypavif", "image/avif"),
    (0, b"%PDF-", "application/pdf"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
)
_KINDS: Final[dict[type[Media], str]] = {Image: "image/", Audio: "audio/"}
_ALIASES: Final = {"audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg", "image/jpg": "image/jpeg"}


def attachment(source: str | os.PathLike[str], media_type: str | None = None) -> Image | Document | Audio:
    """The part that a file or an address is, by its media type or the end of its name. Nothing is read yet.

    Raises DocumentError where neither tells.
    """
    place = os.fspath(source)
    kind = media_type or mimetypes.guess_type(place)[0]
    if kind is None:
        raise DocumentError(f"{place}: its name does not tell what it is; say media_type='…'")
    if kind.startswith("image/"):
        return Image(place, media_type)
    return Audio(place, media_type) if kind.startswith("audio/") else Document(place, media_type)


async def loaded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same turns with every part's bytes and media type in place. Files are read in a thread.

    Raises DocumentError for a file that is missing, empty, too large, or of another kind than its part.
    """
    if not any(map(needs_loading, messages)):
        return messages
    return await asyncio.to_thread(lambda: tuple([_message(message) for message in messages]))


def needs_loading(message: Message) -> bool:
    """Whether a turn holds files to read or bytes to tell the type of."""
    return type(message.content) is tuple and any(map(_unready, message.content))


def media_type(data: bytes) -> str | None:
    """What bytes are by how they begin; None where that says nothing."""
    return next((kind for at, magic, kind in _MAGIC if data[at : at + len(magic)] == magic), None)


def _unready(part: Part) -> bool:
    """Whether there is something to read or to tell; a type that the caller gave with bytes is believed."""
    if isinstance(part, ToolResult):
        return not isinstance(part.content, str) and any(_unready(inner) for inner in part.content)
    return isinstance(part, Media) and (part.path is not None or (part.data is not None and part.kind is None))


def _message(message: Message) -> Message:
    if isinstance(message.content, str):
        return message
    return replace(message, content=tuple([_part(part) for part in message.content]))


def _part(part: Part) -> Part:
    if isinstance(part, ToolResult) and not isinstance(part.content, str):
        inner = tuple([_ready(each) if isinstance(each, Image | Document | Audio) else each for each in part.content])
        return replace(part, content=inner)
    return _ready(part) if isinstance(part, Image | Document | Audio) else part


def _ready(part: M) -> M:
    if not _unready(part):
        return part
    if part.path is None:
        return _typed(part, _decoded(part, part.data or ""), part.kind)
    data = _read(part, Path(part.path))
    named = replace(part, name=Path(part.path).name) if isinstance(part, Document) and part.name is None else part
    return _typed(named, data, part.kind or mimetypes.guess_type(part.path)[0])


def _typed(part: M, data: bytes, said: str | None) -> M:
    """The part with its bytes inside and the type they have."""
    found = media_type(data[:_HEAD]) or said
    kind = _ALIASES.get(found or "", found)
    what = type(part).__name__
    if kind is None:
        raise DocumentError(f"the type of this {what} is unknown: say {what}(…, media_type='…')")
    if not kind.startswith(_KINDS.get(type(part), "")):
        raise DocumentError(f"{what}({_shown(part)}) is {kind}, which is no {what.lower()}")
    return replace(part, source=data_uri(data, kind), media_type=kind)


def _read(part: Media, path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_file() and size <= LARGEST:
            return _bounded(part, path.read_bytes())
    except FileNotFoundError:
        reason = "there is no such file"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    else:  # what is no file, such as a pipe, might never end
        reason = _too_large(size) if path.is_file() else "it is no file"
    raise DocumentError(f"{type(part).__name__}({_shown(part)}): {reason}")


def _decoded(part: Media, data: str) -> bytes:
    try:
        return _bounded(part, base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise DocumentError(f"{type(part).__name__}({_shown(part)}): its data is no base64 ({error})") from None


def _bounded(part: Media, data: bytes) -> bytes:
    if data and len(data) <= LARGEST:
        return data
    reason = _too_large(len(data)) if data else "it is empty"
    raise DocumentError(f"{type(part).__name__}({_shown(part)}): {reason}")


def _too_large(size: int) -> str:
    return (
        f"it has {size:,} bytes, and at most {LARGEST:,} travel inside a request: upload it to the provider first, "
        "and give its id as 'file-id:…'"
    )


def _shown(part: Media) -> str:
    return repr(part.uri) if len(part.uri) <= 80 else f"{part.uri[:60]!r}…"
