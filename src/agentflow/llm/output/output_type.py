"""Typed answers: a Python type as a JSON Schema that a model is asked to keep to, and its JSON as a value of the type.

    OutputType.of(Person)  ──format──▶  OutputFormat("Person", schema)      what the provider is told
    '{"name": "Ada", …}'   ──decode──▶  Person("Ada", …)   or a Misfit: "Expected `int`, got `str` - at `$.age`"

msgspec reads the value. Added here are the finding of JSON in what a model wrote, and pydantic models, which are known
by their methods, not by an import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast, overload

import msgspec
from msgspec.structs import replace

from agentflow.llm.content import Json
from agentflow.llm.messages import OutputFormat
from agentflow.llm.output.strict_schema import Schema, expanded, knows_null, options, strict_schema
from agentflow.llm.output.type_schema import schema_of, type_name

__all__ = ["Misfit", "OutputType", "converted"]

T = TypeVar("T")
A = TypeVar("A", covariant=True)

_VALUE: Final = "value"


class Misfit(ValueError):
    """An answer that does not fit its type, in words for the model that gave it."""


# ---- the face ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputType(Generic[A]):
    """A type for a model's answer: `OutputType.of(Person)`.

    Classes with fields (dataclass, TypedDict, msgspec.Struct, pydantic model) are asked for as they are. Any other type
    (`int`, `list[str]`, a Literal, an Enum, a NamedTuple, `dict[str, int]`) is asked for as `{"value": …}`, because
    APIs want an object at the top; `decode` takes the wrapping off and also reads an answer without it.
    """

    kind: object
    wrapped: bool = field(compare=False)
    _read_as: Any = field(compare=False, repr=False)
    _loose: OutputFormat = field(compare=False, repr=False)
    _strict: OutputFormat = field(compare=False, repr=False)

    # One output type serves the process, so the schemas that it gives away are copies.

    @property
    def name(self) -> str:
        """What the type is called in a request."""
        return self._loose.name

    @property
    def format(self) -> OutputFormat:
        """What to ask the provider for; `strict` is left open."""
        return replace(self._loose, schema=_copy(self._loose.schema))

    @property
    def strict_format(self) -> OutputFormat:
        """The same with a strict schema and `strict=True`; `format` itself where the type has no strict schema."""
        return replace(self._strict, schema=_copy(self._strict.schema))

    @overload
    @staticmethod
    def of(kind: type[T]) -> OutputType[T]: ...
    @overload
    @staticmethod
    def of(kind: object) -> OutputType[object]: ...  # a union or a Literal, which type checkers do not take for a type
    @staticmethod
    def of(kind: object) -> OutputType[Any]:
        """The output type of a Python type. Raises ConfigurationError for what JSON or msgspec cannot say."""
        return _of_class(kind) if isinstance(kind, type) else _output_type(kind)

    def decode(self, text: str) -> A:
        """The value in a model's answer. Raises Misfit.

        Looked at in this order, and the first that fits is taken: the whole text, blocks between ``` fences, objects
        and arrays that stand in prose, and the bare words themselves.
        """
        misfit: Misfit | None = None
        for value in self._candidates(text):
            try:
                return self._read(value)
            except Misfit as error:
                misfit = misfit or error
        raise misfit or Misfit(f"expected JSON of {self.name}, got {json.dumps(text[:60], ensure_ascii=False)}")

    def partial(self, value: Json) -> Mapping[str, Json]:
        """What `partial_json` found in an unfinished answer, as a mapping: the fields so far, or `{"value": …}`.

        It is JSON, not yet a T: half a text satisfies no rule, and a missing field no class.
        """
        if isinstance(value, Mapping) and (not self.wrapped or value.keys() <= {_VALUE}):
            return value
        return {_VALUE: value} if self.wrapped and value is not None else {}

    def _candidates(self, text: str) -> Iterator[Json]:
        yield from _parsed(text)
        for block in _FENCE.findall(text):
            yield from _parsed(block)
        yield from _embedded(text)
        if self.wrapped and text.strip() and not _CUT_OFF.match(text):
            yield text.strip()

    def _read(self, value: Json) -> A:
        schema = cast(Schema, self._loose.schema)
        if not self.wrapped:
            return cast(A, converted(value, self._read_as, schema))
        bare = {_VALUE: value}
        said = isinstance(value, Mapping) and value.keys() == bare.keys()
        try:
            return cast(A, converted(value if said else bare, self._read_as, schema).value)
        except Misfit as misfit:
            if not said:
                raise
            try:  # {"value": 1} may also be a dict[str, int] that nobody has wrapped
                return cast(A, converted(bare, self._read_as, schema).value)
            except Misfit:
                raise misfit from None


def _output_type(kind: object) -> OutputType[Any]:
    read_as = Any if kind is object else kind
    schema = schema_of(read_as)
    if wrapped := "properties" not in schema:
        read_as = msgspec.defstruct("answer", [(_VALUE, read_as)], forbid_unknown_fields=True)
        schema = schema_of(read_as)
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", type_name(kind)).strip("_")[:64] or "answer"
    loose = OutputFormat(name, schema, description=schema.get("description"))
    strict = strict_schema(schema)
    asked = loose if strict is None else OutputFormat(name, strict, True, loose.description)
    return OutputType(kind, wrapped, read_as, loose, asked)


def _copy(schema: Json) -> Any:
    if isinstance(schema, dict):
        return {name: _copy(value) for name, value in schema.items()}
    return [_copy(item) for item in schema] if isinstance(schema, list) else schema


# Of classes alone: `int | str` equals `str | int`, but reads otherwise.
_of_class = lru_cache(maxsize=256)(_output_type)


# ---- finding JSON in an answer -------------------------------------------------------------------------------

_FENCE: Final = re.compile(r"```[\w+-]*\s(.*?)```", re.DOTALL)
_CUT_OFF: Final = re.compile(r'\s*(?:```\w*\s*)?\{\s*"value"')  # half of the JSON that was asked for is no word
_BRACKET: Final = re.compile(r"[\[{]\s*")
_STARTS: Final = 1000  # brackets in prose; an answer that has more of them is no answer
_DECODER: Final = json.JSONDecoder()


def _parsed(text: str) -> Iterator[Json]:
    try:
        yield msgspec.json.decode(text.strip().removeprefix("\ufeff"))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return


def _embedded(text: str) -> Iterator[Json]:
    """Objects and arrays in the text, outermost ones alone.

    A bracket after which no JSON follows is prose. JSON that breaks off ends the search: the inside of a truncated
    answer must not be taken for the answer.
    """
    at = 0
    for _ in range(_STARTS):
        if (found := _BRACKET.search(text, at)) is None:
            return
        try:
            _, at = _DECODER.raw_decode(text, found.start())
        except json.JSONDecodeError as error:
            if error.pos > found.end():
                return
            at = found.end()
        except (ValueError, RecursionError):  # a number of too many digits, or too deep
            return
        else:
            yield from _parsed(text[found.start() : at])  # which knows neither NaN nor 1e999


# ---- from JSON to a value ------------------------------------------------------------------------------------


def converted(value: Json, kind: Any, schema: Schema) -> Any:
    """Parsed JSON as a value of the type whose schema this is. Raises Misfit."""
    try:
        meant = _as_meant(value, [schema], schema.get("$defs", {}))
        return msgspec.convert(meant, kind, str_keys=True, dec_hook=_validated)
    except RecursionError:
        raise Misfit("it is nested too deeply") from None
    except (msgspec.ValidationError, TypeError) as error:  # TypeError: a set of lists
        raise Misfit(str(error)) from error


def _as_meant(value: Json, schemas: list[Schema], named: Schema) -> Json:
    """The value without nulls for fields that know none: they stand for the default, since a strict schema has no other
    way to leave a field out. And 3.0 is an integer in JSON.

    `schemas` are all that may hold for it: of a union each member, side by side, so that a value is gone through once
    however deep the unions stand in each other.
    """
    rules = _in_force(value, schemas, named)
    if isinstance(value, float) and value.is_integer() and any(rule.get("type") == "integer" for rule in rules):
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_as_meant(item, _of_item(rules, index), named) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    return {
        name: _as_meant(item, _of_field(rules, name), named)
        for name, item in value.items()
        if item is not None or all(_may_be_null(rule, name, named) for rule in rules)
    }


def _in_force(value: Json, schemas: list[Schema], named: Schema) -> list[Schema]:
    """The schemas and, of those that are put together from others, all that may hold for the value; each once."""
    found: list[Schema] = []
    seen: set[object] = set()
    waiting = schemas[::-1]
    while waiting:
        schema = waiting.pop()
        key = schema["$ref"] if schema.keys() == {"$ref"} else id(schema)
        if key not in seen:
            seen.add(key)
            rule = expanded(schema, named)
            found.append(rule)
            waiting += [option for option in options(rule)[::-1] if _may_be(value, option, named)]
    return found


def _of_item(rules: list[Schema], index: int) -> list[Schema]:
    places = [rule.get("prefixItems", ()) for rule in rules]
    found = [
        place[index] if index < len(place) else rule.get("items") for place, rule in zip(places, rules, strict=True)
    ]
    return [schema for schema in found if isinstance(schema, dict)]


def _of_field(rules: list[Schema], name: str) -> list[Schema]:
    found = [rule.get("properties", {}).get(name, rule.get("additionalProperties")) for rule in rules]
    return [schema for schema in found if isinstance(schema, dict)]


def _may_be_null(rule: Schema, name: str, named: Schema) -> bool:
    known = rule.get("properties", {})
    return name in rule.get("required", ()) or name not in known or knows_null(known[name], named)


def _may_be(value: Json, schema: Schema, named: Schema) -> bool:
    """Whether no constant in an object's fields (a tag, most of all) rules the value out."""
    known = expanded(schema, named).get("properties", {})
    return not isinstance(value, Mapping) or all(
        value[name] in rule.get("enum", [rule.get("const", value[name])])
        for name, rule in known.items()
        if value.get(name) is not None
    )


def _validated(model: Any, value: Any) -> object:
    """What a pydantic model makes of it; what is none stays as it is."""
    if not hasattr(model, "model_validate_json"):
        return value
    try:
        return model.model_validate_json(msgspec.json.encode(value))  # as JSON: strict models take no text for a date
    except ValueError as error:
        listed = getattr(error, "errors", None)
        if not callable(listed):
            raise
        problems = cast("list[dict[str, Any]]", listed())
        raise ValueError("; ".join(map(_in_words, problems))) from error


def _in_words(problem: Mapping[str, Any]) -> str:
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
