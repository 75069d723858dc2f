"""What a type asks of an answer: the JSON Schema that says so, and how the typed value is made of JSON.

    WHOLE                      {"type": "integer"}                      3.0   ──▶  3
    choice_kind(…)             {"type": "string", "enum": ["a", "b"]}   "a"   ──▶  "a"
    list_kind(WHOLE, set)      {"type": "array", "items": {…}}          [1]   ──▶  {1}

A value that is of the type already passes as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Final

from agentflow.core.durability.answers.choices import Schema, one_choice
from agentflow.core.durability.answers.misfit import Misfit, must_be, place_of
from agentflow.core.durability.answers.shapes import Read, either, fields_of, items_of, plain, same, whatever

__all__ = [
    "PLAIN",
    "WHATEVER",
    "Kind",
    "choice_kind",
    "enum_kind",
    "list_kind",
    "mapping_kind",
    "tuple_kind",
    "union_kind",
    "ways_of",
    "with_words",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A schema, and who reads by it. Only what is `hashable` can be an item of a set."""

    schema: Schema
    read: Read
    hashable: bool = True


def with_words(kind: Kind, words: str | None) -> Kind:
    return replace(kind, schema={**kind.schema, "description": words}) if words else kind


# ---- plain values ----------------------------------------------------------------------------------------------


def _plain_kind(schema: Schema, make: Callable[[object], object], ready: type | None = None) -> Kind:
    def read(value: object, place: str) -> object:
        # A datetime is a date to Python, but its time would be lost.
        if ready is not None and isinstance(value, ready) and not (ready is date and isinstance(value, datetime)):
            return value
        return make(plain(value, schema, place))

    return Kind(schema, read)


def _decimal(value: object, place: str) -> object:
    def number(value: object, place: str) -> object:
        return Decimal(str(plain(value, _NUMBER, place)))  # by its digits: 0.1 is meant as one tenth

    def text(value: object, place: str) -> object:
        return Decimal(str(plain(value, _DIGITS, place)))

    if isinstance(value, Decimal):
        return value
    return either(value, _DECIMAL, place, [(_NUMBER, number), (_DIGITS, text)])


_NUMBER: Final[Schema] = {"type": "number"}
_DIGITS: Final[Schema] = {"type": "string", "format": "decimal"}
_DECIMAL: Final[Schema] = {"anyOf": [_NUMBER, _DIGITS]}


def _same(value: object) -> object:
    return value


PLAIN: Final[Mapping[object, Kind]] = {
    bool: _plain_kind({"type": "boolean"}, _same),
    int: _plain_kind({"type": "integer"}, lambda value: int(value) if isinstance(value, float) else value),
    float: _plain_kind(_NUMBER, lambda value: float(value) if isinstance(value, int) else value),
    str: _plain_kind({"type": "string"}, _same),
    type(None): _plain_kind({"type": "null"}, _same),
    date: _plain_kind({"type": "string", "format": "date"}, lambda text: date.fromisoformat(str(text)), date),
    datetime: _plain_kind(
        {"type": "string", "format": "date-time"}, lambda text: datetime.fromisoformat(str(text)), datetime
    ),
    Decimal: Kind(_DECIMAL, _decimal),
}
WHATEVER: Final = Kind({}, whatever, hashable=False)


# ---- choices ---------------------------------------------------------------------------------------------------


def choice_kind(choices: Sequence[tuple[object, Sequence[object]]]) -> Kind:
    """One of some values, each with the ways to write it, the one to show first. Where two can be written alike, the
    one that is shown so is meant."""
    order = [
        (spelling, made)
        for rank in zip_longest(*(ways for _, ways in choices), fillvalue=_same)
        for spelling, (made, _) in zip(rank, choices, strict=True)
        if spelling is not _same
    ]
    schema = _choice_schema([ways for _, ways in choices])

    def read(value: object, place: str) -> object:
        for made, _ in choices:
            if value is made:
                return made
        for spelling, made in order:
            if same(value, spelling):
                return made
        raise must_be(place, schema, value)

    return Kind(schema, read)


def enum_kind(cls: type[enum.Enum]) -> Kind:
    """A member by its value or by its name. Values are shown where they are texts, as numbers say little."""
    inner = choice_kind([(member, ways_of(member)) for member in cls])

    def read(value: object, place: str) -> object:
        return value if isinstance(value, cls) else inner.read(value, place)

    return Kind(inner.schema, read)


def ways_of(member: enum.Enum) -> Sequence[object]:
    """The ways to write it: its value, its name, and other names for it. The first is for people."""
    value = member.value
    names = [name for name, other in type(member).__members__.items() if other is member]
    if isinstance(value, str):
        return list(dict.fromkeys((str(value), *names)))
    return [*names, value] if value is None or isinstance(value, int) else names


def _choice_schema(ways: Sequence[Sequence[object]]) -> Schema:
    if any(len(each) > 1 for each in ways):
        return {"anyOf": [one_choice(each) for each in ways]}
    values = [each[0] for each in ways]
    kinds = list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", type(None): "null"}


# ---- what holds others -----------------------------------------------------------------------------------------


def list_kind(item: Kind, make: Callable[[Iterable[object]], object]) -> Kind:
    """A list, a set or a tuple of one kind of item."""
    schema = {"type": "array", "items": item.schema} if item.schema else {"type": "array"}

    def read(value: object, place: str) -> object:
        given = list(value) if isinstance(value, set | frozenset) and make in (set, frozenset) else value
        items = items_of(given, schema, place)
        return make([item.read(each, place_of(place, index)) for index, each in enumerate(items)])

    return Kind(schema, read, hashable=item.hashable and make in (tuple, frozenset))


def tuple_kind(items: Sequence[Kind]) -> Kind:
    """A tuple with a kind for each place."""
    many = len(items)
    schema = {"type": "array", "prefixItems": [item.schema for item in items], "minItems": many, "maxItems": many}
    if not items:
        del schema["prefixItems"]  # JSON Schema wants one at least

    def read(value: object, place: str) -> object:
        given = zip(items, items_of(value, schema, place), strict=True)
        return tuple([item.read(each, place_of(place, index)) for index, (item, each) in enumerate(given)])

    return Kind(schema, read, hashable=all(item.hashable for item in items))


def mapping_kind(inner: Kind) -> Kind:
    """A dict with any keys."""
    schema = {"type": "object", "additionalProperties": inner.schema} if inner.schema else {"type": "object"}

    def read(value: object, place: str) -> object:
        found = fields_of(value, schema, place)
        return {name: inner.read(each, place_of(place, name)) for name, each in found.items()}

    return Kind(schema, read, hashable=False)


def union_kind(options: Sequence[Kind]) -> Kind:
    """The first of several that it fits; a value that is already of one of them is not made into another."""
    schema = {"anyOf": [option.schema for option in options]}

    def read(value: object, place: str) -> object:
        if not _is_json(value):
            for option in options:
                try:
                    made = option.read(value, place)
                except Misfit:
                    continue
                if made is value:
                    return made
        return either(value, schema, place, [(option.schema, option.read) for option in options])

    return Kind(schema, read, hashable=all(option.hashable for option in options))


def _is_json(value: object) -> bool:
    return value is None or type(value) in (str, int, float, bool, list, dict)
