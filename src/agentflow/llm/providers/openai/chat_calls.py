"""The tool calls of one answer as Chat Completions sends them, whole or in pieces, told apart.

    {"index": 0, "id": "call_a", "function": {"name": "f", "arguments": ""}}   →  ToolCallDelta(0, "call_a", "f")
    {"index": 0, "function": {"arguments": "{\\"x\\""}}                         →  ToolCallDelta(0, arguments='{"x"')
    {"index": 1, "id": "call_b", "function": {"name": "f", …}}                 →  ToolCallDelta(1, "call_b", "f", …)

OpenAI numbers the calls and names each once. Compatible servers leave the number out or count it up with every piece,
give every call the same number, send a call whole, its arguments as an object, or no id at all. Then one is made, of
what the answer and the call's place in it are, so that the same answer has the same ids however often it is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.llm.content import Json, ToolCall
from agentflow.llm.messages import ToolCallDelta
from agentflow.llm.providers.lenient import text

__all__ = ["ToolCalls"]

_NOTHING: Final[Mapping[str, Json]] = {}
_MODELLED: Final = ("index", "id", "function", "custom", "type", "name", "arguments", "input")


_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_QUOTED: Final = re.compile(r'\\.|"|\\$', re.DOTALL)


class _Brackets:
    """JSON text that comes in pieces: whether the object that it began is complete. Each character is looked at once,
    however often that is asked, and only if it is."""

    __slots__ = ("_begun", "_depth", "_quoted", "_unseen")

    def __init__(self) -> None:
        self._unseen: list[str] = []
        self._begun = False
        self._depth = 0
        self._quoted = False

    def add(self, piece: str) -> None:
        self._unseen.append(piece)

    @property
    def closed(self) -> bool:
        text, self._unseen = "".join(self._unseen), []
        at = 0
        while found := (_QUOTED if self._quoted else _OUTSIDE).search(text, at):
            self._take(found[0])
            at = found.end()
        return self._begun and self._depth <= 0

    def _take(self, mark: str) -> None:
        if mark == '"':
            self._quoted = not self._quoted
        elif mark == "\\":  # what it escapes comes with the next piece
            self._unseen.append(mark)
        elif not self._quoted:
            self._begun = True
            self._depth += 1 if mark in "{[" else -1


class _Call:
    """One call as far as it has come."""

    __slots__ = ("arguments", "made", "name", "number", "place")

    def __init__(self, number: int, place: object, *, made: bool, name: str) -> None:
        self.number = number  # ours: the calls of an answer are counted in the order they begin
        self.place = place  # the server's own index
        self.made = made  # the id is ours
        self.name = name
        self.arguments = _Brackets()


class ToolCalls:
    """Sorts the pieces of one answer's calls. `api` is the key of their opaque data."""

    __slots__ = ("_api", "_by_id", "_by_place", "_calls", "_choice")

    def __init__(self, api: str, choice: int) -> None:
        self._api = api
        self._choice = choice
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_place: dict[object, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, entries: object, answer: str) -> tuple[ToolCallDelta, ...]:
        """The pieces in one event, or the calls of a whole answer, whose id is `answer`."""
        if not isinstance(entries, list):
            return ()
        return tuple([self._piece(entry, answer) for entry in entries if isinstance(entry, dict)])

    def function(self, entry: object, answer: str) -> tuple[ToolCallDelta, ...]:
        """The one `function_call` of the API's first days, as a call like any other."""
        if not isinstance(entry, dict):
            return ()
        legacy: dict[str, Json] = {"index": "function_call", "type": "function_call", "function": entry}
        return (self._piece(legacy, answer),)

    def whole(self, entries: object, function: object, answer: str) -> list[ToolCall]:
        """The calls of an answer that came at once."""
        entries = entries if isinstance(entries, list) else []
        alone = [{**entry, "index": ("whole", at)} for at, entry in enumerate(entries) if isinstance(entry, dict)]
        deltas = [*self.read(alone, answer), *self.function(function, answer)]
        return [ToolCall.parse(delta.id, delta.name, delta.arguments, opaque=delta.opaque) for delta in deltas]

    def _piece(self, entry: Mapping[str, Json], answer: str) -> ToolCallDelta:
        kind = entry.get("type")
        field = "custom" if kind == "custom" or isinstance(entry.get("custom"), Mapping) else "function"
        body = entry.get(field)
        body = body if isinstance(body, Mapping) else _NOTHING
        id_, name = text(entry.get("id")), text(body.get("name"))
        arguments = _arguments(body.get("arguments") if field == "function" else body.get("input"))
        call = self._find(entry.get("index"), id_, name, arguments)
        known = call is not None
        if call is None:
            call = self._begin(entry.get("index"), id_, name)
        if call.made and (id_ or not known):
            id_ = self._identify(call, id_, answer)
        elif id_:
            self._by_id[id_] = call
            id_ = "" if known else id_  # said once, also by servers that give every piece an id of its own
        call.name = call.name or name
        if arguments:
            call.arguments.add(arguments)
        return ToolCallDelta(call.number, id_, name, arguments, self._opaque(entry, body, field))

    def _find(self, place: object, id_: str, name: str, arguments: str) -> _Call | None:
        """The call that a piece goes on with; None where it begins a new one, which always has a name."""
        here = self._calls[-1:] if place is None else [self._by_place[place]] if _known(place, self._by_place) else []
        same = self._by_id.get(id_) if id_ else None
        if same is not None:
            if place is not None:
                return same if place == same.place or not name else None
            return None if _again(same, name, arguments) else same
        if id_:
            return here[0] if here and (not name or (here[0].made and not here[0].name)) else None
        if not here:
            return self._calls[-1] if self._calls and not name else None
        return None if _again(here[0], name, arguments) else here[0]

    def _begin(self, place: object, id_: str, name: str) -> _Call:
        call = _Call(len(self._calls), place, made=not id_, name=name)
        self._calls.append(call)
        if place is not None and _hashable(place):
            self._by_place[place] = call
        return call

    def _identify(self, call: _Call, id_: str, answer: str) -> str:
        """Its own id, where that came after all; else one of ours, which is as stable as the answer's."""
        if id_:
            call.made = False
            self._by_id[id_] = call
            return id_
        seed = f"{answer}/{self._choice}/{call.number}/{call.name if not answer else ''}"
        return "call_" + hashlib.blake2s(seed.encode("utf-8", "replace"), digest_size=12).hexdigest()

    def _opaque(self, entry: Mapping[str, Json], body: Mapping[str, Json], field: str) -> Mapping[str, Json]:
        """What is not modelled, in the shape in which it goes back."""
        if len(entry) <= 4 and len(body) <= 2 and entry.get("type", "function") in ("function", None):
            extra = {name: value for name, value in entry.items() if value and name not in _MODELLED}
            return {self._api: extra} if extra else _NOTHING
        own: dict[str, Json] = {name: value for name, value in entry.items() if value and name not in _MODELLED}
        inner = {name: value for name, value in body.items() if value and name not in _MODELLED}
        if inner:
            own[field] = inner
        kind = entry.get("type")
        if kind and kind != "function":
            own["type"] = kind
        return {self._api: own} if own else _NOTHING


def _known(place: object, places: Mapping[object, _Call]) -> bool:
    return _hashable(place) and place in places


def _hashable(place: object) -> bool:
    return isinstance(place, int | str | tuple)


def _again(call: _Call, name: str, arguments: str) -> bool:
    """Whether a piece begins another call like this one: it is named again, and there was nothing left to say."""
    return bool(name and call.name and arguments.strip()) and call.arguments.closed


def _arguments(value: object) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else ""
