"""YAML text to plain data, strictly, and back from a place in the data to a line and column.

    text ──PyYAML's C parser──▶ events ──parse()──▶ dict, list, str, int, float, bool, None
                                       └─locate()─▶ (line, column) of a path, worked out only when an error needs it

The types are those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so `no` is a word, `1e-3`
a number and a date a text; keys are always texts. Anchors, aliases and `<<` work. Tags, a key given twice, a second
document, an alias inside its own anchor and nesting beyond 64 levels are errors. Nothing recurses: the parser's own
composer overflows the C stack on a hundred thousand open brackets.

Messages hold no text from the file, because that text may be a key that somebody put there by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import yaml

from agentflow.errors import ConfigurationError
from agentflow.llm.content import Json

__all__ = ["MalformedYaml", "Path", "Place", "locate", "parse"]

Path = tuple[str | int, ...]

_MAX_DEPTH: Final = 64
_WORDS: Final[dict[str, Json]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,4000}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str")

Loader: type[yaml.CSafeLoader] | type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Where something stands, both counted from 1."""

    line: int
    column: int


class MalformedYaml(ConfigurationError):
    """The text is not the YAML that is allowed here; `place` says where."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


def parse(text: str) -> Json:
    """The data in one YAML document; None for an empty one. Raises `MalformedYaml`."""
    return _Builder(text).build()


def locate(text: str, path: Path) -> Place:
    """Where `path` stands in a document that `parse` accepts: at its key, or at the nearest thing that encloses it."""
    places: dict[Path, Place] = {}
    _Builder(text, places).build()
    while path and path not in places:
        path = path[:-1]
    return places.get(path, Place(1, 1))


class _Open:
    """A mapping or a list that is being filled. A mapping waits for a key, then for its value."""

    __slots__ = ("filled", "is_mapping", "key", "merges", "path")

    def __init__(self, filled: dict[str, Json] | list[Json], path: Path) -> None:
        self.filled = filled
        self.is_mapping = isinstance(filled, dict)
        self.path = path
        self.key: str | None = None
        self.merges: list[Json] = []

    def add(self, value: Json) -> None:
        if self.key is None:
            self.filled.append(value)  # type: ignore[union-attr]  # only a list has no key here
        elif self.key == "<<":
            self.merges.append(value)
        else:
            self.filled[self.key] = value  # type: ignore[call-overload]  # only a mapping has a key
        self.key = None

    @property
    def next_path(self) -> Path:
        return (*self.path, len(self.filled) if self.key is None else self.key)


class _Builder:
    """Turns events into data, one after the other, with a stack of its own."""

    def __init__(self, text: str, places: dict[Path, Place] | None = None) -> None:
        self._text = text
        self._places = places
        self._whole: list[Json] = []
        self._root = _Open(self._whole, ())
        self._stack = [self._root]
        self._anchors: dict[str, Json] = {}

    def build(self) -> Json:
        for event in _events(self._text):
            if type(event) is yaml.ScalarEvent:  # nine in ten
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent) and self._whole:
                raise MalformedYaml("a second document begins here; one is allowed", _place(event))
        return self._whole[0] if self._whole else None

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        if top.key is None and top.is_mapping:
            self._key(top, event)
        elif event.anchor is None and self._places is None:
            top.add(_value(event))
        else:
            self._put(event, _value(event))

    def _key(self, top: _Open, event: yaml.ScalarEvent) -> None:
        top.key = key = event.value
        if key in top.filled:
            raise MalformedYaml("this key is given twice; remove one of them", _place(event))
        if self._places is not None:
            self._places[(*top.path, key)] = _place(event)

    def _open(self, event: yaml.CollectionStartEvent, empty: dict[str, Json] | list[Json]) -> None:
        if event.tag is not None:
            raise MalformedYaml("tags are not allowed here; write plain values", _place(event))
        if len(self._stack) > _MAX_DEPTH:
            raise MalformedYaml(f"nested more than {_MAX_DEPTH} levels deep", _place(event))
        path = self._stack[-1].next_path if self._stack[1:] else ()
        self._put(event, empty)
        self._stack.append(_Open(empty, path))

    def _close(self, event: yaml.Event) -> None:
        closed = self._stack.pop()
        for source in closed.merges:
            for mapping in source if isinstance(source, list) else (source,):
                if not isinstance(mapping, dict) or not isinstance(closed.filled, dict):
                    raise MalformedYaml("`<<` takes a mapping or a list of mappings", _place(event))
                closed.filled.update({key: value for key, value in mapping.items() if key not in closed.filled})

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise MalformedYaml("this alias has no anchor before it", _place(event))
        value = self._anchors[event.anchor]
        if any(opened.filled is value for opened in self._stack):
            raise MalformedYaml("this alias stands inside its own anchor", _place(event))
        self._put(event, value)

    def _put(self, event: yaml.NodeEvent, value: Json) -> None:
        top = self._stack[-1]
        if top.key is None and top.is_mapping:
            raise MalformedYaml("a key must be a text", _place(event))
        if self._places is not None and top.key is None and top is not self._root:
            self._places[top.next_path] = _place(event)
        if event.anchor is not None and type(event) is not yaml.AliasEvent:
            self._anchors[event.anchor] = value
        top.add(value)


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events; its errors are told again without the snippet of the file that PyYAML adds."""
    failure: MalformedYaml
    try:
        loader = Loader(text)
        try:
            while (event := loader.get_event()) is not None:
                yield event
        finally:
            loader.dispose()
        return
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        failure = MalformedYaml(f"malformed YAML: {error.problem or error.context or 'unreadable'}", place)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        failure = MalformedYaml(
            "malformed YAML: a character that YAML does not allow",
            Place(before.count("\n") + 1, len(before) - before.rfind("\n")),
        )
    raise failure  # outside the handlers, so that no context holds the text of the file


def _value(event: yaml.ScalarEvent) -> Json:
    text = event.value
    if event.tag is not None:
        if event.tag not in _TEXT_TAGS:
            raise MalformedYaml("tags are not allowed here; write plain values", _place(event))
        return text
    return _plain(text) if event.implicit[0] else text


@lru_cache(maxsize=1024)
def _plain(text: str) -> Json:
    """A word without quotes: YAML 1.2's null, booleans and decimal numbers, else a text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
