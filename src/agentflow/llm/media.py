"""Files and bytes made ready to send: paths are read, media types told, sizes checked, before any byte leaves.

    Image("cat.png")  ──loaded──▶  Image("data:image/png;base64,…")      addresses and file ids stay as they are

The media type is what the caller said, else what the name ends with, unless the bytes are plainly something else: a
picture called cat.txt is a picture. What says nothing, or is not known here, is told by the bytes.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import string
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from agentflow.core.threads import call_in_thread
from agentflow.errors import DocumentError
from agentflow.llm.content import Audio, Document, Image, Media, Part, ToolResult
from agentflow.llm.messages import Message

__all__ = ["LARGEST", "attachment", "loaded", "media_type", "needs_loading"]

M = TypeVar("M", bound=Image | Document | Audio)

LARGEST: Final = 32 * 1024 * 1024
"""Bytes of one file that travel inside a request; what is larger is uploaded first and named by its id."""

_HEAD: Final = 64  # bytes that are enough to tell what a file is

# What files begin with, from the formats' own specifications: enough of it that no text begins so by chance.
_MAGIC: Final = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"RIFF.{4}WAVE", "audio/wav"),
        (rb"%PDF-\d", "application/pdf"),
        (rb"ID3[\x02-\x04][\x00-\x09]", "audio/mpeg"),
        (rb"\xff[\xf2\xf3\xfa\xfb]", "audio/mpeg"),
        (rb"\xff[\xf1\xf9]", "audio/aac"),
        (rb"fLaC[\x00\x80]", "audio/flac"),
        (rb"OggS\x00", "audio/ogg"),
        # ISO's box of brands: its length, the major one, a version, and others that the file follows, too.
        (rb"\x00\x00..ftyp(?:avi[fs]|(?:mif1|msf1)....(?:....)*?avi[fs])", "image/avif"),
        (rb"\x00\x00..ftyp(?:he(?:i[cxms]|v[cxms])|(?:mif1|msf1)....(?:....)*?hei[cx])", "image/heic"),
        (rb"\x00\x00..ftyp(?:mif1|msf1|heif)", "image/heif"),
        (rb"\x00\x00..ftypM4[AB]", "audio/mp4"),
        (rb"\x00\x00..ftyp", "video/mp4"),
    )
)
_FOREIGN: Final = re.compile(rb"\s*(?:<[!?a-zA-Z]|[{\[]\s*[\"{\[\]}]|PK\x03\x04)")  # HTML, XML, JSON, zip
_KINDS: Final[dict[type[Media], str]] = {Image: "image/", Audio: "audio/"}
_ALIASES: Final = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "audio/mp4a-latm": "audio/mp4",
    "audio/x-flac": "audio/flac",
    "audio/x-aac": "audio/aac",
    "image/jpg": "image/jpeg",
}
# Types that share a container: the bytes tell the container, and only who made them knows what is in it.
_CONTAINERS: Final = {
    "audio/mp4": "video/mp4",
    "video/quicktime": "video/mp4",
    "video/3gpp": "video/mp4",
    "audio/3gpp": "video/mp4",
    "audio/opus": "audio/ogg",
    "audio/vorbis": "audio/ogg",
    "video/ogg": "audio/ogg",
    "application/ogg": "audio/ogg",
    "image/heif": "image/heic",
}
_BASE64: Final = (string.ascii_letters + string.digits + "+/").encode()


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

    Raises DocumentError for a file that is missing, empty, too large, or of another kind than its part, and for what
    stands in a `data:` URI and is no base64.
    """
    if not any(map(needs_loading, messages)):
        return messages
    return await call_in_thread(lambda: tuple([_message(message) for message in messages]))


def needs_loading(message: Message) -> bool:
    """Whether a turn holds files to read or bytes to look at."""
    return type(message.content) is tuple and any(map(_unready, message.content))


