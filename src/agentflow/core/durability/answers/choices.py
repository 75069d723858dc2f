"""What a schema lets one choose from, and the options that it has beside.

    {"enum": ["a", "b"]}                                        [["a"], ["b"]]
    {"anyOf": [{"title": "LOW", "enum": ["LOW", 1]}, …]}        [["LOW", 1], …]: one choice, two ways to write it

So enums are written, whose members have a name and a value; the title is the way to show to people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["Schema", "choices_of", "is_choice", "one_choice", "options_of", "spelled"]

Schema: TypeAlias = Mapping[str, Any]  # what JSON Schema has nested in it is only known by looking


def one_choice(ways: Sequence[object]) -> Schema:
    """An option that can be written in several ways, the first for people."""
    return {"title": spelled(ways[0]), "enum": list(ways)}


def options_of(schema: Schema) -> Iterator[Schema]:
    """Whatever it allows, each option for itself; of one that has none, itself."""
    if "anyOf" not in schema:
        yield schema
        return
    for option in schema["anyOf"]:
        yield from options_of(option)


def is_choice(option: Schema) -> bool:
    """Whether it lists its values."""
    return "enum" in option or "const" in option


def choices_of(schema: Schema) -> Sequence[Sequence[object]]:
    """What can be chosen from, each with the ways to write it."""
    return [ways for option in options_of(schema) for ways in _ways(option)]


def _ways(option: Schema) -> Sequence[Sequence[object]]:
    values: Sequence[object] = option.get("enum", [option["const"]] if "const" in option else [])
    one = bool(values) and "type" not in option and option.get("title") == spelled(values[0])
    return [values] if one else [[value] for value in values]


def spelled(value: object) -> str:
    """A choice as one types it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
