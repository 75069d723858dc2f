"""Turns and their parts as Gemini has them, both ways: pure functions on plain JSON.

    Message("assistant", (Text("Hi"),))   ──turns_to_wire──▶   {"role": "model", "parts": [{"text": "Hi"}]}
    Text, Reasoning, ToolCall, Image, …   ◀──part_from_wire──   {"text": …}, {"functionCall": …}, {"inlineData": …}, …

What came with a part and is not modelled, its `thoughtSignature` above all, stands in the part's `opaque` under
"google" and is laid back over the part that is written, in the place where it came. The API gives a function call an
id or does not: an id that it gave stands in there too, so one that AgentFlow made up never goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NoReturn, TypeGuard
from urllib.parse import quote

import msgspec
from msgspec import Struct

from agentflow.errors import BadRequestError
from agentflow.llm.content import (
    Audio,
    Document,
    Image,
    Json,
    Media,
    Part,
    Raw,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    plain,
)
from agentflow.llm.messages import Message
from agentflow.llm.providers.api import merged
from agentflow.llm.providers.history import Rules, arguments_of, fitted
from agentflow.llm.providers.lenient import mapping, text

__all__ = ["FILES", "NAME", "is_third_generation", "part_from_wire", "turns_to_wire"]

NAME: Final = "google"
"""The key of this API's opaque data."""

FILES: Final = "https://generativelanguage.googleapis.com/v1beta/files/"
"""Where uploaded files lie: `file-id:abc` and `file-id:files/abc` are addresses below it."""

_RULES: Final = Rules(NAME, blanks=True)  # ids of calls go out only to the API that gave them, so any will do
_ROLES: Final = {"assistant": "model", "tool": "user"}
_SYSTEM: Final = ("system", "developer")

# What Google documents for calls that the model did not make itself, or whose signature was lost on the way; Gemini 3
# refuses a turn whose first call has none.
_FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"

# Models before Gemini 3: they know no thinking levels, no media inside function responses, no strict signatures.
_EARLIER: Final = ("gemini-1", "gemini-2", "gemini-robotics-er-1", "learnlm")


def is_third_generation(model: str) -> bool:
    """Whether a model is of Gemini 3 or later. A name that does not say so (a tuned model, an alias) counts as late."""
    return not model.rpartition("/")[2].startswith(_EARLIER)


# ---- to the wire ---------------------------------------------------------------------------------------------


def turns_to_wire(messages: tuple[Message, ...], model: str) -> tuple[list[Json], list[Json]]:
    """The parts of the system instruction, wherever they stood, and the contents.

    Results in successive tool turns become one content, which is what the API wants of parallel calls. A turn of which
    nothing can be said is left out: the API refuses empty ones.
    """
    writer = _Writer(model)
    for message in _grouped(fitted(messages, _RULES)):
        writer.add(message)
    return writer.system, writer.contents


def _grouped(messages: Iterable[Message]) -> Iterator[Message]:
    """The turns, successive tool turns as one."""
    for role, group in groupby(messages, key=lambda message: message.role):
        if role == "tool":
            yield Message(role, tuple([part for message in group for part in message.parts]))
        else:
            yield from group


class _Known(Struct, frozen=True):
    """A function call that stood earlier in the conversation."""

    name: str
    position: int
    own_id: str | None  # the API's own, where it gave one


