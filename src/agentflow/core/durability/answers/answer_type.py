"""The type of an answer: what `interrupt(…, schema=T)` asks a person for.

    answer_type(Literal["publish", "discard"])      answer_type(["publish", "discard"]) is the same, in fewer words
    answer_type(list[Verdict])                      of dataclasses, TypedDicts, pydantic models, msgspec Structs, …
    answer_type(None)                               whatever JSON holds

    kind.accept({"publish": True})  ──▶  Verdict(publish=True)

Strict as JSON is: "3" is no number, and true is no 1. Of `Annotated` the words count, and nothing else.
"""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from agentflow.core.durability.answers.field_kinds import field_kind, has_fields, words_in
from agentflow.core.durability.answers.foreign_kinds import foreign_kind, is_foreign
from agentflow.core.durability.answers.kinds import (
    PLAIN,
    WHATEVER,
    Kind,
    choice_kind,
    enum_kind,
    list_kind,
    mapping_kind,
    tuple_kind,
    union_kind,
    ways_of,
    with_words,
)
from agentflow.core.durability.answers.misfit import Misfit
from agentflow.core.durability.answers.shapes import Read
from agentflow.errors import AnswerError, ConfigurationError

__all__ = ["AnswerType", "answer_type"]

_USABLE: Final = (
    "an answer can be bool, int, float, str, date, datetime, Decimal, a list of choices, Literal, Enum, a dataclass, a "
    "TypedDict, a NamedTuple, a pydantic model, a msgspec.Struct, None for anything, and list, tuple, set, "
    "dict[str, …] and unions of those"
)


@dataclass(frozen=True, slots=True)
class AnswerType:
    """`schema` is a JSON Schema for people and for processes that have no types; None where anything will do."""

    schema: Mapping[str, object] | None
    _read: Read

    def accept(self, value: object) -> object:
        """The typed value of an answer that came as JSON, or is of the type already. Raises AnswerError, which says
        what is wanted and where; what run and interrupt it is about only the caller knows."""
        try:
            return self._read(value, "answer")
        except Misfit as misfit:
            raise AnswerError(str(misfit)) from misfit.__cause__
        except RecursionError:
            raise AnswerError("answer is nested too deeply") from None


def answer_type(schema: object) -> AnswerType:
    """Raises ConfigurationError, as an argument is wrong, for what no JSON can be read as."""
    if schema is None:
        return AnswerType(None, WHATEVER.read)
    kind = _choices(schema) if isinstance(schema, list | tuple) else _kind(schema, frozenset())
    return AnswerType(kind.schema, kind.read)


def _kind(hint: object, inside: frozenset[type]) -> Kind:
    """`inside` are the classes around it: one that contains itself has no end."""
    while (meant := getattr(hint, "__supertype__", getattr(hint, "__value__", hint))) is not hint:
        hint = meant  # of a NewType, or of an alias made by `type`
    origin, args = get_origin(hint), get_args(hint)
    kind_of = partial(_kind, inside=inside)
    if origin is Annotated:
        return with_words(kind_of(args[0]), words_in(hint))
    if origin in _MARKS:
        return kind_of(args[0])
    if origin is Literal:
        return _choices(args)
    if origin in (Union, types.UnionType):
        return union_kind([kind_of(arg) for arg in args])
    if hint in (Any, object):
        return WHATEVER
    if hint is None:
        return PLAIN[type(None)]
    if isinstance(hint, type) or origin is not None:  # a type, so it can be looked up
        if (origin or hint) in _MAKERS:
            return _collection(hint, kind_of)
        if (origin or hint) in (dict, collections.abc.Mapping):
            return _mapping(hint, kind_of)
    return _class_kind(hint, inside)


# Required, NotRequired, Final, and ReadOnly where Python has it: they say nothing of the value.
_MARKS: Final = frozenset(
    getattr(typing, name) for name in ("Required", "NotRequired", "Final", "ReadOnly") if hasattr(typing, name)
)
_MAKERS: Final[Mapping[object, Callable[[Iterable[object]], object]]] = {
    list: list,
    collections.abc.Sequence: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}


def _collection(hint: object, kind_of: Callable[[object], Kind]) -> Kind:
    holder, args = get_origin(hint) or hint, get_args(hint)
    if holder is tuple and hint is not tuple and args[1:] != (...,):
        return tuple_kind([kind_of(arg) for arg in args])
    item = kind_of(args[0]) if args else WHATEVER
    if holder in (set, frozenset) and not item.hashable:
        raise ConfigurationError(f"{_name(hint)}: its items have no hash; give a list instead")
    return list_kind(item, _MAKERS[holder])


def _mapping(hint: object, kind_of: Callable[[object], Kind]) -> Kind:
    key, inner = get_args(hint) or (str, object)
    if key is not str:
        raise ConfigurationError(f"{_name(hint)}: the keys of a JSON object are texts; give dict[str, …]")
    return mapping_kind(kind_of(inner))


def _class_kind(cls: object, inside: frozenset[type]) -> Kind:
    if not isinstance(cls, type):
        raise ConfigurationError(f"schema={_name(cls)} cannot be asked for: {_USABLE}")
    if cls in PLAIN:
        return PLAIN[cls]
    if cls in inside:
        raise ConfigurationError(f"{_name(cls)} contains itself, so an answer could have no end: {_USABLE}")
    if issubclass(cls, enum.Enum) and cls.__members__:
        return enum_kind(cls)
    if has_fields(cls):
        return field_kind(cls, partial(_kind, inside=inside | {cls}))
    if is_foreign(cls):
        return foreign_kind(cls)
    raise ConfigurationError(f"schema={_name(cls)} cannot be asked for: {_USABLE}")


def _choices(options: Sequence[object]) -> Kind:
    """One of these. A member of an Enum may be written as anywhere else."""
    ways: list[tuple[object, Sequence[object]]] = []
    for option in options:
        if isinstance(option, enum.Enum):
            ways.append((option, ways_of(option)))
        elif option is None or isinstance(option, str | int):
            ways.append((option, [option]))
        else:
            raise ConfigurationError(f"{option!r} is no choice: choices are texts, whole numbers, True, False and None")
    if not ways:
        raise ConfigurationError("schema=[] leaves nothing to choose")
    return choice_kind(ways)


def _name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
