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
from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.llm.content import Json, ToolCall
from agentflow.llm.messages import ToolCallDelta

__all__ = ["ToolCalls"]

_NOTHING: Final[Mapping[str, Json]] = {}
_MODELLED: Final = ("index", "id", "function", "custom", "type", "name", "arguments", "input")


class _Call:
    """One call as far as it has come."""

    __slots__ = ("made", "name", "number", "place", "words")

    def __init__(self, number: int, place: object, *, made: bool, name: str) -> None:
        self.number = number  # ours: the calls of an answer are counted in the order they begin
        self.place = place  # the server's own index
        self.made = made  # the id is ours
        self.name = name
        self.words: list[str] = []

    @property
    def whole(self) -> bool:
        """Whether its arguments are a JSON value already, so that what follows is another call."""
        try:
            msgspec.json.decode("".join(self.words))
        except (msgspec.DecodeError, ValueError, RecursionError):  # as in `decoded`
            return False
        return True


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
        id_, name = _text(entry.get("id")), _text(body.get("name"))
        arguments = _arguments(body.get("arguments") if field == "function" else body.get("input"))
        call = self._find(entry.get("index"), id_, name, arguments)
        known = call is not None
        if call is None:
            call = self._begin(entry.get("index"), id_, name)
        if call.made and (id_ or not known):
            id_ = self._identify(call, id_, answer)
        elif id_:
            self._by_id[id_] = call
        call.name = call.name or name
        if arguments:
            call.words.append(arguments)
        return ToolCallDelta(call.number, id_, name, arguments, self._opaque(entry, body, field))

    def _find(self, place: object, id_: str, name: str, arguments: str) -> _Call | None:
        """The call that a piece goes on with; None where it begins a new one."""
        here = self._calls[-1:] if place is None else [self._by_place[place]] if _known(place, self._by_place) else []
        if id_:
            same = self._by_id.get(id_)
            if same is not None:
                return same if place is None or place == same.place or not name else None
            return here[0] if here and here[0].made and not (name and here[0].name) else None
        if not here:
            return self._calls[-1] if self._calls and not name else None
        again = name and here[0].name and arguments and here[0].whole
        return None if again else here[0]

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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else ""