class _Writer:
    """Writes turn after turn, and remembers the function calls, whose names their results need."""

    __slots__ = ("_calls", "_count", "_model", "contents", "system")

    def __init__(self, model: str) -> None:
        self.system: list[Json] = []
        self.contents: list[Json] = []
        self._model = model
        self._calls: dict[str, _Known] = {}
        self._count = 0

    def add(self, message: Message) -> None:
        if message.role == "tool" and not _answers(message):
            _refuse("a tool's turn is made of ToolResult(id, …) parts, by the id of the call", self._model)
        parts = self._parts(message)
        if message.role in _SYSTEM:
            self.system.extend(parts)
        elif parts:
            role = _ROLES.get(message.role, message.role)
            self.contents.append({"role": role, "parts": parts} if role else {"parts": parts})

    def _parts(self, message: Message) -> list[Json]:
        found: list[Json] = []
        after: list[Json] = []  # what the results hold that no function response can
        unsigned = message.role == "assistant" and is_third_generation(self._model)
        for part in self._in_order(message):
            if isinstance(part, ToolResult):
                found.append(self._result(part, after))
                continue
            wire = self._part(part)
            if wire is not None and isinstance(part, ToolCall):
                if unsigned and not text(wire.get("thoughtSignature")):
                    wire["thoughtSignature"] = _FOREIGN_SIGNATURE
                unsigned = False
            if wire is not None:
                found.append(wire)
        return found + after

    def _in_order(self, message: Message) -> Sequence[Part]:
        """The parts as they stand. Results of calls without an id are put in the order of the calls, which is all that
        tells two results of one function apart."""
        parts = message.parts
        known = [self._calls.get(part.id) for part in parts if isinstance(part, ToolResult)]
        if message.role != "tool" or len(known) != len(parts) or any(call is None or call.own_id for call in known):
            return parts
        return sorted(parts, key=lambda part: self._calls[part.id].position if isinstance(part, ToolResult) else 0)

    def _part(self, part: Part) -> dict[str, Json] | None:
        match part:
            case Text():
                return _laid_back({"text": part.text}, part)
            case Media():
                return _laid_back(_media(part, self._model), part)
            case ToolCall():
                return self._call(part)
            case Reasoning():  # of this API alone: `thought` stands in its opaque data
                return _laid_back({"text": part.text}, part) if NAME in part.opaque else None
            case Raw():
                return dict(part.data) if part.api == NAME else None
        _refuse(f"a turn cannot hold a {type(part).__name__}", self._model)

    def _call(self, call: ToolCall) -> dict[str, Json]:
        wire: dict[str, Json] = {"name": call.name}
        if call.raw or call.arguments:
            wire["args"] = arguments_of(call)
        whole = _laid_back({"functionCall": wire}, call)
        own_id = mapping(whole["functionCall"]).get("id")
        self._count += 1
        self._calls[call.id] = _Known(call.name, self._count, own_id if isinstance(own_id, str) else None)
        return whole

    def _result(self, part: ToolResult, after: list[Json]) -> dict[str, Json]:
        """A function response. Gemini 3 takes media inside it, earlier models behind it, in the same turn."""
        known = self._calls.get(part.id)
        name = part.name or (known.name if known else "")
        if not name:
            _refuse(f"no call has the id {part.id!r}: say which tool it was with ToolResult(…, name=…)", self._model)
        wire: dict[str, Json] = {"name": name, "response": _response(part)}
        if known is not None and known.own_id is not None:
            wire["id"] = known.own_id
        media: list[Json] = []
        if not isinstance(part.content, str):
            media = [_laid_back(_media(one, self._model), one) for one in part.content if isinstance(one, Media)]
        if media and is_third_generation(self._model):
            wire["parts"] = media
        else:
            after.extend(media)
        return _laid_back({"functionResponse": wire}, part)


def _answers(message: Message) -> bool:
    parts = message.parts
    return bool(parts) and all(isinstance(part, ToolResult | Raw) for part in parts)


def _laid_back(wire: dict[str, Json], part: Text | Media | Reasoning | ToolCall | ToolResult) -> dict[str, Json]:
    """The part with what the API sent with it laid over it."""
    own = part.opaque.get(NAME)
    return merged(wire, own) if isinstance(own, Mapping) else wire


def _media(part: Media, model: str) -> dict[str, Json]:
    """Bytes as inlineData, what lies elsewhere as fileData."""
    kind: dict[str, Json] = {"mimeType": part.kind} if part.kind else {}
    if part.file_id is not None:
        return {"fileData": {"fileUri": _file_uri(part.file_id), **kind}}
    if part.data is not None:
        if not kind:
            _refuse("say what kind of file it is, for example media_type='image/png'", model)
        return {"inlineData": {**kind, "data": part.data}}
    if part.url is not None:
        return {"fileData": {"fileUri": part.url, **kind}}
    _refuse(f"the file {part.path!r} has not been read", model)


def _file_uri(file_id: str) -> str:
    return file_id if "://" in file_id else FILES + quote(file_id.removeprefix("files/"), safe="")


def _response(part: ToolResult) -> Mapping[str, Json]:
    """A result as an object: the JSON object that it is, else its text under `result`, or `error`."""
    value = _object(part.text)
    if part.is_error:
        return value if value is not None and "error" in value else {"error": part.text if value is None else value}
    return {"result": part.text} if value is None else value


