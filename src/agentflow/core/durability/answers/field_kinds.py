"""Answers with fields: dataclasses, TypedDicts and named tuples, as JSON objects that hold nothing else.

    @dataclass
    class Verdict:                                   {"type": "object", "properties": {"publish": {…}, "why": {…}},
        "What becomes of the draft."          ──▶     "required": ["publish"], "additionalProperties": false,
        publish: bool                                 "description": "What becomes of the draft."}
        why: Annotated[str, "for the author"] = ""

A field with a default may be left out. What `__post_init__` refuses is refused with its words.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias, get_type_hints, is_typeddict

from agentflow.core.durability.answers.kinds import Kind, with_words
from agentflow.core.durability.answers.misfit import Misfit, place_of
from agentflow.core.durability.answers.shapes import fields_of
from agentflow.core.schema import FieldValidator
from agentflow.errors import ConfigurationError

__all__ = ["KindOf", "field_kind", "has_fields", "words_in"]

KindOf: TypeAlias = Callable[[object], Kind]


def has_fields(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or is_typeddict(cls) or _is_named_tuple(cls)


def _is_named_tuple(cls: Any) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def field_kind(cls: Any, kind_of: KindOf) -> Kind:
    """`kind_of` knows the kinds of the fields. Raises ConfigurationError where one names what is not there."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"{cls.__name__}: {error} in its annotations") from error
    required = _required(cls)
    kinds = {name: with_words(kind_of(hints.get(name, Any)), words) for name, words in _fields(cls).items()}
    schema = _schema(cls, kinds, required)

    def read(value: object, place: str) -> object:
        if not is_typeddict(cls) and isinstance(value, cls):
            return value
        found = fields_of(value, schema, place)
        given = {name: kinds[name].read(each, place_of(place, name)) for name, each in found.items()}
        return _made(cls, given, place)

    hashable = getattr(cls, "__hash__", None) is not None and all(kind.hashable for kind in kinds.values())
    return Kind(schema, read, hashable=hashable)


def _made(cls: Any, given: Mapping[str, object], place: str) -> object:
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:  # what a __post_init__ raises that minds its values
        raise Misfit(f"{place}: {error}") from error


def _schema(cls: Any, kinds: Mapping[str, Kind], required: Collection[str]) -> dict[str, Any]:
    words = inspect.cleandoc(cls.__doc__ or "")
    made_up = words.startswith(f"{cls.__name__}(")  # by dataclass or NamedTuple, where nobody wrote any
    return {
        "type": "object",
        "properties": {name: kind.schema for name, kind in kinds.items()},
        "required": [name for name in kinds if name in required],
        "additionalProperties": False,
        **({"description": words} if words and not made_up else {}),
    }


def _fields(cls: Any) -> Mapping[str, str | None]:
    """The names, and what is said of them outside their types."""
    if dataclasses.is_dataclass(cls):
        return {field.name: _said(field) for field in dataclasses.fields(cls) if field.init}
    return dict.fromkeys(cls._fields if _is_named_tuple(cls) else get_type_hints(cls))


def _said(field: dataclasses.Field[Any]) -> str | None:
    words = field.metadata.get("description") or getattr(field, "doc", None)  # `doc` came with Python 3.14
    return words if isinstance(words, str) else None


def _required(cls: Any) -> Collection[str]:
    if _is_named_tuple(cls):
        return [name for name in cls._fields if name not in cls._field_defaults]
    return FieldValidator(cls).required


_NOTES: Final = ("description", "documentation")  # of a msgspec.Meta or pydantic's Field, and of a PEP 727 Doc


def words_in(hint: object) -> str | None:
    """The words in `Annotated[str, "words"]`, or in what else says so there."""
    for note in typing.get_args(hint)[1:]:
        for words in (note, *(getattr(note, name, None) for name in _NOTES)):
            if isinstance(words, str):
                return inspect.cleandoc(words)
    return None
