"""What a turn is made of: text, media, reasoning, tool calls and their results, as values that survive a trip to JSON.

    Message("user", ("What is this?", Image("cat.png")))  →  Text, Image
    Response.content                                      ←  Reasoning, Text, ToolCall, …

A part's `opaque` holds what an API sent with it that AgentFlow does not model, under that API's name. Only that API
gets it back, unchanged: `{"google": {"thoughtSignature": "…"}}`. A part that is not modelled at all is a `Raw`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from agentflow.errors import ConfigurationError
from agentflow.llm.storing import stored

__all__ = [
    "Audio",
    "Content",
    "Document",
    "Image",
    "Json",
    "Media",
    "Part",
    "Raw",
    "Reasoning",
    "ResultContent",
    "Text",
    "ToolCall",
    "ToolResult",
    "content_of",
    "parts_of",
    "settled",
]

if TYPE_CHECKING:
    Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
    Source: TypeAlias = str | bytes | os.PathLike[str]
else:  # what msgspec checks when a part is read from JSON, where a recursive type cannot be said
    Json = Any
    Source = str

_FILE_ID: Final = "file-id:"
_ADDRESS: Final = re.compile(r"(?:https?|gs|s3|ms)://", re.IGNORECASE)  # what some provider fetches: ms is Moonshot's


class _Part(Struct, frozen=True, omit_defaults=True, tag_field="type", kw_only=True):
    """What all parts have. `opaque` is by the API's name."""

    opaque: Mapping[str, Json] = {}


class Text(_Part, frozen=True, tag="text"):
    """Words. `cache` asks an API that has such marks to cache the prompt up to here: "5m" or "1h"."""

    text: str
    cache: str | None = None


class Media(_Part, frozen=True):
    """Bytes of a kind, by value or by reference.

    `source` is given as bytes, as a path, or as text: an address (`https://…`, `gs://…`), a `data:` URI, `file-id:…`
    for what was uploaded before, or else a path. Bytes are kept as a `data:` URI in base64, which is what every API
    wants; a path is read when the request is made, not before. `media_type` (`image/png`) is told from the bytes or the
    name where it is left out. Raises ConfigurationError for a source that is nothing of these.
    """

    source: Source
    media_type: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        source: object = self.source
        if isinstance(source, str):
            if source[:5].lower() == "data:":
                force_setattr(self, "source", _in_base64(source))
        elif isinstance(source, bytes | bytearray):
            force_setattr(self, "source", data_uri(bytes(source), self.media_type))
        elif isinstance(source, os.PathLike) and isinstance(place := os.fspath(source), str):
            force_setattr(self, "source", place)
        else:
            kind = type(self).__name__
            raise ConfigurationError(f"{kind}: its source is bytes, a path or a text, not {type(source).__name__}")

    @property
    def uri(self) -> str:
        """The source as text."""
        return str(self.source)

    @property
    def url(self) -> str | None:
        """The address, where it is one that providers fetch: http, https, gs, s3 or ms. What is under `file://`, or
        any other, is on this machine or nowhere, and goes to nobody."""
        return self.uri if _ADDRESS.match(self.uri) else None

    @property
    def file_id(self) -> str | None:
        """The id of an uploaded file."""
        return self.uri.removeprefix(_FILE_ID) if self.uri.startswith(_FILE_ID) else None

    @property
    def data(self) -> str | None:
        """What a `data:` URI holds, which is base64 as far as one has not looked: a request is only made with what is.
        None for what is not here, but named."""
        return self.uri.partition(",")[2] if self.uri.startswith("data:") else None

    @property
    def path(self) -> str | None:
        """The file on this machine that is to be read: whatever is no bytes, no id and no address."""
        return None if self.uri.startswith(("data:", _FILE_ID)) or self.url else self.uri

    @property
    def kind(self) -> str | None:
        """The media type, where it is known without looking at the bytes."""
        if self.media_type is None and self.uri.startswith("data:"):
            return self.uri[5:].partition(",")[0].partition(";")[0] or None
        return self.media_type


class Image(Media, frozen=True, tag="image"):
    """A picture. `detail` is OpenAI's low, high or auto."""

    detail: str | None = None


class Document(Media, frozen=True, tag="document"):
    """A file to read: PDF, plain text, and what else the model takes. `name` is its file name."""

    name: str | None = None


class Audio(Media, frozen=True, tag="audio"):
    """Sound to listen to."""


class Reasoning(_Part, frozen=True, tag="reasoning"):
    """What the model thought before it answered, as far as it was shown. Signatures and ciphers are in `opaque`."""

    text: str = ""


