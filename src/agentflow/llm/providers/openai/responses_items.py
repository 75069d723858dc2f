"""The items of OpenAI's Responses API as parts of ours, and back without loss.

    {"type": "message", "id": …, "content": [{"type": "output_text", "text": …}, …]}   ⇄  Text, Text
    {"type": "reasoning", "id": …, "summary": [{"text": …}, …], "encrypted_content"…}  ⇄  Reasoning, Reasoning
    {"type": "function_call", "call_id": …, "name": …, "arguments": "{…}"}             ⇄  ToolCall
    {"type": "function_call_output", "call_id": …, "output": …}                        ⇄  ToolResult
    any other (a web search, code that ran there, a compaction)                        ⇄  Raw

An item with several entries becomes several parts. What is not modelled lies in their opaque data under the API's name:
`item` is what the item says beside its entries, `part` what the entry says beside its words, and `in` the list it
stands in, where there are two. The first part of an item carries `item`; the others say by `of` whose they are.

A message's own opaque data may have `item` too: fields of the input item it becomes, such as `phase` or `type`. A
message that has it is always an item, also where it would else be the instructions or, being empty, nothing.

The name is that of the server, since ids and ciphers are worth nothing to another: "responses" is OpenAI's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

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
)
from agentflow.llm.messages import Message
from agentflow.llm.providers.lenient import mapping, text

__all__ = ["NAME", "Piece", "Writing", "entry_of", "own", "read_item", "write_items"]

NAME: Final = "responses"
"""The name of the API, and in opaque data of OpenAI's own server; that of another is "responses:azure"."""

_Item = dict[str, Json]
_NOTHING: Final[Mapping[str, Json]] = {}

# The key of the words, by the type of the entry they stand in.
_WORDS: Final[Mapping[object, str]] = {
    "output_text": "text",
    "input_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_SOUNDS: Final = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
}
_EXTENSIONS: Final = {
    "text/plain": "txt",
    "text/markdown": "md",
    "text/csv": "csv",
    "text/html": "html",
    "application/json": "json",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
}
_MARK_TTLS: Final = ("30m", "12h")  # other lifetimes get the API's own


class Piece(NamedTuple):
    """A part, and where in its item it stands: among its `words`, in its `summary`, among its `thoughts`; `field` is
    empty where the part is the whole item."""

    field: str
    place: int
    part: Part


# ---- items → parts -------------------------------------------------------------------------------------------


def read_item(item: Mapping[str, Json], name: str) -> list[Piece]:
    """The parts of one item of an answer, in the order of their entries; `name` is the API's in opaque data."""
    kind = item.get("type")
    if kind == "message":
        return _read_message(item, name)
    if kind == "reasoning":
        return _read_reasoning(item, name)
    return [Piece("", 0, _read_call(item, name) if kind == "function_call" else Raw(name, item))]


def entry_of(part: Part, name: str) -> Mapping[str, Json]:
    """What the API said of the entry that became this part, its words aside."""
    return _NOTHING if isinstance(part, Raw) else mapping(own(part.opaque, name).get("part"))


