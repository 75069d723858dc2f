"""Turns as Chat Completions writes them: our messages in, its `messages` out.

    user: (Text, Image)                    {"role": "user", "content": [{"type": "text"}, {"type": "image_url"}]}
    assistant: (Reasoning, Text, ToolCall) {"role": "assistant", "content": "…", "tool_calls": […], "reasoning": "…"}
    user: (ToolResult, ToolResult, Text)   {"role": "tool"}, {"role": "tool"}, {"role": "user"}

What this API sent with a part or a turn is laid back onto it. Content that is a str stays one, and a tuple becomes a
list of parts; only an assistant's words are one str unless they came as a list.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from agentflow.errors import BadRequestError
from agentflow.llm.content import (
    Audio,
    Content,
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
    parts_of,
)
from agentflow.llm.messages import Message
from agentflow.llm.providers.history import ANSWER, NINE_LETTERS, Rules, fitted
from agentflow.llm.providers.openai.dialects import Dialect

__all__ = ["cache_mark", "wire_messages"]

_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-flac": "flac", "x-m4a": "m4a"}
_SPOKEN: Final = ("user", "assistant", "system")
_EMPTY: Final = {"role": "assistant", "content": ""}  # what is left of thoughts that nobody else can read
_ENDINGS: Final = {"plain": "txt", "markdown": "md", "x-yaml": "yaml", "javascript": "js", "msword": "doc"}


def wire_messages(
    messages: tuple[Message, ...], dialect: Dialect, model: str, *, blank: str | None = None
) -> list[dict[str, Json]]:
    """All turns in their order. Raises BadRequestError for what the API has no word for. `blank` is the field that no
    turn with tool calls may be without."""
    if all(map(_is_plain, messages)):
        return [{"role": message.role, "content": message.text} for message in messages]
    writer = _Writer(dialect, model)
    wires = [wire for message in fitted(messages, _rules(dialect)) for wire in writer.write(message) if wire != _EMPTY]
    if blank is not None:
        for wire in wires:
            if wire.get("tool_calls") and not wire.get(blank):
                wire[blank] = " "
    return wires


def _is_plain(message: Message) -> bool:
    """Whether a turn is words and nothing else, as most are."""
    content, role = message.content, message.role
    return type(content) is str and bool(content) and role in _SPOKEN and message.name is None and not message.opaque


def _rules(dialect: Dialect) -> Rules:
    ids = NINE_LETTERS if dialect.tool_ids == "nine_letters" else None
    return Rules(dialect.name, ids, media_in_results=dialect.media_in_results, media_in_answers=False, blanks=True)


def cache_mark(ttl: str | None) -> dict[str, Json]:
    """The mark that asks to keep a prompt: for five minutes, or for an hour, which is the longest."""
    return {"type": "ephemeral"} if ttl in ("5m", None) else {"type": "ephemeral", "ttl": "1h"}


class _Writer:
    """Writes one conversation; remembers which calls were made the old way, because their results go back that way."""

    __slots__ = ("_api", "_dialect", "_functions", "_model")

    def __init__(self, dialect: Dialect, model: str) -> None:
        self._dialect = dialect
        self._api = dialect.name
        self._model = model
        self._functions: dict[str, str] = {}

    def write(self, message: Message) -> list[dict[str, Json]]:
        content = message.content
        if message.role == "assistant" and (type(content) is not str or message.opaque):
            return [self._assistant(message)]
        results = [] if type(content) is str else [part for part in message.parts if isinstance(part, ToolResult)]
        if not results:
            if message.role == "tool" and "tool_call_id" not in self._own(message):
                raise self._refused("a tool's turn says which call it answers: Message('tool', (ToolResult(id, …),))")
            return [self._turn(message, content)]
        rest = tuple([part for part in message.parts if not isinstance(part, ToolResult)])
        tools = [self._result(part) for part in results]
        return [*tools, self._turn(message, rest)] if rest else [_laid_on(tools[0], self._own(message)), *tools[1:]]

    def _turn(self, message: Message, content: Content) -> dict[str, Json]:
        role = "system" if message.role == "developer" and not self._dialect.developer else message.role
        wire: dict[str, Json] = {"role": role, "content": content if isinstance(content, str) else self._list(content)}
        if message.name is not None:
            wire["name"] = message.name
        return _laid_on(wire, self._own(message))

    def _list(self, content: tuple[Part, ...]) -> Json:
        return [item for item in map(self._item, content) if item is not None] or ""

    # ---- what goes in ----------------------------------------------------------------------------------------

    def _item(self, part: Part) -> dict[str, Json] | None:
        """A part of a turn's content; None for what belongs to another API."""
        if isinstance(part, Raw):
            return dict(part.data) if part.api == self._api else None
        if isinstance(part, Reasoning):
            return None
        if isinstance(part, ToolCall | ToolResult):
            raise self._refused(f"a {type(part).__name__} cannot stand here; tool calls belong to the assistant's turn")
        item = self._text(part) if isinstance(part, Text) else self._media(part)
        return _laid_on(self._marked(item, part.cache), self._own(part))

    def _text(self, part: Text) -> dict[str, Json]:
        return {"type": "text", "text": part.text}

    def _media(self, part: Media) -> dict[str, Json]:
        if isinstance(part, Image):
            return self._image(part)
        return self._audio(part) if isinstance(part, Audio) else self._document(part)

    def _image(self, part: Image) -> dict[str, Json]:
        if not self._dialect.images:
            raise self._refused("it takes no images")
        address = _address(part)
        if address is None:
            raise self._refused("an image goes as bytes or as an https address, not as the id of a file")
        image: dict[str, Json] = {"url": address}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}

    def _audio(self, part: Audio) -> dict[str, Json]:
        if not self._dialect.audio:
            raise self._refused("it takes no audio")
        if part.data is None:
            raise self._refused("audio goes as bytes: load it first")
        kind = (part.kind or "audio/wav").partition("/")[2].lower()
        sound: dict[str, Json] = {"data": part.data, "format": _FORMATS.get(kind, kind)}
        return {"type": "input_audio", "input_audio": sound}

    def _document(self, part: Media) -> dict[str, Json]:
        if not self._dialect.files:
            return self._as_text(part)
        if part.file_id is not None:
            return {"type": "file", "file": {"file_id": part.file_id}}
        address = _address(part)
        if address is None or (part.data is None and self._dialect.name in ("openai", "azure")):
            raise self._refused("a document goes as bytes or as the id of an uploaded file: load it first")
        return {"type": "file", "file": {"file_data": address, "filename": _file_name(part)}}

    def _as_text(self, part: Media) -> dict[str, Json]:
        """Where files are not taken, the words of a text file are."""
        if part.data is None or not (part.kind or "").startswith("text/"):
            raise self._refused("it takes no files; give the document's text instead")
        try:
            return {"type": "text", "text": base64.b64decode(part.data).decode()}
        except ValueError as error:
            raise self._refused("it takes no files, and this one is no UTF-8 text") from error

    def _result(self, part: ToolResult) -> dict[str, Json]:
        function = self._functions.get(part.id)
        if function is not None:
            return _laid_on({"role": "function", "name": function, "content": part.text}, self._own(part))
        wire: dict[str, Json] = {"role": "tool", "tool_call_id": part.id, "content": self._result_content(part)}
        if part.name and self._dialect.tool_names:
            wire["name"] = part.name
        return _laid_on(wire, self._own(part))

    def _result_content(self, part: ToolResult) -> Json:
        if isinstance(part.content, str) and not (part.cache and self._dialect.cache_marks):
            return part.content
        items = [self._item(item) for item in parts_of(part.content)]
        if items and items[-1] is not None:
            items[-1] = self._marked(items[-1], part.cache)
        return items

    def _marked(self, item: dict[str, Json], cache: str | None) -> dict[str, Json]:
        """With the mark that asks for caching up to here, where the server knows it."""
        if cache is not None and self._dialect.cache_marks:
            item["cache_control"] = cache_mark(cache)
        return item

    # ---- what came out ---------------------------------------------------------------------------------------

    def _assistant(self, message: Message) -> dict[str, Json]:
        """A turn of the model. All its calls, thoughts and words stand in fields of one object."""
        wire: dict[str, Json] = {"role": "assistant"}
        items: list[dict[str, Json]] = []
        calls: list[Json] = []
        as_list = False  # words are one text, unless they came as a list
        for part in message.parts:
            if isinstance(part, ToolCall):
                self._call(part, wire, calls)
            elif isinstance(part, Reasoning):
                as_list |= self._thought(part, wire, items)
            elif isinstance(part, Text | Audio) and "audio" in self._own(part):
                wire["audio"] = self._own(part)["audio"]  # its id, which stands for words and sound
            elif isinstance(part, Image):
                self._picture(part, wire)
            elif isinstance(part, Text) and self._own(part).get("type") == "refusal":
                wire["refusal"] = str(wire.get("refusal", "")) + part.text
            elif (item := self._item(part)) is not None:
                items.append(item)
                as_list |= not isinstance(part, Text) or len(item) > 2 or bool(self._own(part))
        if calls:
            wire["tool_calls"] = calls
        own = self._own(message)
        self._put_content(wire, items if as_list else "".join([str(item["text"]) for item in items]))
        if message.name is not None:
            wire["name"] = message.name
        return _laid_on(wire, own)

    def _picture(self, part: Image, wire: dict[str, Json]) -> None:
        """A picture that the server drew stands beside its words, as it does in its answer."""
        wire["images"] = [*_listed(wire.get("images")), _laid_on(self._image(part), self._own(part))]

    def _put_content(self, wire: dict[str, Json], content: Json) -> None:
        if content:
            wire["content"] = content
        elif "refusal" in wire:
            wire["content"] = None
        elif "audio" in wire or self._dialect.empty_content == "omit":
            return
        elif "tool_calls" in wire or "function_call" in wire:
            wire["content"] = None if self._dialect.empty_content == "null" else ""
        else:
            wire["content"] = ""

    def _call(self, part: ToolCall, wire: dict[str, Json], calls: list[Json]) -> None:
        own = self._own(part)
        kind = own.get("type", "function")
        if kind == "function_call":
            self._functions[part.id] = part.name
            wire["function_call"] = {"name": part.name, "arguments": part.json}
            return
        body: dict[str, Json] = {"name": part.name, "input" if kind == "custom" else "arguments": part.json}
        field = "custom" if kind == "custom" else "function"
        calls.append(_laid_on({"id": part.id, "type": "function", field: body}, own))

    def _thought(self, part: Reasoning, wire: dict[str, Json], items: list[dict[str, Json]]) -> bool:
        """A thought goes back in the field it came in, or as the part of content that it was, which is then a list;
        thoughts of other APIs only where the server has a field for any."""
        own = self._own(part)
        if "type" in own:
            thinking = own.get("thinking", [{"type": "text", "text": part.text}])
            items.append({**own, "thinking": part.text if thinking == "" else thinking})
            return True
        field = own.get("field", self._dialect.reasoning_field)
        if part.text and isinstance(field, str):
            wire[field] = str(wire.get(field, "")) + part.text
        if own.get("reasoning_details"):
            wire["reasoning_details"] = [*_listed(wire.get("reasoning_details")), *_listed(own["reasoning_details"])]
        return False

    def _own(self, holder: Part | Message) -> Mapping[str, Json]:
        """What this API sent with a part or a turn."""
        own = {} if isinstance(holder, Raw) else holder.opaque.get(self._api)
        if not isinstance(own, Mapping):
            return {}
        if ANSWER in own and isinstance(holder, Message):
            return {name: value for name, value in own.items() if name != ANSWER}
        return own

    def _refused(self, message: str) -> BadRequestError:
        return BadRequestError(f"this API cannot be sent that: {message}", model=self._model)


def _laid_on(wire: dict[str, Json], own: Mapping[str, Json]) -> dict[str, Json]:
    """A wire object with what the API itself had sent on top, mapping by mapping."""
    for name, value in own.items():
        below = wire.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            wire[name] = _laid_on(dict(below), value)
        else:
            wire[name] = value
    return wire


def _address(part: Media) -> str | None:
    """The bytes as a `data:` URI with its media type, or an address to fetch them from."""
    if part.data is None:
        return part.url
    return part.uri if part.media_type is None else f"data:{part.media_type};base64,{part.data}"


def _file_name(part: Media) -> str:
    if isinstance(part, Document) and part.name:
        return part.name
    kind = (part.kind or "application/pdf").partition("/")[2]
    return f"document.{_ENDINGS.get(kind, kind)}"


def _listed(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list | tuple) else []
