"""Whether the input of a run is what its flow declares: the fields of a dataclass or a TypedDict.

AsyncFlow(…, inputs=Article)      Article is a dataclass, a TypedDict, or any object with `validate`
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, is_typeddict, runtime_checkable

from agentflow.errors import GraphError, InputError

__all__ = ["FieldValidator", "Validator", "validator_for"]


@runtime_checkable
class Validator(Protocol):
    """Checks the input of a run."""

    def validate(self, values: Mapping[str, object], *, partial: bool = False) -> Mapping[str, object]:
        """The values to put into the state, defaults filled in. Raises InputError.

        With `partial` other keys may stand beside the declared ones, as in the state a nested flow shares.
        """
        ...


def validator_for(schema: type | Validator | None) -> Validator | None:
    """A validator for a dataclass or TypedDict; a Validator is taken as it is. Raises GraphError for the rest."""
    if schema is None or (isinstance(schema, Validator) and not isinstance(schema, type)):
        return schema
    if isinstance(schema, type) and (dataclasses.is_dataclass(schema) or is_typeddict(schema)):
        return FieldValidator(schema)
    name = getattr(schema, "__name__", repr(schema))
    raise GraphError(f"inputs={name}: give a dataclass, a TypedDict, or an object with validate(values)")


class FieldValidator:
    """Checks values against the fields of a dataclass or a TypedDict."""

    def __init__(self, schema: type) -> None:
        self.name = schema.__name__
        try:
            self.types: dict[str, Any] = get_type_hints(schema)
        except NameError as error:
            raise GraphError(f"inputs={self.name}: {error} in its annotations") from error
        if is_typeddict(schema):
            self.required = _required_keys(schema)
            self._fields: dict[str, dataclasses.Field[Any]] = {}
        else:
            self._fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
            self.types = {name: self.types[name] for name in self._fields}
            self.required = frozenset(name for name, field in self._fields.items() if not _has_default(field))

    def validate(self, values: Mapping[str, object], *, partial: bool = False) -> Mapping[str, object]:
        unknown = [] if partial else [name for name in values if name not in self.types]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.types, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(self.types)}"
            raise InputError(f"{self.name} has no field {unknown[0]!r}{hint}", field=unknown[0])
        missing = [name for name in self.types if name in self.required and name not in values]
        if missing:
            raise InputError(
                f"{self.name} needs {', '.join(map(repr, missing))}, which the input lacks", field=missing[0]
            )
        checked = {name: values[name] for name in self.types if name in values}
        for name, value in checked.items():
            problem = mismatch(value, self.types[name], name)
            if problem:
                raise InputError(f"{self.name}: {problem}", field=name)
        return {**self._defaults(checked), **checked}

    def _defaults(self, given: Mapping[str, object]) -> dict[str, object]:
        return {
            name: field.default_factory() if callable(field.default_factory) else field.default
            for name, field in self._fields.items()
            if name not in given and _has_default(field)
        }


def mismatch(value: object, kind: Any, path: str) -> str | None:
    """Why `value` is not a `kind`, or None. What cannot be checked at run time passes."""
    origin = get_origin(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return mismatch(value, get_args(kind)[0], path)
    if origin in (Union, types.UnionType):
        if any(mismatch(value, option, path) is None for option in get_args(kind)):
            return None
    elif origin is Literal:
        if any(value == option and type(value) is type(option) for option in get_args(kind)):
            return None
    elif origin in (list, set, frozenset, collections.abc.Sequence, tuple):
        return _container_mismatch(value, kind, path)
    elif origin in (dict, collections.abc.Mapping):
        return _mapping_mismatch(value, kind, path)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return None
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return None
    elif kind is None:
        if value is None:
            return None
    elif is_typeddict(kind):
        return _typed_dict_mismatch(value, kind, path)
    elif _is_instance(value, origin or kind):
        return None
    return f"{path} must be {_word(kind)}, not {_word(type(value))}{f' {value!r}' if origin is Literal else ''}"


def _is_instance(value: object, kind: Any) -> bool:
    """True also where Python cannot tell: Any, a TypeVar, a Protocol that is not for run time."""
    try:
        return not isinstance(kind, type) or isinstance(value, kind)
    except TypeError:
        return True


def _container_mismatch(value: object, kind: Any, path: str) -> str | None:
    origin, args = get_origin(kind), get_args(kind)
    if not isinstance(value, Collection) or not isinstance(value, origin) or isinstance(value, str):
        return f"{path} must be {_word(kind)}, not {_word(type(value))}"
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        if len(value) != len(args):
            return f"{path} must be {_word(kind)}: it has {len(value)} items"
        pairs = list(zip(value, args, strict=True))
    else:
        pairs = [(item, args[0]) for item in value]
    problems = (mismatch(item, item_kind, f"{path}[{index}]") for index, (item, item_kind) in enumerate(pairs))
    return next((problem for problem in problems if problem), None)


def _mapping_mismatch(value: object, kind: Any, path: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{path} must be {_word(kind)}, not {_word(type(value))}"
    key_kind, item_kind = get_args(kind)
    for name, item in value.items():
        problem = mismatch(name, key_kind, f"{path}: the key {name!r}") or mismatch(
            item, item_kind, f"{path}[{name!r}]"
        )
        if problem:
            return problem
    return None


def _typed_dict_mismatch(value: object, kind: type, path: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{path} must be {_word(kind)}, not {_word(type(value))}"
    try:
        FieldValidator(kind).validate(value)
    except InputError as error:
        return f"{path}: {error}"
    return None


def _required_keys(schema: Any) -> frozenset[str]:
    """A TypedDict's required keys, also where `from __future__ import annotations` hides NotRequired from Python."""
    marks = {name: get_origin(hint) for name, hint in get_type_hints(schema, include_extras=True).items()}
    return frozenset(
        name
        for name, mark in marks.items()
        if mark is typing.Required or (mark is not typing.NotRequired and name in schema.__required_keys__)
    )


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _word(kind: Any) -> str:
    if get_origin(kind) is None and isinstance(kind, type):
        return "None" if kind is type(None) else kind.__name__
    return str(kind).replace("typing.", "")
