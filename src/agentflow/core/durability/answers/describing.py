"""What an answer may be, in a few words for the prompt of a terminal.

    {"type": "boolean"}                          yes/no
    {"enum": ["publish", "discard"]}             publish | discard
    {"anyOf": [{"type": "number"}, …null]}       a number | none
    {"type": "object", "properties": {…}}        JSON: {title: text, pages?: whole number}

The words are those that `parse_answer` understands. What can be left out has a question mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from agentflow.core.durability.answers.choices import Schema, choices_of, is_choice, options_of, spelled
from agentflow.core.durability.answers.misfit import FORMATS

__all__ = ["describe_schema"]

_MOST: Final = 12  # choices or fields that are named one by one
_DEEPEST: Final = 3  # objects in objects
_TYPED: Final = {
    "boolean": "yes/no",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "null": "none",
}
_IN_JSON: Final = {
    "boolean": "true/false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "null": "null",
    "array": "[…]",
    "object": "{…}",
}


def describe_schema(schema: Mapping[str, object] | None) -> str:
    """`yes/no`, `publish | discard`, `JSON: [text, …]`, or `anything` where the schema is None."""
    return _joined(_typed(option) for option in _options(schema or {}))


def _options(schema: Schema) -> Iterator[Schema]:
    """Whatever it allows, each option for itself; a choice as it is shown."""
    if choices := [ways[0] for ways in choices_of(schema)]:
        yield {"enum": choices}
    yield from (option for option in options_of(schema) if not is_choice(option))


def _typed(schema: Schema) -> str:
    """As one would type it."""
    if is_choice(schema):
        return _some([spelled(value) for value in schema["enum"]], " | ")
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    kinds = schema.get("type", "")
    names: Sequence[str] = kinds if isinstance(kinds, list) else [kinds]
    return _joined(_TYPED.get(name) or (f"JSON: {_in_json(schema)}" if name else "anything") for name in names)


def _in_json(schema: Schema, depth: int = 0) -> str:
    """As it stands in JSON."""
    return _joined(_option_in_json(option, depth) for option in _options(schema))


def _option_in_json(schema: Schema, depth: int) -> str:
    if is_choice(schema):
        return _some([json.dumps(value, ensure_ascii=False) for value in schema["enum"]], " | ")
    kinds = schema.get("type", "")
    if depth < _DEEPEST and kinds == "object":
        return _object(schema, depth + 1)
    if depth < _DEEPEST and kinds == "array":
        return _list(schema, depth + 1)
    if schema.get("format") in ("date", "date-time"):
        return "date" if schema["format"] == "date" else "date and time"
    names: Sequence[str] = kinds if isinstance(kinds, list) else [kinds]
    return _joined(_IN_JSON.get(name, "anything") for name in names)


def _object(schema: Schema, depth: int) -> str:
    rest = schema.get("additionalProperties")
    if "properties" not in schema:
        return f"{{name: {_in_json(rest, depth)}, …}}" if isinstance(rest, Mapping) else "{…}"
    required = schema.get("required", ())
    fields = [
        f"{name}{'' if name in required else '?'}: {_in_json(inner, depth)}"
        for name, inner in schema["properties"].items()
    ]
    return f"{{{_some(fields, ', ')}}}"


def _list(schema: Schema, depth: int) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(_in_json(inner, depth) for inner in schema['prefixItems'])}]"
    inner = schema.get("items")
    return f"[{_in_json(inner, depth)}, …]" if inner and isinstance(inner, Mapping) else "[…]"


def _some(words: Sequence[str], between: str) -> str:
    if len(words) <= _MOST:
        return between.join(words)
    return between.join([*words[:_MOST], f"… ({len(words)} in all)"])


def _joined(words: Iterable[str]) -> str:
    """Each once: the two ways to write an amount are one to people."""
    return " | ".join(dict.fromkeys(words))
