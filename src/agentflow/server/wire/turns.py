"""The turns of a conversation as OpenAI writes them, as messages of ours.

    {"role": "user", "content": [{"type": "text", …}, {"type": "image_url", …}]}   →  Message("user", (Text, Image))
    {"role": "assistant", "content": null, "tool_calls": [{…}]}                     →  Message("assistant", (ToolCall,))
    {"role": "tool", "tool_call_id": "c1", "content": "4°"}                         →  Message("tool", (ToolResult,))

Content that is a text stays one, a list becomes parts. Media come as bytes or as an address of the web: a path would
make this machine read its own files for a stranger, and the id of an uploaded file is one of the server's account.
Fields of a turn that nobody knows are passed over, as clients send back what they got.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from agentflow.llm.content import Audio, Content, Document, Image, Part, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message
from agentflow.server.wire.reading import refuse

__all__ = ["WireTurn", "messages_of"]

_MEDIA_TYPES: Final = {"mp3": "mpeg"}
_Detail: TypeAlias = Literal["auto", "low", "high", "original"]
_Said: TypeAlias = Annotated[str, Meta(min_length=1)]


class WireText(Struct, tag_field="type", tag="text"):
    text: str


class WireRefused(Struct, tag_field="type", tag="refusal"):
    refusal: str


class ImageAddress(Struct):
    url: str
    detail: _Detail | None = None


class WireImage(Struct, tag_field="type", tag="image_url"):
    image_url: ImageAddress


class Sound(Struct):
    data: str
    format: _Said


class WireAudio(Struct, tag_field="type", tag="input_audio"):
    input_audio: Sound


class File(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class WireFile(Struct, tag_field="type", tag="file"):
    file: File


WirePart: TypeAlias = WireText | WireRefused | WireImage | WireAudio | WireFile


class Function(Struct):
    name: _Said
    arguments: str = ""


class WireCall(Struct):
    id: _Said
    function: Function
    type: Literal["function"] = "function"


class System(Struct, tag_field="role", tag="system"):
    content: str | list[WirePart]
    name: str | None = None


class Developer(Struct, tag_field="role", tag="developer"):
    content: str | list[WirePart]
    name: str | None = None


class User(Struct, tag_field="role", tag="user"):
    content: str | list[WirePart]
    name: str | None = None


class Assistant(Struct, tag_field="role", tag="assistant"):
    """`reasoning_content` and `reasoning` are what compatible servers call the thoughts; ours says the former."""

    content: str | list[WirePart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[WireCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: object = None
    audio: object = None


class ToolTurn(Struct, tag_field="role", tag="tool"):
    tool_call_id: _Said
    content: str | list[WirePart]
    name: str | None = None


WireTurn: TypeAlias = System | Developer | User | Assistant | ToolTurn


def messages_of(turns: Sequence[WireTurn]) -> tuple[Message, ...]:
    """The same turns, one for one. Raises Refusal."""
    return tuple([_message(turn, f"messages[{at}]") for at, turn in enumerate(turns)])


def _message(turn: WireTurn, where: str) -> Message:
    if isinstance(turn, Assistant):
        return Message("assistant", _said(turn, where), turn.name)
    content = _content(turn.content, f"{where}.content")
    if isinstance(turn, ToolTurn):
        return Message("tool", (_result(turn, content, where),))
    if isinstance(turn, User):
        return Message("user", content, turn.name)
    return Message("system" if isinstance(turn, System) else "developer", content, turn.name)


def _said(turn: Assistant, where: str) -> Content:
    """What the model said, in the order of an answer: thoughts, words, calls."""
    if turn.function_call is not None:
        refuse(f"{where}.function_call", "this is the old way to call a tool; use tool_calls")
    if turn.audio is not None:
        refuse(f"{where}.audio", "no sound is kept here that its id could name; leave it out")
    thought = turn.reasoning_content or turn.reasoning
    content = "" if turn.content is None else _content(turn.content, f"{where}.content")
    if not thought and not turn.refusal and not turn.tool_calls:
        return content
    words: tuple[Part, ...] = ((Text(content),) if content else ()) if isinstance(content, str) else content
    calls = [ToolCall.parse(call.id, call.function.name, call.function.arguments) for call in turn.tool_calls or ()]
    refused = (Text(turn.refusal),) if turn.refusal else ()
    return (*((Reasoning(thought),) if thought else ()), *words, *refused, *calls)


def _result(turn: ToolTurn, content: Content, where: str) -> ToolResult:
    if isinstance(content, str):
        return ToolResult(turn.tool_call_id, content, turn.name or "")
    parts = tuple([part for part in content if isinstance(part, Text | Image | Document | Audio)])
    return ToolResult(turn.tool_call_id, parts, turn.name or "")


def _content(content: str | list[WirePart], where: str) -> Content:
    if isinstance(content, str):
        return content
    return tuple([_part(part, f"{where}[{at}]") for at, part in enumerate(content)])


def _part(part: WirePart, where: str) -> Part:
    match part:
        case WireText():
            return Text(part.text)
        case WireRefused():
            return Text(part.refusal)
        case WireImage(image_url=image):
            return Image(_source(image.url, f"{where}.image_url.url"), detail=image.detail)
        case WireAudio(input_audio=sound):
            return Audio(f"data:audio/{_MEDIA_TYPES.get(sound.format, sound.format)};base64,{sound.data}")
        case WireFile(file=file):
            return _document(file, f"{where}.file")


def _document(file: File, where: str) -> Document:
    if file.file_id is not None:
        refuse(f"{where}.file_id", "no files are kept here; send file_data, a data: URI")
    if file.file_data is None:
        refuse(f"{where}.file_data", "it is missing", code="missing_required_parameter")
    return Document(_source(file.file_data, f"{where}.file_data"), name=file.filename)


def _source(address: str, where: str) -> str:
    """An address that says what it is. Anything else would be a path on this machine."""
    if address[:5].lower() == "data:" and "," in address:
        return address
    if address.lower().startswith(("https://", "http://")):
        return address
    refuse(where, "media come as a data: URI or as an address under https://")
