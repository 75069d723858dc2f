"""Whether an answer fits a stored JSON Schema: for a process that has no types, such as the command line.

    check_answer({"pages": "x"}, schema)    ──▶  AnswerError: answer.pages must be a whole number, not "x"

It knows the keywords that answer types write: type, enum, const, properties, required, additionalProperties, items,
prefixItems, minItems, maxItems, anyOf, and the formats date, date-time and decimal. All others, as a pydantic model may
bring, are let through here: the node that asked judges again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from agentflow.core.durability.answers.choices import Schema, is_choice
from agentflow.core.durability.answers.misfit import Misfit, place_of
from agentflow.core.durability.answers.shapes import choice, either, fields_of, items_of, plain, whatever
from agentflow.errors import AnswerError

__all__ = ["check_answer", "check_at"]


def check_answer(value: object, schema: Mapping[str, object] | None) -> None:
    """Raises AnswerError where the value does not fit. None lets through whatever JSON holds."""
    try:
        check_at("answer", schema or {}, value)
    except Misfit as misfit:
        raise AnswerError(str(misfit)) from None
    except RecursionError:
        raise AnswerError("answer is nested too deeply") from None


def check_at(place: str, schema: Schema, value: object) -> None:
    """The same for a part of an answer. Raises Misfit."""
    kind = schema.get("type")
    if "anyOf" in schema:
        either(value, schema, place, [(option, partial(_check, option)) for option in schema["anyOf"]])
    elif is_choice(schema):
        choice(value, schema, place)
    elif kind == "array":
        _check_items(place, schema, value)
    elif kind == "object":
        _check_fields(place, schema, value)
    elif kind is not None:
        plain(value, schema, place)
    else:
        whatever(value, place)


def _check(schema: Schema, value: object, place: str) -> None:
    check_at(place, schema, value)


def _check_items(place: str, schema: Schema, value: object) -> None:
    first, rest = schema.get("prefixItems", ()), schema.get("items", {})
    for index, item in enumerate(items_of(value, schema, place)):
        inner = first[index] if index < len(first) else rest
        check_at(place_of(place, index), inner if isinstance(inner, Mapping) else {}, item)


def _check_fields(place: str, schema: Schema, value: object) -> None:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for name, inner in fields_of(value, schema, place).items():
        kind = known.get(name, rest)
        check_at(place_of(place, name), kind if isinstance(kind, Mapping) else {}, inner)
