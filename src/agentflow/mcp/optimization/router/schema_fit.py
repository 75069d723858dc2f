"""Whether a value fits a JSON Schema, as far as schemas for a model's answer go.

misfit({"age": "old"}, schema)  ──▶  "$.age: it is no integer"      None where it fits

Looked at: type, enum, const, properties, required, additionalProperties, items, prefixItems, anyOf, oneOf, allOf, $ref
within the document, and the bounds of numbers, texts and arrays. What else a schema says is passed over: a cascade asks
whether an answer is good enough to go on with, and whoever asked for the type reads it by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentflow.llm.content import Json

__all__ = ["misfit"]

_DEEPEST: Final = 64
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (Mapping,),
    "array": (list, tuple),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "integer": (int, float),
}


def misfit(value: Json, schema: Mapping[str, Json]) -> str | None:
    """Where and why the value does not fit, in words; None where it does."""
    return next(_misfits(value, schema, schema, "$", 0), None)


def _misfits(value: Json, schema: Json, root: Mapping[str, Json], path: str, depth: int) -> Iterator[str]:
    if schema is False:
        yield f"{path}: nothing fits there"
    if not isinstance(schema, Mapping):
        return
    if depth > _DEEPEST:
        yield f"{path}: it is nested too deeply"
        return
    if isinstance(ref := schema.get("$ref"), str):
        yield from _misfits(value, _found(ref, root), root, path, depth + 1)
    kinds = schema.get("type")
    named = [kinds] if isinstance(kinds, str) else _list(kinds)
    if named and not any(_is(value, kind) for kind in named):
        yield f"{path}: it is no {' or '.join(map(str, named))}"
        return
    if "enum" in schema and not any(_same(value, each) for each in _list(schema["enum"])):
        yield f"{path}: it is none of the values that are allowed"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{path}: it is not the value that is wanted"
    yield from _of_unions(value, schema, root, path, depth)
    if isinstance(value, Mapping):
        yield from _of_object(value, schema, root, path, depth)
    elif isinstance(value, (list, tuple)):
        yield from _of_array(value, schema, root, path, depth)
    else:
        yield from _of_scalar(value, schema, path)


def _of_unions(
    value: Json, schema: Mapping[str, Json], root: Mapping[str, Json], path: str, depth: int
) -> Iterator[str]:
    for each in _list(schema.get("allOf")):
        yield from _misfits(value, each, root, path, depth + 1)
    for word in ("anyOf", "oneOf"):
        choices = _list(schema.get(word))
        fitting = sum(next(_misfits(value, each, root, path, depth + 1), None) is None for each in choices)
        if choices and (fitting == 0 or (word == "oneOf" and fitting > 1)):
            yield f"{path}: it fits {fitting or 'none'} of the {len(choices)} shapes that are allowed"


def _of_object(
    value: Mapping[str, Json], schema: Mapping[str, Json], root: Mapping[str, Json], path: str, depth: int
) -> Iterator[str]:
    for name in _list(schema.get("required")):
        if name not in value:
            yield f"{path}: it lacks {name!r}"
    known = schema.get("properties")
    known = known if isinstance(known, Mapping) else {}
    further = schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in known:
            yield from _misfits(inner, known[name], root, f"{path}.{name}", depth + 1)
        elif further is False:
            yield f"{path}: it has a field {name!r}, which is not known"
        else:
            yield from _misfits(inner, further, root, f"{path}.{name}", depth + 1)


def _of_array(
    value: Sequence[Json], schema: Mapping[str, Json], root: Mapping[str, Json], path: str, depth: int
) -> Iterator[str]:
    yield from _within(len(value), schema.get("minItems"), schema.get("maxItems"), path, "items")
    first = _list(schema.get("prefixItems"))
    rest = schema.get("items", True)
    for place, inner in enumerate(value):
        shape = first[place] if place < len(first) else rest
        yield from _misfits(inner, shape, root, f"{path}[{place}]", depth + 1)


def _of_scalar(value: Json, schema: Mapping[str, Json], path: str) -> Iterator[str]:
    if isinstance(value, str):
        yield from _within(len(value), schema.get("minLength"), schema.get("maxLength"), path, "characters")
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            yield f"{path}: it does not match the pattern"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _within(value, schema.get("minimum"), schema.get("maximum"), path, "")
        low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if (isinstance(low, (int, float)) and value <= low) or (isinstance(high, (int, float)) and value >= high):
            yield f"{path}: {value} is out of bounds"


def _within(size: float, least: Json, most: Json, path: str, what: str) -> Iterator[str]:
    if (isinstance(least, (int, float)) and size < least) or (isinstance(most, (int, float)) and size > most):
        yield f"{path}: {f'{size} {what}'.strip()} is out of bounds"


def _is(value: Json, kind: Json) -> bool:
    types = _TYPES.get(str(kind), (object,))
    if isinstance(value, bool):
        return bool in types or object in types
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, types)


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True  # in a dialect of its own


def _found(ref: str, root: Mapping[str, Json]) -> Json:
    """What a `#/…` means in the document; anything where it leads nowhere."""
    here: Json = root
    for step in ref.removeprefix("#").strip("/").split("/") if ref.startswith("#") else ["\0"]:
        if not step:
            continue
        if not isinstance(here, Mapping) or step.replace("~1", "/").replace("~0", "~") not in here:
            return True
        here = here[step.replace("~1", "/").replace("~0", "~")]
    return here


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, (list, tuple)) else ()
