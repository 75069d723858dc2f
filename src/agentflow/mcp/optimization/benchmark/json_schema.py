"""Does a value fit a JSON Schema? The keywords that schemas for answers are written in, and an error for any other.

    Schema({"type": "object", "required": ["name"], "properties": {"age": {"minimum": 0}}}).fits({"name": "Ann"})

A keyword that is not known raises when the schema is made, since passing it over would pass wrong answers. References
go to `#/…` within the schema. The meaning is that of draft 2020-12 (JSON Schema Core and Validation); formats are notes
there, and here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from agentflow.errors import ConfigurationError

__all__ = ["Schema"]

_NOTES: Final = frozenset(
    "$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly format "
    "additionalProperties".split()
)
"""Keywords that say nothing of a value, or are looked at together with another."""
_DEEPEST: Final = 100


class Schema:
    """Raises ConfigurationError for a schema that is none, or that says what nobody here understands."""

    __slots__ = ("_root",)

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        self._root = schema
        for place, inner in _inner(schema, "#"):
            self._check(place, inner)

    def fits(self, value: object) -> bool:
        """A schema that goes in circles, or a value deeper than any answer, fits nothing."""
        try:
            return self._fits(self._root, value, 0)
        except _TooDeepError:
            return False

    def _check(self, place: str, schema: object) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping):
            raise ConfigurationError(f"JSON Schema {place}: found a {type(schema).__name__}, allowed is an object")
        unknown = sorted(schema.keys() - _NOTES - _RULES.keys() - {"$ref"})
        if unknown:
            raise ConfigurationError(f"JSON Schema {place}: {', '.join(unknown)} is not understood here")
        kinds = schema.get("type", [])
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            if kind not in _TYPES:
                raise ConfigurationError(f"JSON Schema {place}: there is no type {kind!r}")
        if "$ref" in schema:
            self._found(schema["$ref"])
        for name in ("pattern", *schema.get("patternProperties", ())):
            _compiled(schema.get("pattern", "") if name == "pattern" else name, place)

    def _found(self, reference: str) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise ConfigurationError(f"JSON Schema: {reference!r} leads out of the schema, where nobody looks")
        found: Any = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise ConfigurationError(f"JSON Schema: {reference!r} leads nowhere")
            found = found[name]
        return found

    def _fits(self, schema: Any, value: object, depth: int) -> bool:
        if isinstance(schema, bool):
            return schema
        if depth > _DEEPEST:
            raise _TooDeepError
        if "$ref" in schema and not self._fits(self._found(schema["$ref"]), value, depth + 1):
            return False

        def fits(inner: Any, part: object) -> bool:
            return self._fits(inner, part, depth + 1)

        held = all(_RULES[name](said, value, schema, fits) for name, said in schema.items() if name in _RULES)
        return held and ("additionalProperties" not in schema or _additional(value, schema, fits))


class _TooDeepError(Exception):
    pass


def _inner(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The schema, and all within it."""
    yield place, schema
    if not isinstance(schema, Mapping):
        return
    for name in ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"):
        for key, inner in schema.get(name, {}).items():
            yield from _inner(inner, f"{place}/{name}/{key}")
    for name in ("anyOf", "allOf", "oneOf", "prefixItems"):
        for index, inner in enumerate(schema.get(name, ())):
            yield from _inner(inner, f"{place}/{name}/{index}")
    for name in ("items", "not", "additionalProperties", "contains", "propertyNames", "if", "then", "else"):
        if name in schema:
            yield from _inner(schema[name], f"{place}/{name}")


# ---- rules: what a keyword says, the value, the whole schema, and how to look further in -------------------------

_Fits = Callable[[Any, object], bool]
_Rule = Callable[[Any, object, Mapping[str, Any], _Fits], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or float(value).is_integer()),  # type: ignore[arg-type]
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _type(said: Any, value: object, schema: Mapping[str, Any], fits: _Fits) -> bool:
    return any(_TYPES[kind](value) for kind in ([said] if isinstance(said, str) else said))


