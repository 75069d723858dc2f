"""What the bodies of records say, and what is made of them again.

    step     {"action": …, "set": [[name, value], …], "del": [name, …], "add": [[name, reducer, [value, …]], …]}
    exec     {"result": …}                      with "undo": [item, result], a step or an exec can be undone
    item     {"result": …, "add": …}, {"error": …}
    join     {"winners": [position, …], "failures": [error, …], "visits": {node: count}}
    update   {"set": …, "del": …}
    answer   {"value": …}, {"expired": true}

Names stand in pairs, not as members, so that none is taken for a tag of a value's type. A SerializationError says which
key holds what cannot be stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from agentflow.core.durability.records import Record
from agentflow.core.durability.values import decode, encode
from agentflow.core.run import Join
from agentflow.core.state import Writes

__all__ = [
    "Undo",
    "answer_body",
    "answered",
    "error_body",
    "error_in",
    "exec_body",
    "item_body",
    "join_body",
    "join_in",
    "result_in",
    "step_body",
    "step_in",
    "undo_in",
    "writes_body",
    "writes_in",
]

Undo: TypeAlias = tuple[object, object]
"""What exec took and what it returned."""

_NO_WRITES: Final = Writes({})

_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def step_body(action: str | None, writes: Writes, undo: Undo | None) -> str:
    return _object([("action", _text(action)), *_writes(writes), *_undo(undo)])


def step_in(record: Record) -> tuple[str | None, Writes]:
    """The action and the writes of a visit."""
    body = _fields(record)
    return cast("str | None", body["action"]), _writes_of(body)


def exec_body(result: object, undo: Undo | None) -> str:
    return _object([("result", encode(result, "result")), *_undo(undo)])


def item_body(result: object, added: Writes, undo: Undo | None) -> str:
    return _object([("result", encode(result, "result")), *_writes(added), *_undo(undo)])


def result_in(record: Record) -> Any:
    return _fields(record)["result"]


def undo_in(record: Record) -> Undo | None:
    """What the step has done that can be undone; None where there is nothing."""
    undo = _fields(record).get("undo")
    return None if undo is None else (undo[0], undo[1])


def writes_body(writes: Writes) -> str:
    return _object(_writes(writes))


def writes_in(record: Record) -> Writes:
    return _writes_of(_fields(record))


def error_body(error: Exception) -> str:
    return _object([("error", encode(error, "error"))])


def error_in(record: Record) -> Exception | None:
    return cast("Exception | None", _fields(record).get("error"))


def join_body(join: Join) -> str:
    failures = encode(list(join.failures), "failures")
    return _object([("winners", _text(list(join.winners))), ("failures", failures), ("visits", _text(join.visits))])


def join_in(record: Record) -> Join:
    body = _fields(record)
    return Join(body["winners"], body["failures"], body["visits"])


def answer_body(value: object) -> str:
    return _object([("value", encode(value, "answer"))])


def answered(record: Record) -> tuple[bool, object]:
    """Whether somebody answered, and what: (False, None) where nobody did in time."""
    body = _fields(record)
    return "value" in body, body.get("value")


# ---- writing -------------------------------------------------------------------------------------------------


def _object(members: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join([f'"{name}":{text}' for name, text in members]) + "}"


def _array(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _writes(writes: Writes) -> list[tuple[str, str]]:
    members = []
    if writes.assigned:
        pairs = (f"[{_text(name)},{encode(value, name)}]" for name, value in writes.assigned.items())
        members.append(("set", _array(pairs)))
    if writes.removed:
        members.append(("del", _text(list(writes.removed))))
    if writes.added:
        members.append(("add", _array(_added(name, *adds) for name, adds in writes.added.items())))
    return members


def _added(name: str, reducer: str, values: Sequence[object]) -> str:
    return f"[{_text(name)},{_text(reducer)},{_array(encode(value, name) for value in values)}]"


def _undo(undo: Undo | None) -> list[tuple[str, str]]:
    if undo is None:
        return []
    return [("undo", _array([encode(undo[0], "what exec took"), encode(undo[1], "result")]))]


# ---- reading -------------------------------------------------------------------------------------------------


def _fields(record: Record) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", decode(record.body, record.id))


def _writes_of(body: Mapping[str, Any]) -> Writes:
    if body.keys().isdisjoint(("set", "del", "add")):
        return _NO_WRITES
    added = {name: (reducer, values) for name, reducer, values in body.get("add", ())}
    return Writes(dict(body.get("set", ())), body.get("del", ()), added)
