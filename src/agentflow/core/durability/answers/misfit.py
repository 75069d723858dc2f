"""Why an answer does not fit, in words for whoever gave it as JSON.

    answer.items[2].amount must be a number, not "x"
    answer.verdict must be one of "publish", "discard", not null
    answer lacks "title"

Whoever reads by a type and whoever reads by a stored schema take their words from here, so that they say the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentflow.core.durability.answers.choices import Schema, choices_of, is_choice, options_of

__all__ = ["FORMATS", "Misfit", "listed", "missing", "must_be", "place_of", "shown", "unknown", "wanted"]

_LONGEST: Final = 60  # characters of a value that stand in a message
_TYPES: Final = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
FORMATS: Final = {
    "date": "a date like 2026-11-27",
    "date-time": "a date and time like 2026-11-27T09:30",
    "decimal": "a number",
}


class Misfit(Exception):
    """A value does not fit; the message says what is wanted, and where. At the face it becomes an AnswerError."""


def must_be(place: str, schema: Schema, value: object) -> Misfit:
    return Misfit(f"{place} must be {wanted(schema)}, not {shown(value)}")


def missing(place: str, names: Sequence[str]) -> Misfit:
    return Misfit(f"{place} lacks {listed(map(shown, names), 'and')}")


def unknown(place: str, name: str, known: Iterable[str]) -> Misfit:
    has = ", ".join(known)
    return Misfit(f"{place} has no {shown(name)}; it has {has or 'nothing in it'}")


def place_of(place: str, key: str | int) -> str:
    """Where an item of a list or a field of an object stands."""
    if isinstance(key, str) and key.isidentifier():
        return f"{place}.{key}"
    return f"{place}[{key if isinstance(key, int) else shown(key)}]"


def shown(value: object) -> str:
    """A value as JSON, where that is short."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 4 * _LONGEST:  # Python itself refuses to write the longest
        return "a number of more digits than fit here"
    if value is None or isinstance(value, str | int | float):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f"a Python {type(value).__name__}"


def wanted(schema: Schema) -> str:
    """What a schema asks for, in a few words: `a whole number`, `one of "a", "b"`, `a date … or null`."""
    choices = [shown(ways[0]) for ways in choices_of(schema)]
    others = dict.fromkeys(_wanted(option) for option in options_of(schema) if not is_choice(option))
    return listed([*([_one_of(choices)] if choices else []), *others], "or")


def _wanted(schema: Schema) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}"
    kinds = schema.get("type", "")
    names: Sequence[str] = kinds if isinstance(kinds, list) else [kinds]
    return listed([_TYPES.get(name, "what JSON holds") for name in names], "or")


def listed(words: Iterable[str], last: str) -> str:
    """`a, b or c`."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def _one_of(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
