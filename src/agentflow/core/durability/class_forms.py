"""How the classes of a program are stored once they are registered, by what they are.

    an enum               {"$:Colour": "RED"}                  by the member's name; flags by their number
    a dataclass           {"$:Finding": {"where": …}}          by its fields, frozen, slotted and `init=False` ones too
    a NamedTuple          {"$:Point": {"x": 1, "y": 2}}
    a msgspec Struct      {"$:Reply": {"text": …}}
    a pydantic model      {"$:Invoice": [{"total": …}, …]}     with what was set, extra and private

Values come back as they were, not as if they were made anew: no `__init__`, no `__post_init__`, no validator runs, so
nothing is coerced, filled in or refused that had been accepted. Two exceptions: a field that the class got since is
given its default, and a Struct can be made in no other way than by its `__init__`, whose `__post_init__` runs; its
fields are then set to what was stored.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, Flag
from functools import cached_property, partial
from typing import Any, cast

from agentflow.core.durability.error_forms import error_form
from agentflow.core.durability.forms import Form, Inner, Misfit, fitted, full_name, listed, mapped, text_of, whole
from agentflow.errors import AgentFlowError, ConfigurationError

__all__ = ["class_form"]

Default = Callable[[], object]


def class_form(tag: str, kind: type) -> Form:
    """The form of what is known of its class alone. Raises ConfigurationError where that does not say enough."""
    if issubclass(kind, Enum):
        return _flag_form(tag, kind) if issubclass(kind, Flag) else _enum_form(tag, kind)
    if issubclass(kind, AgentFlowError):
        return error_form(tag, kind)
    if hasattr(kind, "model_fields") and hasattr(kind, "__pydantic_validator__"):
        return Form(tag, _apart_model, partial(_model, kind))
    if hasattr(kind, "__struct_fields__"):
        return Form(tag, _apart_struct, partial(_struct, kind))
    if dataclasses.is_dataclass(kind):
        return Form(tag, _apart_dataclass, partial(_dataclass, kind))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return Form(tag, _apart_named, partial(_named, kind))
    raise ConfigurationError(
        f"{full_name(kind)} is no dataclass, enum, NamedTuple, pydantic model or msgspec Struct, so its values can be "
        "taken apart only in a way that you name: storable(name, type, to=…, back=…) (and @storable stands above "
        "@dataclass)"
    )


def _enum_form(tag: str, kind: type[Enum]) -> Form:
    def together(stored: object) -> object:
        member = kind.__members__.get(text_of(stored))
        if member is None:
            raise Misfit(f"{full_name(kind)} no longer has a member {stored!r}")
        return member

    return Form(tag, whole(lambda value: cast("Enum", value).name), together)


def _flag_form(tag: str, kind: type[Flag]) -> Form:
    """Several flags in one have no name of their own, so flags are numbers."""
    return Form(tag, whole(lambda value: cast("Flag", value).value), lambda stored: kind(cast("int", stored)))


# ---- dataclasses and named tuples


def _apart_dataclass(value: object, inner: Inner) -> object:
    return _apart_fields(value, [field.name for field in dataclasses.fields(cast("Any", value))], inner)


def _dataclass(kind: Any, stored: object) -> object:
    fields = dataclasses.fields(kind)
    values = fitted(kind, mapped(stored), [field.name for field in fields], dict(_defaults(fields)))
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)  # a frozen one has no other way
    return made


def _defaults(fields: tuple[dataclasses.Field[Any], ...]) -> Iterator[tuple[str, Default]]:
    for field in fields:
        if field.default_factory is not dataclasses.MISSING:
            yield field.name, field.default_factory
        elif field.default is not dataclasses.MISSING:
            yield field.name, partial(_same, field.default)


def _apart_named(value: object, inner: Inner) -> object:
    return _apart_fields(value, cast("Any", value)._fields, inner)


def _named(kind: Any, stored: object) -> object:
    defaults = {name: partial(_same, default) for name, default in kind._field_defaults.items()}
    return tuple.__new__(kind, fitted(kind, mapped(stored), kind._fields, defaults).values())


# ---- msgspec


def _apart_struct(value: object, inner: Inner) -> object:
    return _apart_fields(value, cast("Any", value).__struct_fields__, inner)


def _struct(kind: Any, stored: object) -> object:
    names, given = kind.__struct_fields__, mapped(stored)
    optional = {
        name: partial(_same, None)  # never asked: its own `__init__` fills these in
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not parameter.empty
    }
    values = {name: value for name, value in fitted(kind, given, names, optional).items() if name in given}
    made = kind(**values)
    for name, value in values.items():
        if getattr(made, name) is not value:  # its `__post_init__` has changed it
            getattr(kind, name).__set__(made, value)
    return made


# ---- pydantic: by what `__getstate__` and `__setstate__` of its models keep


def _apart_model(value: object, inner: Inner) -> object:
    model = cast("Any", value)
    fields = type(model).model_fields
    _check_set(value, [name for name in fields if name not in vars(model)])
    unset = [name for name in fields if name not in model.__pydantic_fields_set__]
    stored: list[object] = [inner({name: vars(model)[name] for name in fields}), unset]
    rest = [dict(getattr(model, name, None) or {}) for name in ("__pydantic_extra__", "__pydantic_private__")]
    return [*stored, *map(inner, rest)] if any(rest) else stored


def _model(kind: Any, stored: object) -> object:
    stored_fields, unset, *rest = listed(stored)
    given = mapped(stored_fields)
    extra, private = map(mapped, rest) if rest else ({}, {})
    if extra and kind.model_config.get("extra") != "allow":
        fitted(kind, extra, (), {})
    fields = kind.model_fields.items()
    defaults = {name: partial(_default_of, field, given) for name, field in fields if not field.is_required()}
    values = fitted(kind, given, kind.model_fields, defaults)
    made = kind.__new__(kind)
    made.__setstate__(
        {
            "__dict__": values,
            "__pydantic_fields_set__": (given.keys() - map(text_of, listed(unset))) | extra.keys(),
            "__pydantic_extra__": extra if kind.model_config.get("extra") == "allow" else None,
            "__pydantic_private__": _private(kind, private, values),
        }
    )
    return made


def _private(kind: Any, stored: Mapping[str, object], fields: Mapping[str, object]) -> dict[str, object] | None:
    known = kind.__private_attributes__
    defaults = {name: partial(_default_of, attribute, fields) for name, attribute in known.items()}
    values = fitted(kind, stored, known, defaults)
    undefined = [name for name, value in values.items() if type(value).__name__ == "PydanticUndefinedType"]
    return {name: value for name, value in values.items() if name not in undefined} if known else None


def _default_of(field: Any, given: Mapping[str, object]) -> object:
    """The default of a field or a private attribute, some of which are made of the fields before it."""
    factory = field.default_factory
    if factory is None:
        return copy.deepcopy(field.default)
    return factory(dict(given)) if getattr(field, "default_factory_takes_validated_data", False) else factory()


# ---- all of them


def _apart_fields(value: object, names: list[str], inner: Inner) -> object:
    missing = object()
    fields = {name: getattr(value, name, missing) for name in names}
    _check_set(value, [name for name, item in fields.items() if item is missing])
    others = [name for name in _attributes(value) if name not in fields and not _is_derived(type(value), name)]
    if others:
        raise Misfit(
            f"a {full_name(type(value))} holds {', '.join(map(repr, others))} beside its fields, which would be lost: "
            "make it a field, or say with storable(name, type, to=…, back=…) how it is stored"
        )
    return inner(fields)


def _check_set(value: object, missing: list[str]) -> None:
    if missing:
        raise Misfit(f"a {full_name(type(value))} has no value for its {', '.join(map(repr, missing))}")


def _attributes(value: object) -> Iterator[str]:
    yield from getattr(value, "__dict__", ())
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name


def _is_derived(kind: type, name: str) -> bool:
    """Whether it comes back by itself: a cached property, or what typing notes on a `Box[int](…)`."""
    return name == "__orig_class__" or isinstance(inspect.getattr_static(kind, name, None), cached_property)


def _same(value: object) -> object:
    return value
