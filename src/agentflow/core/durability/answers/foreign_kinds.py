"""Answers that are pydantic models or msgspec Structs: read by whoever made the class, described by them too.

    class Verdict(BaseModel): …      known by its methods       model_validate_json, model_json_schema
    class Verdict(Struct): …         known by its fields        msgspec.convert, msgspec.json.schema

Nothing is imported here: who gives such a class has imported its library. Both read strictly. What our own reading of
their schema would say of a misfit is said before their words, so that people read the same everywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.durability.answers.checking import check_at
from agentflow.core.durability.answers.choices import Schema
from agentflow.core.durability.answers.kinds import Kind
from agentflow.core.durability.answers.misfit import Misfit, place_of
from agentflow.core.durability.answers.shapes import Read
from agentflow.errors import ConfigurationError

__all__ = ["foreign_kind", "is_foreign"]


def is_foreign(cls: Any) -> bool:
    return _is_struct(cls) or _is_model(cls)


def foreign_kind(cls: Any) -> Kind:
    """Raises ConfigurationError where the class has what JSON cannot say."""
    try:
        schema = _inlined(*_apart(_schema(cls)), frozenset())
    except Exception as error:  # whatever their libraries raise; pydantic's are RuntimeErrors, msgspec's TypeErrors
        raise ConfigurationError(f"{cls.__name__} cannot be asked for as an answer: {error}") from error
    convert = _struct_read if _is_struct(cls) else _model_read
    return Kind(schema, _checked(cls, schema, convert(cls)), hashable=False)


def _is_struct(cls: Any) -> bool:
    return hasattr(cls, "__struct_fields__") and "msgspec" in sys.modules


def _is_model(cls: Any) -> bool:
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_json_schema")


def _schema(cls: Any) -> Schema:
    schema: Schema = sys.modules["msgspec"].json.schema(cls) if _is_struct(cls) else cls.model_json_schema()
    return schema


def _checked(cls: type, schema: Schema, convert: Read) -> Read:
    def read(value: object, place: str) -> object:
        if isinstance(value, cls):
            return value
        try:
            return convert(value, place)
        except Misfit:
            check_at(place, schema, value)
            raise

    return read


def _struct_read(cls: Any) -> Read:
    msgspec = sys.modules["msgspec"]

    def read(value: object, place: str) -> object:
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            raise Misfit(f"{place}{where.rstrip('`')}: {what}") from error

    return read


def _model_read(cls: Any) -> Read:
    def read(value: object, place: str) -> object:
        try:
            # As JSON, because only there do its strict rules know that a date is a text.
            return cls.model_validate_json(json.dumps(value, allow_nan=False), strict=True)
        except (ValueError, TypeError) as error:
            raise Misfit(_complaint(error, place)) from error

    return read


def _complaint(error: Exception, place: str) -> str:
    errors: Callable[[], list[Mapping[str, Any]]] | None = getattr(error, "errors", None)
    if errors is None:
        return f"{place}: {error}"
    first = errors()[0]
    for key in first["loc"]:
        place = place_of(place, key)
    return f"{place}: {first['msg']}"


# ---- their schemas ---------------------------------------------------------------------------------------------


def _apart(schema: Schema) -> tuple[Schema, Mapping[str, Schema]]:
    return {key: inner for key, inner in schema.items() if key != "$defs"}, schema.get("$defs", {})


def _inlined(part: Any, named: Mapping[str, Schema], inside: frozenset[str]) -> Any:
    """The schema with no references in it; what contains itself may be anything there, as the class judges again."""
    if isinstance(part, list):
        return [_inlined(each, named, inside) for each in part]
    if not isinstance(part, Mapping):
        return part
    rest = {key: _inlined(each, named, inside) for key, each in part.items() if key != "$ref"}
    if not isinstance(part.get("$ref"), str):
        return rest if "$ref" not in part else dict(part)
    name = part["$ref"].rpartition("/")[2]
    if name in inside or name not in named:
        return rest
    return {**_inlined(named[name], named, inside | {name}), **rest}