def own(opaque: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """The API's part of opaque data."""
    kept = opaque.get(name) if opaque else None
    return kept if isinstance(kept, Mapping) else _NOTHING


def _read_message(item: Mapping[str, Json], name: str) -> list[Piece]:
    entries = _entries(item.get("content"))
    if not entries or item.get("role", "assistant") != "assistant":
        return [Piece("", 0, Raw(name, item))]
    facts = {field: value for field, value in item.items() if field != "content"}
    pieces = []
    for index, entry in enumerate(entries):
        words, rest = _words(entry)
        pieces.append(Piece("words", index, Text(words, opaque={name: {**_whose(facts, index), "part": rest}})))
    return pieces


def _read_reasoning(item: Mapping[str, Json], name: str) -> list[Piece]:
    lists = {field: entries for field in ("summary", "content") if (entries := _entries(item.get(field)))}
    facts = {field: value for field, value in item.items() if field not in lists and field != "type"}
    pieces: list[Piece] = []
    for field, entries in lists.items():
        for index, entry in enumerate(entries):
            words, rest = _words(entry)
            kept = {**_whose(facts, len(pieces)), "in": field, "part": rest}
            where = "summary" if field == "summary" else "thoughts"
            pieces.append(Piece(where, index, Reasoning(words, opaque={name: kept})))
    return pieces or [Piece("", 0, Reasoning(opaque={name: {"item": facts}}))]


def _read_call(item: Mapping[str, Json], name: str) -> ToolCall:
    """A call; one without a `call_id` is answered by its item's id. Arguments that are no text, or an empty one, are
    kept as they are: `ToolCall` would write them differently."""
    written = item.get("arguments")
    plain = isinstance(written, str) and written
    taken = ("type", "call_id", "name", "arguments") if plain else ("type", "call_id", "name")
    facts = {field: value for field, value in item.items() if field not in taken}
    raw = written if isinstance(written, str) else msgspec.json.encode(written).decode() if written else ""
    opaque: Mapping[str, Json] = {name: {"item": facts}} if facts else {}
    return ToolCall.parse(text(item.get("call_id")) or text(item.get("id")), text(item.get("name")), raw, opaque=opaque)


def _whose(facts: Mapping[str, Json], index: int) -> Mapping[str, Json]:
    return {"of": facts.get("id")} if index else {"item": facts}


def _entries(value: Json) -> list[Mapping[str, Json]]:
    """The entries of a list that has some; what is no list of objects stays with the item as it is."""
    if not isinstance(value, list):
        return []
    found: list[Mapping[str, Json]] = [entry for entry in value if isinstance(entry, dict)]
    return found if len(found) == len(value) else []


def _words(entry: Mapping[str, Json]) -> tuple[str, Mapping[str, Json]]:
    """The words of an entry and the rest of it; an entry of an unknown type is all rest."""
    key = _key(entry.get("type"))
    words = entry.get(key) if key else None
    if not isinstance(words, str):
        return "", entry
    return words, {name: value for name, value in entry.items() if name != key}


def _key(kind: Json) -> str | None:
    return _WORDS.get(kind) if isinstance(kind, str) else None


# ---- parts → items -------------------------------------------------------------------------------------------


class Writing(NamedTuple):
    """How a request's items are written: `name` is the API's in opaque data, `marks` where the model takes marks of
    what to cache, `stateless` where nothing is stored, so that an item cannot be named by its id alone. `model` is told
    in errors."""

    model: str
    name: str = NAME
    marks: bool = False
    stateless: bool = False


def write_items(messages: Iterable[Message], how: Writing) -> list[_Item]:
    """The input items of these turns. Raises BadRequestError for what the API cannot take."""
    writer = _Writer(how)
    for message in messages:
        writer.turn(message)
    return writer.items


class _Writer:
    """Puts parts that came from one item back together; `_item` is the one that may still grow. What follows thoughts
    that could not go back is `_orphaned`."""

    __slots__ = ("_how", "_item", "_named", "_orphaned", "_whose", "items")

    def __init__(self, how: Writing) -> None:
        self.items: list[_Item] = []
        self._how = how
        self._item: _Item | None = None
        self._whose: object = None
        self._named = False  # what the item says of itself has been found
        self._orphaned = False

    def turn(self, message: Message) -> None:
        self._orphaned = False
        facts = self._own(message.opaque).get("item")
        base: _Item = {"role": message.role, **mapping(facts)}
        if message.content == "" and message.role == "assistant" and facts is None:
            return  # an answer without a word
        if isinstance(message.content, str):
            self._check_role(message.role)
            self.items.append({**base, "content": message.content})
            return
        for part in message.content:
            self._part(part, base)
        self._close()

    def _part(self, part: Part, base: _Item) -> None:
        if isinstance(part, Reasoning):
            self._reasoning(part)
        elif isinstance(part, ToolCall):
            self._append({"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.json}, part)
        elif isinstance(part, ToolResult):
            self._append({"type": "function_call_output", "call_id": part.id, "output": self._output(part)}, part)
        elif isinstance(part, Raw):
            if part.api == self._how.name:
                self._close()
                self.items.append(dict(part.data))
        else:
            role = text(base["role"])
            self._check_role(role)
            self._place(self._own(part.opaque), base, "content", self._entry(part, role))

    def _reasoning(self, part: Reasoning) -> None:
        """Reasoning that another API sent, or that a person wrote, is left out: this one could not read it."""
        kept = self._own(part.opaque)
        if "item" not in kept and "of" not in kept:
            return
        entry = {**self._entry_of(part)}
        if entry and (key := _key(entry.get("type"))):
            entry.setdefault(key, part.text)
        self._place(kept, {"type": "reasoning"}, text(kept.get("in")) or "summary", entry)

    def _place(self, kept: Mapping[str, Json], base: _Item, field: str, entry: _Item) -> None:
        """An entry joins the open item, or begins one."""
        facts = kept.get("item")
        known = facts is not None or "of" in kept
        whose = (known, base.get("type"), base.get("role"), mapping(facts).get("id", kept.get("of")))
        if self._item is None or whose != self._whose or (facts is not None and self._named):
            self._close()
            self._item, self._whose, self._named = {**base}, whose, False
        if facts is not None:
            self._item, self._named = {**self._item, **mapping(facts), **_filled(self._item)}, True
        if entry:
            there = self._item.get(field)
            self._item[field] = [*there, entry] if isinstance(there, list | tuple) else [entry]

    def _close(self) -> None:
        item, self._item = self._item, None
        if item is None:
            return
        if item.get("type") != "reasoning":
            self._add(item)
        elif self._replayable(item):
            self.items.append(item)
        else:
            self._orphaned = True

    def _add(self, item: _Item) -> None:
        """An item whose thoughts are missing must not name itself, or the API would ask for them."""
        if self._orphaned:
            item.pop("id", None)
        self.items.append(item)

    def _replayable(self, item: _Item) -> bool:
        """Reasoning needs its id; where nothing is stored, it must bring its cipher or its text along."""
        return self._named and not (
            self._how.stateless and not item.get("encrypted_content") and not item.get("content")
        )

    def _append(self, item: _Item, part: ToolCall | ToolResult) -> None:
        self._close()
        self._add({**item, **mapping(self._own(part.opaque).get("item"))})

    def _output(self, result: ToolResult) -> Json:
        if isinstance(result.content, str):
            if result.cache is None or not self._how.marks:
                return result.content
            return [self._entry(Text(result.content, cache=result.cache), "tool")]
        entries = [self._entry(part, "tool") for part in result.content]
        if result.cache is not None and entries:
            entries[-1] = {**self._mark(result.cache), **entries[-1]}
        return entries

    # ---- entries of a message --------------------------------------------------------------------------------

    def _entry(self, part: Text | Image | Document | Audio, role: str) -> _Item:
        if isinstance(part, Text):
            return self._text_entry(part, role)
        if role == "assistant":
            raise self._refusal("an assistant turn holds words alone: put the image, document or sound in a user turn")
        if isinstance(part, Audio):
            entry = self._sound(part)
        else:
            entry = self._picture(part) if isinstance(part, Image) else self._file(part)
        return {**entry, **self._mark(part.cache), **self._entry_of(part)}

    def _text_entry(self, part: Text, role: str) -> _Item:
        facts = self._entry_of(part)
        kind = facts.get("type", "output_text" if role == "assistant" else "input_text")
        entry: _Item = {"type": kind, **({} if role == "assistant" else self._mark(part.cache)), **facts}
        key = _key(kind)
        if key or part.text:
            entry.setdefault(key or "text", part.text)
        return entry

    def _mark(self, cache: str | None) -> _Item:
        if cache is None or not self._how.marks:
            return {}
        return {"prompt_cache_breakpoint": {"mode": "explicit", **({"ttl": cache} if cache in _MARK_TTLS else {})}}

    def _picture(self, image: Image) -> _Item:
        entry: _Item = {"type": "input_image"}
        if image.file_id is not None:
            entry["file_id"] = image.file_id
        else:
            entry["image_url"] = image.url or self._data(image)
        if image.detail is not None:
            entry["detail"] = image.detail
        return entry

    def _file(self, document: Document) -> _Item:
        entry: _Item = {"type": "input_file"}
        if document.name is not None:
            entry["filename"] = document.name
        if document.file_id is not None:
            entry["file_id"] = document.file_id
        elif document.url is not None:
            entry["file_url"] = document.url
        else:
            entry["file_data"] = self._data(document)
            entry.setdefault("filename", f"document.{_EXTENSIONS.get(document.kind or '', 'pdf')}")
        return entry

    def _sound(self, audio: Audio) -> _Item:
        form = _SOUNDS.get(audio.kind or "")
        if audio.data is None or form is None:
            raise self._refusal("this API hears MP3 and WAV by value: give the bytes, in one of the two")
        return {"type": "input_audio", "input_audio": {"data": audio.data, "format": form}}

    def _data(self, media: Media) -> str:
        """The bytes as a `data:` URI that says what they are."""
        if media.data is None:
            raise self._refusal(f"{media.uri[:80]!r} has not been read: give the bytes, an address or a file id")
        if media.kind is None or media.uri.startswith(f"data:{media.kind}"):
            return media.uri
        return f"data:{media.kind};base64,{media.data}"

    def _own(self, opaque: Mapping[str, Json]) -> Mapping[str, Json]:
        return own(opaque, self._how.name)

    def _entry_of(self, part: Part) -> Mapping[str, Json]:
        return entry_of(part, self._how.name)

    def _check_role(self, role: str) -> None:
        if role == "tool":
            raise self._refusal("a tool's turn is made of ToolResult(id, …) parts, by the id of the call")

    def _refusal(self, reason: str) -> BadRequestError:
        return BadRequestError(reason, model=self._how.model)


def _filled(item: _Item) -> dict[str, Any]:
    """The lists that entries have been put in already."""
    return {name: value for name, value in item.items() if isinstance(value, list)}