def media_type(data: bytes) -> str | None:
    """What bytes are by how they begin; None where that says nothing."""
    head = data[:_HEAD]
    return next((kind for magic, kind in _MAGIC if magic.match(head)), None)


def _unready(part: Part) -> bool:
    """Whether there is something to read or to look at; what is only named is the provider's business."""
    if isinstance(part, ToolResult):
        return not isinstance(part.content, str) and any(_unready(inner) for inner in part.content)
    return isinstance(part, Media) and (part.path is not None or part.uri.startswith("data:"))


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
        return _checked(part, part.data or "")
    data = _read(part, Path(part.path))
    named = replace(part, name=Path(part.path).name) if isinstance(part, Document) and part.name is None else part
    kind = _kind(part, data, part.kind or mimetypes.guess_type(part.path)[0])
    return replace(named, source=data, media_type=kind)


def _checked(part: M, data: str) -> M:
    """A part whose bytes are in it: of a sound form, not too large, and of a known type."""
    bare = data.rstrip("=")
    if len(data) % 4 or len(data) - len(bare) > 2 or bare.encode(errors="replace").translate(None, _BASE64):
        raise _refused(part, "its data is no base64")
    _bounded(part, len(bare) * 3 // 4)
    kind = _kind(part, base64.b64decode(data[: _HEAD // 3 * 4]), part.kind)
    return part if kind == part.kind else replace(part, source=f"data:{kind};base64,{data}", media_type=kind)


def _kind(part: Media, data: bytes, said: str | None) -> str:
    """The type that was said, unless the bytes are plainly of another."""
    found = media_type(data)
    kind = _ALIASES.get(said or "", said)
    if kind is None or (found is not None and _container(found) != _container(kind)):
        kind = found
    what = type(part).__name__
    if kind is not None and found is None and _is_something_else(data, kind):
        raise _refused(part, f"it begins like text or an archive, and not like {kind}")
    if kind is None:
        raise DocumentError(f"the type of this {what} is unknown: say {what}(…, media_type='…')")
    if not kind.startswith(_KINDS.get(type(part), "")):
        raise DocumentError(f"{what}({_shown(part)}) is {kind}, which is no {what.lower()}")
    return kind


def _is_something_else(data: bytes, kind: str) -> bool:
    """Whether the page of an error, say, was kept under the name of what was asked for."""
    binary = kind == "application/pdf" or (kind.startswith(("image/", "audio/")) and not kind.endswith("+xml"))
    return binary and _FOREIGN.match(data[:_HEAD]) is not None


def _container(kind: str) -> str:
    return _CONTAINERS.get(kind, kind)


def _read(part: Media, path: Path) -> bytes:
    """The bytes of a file, and never more than may be sent: what says that it has none, as all under /proc do, may have
    any number. What is no file, such as a pipe, might not even begin."""
    try:
        if not path.is_file():
            reason = "it is no file" if path.exists() else f"there is no such file{_no_address(part)}"
            raise _refused(part, reason)
        _bounded(part, path.stat().st_size or 1)
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise _refused(part, f"it cannot be read: {error.strerror}") from None
    _bounded(part, len(data))
    return data


def _no_address(part: Media) -> str:
    if "://" not in part.uri[:32]:
        return ""
    return ", and providers fetch only what is under http, https, gs, s3 or ms; give the path of a file as it is"


def _bounded(part: Media, size: int) -> None:
    if size == 0:
        raise _refused(part, "it is empty")
    if size > LARGEST:
        raise _refused(
            part,
            f"it has more than {LARGEST:,} bytes, and no more travel inside a request: upload it to the provider, "
            "and give its id as 'file-id:…'",
        )


def _refused(part: Media, reason: str) -> DocumentError:
    return DocumentError(f"{type(part).__name__}({_shown(part)}): {reason}")


def _shown(part: Media) -> str:
    return repr(part.uri) if len(part.uri) <= 80 else f"{part.uri[:60]!r}…"