def _object(words: str) -> dict[str, Json] | None:
    if not words.lstrip().startswith("{"):
        return None
    try:
        value = msgspec.json.decode(words)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(reason: str, model: str) -> NoReturn:
    raise BadRequestError(f"Gemini: {reason}", provider=None, model=model)


# ---- from the wire -------------------------------------------------------------------------------------------


def part_from_wire(wire: Mapping[str, Json], new_id: Callable[[], str]) -> Part | None:
    """One part of an answer; None where it says nothing. `new_id` names a function call that has no id.

    What is not modelled is a `Raw`: code and its outcome, the API's own tool calls, pictures that are thoughts.
    """
    said = {name: value for name, value in wire.items() if value is not None and (name, value) != _SPOKEN}
    call, inline, file, words = said.get("functionCall"), said.get("inlineData"), said.get("fileData"), said.get("text")
    thought = said.get("thought") is True
    part: Part | None = None
    if isinstance(call, dict):
        if not call and len(said) == 1:
            return None
        part = _call_from_wire(call, said, new_id)
    elif isinstance(words, str) and (words or said.keys() <= _WORDS):
        return _words(words, said)
    elif isinstance(inline, dict) and not thought:
        part = _inline_from_wire(inline, said)
    elif isinstance(file, dict) and not thought:
        part = _file_from_wire(file, said)
    return part or (Raw(NAME, wire) if said else None)


_SPOKEN: Final = ("thought", False)  # of gateways, which also write null where there is no signature
_WORDS: Final = frozenset(("text", "thought", "thoughtSignature", "partMetadata"))


def _words(words: str, wire: Mapping[str, Json]) -> Part | None:
    rest = {name: value for name, value in wire.items() if name != "text"}
    if rest.get("thought") is True:
        return Reasoning(words, opaque={NAME: rest})
    if not rest:
        return Text(words) if words else None
    return Text(words, opaque={NAME: rest})


def _call_from_wire(call: Mapping[str, Json], wire: Mapping[str, Json], new_id: Callable[[], str]) -> Part | None:
    """A call. Its opaque data holds at least an empty object, by which the API knows its own again."""
    name, arguments, own_id = call.get("name"), call.get("args"), call.get("id")
    if not _is_word(name) or not (arguments is None or isinstance(arguments, dict)):
        return None
    raw = "" if arguments is None else msgspec.json.encode(arguments, enc_hook=plain).decode()
    opaque = _rest(wire, "functionCall", call, "name", "args")
    return ToolCall(own_id if _is_word(own_id) else new_id(), name, arguments or {}, raw, opaque={NAME: opaque})


def _inline_from_wire(inline: Mapping[str, Json], wire: Mapping[str, Json]) -> Part | None:
    kind, data = inline.get("mimeType"), inline.get("data")
    if not _is_word(kind) or "," in kind or not isinstance(data, str):
        return None
    return _of_kind(f"data:{kind};base64,{data}", kind, _rest(wire, "inlineData", inline, "mimeType", "data"))


def _file_from_wire(file: Mapping[str, Json], wire: Mapping[str, Json]) -> Part | None:
    """A file by its address. What is no address must not become a path, which would be read on this machine."""
    uri, kind = file.get("fileUri"), file.get("mimeType")
    if not isinstance(uri, str) or not uri.startswith(("https://", "http://", "gs://")):
        return None
    rest = _rest(wire, "fileData", file, "fileUri", "mimeType")
    if kind is None:
        return _of_kind(uri, None, rest)
    return _of_kind(uri, kind, rest) if _is_word(kind) else None


def _of_kind(source: str, kind: str | None, rest: Mapping[str, Json]) -> Part:
    opaque = {NAME: rest} if rest else {}
    top = (kind or "").partition("/")[0]
    if top == "image":
        return Image(source=source, media_type=kind, opaque=opaque)
    if top == "audio":
        return Audio(source=source, media_type=kind, opaque=opaque)
    return Document(source=source, media_type=kind, opaque=opaque)


def _rest(wire: Mapping[str, Json], field: str, value: Mapping[str, Json], *modelled: str) -> dict[str, Json]:
    """What a part holds beside the modelled fields of its `field`."""
    rest = {name: other for name, other in wire.items() if name != field}
    inner = {name: other for name, other in value.items() if name not in modelled}
    return {**rest, field: inner} if inner else rest


def _is_word(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""
