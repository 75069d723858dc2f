"""A JSON Schema in OpenAI's strict subset, and what such schemas cost: nulls where a field would be left out.

{"properties": {"city": …, "days": {…, "default": 1}}, "required": ["city"]}
    ──strict_schema──▶  every field required, `days` an integer or null, every object closed;
                        None where that would change what is meant: free keys, tuples, `Any`

The nulls in an answer are taken out again where it is read, in `output_type`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from agentflow.llm.content import Json

__all__ = ["Schema", "expanded", "knows_null", "options", "reachable", "strict_schema", "target"]

Schema: TypeAlias = dict[str, Any]

_REF: Final = "#/$defs/"


class _NotStrictError(Exception):
    """The schema says something that the strict subset cannot."""


# https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_KEPT: Final = frozenset(
    "type enum const description anyOf $ref items properties required additionalProperties pattern"
    " minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems".split()
)
_STRICT_FORMATS: Final = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_DROPPED: Final = frozenset("title examples $schema $id deprecated readOnly writeOnly discriminator oneOf".split())
_IN_WORDS: Final = frozenset(
    "default format minLength maxLength uniqueItems contentEncoding contentMediaType".split()
)  # rules that are left to our own reading, and told to the model in the description


def strict_schema(schema: Mapping[str, Json]) -> Schema | None:
    """The schema in the strict subset; None where that would change what it means.

    There every field is required, so one that may be left out becomes one that may be null; whoever reads an answer
    takes such a null out again. Strict schemas come out as they went in.
    """
    top: Schema = dict(schema)
    named: Schema = top.pop("$defs", {})
    try:
        made = _strict(top, named)
        kept = {name: _strict(body, named) for name, body in named.items()}
    except _NotStrictError:
        return None
    if made.get("type") != "object":
        return None
    return made | reachable(made, kept)


def _strict(schema: Schema, named: Schema) -> Schema:
    schema = _alone(schema, named)
    if "$ref" in schema:
        return schema
    schema = schema | {"anyOf": schema["oneOf"]} if "oneOf" in schema else schema
    said = {key: value for key, value in schema.items() if key in _KEPT}
    if schema.get("format") in _STRICT_FORMATS:
        said["format"] = schema["format"]
    if schema.keys() - said.keys() - _IN_WORDS - _DROPPED or not said.keys() & {"type", "anyOf", "enum", "const"}:
        raise _NotStrictError
    if schema.get("type") == "object" or "properties" in schema:
        said = _strict_object(said, named)
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        raise _NotStrictError
    if "items" in said:
        said["items"] = _strict(said["items"], named)
    if "anyOf" in said:
        said["anyOf"] = [_strict(option, named) for option in said["anyOf"]]
    return _with_words(said, {key: schema[key] for key in schema if key in _IN_WORDS and key not in said})


def _alone(schema: Schema, named: Schema) -> Schema:
    """A `$ref` stands alone there: what it refers to takes its place where more is said, or the more is dropped where
    the type holds itself."""
    if "$ref" not in schema or len(schema) == 1:
        return schema
    name, body = target(schema), named.get(target(schema), {})
    if name in reachable(body, named).get("$defs", {}):
        return {"$ref": schema["$ref"]}
    return _alone(body | {key: value for key, value in schema.items() if key != "$ref"}, named)


def _strict_object(schema: Schema, named: Schema) -> Schema:
    properties = schema.get("properties")
    if properties is None or schema.get("additionalProperties", not properties) is not False:
        raise _NotStrictError
    required = schema.get("required", ())
    made = {name: (_strict if name in required else _or_null)(inner, named) for name, inner in properties.items()}
    return {**schema, "properties": made, "required": list(made), "additionalProperties": False}


def _or_null(schema: Schema, named: Schema) -> Schema:
    """A field that may be left out as one that may be null."""
    if knows_null(schema, named):
        if "default" not in schema:  # absent and null would become one
            raise _NotStrictError
        return _strict(schema, named)
    made = _strict(schema, named)
    if "type" not in made or "const" in made:
        outer = {"description": made.pop("description")} if "description" in made else {}
        choices = made["anyOf"] if made.keys() == {"anyOf"} else [made]
        return {"anyOf": [*choices, {"type": "null"}], **outer}
    kinds = made["type"] if isinstance(made["type"], list) else [made["type"]]
    return {**made, "type": [*kinds, "null"], **({"enum": [*made["enum"], None]} if "enum" in made else {})}


def _with_words(schema: Schema, words: Schema) -> Schema:
    rules = ", ".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in words.items() if value is not None
    )
    return {**schema, "description": f"{schema.get('description', '')} ({rules})".strip()} if rules else schema


# ---- what a schema says --------------------------------------------------------------------------------------


def knows_null(schema: Schema, named: Schema) -> bool:
    """Whether null fits it."""
    schema = expanded(schema, named)
    if choices := options(schema):
        return any(knows_null(option, named) for option in choices)
    if "const" in schema or "enum" in schema:
        return None in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type", "null")
    return "null" in ([kinds] if isinstance(kinds, str) else kinds)


def options(schema: Schema) -> list[Schema]:
    """The schemas that it is put together from."""
    return [option for key in ("anyOf", "oneOf", "allOf") for option in schema.get(key, ())]


def reachable(top: Schema, named: Schema) -> Schema:
    """`{"$defs": …}` with what the schema refers to, directly or not; empty where it refers to nothing."""
    found: set[str] = set()
    waiting = list(_references(top))
    while waiting:
        name = waiting.pop()
        if name not in found and name in named:
            found.add(name)
            waiting += _references(named[name])
    return {"$defs": {name: body for name, body in named.items() if name in found}} if found else {}


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield target(schema)
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else ():
        yield from _references(inner)


def target(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).removeprefix(_REF)


def expanded(schema: Schema, named: Schema) -> Schema:
    """What a `$ref` refers to, with what is said beside it."""
    while "$ref" in schema:
        schema = named.get(target(schema), {}) | {key: value for key, value in schema.items() if key != "$ref"}
    return schema