def _same(one: object, other: object) -> bool:
    """Equal as JSON is: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


def _compiled(pattern: Any, place: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"JSON Schema {place}: pattern {pattern!r}: {error}") from None


def _number(holds: Callable[[Any, Any], bool]) -> _Rule:
    return lambda said, value, schema, fits: not _is_number(value) or holds(value, said)


def _text(holds: Callable[[str, Any], bool]) -> _Rule:
    return lambda said, value, schema, fits: not isinstance(value, str) or holds(value, said)


def _list(holds: Callable[[list[Any], Any, Mapping[str, Any], _Fits], bool]) -> _Rule:
    return lambda said, value, schema, fits: not isinstance(value, list) or holds(value, said, schema, fits)


def _object(holds: Callable[[dict[str, Any], Any, _Fits], bool]) -> _Rule:
    return lambda said, value, schema, fits: not isinstance(value, dict) or holds(value, said, fits)


def _multiple(value: float, step: float) -> bool:
    ratio = value / step
    return math.isfinite(ratio) and float(ratio).is_integer()


def _unique(items: list[Any]) -> bool:
    return not any(_same(one, other) for index, one in enumerate(items) for other in items[:index])


def _rest(items: list[Any], said: Any, schema: Mapping[str, Any], fits: _Fits) -> bool:
    return all(fits(said, item) for item in items[len(schema.get("prefixItems", ())) :])


def _held(items: list[Any], said: Any, schema: Mapping[str, Any], fits: _Fits) -> bool:
    found = sum(fits(said, item) for item in items)
    return bool(schema.get("minContains", 1) <= found <= schema.get("maxContains", math.inf))


def _additional(value: object, schema: Mapping[str, Any], fits: _Fits) -> bool:
    if not isinstance(value, dict):
        return True
    patterns = list(map(re.compile, schema.get("patternProperties", ())))
    named = schema.get("properties", {})
    rest = [name for name in value if name not in named and not any(each.search(name) for each in patterns)]
    return all(fits(schema["additionalProperties"], value[name]) for name in rest)


def _conditional(said: Any, value: object, schema: Mapping[str, Any], fits: _Fits) -> bool:
    return fits(schema.get("then" if fits(said, value) else "else", True), value)


def _always(said: Any, value: object, schema: Mapping[str, Any], fits: _Fits) -> bool:
    return True


_RULES: Final[Mapping[str, _Rule]] = {
    "type": _type,
    "enum": lambda said, value, schema, fits: any(_same(value, each) for each in said),
    "const": lambda said, value, schema, fits: _same(value, said),
    "minimum": _number(lambda value, said: value >= said),
    "maximum": _number(lambda value, said: value <= said),
    "exclusiveMinimum": _number(lambda value, said: value > said),
    "exclusiveMaximum": _number(lambda value, said: value < said),
    "multipleOf": _number(_multiple),
    "minLength": _text(lambda value, said: len(value) >= said),
    "maxLength": _text(lambda value, said: len(value) <= said),
    "pattern": _text(lambda value, said: re.search(said, value) is not None),
    "minItems": _list(lambda items, said, schema, fits: len(items) >= said),
    "maxItems": _list(lambda items, said, schema, fits: len(items) <= said),
    "uniqueItems": _list(lambda items, said, schema, fits: not said or _unique(items)),
    "prefixItems": _list(lambda items, said, schema, fits: all(map(fits, said, items))),
    "items": _list(_rest),
    "contains": _list(_held),
    "minContains": _always,
    "maxContains": _always,
    "required": _object(lambda value, said, fits: all(name in value for name in said)),
    "properties": _object(lambda value, said, fits: all(fits(said[n], value[n]) for n in said if n in value)),
    "patternProperties": _object(
        lambda value, said, fits: all(fits(said[p], value[n]) for p in said for n in value if re.search(p, n))
    ),
    "propertyNames": _object(lambda value, said, fits: all(fits(said, name) for name in value)),
    "minProperties": _object(lambda value, said, fits: len(value) >= said),
    "maxProperties": _object(lambda value, said, fits: len(value) <= said),
    "dependentRequired": _object(
        lambda value, said, fits: all(needed in value for name in said if name in value for needed in said[name])
    ),
    "dependentSchemas": _object(
        lambda value, said, fits: all(fits(said[name], value) for name in said if name in value)
    ),
    "anyOf": lambda said, value, schema, fits: any(fits(each, value) for each in said),
    "allOf": lambda said, value, schema, fits: all(fits(each, value) for each in said),
    "oneOf": lambda said, value, schema, fits: sum(fits(each, value) for each in said) == 1,
    "not": lambda said, value, schema, fits: not fits(said, value),
    "if": _conditional,
    "then": _always,
    "else": _always,
}