class ToolCall(_Part, frozen=True, tag="tool_call"):
    """The model asks for a function to be called.

    `arguments` are parsed. `raw` is the JSON text as the model wrote it, where the API hands it on as text; where that
    is no JSON object, `arguments` is empty and `invalid` says why. Two calls are equal if they ask for the same,
    however it was written.
    """

    id: str
    name: str
    arguments: Mapping[str, Json] = {}
    raw: str = ""

    @classmethod
    def parse(cls, id: str, name: str, raw: str, *, opaque: Mapping[str, Json] | None = None) -> ToolCall:
        """A call from the text of its arguments; an empty text stands for no arguments."""
        value, _ = _object(raw)
        return cls(id, name, value, raw, opaque=opaque or {})

    def __eq__(self, other: object) -> bool:
        if type(other) is not ToolCall:
            return NotImplemented
        return (
            self.id == other.id
            and self.name == other.name
            and self.arguments == other.arguments
            and self.opaque == other.opaque
            and (self.raw == other.raw or bool(self.arguments) or self._spoilt == other._spoilt)
        )

    def __hash__(self) -> int:
        return hash((self.id, self.name))

    @property
    def _spoilt(self) -> str:
        return "" if self.invalid is None else self.raw

    @property
    def json(self) -> str:
        """The arguments as JSON text, the model's own where there is one."""
        return self.raw or msgspec.json.encode(self.arguments, enc_hook=plain).decode()

    @property
    def invalid(self) -> str | None:
        """Why the model's text is no JSON object; None where it is one."""
        return _object(self.raw)[1]


class ToolResult(_Part, frozen=True, tag="tool_result"):
    """What came of a `ToolCall`, by its `id`. `name` is the tool's, which some APIs ask for."""

    id: str
    content: str | tuple[Text | Image | Document | Audio, ...] = ""
    name: str = ""
    is_error: bool = False
    cache: str | None = None

    def __post_init__(self) -> None:
        if type(self.content) is not str:
            force_setattr(self, "content", settled("ToolResult", self.content, _RESULT_PARTS))

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join([part.text for part in self.content if isinstance(part, Text)])


class Raw(Struct, frozen=True, tag_field="type", tag="raw"):
    """A part of one API that is not modelled (a web search, code that ran there), as it came. Other APIs do not get
    it. As a tool of a request it is a tool that the provider itself runs."""

    api: str
    data: Mapping[str, Json]


_RESULT_PARTS: Final = frozenset[type]({Text, Image, Document, Audio})
_PARTS: Final = _RESULT_PARTS | {Reasoning, ToolCall, ToolResult, Raw}

ResultContent: TypeAlias = str | tuple[Text | Image | Document | Audio, ...]
Part: TypeAlias = Text | Image | Document | Audio | Reasoning | ToolCall | ToolResult | Raw
Content: TypeAlias = str | tuple[Part, ...]


def content_of(parts: Iterable[Part]) -> Content:
    """Parts in their shortest form: one plain text is a str, and nothing is an empty one."""
    found = tuple(parts)
    if not found:
        return ""
    first = found[0]
    if len(found) == 1 and type(first) is Text and not first.opaque and first.cache is None:
        return first.text
    return found


def parts_of(content: Content) -> tuple[Part, ...]:
    """Content in its long form; an empty text has no parts."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    return content


def settled(owner: str, content: object, allowed: frozenset[type] = _PARTS) -> object:
    """Content as a str or a tuple of parts; texts in a list are parts, too. Raises ConfigurationError for all else."""
    if type(content) is tuple and allowed.issuperset(map(type, content)):
        return content
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise ConfigurationError(f"{owner}: its content is a text or parts, not {type(content).__name__}")
    found = tuple([Text(part) if isinstance(part, str) else part for part in content])
    for index, part in enumerate(found):
        if not isinstance(part, tuple(allowed)):
            names = ", ".join(sorted(kind.__name__ for kind in allowed))
            raise ConfigurationError(f"{owner}: content[{index}] is {type(part).__name__}; allowed are str, {names}")
    return found


def data_uri(data: bytes, media_type: str | None) -> str:
    """`data:image/png;base64,…`; without a media type it is told from the bytes later."""
    return f"data:{media_type or ''};base64,{base64.b64encode(data).decode()}"


def _in_base64(uri: str) -> str:
    """A `data:` URI in the one form that APIs know: a small scheme, and base64 where it had percent signs."""
    at = uri.find(",")
    if at < 0:
        return "data:" + uri[5:]
    said = uri[5:at]
    if said[-7:].lower() == ";base64":
        return uri if uri.startswith("data:") and said.endswith(";base64") else f"data:{said[:-7]};base64{uri[at:]}"
    return data_uri(unquote_to_bytes(uri[at + 1 :]), said or "text/plain")


def plain(value: object) -> object:
    """What msgspec cannot write by itself, read-only mappings and other sequences, as what it can."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _object(raw: str) -> tuple[dict[str, Json], str | None]:
    if not raw.strip():
        return {}, None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # a number of 5,000 digits, or too deep
        return {}, f"the arguments are no JSON: {error}"
    if not isinstance(value, dict):
        return {}, f"the arguments are JSON, but no object: {raw[:80]}"
    return value, None


stored(Text, Image, Document, Audio, Reasoning, ToolCall, ToolResult, Raw, plain=plain)
