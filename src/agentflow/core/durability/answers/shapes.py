"""The shapes that JSON has, each taken from a value or refused: a plain value, a choice, a list, an object, either of.

    plain("3", {"type": "integer"}, "answer")    ──▶  Misfit: answer must be a whole number, not "3"

Strict as JSON is: "3" is no number and true is not 1; but 3 is a number like 3.5, and 3.0 is the whole number 3, for
JSON knows one sort of number. A number is one that a float can hold, so neither NaN nor infinity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

from agentflow.core.durability.answers.choices import Schema, choices_of
from agentflow.core.durability.answers.misfit import Misfit, missing, must_be, place_of, unknown

__all__ = ["Read", "choice", "either", "fields_of", "items_of", "plain", "same", "whatever"]

Read: TypeAlias = Callable[[object, str], object]
"""Makes what is wanted of a value that stands at a place. Raises Misfit."""

_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def plain(value: object, schema: Schema, place: str) -> object:
    """A text, a number, true, false or null, by the schema's type and format."""
    kinds = schema.get("type", ())
    names: Sequence[str] = [kinds] if isinstance(kinds, str) else kinds
    fits = any(_IS[name](value) for name in names if name in _IS)
    if fits and (not isinstance(value, str) or _has_format(value, schema.get("format"))):
        return value
    raise must_be(place, schema, value)


def choice(value: object, schema: Schema, place: str) -> object:
    """One of the values that the schema lists."""
    for ways in choices_of(schema):
        for way in ways:
            if same(value, way):
                return way
    raise must_be(place, schema, value)


def either(value: object, schema: Schema, place: str, reads: Iterable[tuple[Schema, Read]]) -> object:
    """What the first option makes of it that it fits. Where it has the shape of one option alone, that one says what is
    wrong inside it."""
    shape = _container(value)
    near: list[Misfit] = []
    for option, read in reads:
        try:
            return read(value, place)
        except Misfit as misfit:
            if shape is not None and option.get("type") == shape:
                near.append(misfit)
    raise near[0] if len(near) == 1 else must_be(place, schema, value)


def items_of(value: object, schema: Schema, place: str) -> Sequence[object]:
    """The items of a list that is neither too short nor too long."""
    if not isinstance(value, list | tuple):
        raise must_be(place, schema, value)
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        raise Misfit(f"{place} must have {_count(schema)}, not {len(value)}")
    return value


def fields_of(value: object, schema: Schema, place: str) -> Mapping[str, object]:
    """The fields of an object that has those it needs, and none it does not know."""
    if not isinstance(value, Mapping):
        raise must_be(place, schema, value)
    known = schema.get("properties", {})
    for name in value:
        if not isinstance(name, str):
            raise Misfit(f"{place} has a key that is no text: {name!r}")
        if name not in known and schema.get("additionalProperties", True) is False:
            raise unknown(place, name, known)
    lacking = [name for name in schema.get("required", ()) if name not in value]
    if lacking:
        raise missing(place, lacking)
    return value


def whatever(value: object, place: str) -> object:
    """Anything that JSON holds."""
    if isinstance(value, Mapping):
        for name, inner in fields_of(value, {}, place).items():
            whatever(inner, place_of(place, name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            whatever(inner, place_of(place, index))
    elif not (value is None or isinstance(value, str | int) or _is_number(value)):
        raise must_be(place, {}, value)
    return value


def same(one: object, other: object) -> bool:
    """Whether two plain values are one in JSON, where 1 is 1.0 but not true."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _is_whole(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


_IS: Final[Mapping[str, Callable[[object], bool]]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_whole,
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
}


def _has_format(text: str, name: object) -> bool:
    """Formats that we do not write ourselves are let through."""
    try:
        if name == "date":
            date.fromisoformat(text)
        elif name == "date-time":
            datetime.fromisoformat(text)
        elif name == "decimal":
            return _DECIMAL.fullmatch(text) is not None and Decimal(text).is_finite()
    except (ValueError, InvalidOperation):
        return False
    return True


def _container(value: object) -> str | None:
    return "object" if isinstance(value, Mapping) else "array" if isinstance(value, list | tuple) else None


def _count(schema: Schema) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if least == most:
        return f"{least} item{'s' * (least != 1)}"
    return f"at least {least} items" if most is None else f"{least} to {most} items"
