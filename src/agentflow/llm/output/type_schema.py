"""The JSON Schema of a Python type, as msgspec writes it, with what msgspec leaves unsaid.

    Person  ──schema_of──▶  {"type": "object", "properties": {…}, "required": […], "additionalProperties": False, …}

Added are: closed objects, the type of a choice, the format of a datetime, words in an `Annotated`, the order of a
TypedDict's fields, and the schemas of pydantic models, which are known by their methods, not by an import.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Collection
from typing import Annotated, Any, Final

import msgspec
from msgspec import inspect as mi

from agentflow.errors import ConfigurationError
from agentflow.llm.output.strict_schema import Schema, expanded, reachable, target

__all__ = ["noted", "schema_of", "type_name"]


def schema_of(kind: Any) -> Schema:
    """The schema of a type; the top is never a `$ref`. Raises ConfigurationError."""
    models: Schema = {}

    def of_model(model: Any) -> Schema:
        if not hasattr(model, "model_json_schema"):
            raise ConfigurationError(
                f"{type_name(kind)}: JSON has no {type_name(model)}; give a dataclass, a TypedDict, a msgspec.Struct, "
                f"a pydantic model, or a plain type"
            )
        own: Schema = model.model_json_schema()
        _add(own.pop("$defs", {}), models)
        return own

    try:
        _check(kind, set())
        whole = mi.type_info(kind)
        classes = _classes(whole, {})
        (top, *refs), named = msgspec.json.schema_components((kind, *classes), schema_hook=of_model)
        for ref, each in zip(refs, classes.values(), strict=True):
            _complete_class(named[target(ref)], each)
        _complete(top, whole)
    except NameError as error:
        raise ConfigurationError(
            f"{type_name(kind)}: {error}; its annotations can only name what its module has at the top"
        ) from error
    except (TypeError, KeyError, NotImplementedError, RuntimeError) as error:  # what pydantic raises are RuntimeErrors
        raise ConfigurationError(f"{type_name(kind)}: {error}; {_LIMITS}") from error
    _add(models, named)
    top = expanded(top, named)
    return top | reachable(top, named)


_LIMITS: Final = (
    "classes in a union must be msgspec.Struct with tag=True, and a pydantic model can hold what msgspec cannot"
)


def _add(more: Schema, named: Schema) -> None:
    for name, body in more.items():
        if named.setdefault(name, body) != body:
            raise ConfigurationError(f"two classes with different schemas are called {name}; rename one")


def type_name(kind: object) -> str:
    """A type as one writes it."""
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__name__
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(kind))


def noted(hint: Any) -> str | None:
    """The words in `Annotated[str, "words"]`; also those of a Meta, of pydantic's Field and of PEP 727's Doc."""
    while typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        hint = typing.get_args(hint)[0]
    for note in typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ():
        words = note if isinstance(note, str) else getattr(note, "description", getattr(note, "documentation", None))
        if isinstance(words, str):
            return inspect.cleandoc(words)
    return None


# ---- what msgspec 0.22 crashes on ----------------------------------------------------------------------------


def _check(kind: Any, seen: set[type]) -> None:
    """Refuses a union of a text with a pattern and a list, a set or a dict before msgspec sees it: it takes one pointer
    for the other there, and the interpreter dies."""
    kind = getattr(kind, "__supertype__", getattr(kind, "__value__", kind))  # a NewType, or an alias made by `type`
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if (
        origin in (typing.Union, types.UnionType)
        and any(map(_has_pattern, args))
        and any(issubclass(_class_of(arg), Collection) and not issubclass(_class_of(arg), str | tuple) for arg in args)
    ):
        raise ConfigurationError(
            f"{type_name(kind)}: a text with a pattern cannot stand beside a list, a set or a dict"
        )
    for inner in args[:1] if origin is Annotated else args:
        _check(inner, seen)
    cls = _class_of(kind)
    if cls not in seen and any(hasattr(cls, mark) for mark in _HAS_FIELDS):
        seen.add(cls)
        for hint in typing.get_type_hints(cls, include_extras=True).values():
            _check(hint, seen)


_HAS_FIELDS: Final = ("__dataclass_fields__", "__struct_fields__", "__total__", "_fields")


def _has_pattern(kind: Any) -> bool:
    return any(isinstance(note, msgspec.Meta) and note.pattern is not None for note in typing.get_args(kind)[1:])


def _class_of(kind: Any) -> type:
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    cls = typing.get_origin(kind) or kind
    return cls if isinstance(cls, type) else object


# ---- what msgspec leaves unsaid ------------------------------------------------------------------------------


def _classes(kind: mi.Type | mi.Field, found: dict[Any, Any]) -> dict[Any, Any]:
    """The classes and enums in a type, each with what msgspec knows about it."""
    if (cls := getattr(kind, "cls", None)) is not None and not isinstance(kind, mi.CustomType):
        if cls in found:
            return found
        found[cls] = kind
    for name in kind.__struct_fields__:
        inner = getattr(kind, name)
        for each in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(each, (mi.Type, mi.Field)):
                _classes(each, found)
    return found


def _complete_class(schema: Schema, kind: Any) -> None:
    del schema["title"]
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    if isinstance(kind, mi.EnumType):
        schema.update(_choice([member.value for member in kind.cls]))
        return
    hints = typing.get_type_hints(_class_of(kind.cls), include_extras=True)
    places = _places(schema, kind)
    for each in kind.fields:
        place = places[each.encode_name]
        _complete(place, each.type)
        if (words := noted(hints.get(each.name))) is not None:
            place.setdefault("description", words)
        if place.get("default") != place.get("default"):
            del place["default"]  # NaN
    if "properties" in schema:
        _complete_object(schema, kind, list(hints))


def _places(schema: Schema, kind: Any) -> Schema:
    """Where the schemas of the fields stand. In an array they have no name, so they get a title."""
    if "properties" in schema:
        return typing.cast(Schema, schema["properties"])
    places = zip(kind.fields, schema["prefixItems"][-len(kind.fields) :], strict=True)  # a tag comes first
    return {each.encode_name: place for each, place in places if place.setdefault("title", each.name)}


def _complete_object(schema: Schema, kind: Any, order: list[str]) -> None:
    schema["additionalProperties"] = False
    if (tag := getattr(kind, "tag_field", None)) is not None:
        schema["properties"][tag] = _choice(schema["properties"][tag]["enum"])
    if isinstance(kind, mi.TypedDictType):  # msgspec sorts them, but a model writes in the order that it is told
        schema["properties"] = {name: schema["properties"][name] for name in order}
        schema["required"] = [name for name in order if name in schema["required"]]


def _complete(schema: Schema, kind: mi.Type) -> None:
    match kind:
        case mi.Metadata():
            _complete(schema, kind.type)
        case mi.DateTimeType() | mi.TimeType():
            schema.setdefault("format", "time" if isinstance(kind, mi.TimeType) else "date-time")
        case mi.LiteralType():
            schema.update(_choice(schema["enum"]))
        case mi.CollectionType() if "items" in schema:
            _complete(schema["items"], kind.item_type)
        case mi.DictType(key_type=mi.CollectionType() | mi.TupleType()):
            raise TypeError("the keys of a JSON object are texts")
        case mi.DictType() if "additionalProperties" in schema:
            _complete(schema["additionalProperties"], kind.value_type)
        case mi.TupleType() if "prefixItems" in schema:
            for place, inner in zip(schema["prefixItems"], kind.item_types, strict=True):
                _complete(place, inner)
            if all(place == schema["prefixItems"][0] for place in schema["prefixItems"]):
                schema["items"] = schema.pop("prefixItems")[0]  # also for APIs that know no prefixItems
        case mi.UnionType():
            for option, inner in zip(schema["anyOf"], filter(_comes_first, kind.types), strict=False):
                _complete(option, inner)
        case _:
            pass


def _comes_first(kind: mi.Type) -> bool:
    """Whether msgspec writes this member of a union before its structs and its null, to which nothing is added."""
    while isinstance(kind, mi.Metadata):
        kind = kind.type
    return not isinstance(kind, mi.NoneType) and not (isinstance(kind, mi.StructType) and not kind.array_like)


def _choice(values: list[Any]) -> Schema:
    kinds = list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", type(None): "null"}
