"""What does not fit a shape, where, and what would: sentences for whoever wrote it.

    misfits({"models": {"a": {"top_p": 2}}}, shapes.type_info(Document), ())
        ──▶  models.a.top_p: found 2, allowed is a number from 0 to 1

msgspec says that a value does not fit and stops at the first place; this walks the data and names them all. What may be
a key or a password is never repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from msgspec import inspect as shapes

from agentflow.llm.config.document import Path

__all__ = ["Problem", "misfits"]

_NOTHING: Final[Mapping[str, shapes.Type]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Problem:
    """One misfit: where it stands and a sentence about it."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}" if self.path else self.message


def misfits(
    value: object, shape: shapes.Type, path: Path, stands_for: Mapping[str, shapes.Type] = _NOTHING
) -> Iterator[Problem]:
    """Everything in `value` that the shape does not allow. `stands_for` are shapes of fields, by name, that say more
    than their type can."""
    shape = _matching_member(value, shape)
    if isinstance(shape, shapes.StructType) and isinstance(value, dict):
        yield from _struct_misfits(value, shape, path, stands_for)
    elif isinstance(shape, shapes.DictType) and isinstance(value, dict):
        for key, item in value.items():
            yield from misfits(item, shape.value_type, (*path, key), stands_for)
    elif isinstance(shape, shapes.ListType) and isinstance(value, list) and _has_length(value, shape):
        for index, item in enumerate(value):
            yield from misfits(item, shape.item_type, (*path, index), stands_for)
    elif not _fits(value, shape):
        found = _show(value) if not _is_secretive(shape) else "something else"
        yield Problem(path, f"found {found}, allowed is {_describe(shape)}")


def _has_length(value: list[object], shape: shapes.ListType) -> bool:
    return (shape.min_length or 0) <= len(value) and (shape.max_length is None or len(value) <= shape.max_length)


def _struct_misfits(
    value: dict[str, object], shape: shapes.StructType, path: Path, stands_for: Mapping[str, shapes.Type]
) -> Iterator[Problem]:
    fields = {field.encode_name: field for field in shape.fields}
    for key, item in value.items():
        if key in fields:
            yield from misfits(item, stands_for.get(key, fields[key].type), (*path, key), stands_for)
        else:
            yield Problem((*path, key), _unknown_field(key, list(fields)))
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(path, f"the field {name} is missing; it holds {_describe(field.type)}")


def _unknown_field(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; known are {', '.join(known)}"


def _matching_member(value: object, shape: shapes.Type) -> shapes.Type:
    """Of a union, the member that is the same sort of container as the value, so that the walk can go on inside it."""
    if not isinstance(shape, shapes.UnionType):
        return shape
    wanted = (
        (shapes.StructType, shapes.DictType)
        if isinstance(value, dict)
        else (shapes.ListType,)
        if isinstance(value, list)
        else ()
    )
    return next((member for member in shape.types if isinstance(member, wanted)), shape)


def _fits(value: object, shape: shapes.Type) -> bool:
    match shape:
        case shapes.Metadata():
            return _fits(value, shape.type)
        case shapes.UnionType():
            return any(_fits(value, member) for member in shape.types)
        case shapes.NoneType():
            return value is None
        case shapes.BoolType():
            return isinstance(value, bool)
        case shapes.LiteralType():
            return value in shape.values
        case shapes.StrType() | shapes.IntType() | shapes.FloatType():
            return _fits_scalar(value, shape)
        case _:
            return isinstance(shape, shapes.AnyType)


def _fits_scalar(value: object, shape: shapes.StrType | shapes.IntType | shapes.FloatType) -> bool:
    """msgspec itself decides, on a type that is rebuilt from the shape."""
    base: type = {shapes.StrType: str, shapes.IntType: int, shapes.FloatType: float}[type(shape)]
    limits: dict[str, Any] = {name: limit for name in _LIMITS if (limit := getattr(shape, name, None)) is not None}
    try:
        msgspec.convert(value, Annotated[base, Meta(**limits)] if limits else base)
    except msgspec.ValidationError:
        return False
    return True


_LIMITS: Final = ("pattern", "min_length", "max_length", "ge", "gt", "le", "lt")


def _is_secretive(shape: shapes.Type) -> bool:
    """Whether a value that does not fit may be a key or a password, which no message repeats."""
    if isinstance(shape, shapes.UnionType):
        return any(_is_secretive(member) for member in shape.types)
    inner = shape.type if isinstance(shape, shapes.Metadata) else shape
    inner = inner.item_type if isinstance(inner, shapes.ListType) else inner
    inner = inner.type if isinstance(inner, shapes.Metadata) else inner
    return isinstance(inner, shapes.StrType) and inner.pattern is not None


def _describe(shape: shapes.Type) -> str:
    match shape:
        case shapes.Metadata():
            return str((shape.extra_json_schema or {}).get("description") or _describe(shape.type))
        case shapes.UnionType():
            return " or ".join(_describe(member) for member in shape.types)
        case shapes.FloatType():
            return "a number" + _bounds(shape)
        case shapes.IntType():
            return "a whole number" + _bounds(shape)
        case shapes.LiteralType():
            return " or ".join(map(str, shape.values))
        case shapes.ListType():
            fixed = f"{shape.min_length}, each " if shape.max_length and shape.min_length == shape.max_length else ""
            return f"a list of {fixed}{_describe(shape.item_type)}"
        case shapes.StructType():
            return f"a mapping of {', '.join(field.encode_name for field in shape.fields)}"
        case shapes.DictType():
            return "a mapping"
        case _:
            return _PLAIN.get(type(shape), "another value")


_PLAIN: Final[dict[type, str]] = {
    shapes.StrType: "a text that is not empty",
    shapes.BoolType: "true or false",
    shapes.NoneType: "null",
    shapes.AnyType: "any value",
}


def _bounds(shape: shapes.FloatType | shapes.IntType) -> str:
    if shape.ge is not None and shape.le is not None:
        return f" from {shape.ge:g} to {shape.le:g}"
    low = f", {shape.ge:g} or more" if shape.ge is not None else f" above {shape.gt:g}" if shape.gt is not None else ""
    return low + (f" and at most {shape.le:g}" if shape.le is not None else "")


def _show(value: object) -> str:
    """A value as a reader of YAML knows it, cut short."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
