"""Typed answers: the schema a model is asked for, and what is made of its answer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType

from agentflow.errors import ConfigurationError
from agentflow.llm.content import Json
from agentflow.llm.output.output_type import Misfit, OutputType, converted
from agentflow.llm.output.strict_schema import Schema, strict_schema

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Address:
    """Where somebody lives."""

    street: str
    zip: Annotated[str, Meta(pattern=r"^\d{5}$"), "five digits"] = "00000"


@dataclass
class Person:
    """Somebody."""

    name: str
    age: Annotated[int, Meta(ge=0, description="in years")]
    home: Address | None = None
    tags: list[str] = field(default_factory=list)
    color: Color = Color.RED


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)
    parent: Tree | None = None


class Film(TypedDict):
    title: str
    year: NotRequired[int]


class Point(Struct):
    x: float
    y: float = 0.0


class Circle(Struct, tag="circle", rename="camel"):
    mid_point: Point
    radius: Annotated[float, Meta(gt=0)]


class Square(Struct, tag="square", forbid_unknown_fields=True):
    side: float
    label: str | UnsetType = UNSET


class Pair(NamedTuple):
    left: int
    right: str = "none"


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class Ages(Box[int]):
    """A generic base whose variable is told."""


class Plus(Struct, tag=True):
    left: Plus | Times | int
    right: Plus | Times | int


class Times(Struct, tag=True):
    left: Plus | Times | int
    right: Plus | Times | int


@dataclass
class Route:
    start: Point
    end: Point
    via: Address


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str
    breed: str = "mutt"


class Search(Struct, tag_field="kind", tag="search"):
    query: str
    limit: int = 10


class Stop(Struct, tag_field="kind", tag="stop"):
    reason: str
    limit: int | None = None


@dataclass
class Step:
    action: Search | Stop
    shapes: list[Circle | Square] = field(default_factory=list)


@dataclass
class Everything:
    text: str
    whole: int
    real: float
    flag: bool
    nothing: None
    day: date
    moment: datetime
    hour: time
    span: timedelta
    id: UUID
    price: Decimal
    color: Color
    level: Level
    word: Literal["a", 1, True, None]
    numbers: set[int]
    frozen: frozenset[str]
    places: tuple[int, str]
    many: tuple[int, ...]
    table: dict[str, list[int]]
    by_number: dict[int, str]
    either: int | str | list[str]
    maybe: float | None
    user: UserId
    box: Box[Pair]
    whatever: Any


def misfit(kind: object, text: str) -> str:
    with pytest.raises(Misfit) as caught:
        OutputType.of(kind).decode(text)
    return str(caught.value)


def schema(kind: object) -> Mapping[str, Any]:
    found = OutputType.of(kind).format.schema
    assert found is not None
    return found


# ---- the schema ----------------------------------------------------------------------------------------------


def test_a_class_is_asked_for_as_it_is() -> None:
    """Fields with defaults are not required, notes become descriptions, and the class's words describe it."""
    assert OutputType.of(Person).format.name == "Person"
    assert OutputType.of(Person).format.description == "Somebody."
    assert schema(Person) == {
        "type": "object",
        "description": "Somebody.",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "description": "in years"},
            "home": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}},
            "color": {"$ref": "#/$defs/Color", "default": "red"},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
        "$defs": {
            "Address": {
                "type": "object",
                "description": "Where somebody lives.",
                "properties": {
                    "street": {"type": "string"},
                    "zip": {
                        "type": "string",
                        "pattern": r"^\d{5}$",
                        "description": "five digits",
                        "default": "00000",
                    },
                },
                "required": ["street"],
                "additionalProperties": False,
            },
            "Color": {"type": "string", "enum": ["red", "blue"]},
        },
    }


def test_a_class_that_holds_itself_stands_in_defs_and_at_the_top() -> None:
    """APIs want an object at the top, never a reference."""
    found = schema(Tree)
    assert found["type"] == "object"
    assert found["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert found["$defs"].keys() == {"Tree"}


def test_a_class_used_twice_is_written_once() -> None:
    """Classes within stand in `$defs`, and the one at the top does not stand there too."""
    found = schema(Route)
    assert found["properties"]["start"] == found["properties"]["end"] == {"$ref": "#/$defs/Point"}
    assert found["$defs"].keys() == {"Point", "Address"}


def test_two_classes_of_one_name_keep_apart() -> None:
    """Names in `$defs` are made different where classes only share their name."""
    one = msgspec.defstruct("Twin", [("a", int)], module="one")
    two = msgspec.defstruct("Twin", [("b", str)], module="two")
    both = msgspec.defstruct("Both", [("a", list[one]), ("d", two)])  # type: ignore[valid-type]
    found = schema(both)
    assert found["$defs"].keys() == {"one.Twin", "two.Twin"}
    assert found["properties"]["d"] == {"$ref": "#/$defs/two.Twin"}


def test_fields_are_asked_for_in_the_order_of_the_class() -> None:
    """A model writes them in that order, so that it can think before it decides."""
    assert list(schema(Verdict)["properties"]) == schema(Verdict)["required"] == ["reasons", "decision"]


class Verdict(TypedDict):
    reasons: list[str]
    decision: bool


def test_times_say_that_they_are_times() -> None:
    """However deep they stand, and whatever stands beside them."""
    found = schema(dict[str, list[datetime | None]])["properties"]["value"]
    assert found["additionalProperties"]["items"] == {
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]
    }


def test_what_is_no_json_is_no_default() -> None:
    """The field may still be left out."""
    kind = msgspec.defstruct("Measured", [("x", float, float("nan"))])
    assert schema(kind)["properties"]["x"] == {"type": "number"}
    assert schema(kind)["required"] == []


@pytest.mark.parametrize(
    ("kind", "inner", "name"),
    [
        (int, {"type": "integer"}, "int"),
        (bool, {"type": "boolean"}, "bool"),
        (str, {"type": "string"}, "str"),
        (list[str], {"type": "array", "items": {"type": "string"}}, "list_str"),
        (Literal["yes", "no"], {"type": "string", "enum": ["no", "yes"]}, "Literal_yes_no"),
        (Literal["yes", 1], {"type": ["integer", "string"], "enum": [1, "yes"]}, "Literal_yes_1"),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, "dict_str_int"),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "int_None"),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "set_int"),
        (datetime, {"type": "string", "format": "date-time"}, "datetime"),
        (UserId, {"type": "integer"}, "UserId"),
        (tuple[int, int], {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
         "tuple_int_int"),
        (Any, {}, "Any"),
        (object, {}, "object"),
    ],
)  # fmt: skip
def test_a_plain_type_is_wrapped_in_an_object(kind: object, inner: Schema, name: str) -> None:
    """APIs want an object at the top, and a name of letters, digits, _ and -."""
    output = OutputType.of(kind)
    assert output.format.name == name
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", output.format.name)
    assert output.format.schema == {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
    }


def test_a_named_tuple_is_an_array_with_titles() -> None:
    """It is written like that, too."""
    found = schema(Pair)
    assert found["properties"]["value"] == {"$ref": "#/$defs/Pair"}
    assert [place["title"] for place in found["$defs"]["Pair"]["prefixItems"]] == ["left", "right"]


def test_a_struct_is_asked_for_by_its_names_on_the_wire() -> None:
    """Renamed fields and tags are those that msgspec would write."""
    found = schema(Circle)
    assert list(found["properties"]) == ["type", "midPoint", "radius"]
    assert found["properties"]["type"] == {"type": "string", "enum": ["circle"]}
    assert found["required"] == ["type", "midPoint", "radius"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (complex, "JSON has no complex; give a dataclass"),
        (Callable[[int], int], "JSON has no Callable"),
        (dict[tuple[int, int], str], "keys of a JSON object are texts"),
        (Literal[b"x"], "Literal[b'x']"),
        (Enum("Odd", {"A": (1, 2)}), "Odd: Enums must contain"),
        (Annotated[str, Meta(ge=3)], "Can only set `ge` on a numeric type"),
        (msgspec.defstruct("Far", [("a", "Nowhere")]), "Far: name 'Nowhere' is not defined; its annotations can only"),
        (msgspec.defstruct("Deep", [("a", list[complex])]), "Deep: JSON has no complex"),
        (Cat | Dog, "classes in a union must be msgspec.Struct with tag=True"),
        (list[Cat | Dog], "and a pydantic model can hold what msgspec cannot"),
        (str | date, "more than one str-like type"),
        ("Person", "Type ''Person'' is not supported"),
        (Person("x", 1), "is not supported"),
    ],
)
def test_what_json_cannot_say_is_refused_at_once(kind: object, words: str) -> None:
    """The error names where the type stands and what would do."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        OutputType.of(kind)


def test_a_local_class_that_cannot_be_resolved_is_refused() -> None:
    """With `from __future__ import annotations` nobody can tell what its annotations mean."""

    @dataclass
    class Local:
        inner: list[Local]

    with pytest.raises(ConfigurationError, match="Local: name 'Local' is not defined"):
        OutputType.of(Local)


@pytest.mark.parametrize("beside", [list[int], set[str], dict[str, int], Annotated[list[int], Meta(min_length=1)]])
def test_a_union_that_crashes_the_interpreter_is_refused(beside: Any) -> None:
    """msgspec 0.22 dies of a text with a pattern beside a list, a set or a dict, also inside a class."""
    code = Annotated[str, Meta(pattern="^[A-Z]+$")]
    for kind in (code | beside, list[code | beside], msgspec.defstruct("Holder", [("a", code | beside)])):
        with pytest.raises(ConfigurationError, match="a text with a pattern cannot stand beside"):
            OutputType.of(kind)
    assert OutputType.of(code | None | tuple[int, int]).decode("ABC") == "ABC"


def test_a_class_is_looked_at_once() -> None:
    """The same class gives the same object, so a call costs no schema."""
    assert OutputType.of(Person) is OutputType.of(Person)
    assert OutputType.of(int | str) == OutputType.of(int | str)


# ---- reading an answer ---------------------------------------------------------------------------------------


def test_an_answer_becomes_an_object() -> None:
    """Nested classes, enums and defaults are what the annotations say."""
    text = '{"name": "Ada", "age": 36, "home": {"street": "St James"}, "color": "blue"}'
    assert OutputType.of(Person).decode(text) == Person("Ada", 36, Address("St James"), [], Color.BLUE)


def test_a_typed_dict_stays_a_dict() -> None:
    """Keys that are not required may be missing, also where annotations are text."""
    assert OutputType.of(Film).decode('{"title": "M"}') == {"title": "M"}
    assert OutputType.of(Film).decode('{"title": "M", "year": 1931}') == {"title": "M", "year": 1931}
    assert misfit(Film, '{"year": 1931}') == "Object missing required field `title`"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, '{"value": 3}', 3),
        (int, "3", 3),
        (int, "3.0", 3),
        (float, "3", 3.0),
        (str, '{"value": "hi"}', "hi"),
        (str, "just words", "just words"),
        (str, "42", "42"),
        (str, '"quoted"', "quoted"),
        (Literal["yes", "no"], "yes", "yes"),
        (Literal[1, True], "true", True),
        (Color, "red\n", Color.RED),
        (Level, '{"value": 2}', Level.HIGH),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (list[int], "Here: [1, 2].", [1, 2]),
        (set[int], "[1, 1]", {1}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (dict[str, int], '{"value": {"a": 1}}', {"a": 1}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[str, int], '{"value": 1}', {"value": 1}),
        (dict[int, str], '{"1": "a"}', {1: "a"}),
        (dict[Color, int], '{"red": 1}', {Color.RED: 1}),
        (int | str, '{"value": "x"}', "x"),
        (str | int, "[1]", "[1]"),
        (int | None, "null", None),
        (date, "2026-01-02", date(2026, 1, 2)),
        (UUID, '"00000000-0000-0000-0000-000000000001"', UUID(int=1)),
        (Decimal, '{"value": "1.50"}', Decimal("1.50")),
        (Union[int, list[int]], "[1]", [1]),  # noqa: UP007
        (Optional[Person], '{"name": "Ada", "age": 1}', Person("Ada", 1)),  # noqa: UP045
        (Search | Stop, '{"kind": "stop", "reason": "done"}', Stop("done")),
        (Search | Stop, '{"value": {"kind": "search", "query": "x", "limit": null}}', Search("x")),
        (Plus, '{"type": "Plus", "left": {"type": "Times", "left": 1, "right": 2}, "right": 3}', Plus(Times(1, 2), 3)),
        (Circle | Square, '{"type": "square", "side": 2}', Square(2)),
        (Box[Pair], '{"content": [1]}', Box(Pair(1))),
        (Ages, '{"content": 1, "more": [2]}', Ages(1, [2])),
        (UserId, "7", 7),
        (Any, '{"a": [1.0]}', {"a": [1.0]}),
        (object, '{"value": 1}', 1),
        (Pair, '[1, "x"]', Pair(1, "x")),
        (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(1, [Tree(2)])),
        (Annotated[Address, "home"], '{"street": "x"}', Address("x")),
    ],
)
def test_an_answer_is_read_wrapped_or_bare(kind: object, text: str, value: object) -> None:
    """Models sometimes leave the wrapping out, and single words come without quotes."""
    found = OutputType.of(kind).decode(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada", "age": 36}',
        '\ufeff  {"name": "Ada", "age": 36}\n',
        '```json\n{"name": "Ada", "age": 36}\n```',
        '```\n{"name": "Ada", "age": 36}```',
        'Sure! Here you are:\n\n```json\n{"name": "Ada", "age": 36}\n```\nAnything else?',
        '{Somebody} is {"name": "Ada", "age": 36}, I think.',
        '```json\n{"name": "Ada", "age": 36}',
        'First {"draft": true}, then {"name": "Ada", "age": 36}',
        '[see below] {"name": "Ada", "age": 36} }',
        '```python\nprint({})\n```\n```json\n{"name": "Ada", "age": 36}\n```',
        '{"name": "Ada", "age": 36, "mood": "fine"}',
    ],
)
def test_json_is_found_as_models_write_it(text: str) -> None:
    """Fences, prose and unknown fields do not hide the answer."""
    assert OutputType.of(Person).decode(text) == Person("Ada", 36)


@pytest.mark.parametrize(
    "text",
    [
        '{"value": 1, "children": [{"value": 2}], "parent": {"val',
        '{"value": 1, "children": [{"value": 2}],}',
        'Here: {"value": oops, "children": [{"value": 2',
        'Here: {"value": oops, "parent": {"value": 2}}',
        '{"value": 1, "parent": {"value": NaN}, "children": [{"value": 2}]}',
    ],
)
def test_the_inside_of_a_broken_answer_is_not_the_answer(text: str) -> None:
    """A truncated tree must not come back as one of its branches."""
    assert "expected JSON of Tree" in misfit(Tree, text)


@pytest.mark.parametrize("text", ['{"value": "Once upon a ti', '```json\n{ "value": "Once', '{"value": NaN'])
def test_half_of_the_wrapping_is_no_text(text: str) -> None:
    """A text may come bare, but not as the beginning of the JSON that was asked for."""
    assert misfit(str, text).startswith("expected JSON of str")


@pytest.mark.parametrize("text", ["NaN", '{"value": NaN}', '{"value": 1e999}', "It is [Infinity]."])
def test_what_is_no_number_in_json_is_none_here(text: str) -> None:
    """Not the ones that Python writes either."""
    assert misfit(float, text)


@pytest.mark.parametrize("text", ["", "I would rather not.", "{", "[" * 100_000, '{"a":' * 50_000])
def test_an_answer_without_json_is_a_misfit(text: str) -> None:
    """The message says what was wanted and shows how the answer began."""
    assert misfit(Person, text).startswith('expected JSON of Person, got "')


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Person, '{"name": "Ada", "age": "old"}', "Expected `int`, got `str` - at `$.age`"),
        (Person, '{"name": "Ada", "age": -1}', "Expected `int` >= 0 - at `$.age`"),
        (Person, '{"name": "Ada", "age": true}', "Expected `int`, got `bool` - at `$.age`"),
        (Person, '{"name": "Ada"}', "Object missing required field `age`"),
        (Person, '{"name": "Ada", "age": 1, "color": "green"}', "Invalid enum value 'green' - at `$.color`"),
        (Person, '{"name": "Ada", "age": 1, "home": {"street": 5}}',
         "Expected `str`, got `int` - at `$.home.street`"),
        (Person, '{"name": "Ada", "age": 1, "tags": ["a", null]}', "Expected `str`, got `null` - at `$.tags[1]`"),
        (Person, "[]", "Expected `object`, got `array`"),
        (int, '{"value": "x"}', "Expected `int`, got `str` - at `$.value`"),
        (int, "twelve", "Expected `int`, got `str` - at `$.value`"),
        (int, "3.5", "Expected `int`, got `float` - at `$.value`"),
        (date, '"tomorrow"', "Invalid RFC3339 encoded date - at `$.value`"),
        (tuple[int, str], "[1]", "Expected `array` of length 2, got 1 - at `$.value`"),
        (Annotated[list[int], Meta(min_length=2)], "[1]", "Expected `array` of length >= 2 - at `$.value`"),
        (int | list[int], '"x"', "Expected `int | array`, got `str` - at `$.value`"),
        (Search | Stop, '{"kind": "stop"}', "Object missing required field `reason` - at `$.value`"),
        (Square, '{"type": "square", "side": 1, "labl": "x"}', "Object contains unknown field `labl`"),
        (Square, '{"type": "circle", "side": 1}', "Invalid value 'circle' - at `$.type`"),
        (set[Any], "[[1]]", "unhashable type: 'list'"),
        (Tree, '{"value": 1, "children": [' * 300 + "]}" * 300, "it is nested too deeply"),
    ],
)  # fmt: skip
def test_a_misfit_says_where_and_what_for_the_model(kind: object, text: str, message: str) -> None:
    """So that one more try can mend it."""
    assert misfit(kind, text) == message


def test_a_class_may_say_no() -> None:
    """A ValueError from `__post_init__` is a misfit with its words."""
    assert misfit(Even, '{"number": 3}') == "3 is odd"


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


def test_a_null_for_a_default_is_the_default() -> None:
    """Strict schemas have no other way to leave a field out."""
    text = '{"name": "Ada", "age": 1, "home": null, "tags": null, "color": null}'
    assert OutputType.of(Person).decode(text) == Person("Ada", 1)
    assert OutputType.of(Film).decode('{"title": "M", "year": null}') == {"title": "M"}
    assert "Expected `str`, got `null`" in misfit(Person, '{"name": null, "age": 1}')


def test_a_partial_answer_is_a_mapping() -> None:
    """While an answer is written its JSON so far is shown; a plain type stands under "value", as it was asked for."""
    assert OutputType.of(Person).partial({"name": "A"}) == {"name": "A"}
    assert OutputType.of(Person).partial(None) == {}
    assert OutputType.of(list[str]).partial({"value": ["a"]}) == {"value": ["a"]}
    assert OutputType.of(list[str]).partial(["a"]) == {"value": ["a"]}
    assert OutputType.of(list[str]).partial(None) == {}
    assert OutputType.of(dict[str, int]).partial({"a": 1}) == {"value": {"a": 1}}


# ---- schemas and values belong together ----------------------------------------------------------------------

KINDS: list[object] = [Person, Tree, Film, Circle, Square, Everything, Step, Plus, list[Person], Box[int], Ages]


def conforms(value: Json, rule: Any, top: Mapping[str, Any]) -> bool:
    """A JSON Schema validator for the keywords that are written here."""
    if "$ref" in rule:
        rule = top["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in rule and not any(conforms(value, option, top) for option in rule["anyOf"]):
        return False
    if "enum" in rule and not any(type(value) is type(option) and value == option for option in rule["enum"]):
        return False
    kinds = rule.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, list):
        places = rule.get("prefixItems", [])
        rest = value[len(places) :]
        return (
            rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value))
            and all(conforms(item, place, top) for item, place in zip(value, places, strict=False))
            and (all(conforms(item, rule["items"], top) for item in rest) if rule.get("items") else True)
        )
    if isinstance(value, dict):
        known, extra = rule.get("properties", {}), rule.get("additionalProperties", True)
        return set(rule.get("required", ())) <= value.keys() and all(
            conforms(item, known[name], top)
            if name in known
            else extra is True or (extra and conforms(item, extra, top))
            for name, item in value.items()
        )
    return True


def _is(value: Json, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "string": isinstance(value, str),
        "integer": number and (isinstance(value, int) or float(value).is_integer()),  # type: ignore[arg-type]
        "number": number,
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }[kind]


FORMATS: Mapping[str, st.SearchStrategy[Any]] = {
    "date-time": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "time": st.times(timezones=st.just(UTC)),
    "duration": st.timedeltas(timedelta(0), timedelta(days=1000)),
    "uuid": st.uuids(),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=2),
}


SIMPLE = ("null", "integer", "string")


def values_of(rule: Any, top: Mapping[str, Any], depth: int = 3) -> st.SearchStrategy[Any]:
    """JSON values that a schema allows."""
    if "$ref" in rule:
        rule = top["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if "enum" in rule:
        return st.sampled_from(rule["enum"])
    if "anyOf" in rule:
        options = [option for option in rule["anyOf"] if depth > 0 or option.get("type") in SIMPLE] or rule["anyOf"]
        return st.one_of([values_of(option, top, depth - 1) for option in options])
    if isinstance(rule.get("type"), list):
        kinds = [kind for kind in rule["type"] if depth > 0 or kind == "null"] or rule["type"]
        return st.one_of([values_of({**rule, "type": kind}, top, depth) for kind in kinds])
    return VALUES[rule.get("type", "anything")](rule, top, depth)


def _texts(rule: Any, top: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    kind = next((name for name in FORMATS if name == rule.get("format") or f'format: "{name}"' in str(rule)), None)
    if kind:
        return FORMATS[kind].map(lambda value: json.loads(msgspec.json.encode(value)))
    return st.from_regex(rule["pattern"], fullmatch=True) if "pattern" in rule else st.text(max_size=5)


def _numbers(rule: Any, whole: bool) -> st.SearchStrategy[Any]:
    low = rule.get("minimum", rule.get("exclusiveMinimum", -(2**70)))
    if whole:
        return st.integers(low, 2**70)
    return st.floats(low, 1e9, exclude_min="exclusiveMinimum" in rule, allow_nan=False)


def _arrays(rule: Any, top: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "prefixItems" in rule:
        return st.tuples(*[values_of(place, top, depth) for place in rule["prefixItems"]]).map(list)
    if depth <= 0 and "minItems" not in rule:
        return st.just([])
    items = values_of(rule["items"], top, depth - 1)
    least, most = rule.get("minItems", 0), rule.get("maxItems", 3)
    return st.lists(items, min_size=least, max_size=most, unique=rule.get("uniqueItems", False))


def _objects(rule: Any, top: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    known, extra = rule.get("properties", {}), rule.get("additionalProperties", False)
    if extra is not False:
        names = values_of(rule["propertyNames"], top) if "propertyNames" in rule else st.sampled_from(["1", "2", "33"])
        return st.dictionaries(names, values_of(extra, top, depth - 1) if extra is not True else st.none(), max_size=3)
    required = {name: values_of(known[name], top, depth - 1) for name in known if name in rule["required"]}
    others = [name for name in known if name not in rule["required"] and depth > 0]
    return st.fixed_dictionaries(required, optional={name: values_of(known[name], top, depth - 1) for name in others})


VALUES: Mapping[str, Callable[[Any, Mapping[str, Any], int], st.SearchStrategy[Any]]] = {
    "string": _texts,
    "integer": lambda rule, top, depth: _numbers(rule, whole=True),
    "number": lambda rule, top, depth: _numbers(rule, whole=False),
    "boolean": lambda rule, top, depth: st.booleans(),
    "null": lambda rule, top, depth: st.none(),
    "array": _arrays,
    "object": _objects,
    "anything": lambda rule, top, depth: st.sampled_from([None, 1, "x", [1, {"a": None}]]),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(data=st.data())
def test_what_the_schema_allows_is_read_and_comes_back(kind: object, data: st.DataObject) -> None:
    """Any JSON of the schema is a value of the type, and that value written as JSON is allowed and reads the same."""
    output = OutputType.of(kind)
    rule = schema(kind)
    value = output.decode(json.dumps(data.draw(values_of(rule, rule))))
    written = msgspec.json.encode(value, enc_hook=str, order=None).decode()
    if kind is not Everything:  # a NamedTuple is written as an array, though it is asked for as an object
        assert output.decode(written) == value
        bare = json.loads(written)
        assert conforms({"value": bare} if output.wrapped else bare, rule, rule)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if OutputType.of(kind).strict_format.strict], ids=str)
@given(data=st.data())
def test_what_the_strict_schema_allows_is_read(kind: object, data: st.DataObject) -> None:
    """Nulls for what was left out included."""
    rule = OutputType.of(kind).strict_format.schema
    assert rule is not None
    OutputType.of(kind).decode(json.dumps(data.draw(values_of(rule, rule))))


# ---- the strict subset ---------------------------------------------------------------------------------------


def each_schema(rule: Any) -> list[Any]:
    below: list[Any] = [*rule.get("properties", {}).values(), *rule.get("$defs", {}).values(), *rule.get("anyOf", [])]
    below += [rule["items"]] if "items" in rule else []
    return [rule, *(inner for each in below for inner in each_schema(each))]


@pytest.mark.parametrize("kind", [Person, Tree, Circle, Square, Film, Step, Plus, list[Person], set[int]], ids=str)
def test_a_strict_schema_keeps_to_the_subset(kind: object) -> None:
    """Every object is closed, every field required, and no keyword is left that the API refuses."""
    rule = strict_schema(schema(kind))
    assert rule is not None
    for each in each_schema(rule):
        assert not each.keys() & {"default", "title", "prefixItems", "oneOf", "uniqueItems", "examples"}
        assert "$ref" not in each or each.keys() == {"$ref"}
        if "object" in str(each.get("type")):
            assert each["additionalProperties"] is False
            assert each["required"] == list(each["properties"])
    assert strict_schema(rule) == rule


def test_what_may_be_left_out_may_be_null_there() -> None:
    """The default is told in words, since the keyword is not allowed."""
    rule = strict_schema(schema(Person))
    assert rule is not None
    found: Any = rule["properties"]
    assert found["color"] == {
        "type": ["string", "null"],
        "enum": ["red", "blue", None],
        "description": '(default: "red")',
    }
    assert found["age"] == {"type": "integer", "minimum": 0, "description": "in years"}
    assert found["home"] == {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]}


def test_strict_is_left_open_where_it_cannot_be() -> None:
    """The plain schema is sent then."""
    assert OutputType.of(dict[str, int]).strict_format == OutputType.of(dict[str, int]).format
    assert OutputType.of(Person).strict_format.strict is True


# ---- pydantic ------------------------------------------------------------------------------------------------


def models() -> Any:
    """pydantic models, as a module of a user would have them."""
    pytest.importorskip("pydantic")
    name = "agentflow_test_models"
    if name not in sys.modules:
        module = type(sys)(name)
        sys.modules[name] = module
        exec(_MODELS, module.__dict__)
    return sys.modules[name]


_MODELS = '''
from dataclasses import dataclass
from datetime import date
from typing import Literal
from pydantic import BaseModel, Field, RootModel

class City(BaseModel):
    """A city."""
    name: str = Field(description="in English", min_length=1)
    founded: date | None = None
    size: int = Field(default=1, ge=1, alias="Size")
    twins: list["City"] = []

class Car(BaseModel):
    kind: Literal["car"]
    doors: int = 4

class Bike(BaseModel):
    kind: Literal["bike"]

class Names(RootModel[list[str]]):
    pass

@dataclass
class Trip:
    goal: City
    by: Car | None
    then: "Trip | None" = None

class Ride(BaseModel):
    vehicle: Car | Bike = Field(discriminator="kind")
'''


def test_a_pydantic_model_says_its_own_schema_and_reads_itself() -> None:
    """Aliases, constraints and nested models are pydantic's."""
    city = models().City
    output = OutputType.of(city)
    assert output.format.name == "City"
    assert schema(city)["type"] == "object"
    assert "Size" in schema(city)["properties"]
    found: Any = output.decode('{"name": "Ur", "founded": "1930-01-01", "Size": 3, "twins": [{"name": "Uruk"}]}')
    assert (found.name, found.founded, found.size) == ("Ur", date(1930, 1, 1), 3)
    assert found.twins[0].name == "Uruk"


def test_a_pydantic_misfit_reads_like_any_other() -> None:
    """With the path and what is wrong, all of it at once."""
    text = misfit(models().City, '{"name": "", "Size": "x", "twins": [{}]}')
    assert "name: String should have at least 1 character" in text
    assert "Size: Input should be a valid integer" in text
    assert "twins.0.name: Field required" in text
    trip = misfit(models().Trip, '{"goal": {"name": ""}, "by": null}')
    assert trip == "name: String should have at least 1 character - at `$.goal`"


def test_pydantic_holds_the_unions_that_msgspec_cannot() -> None:
    """Told apart by a discriminator, or by what fits."""
    found: Any = OutputType.of(models().Ride).decode('{"vehicle": {"kind": "car", "doors": null}}')
    assert found.vehicle.doors == 4
    with pytest.raises(ConfigurationError, match="more than one custom type"):
        OutputType.of(models().Car | models().Bike)


def test_a_pydantic_null_for_a_default_is_the_default() -> None:
    """In nested models too, while a field that knows null keeps it."""
    found: Any = OutputType.of(models().City).decode(
        '{"name": "Ur", "founded": null, "Size": null, "twins": [{"name": "Uruk", "Size": null, "twins": null}]}'
    )
    assert (found.size, found.founded, found.twins[0].twins) == (1, None, [])


def test_pydantic_models_have_strict_schemas() -> None:
    """Also where they hold themselves, or are told apart by a discriminator."""
    for kind in (models().City, models().Ride, models().Trip):
        rule = OutputType.of(kind).strict_format
        assert rule.strict is True
        assert all("$ref" not in each or each.keys() == {"$ref"} for each in each_schema(rule.schema))


def test_pydantic_models_stand_inside_other_types() -> None:
    """In fields of dataclasses, beside null, and in lists."""
    trip = models().Trip
    text = '{"goal": {"name": "Ur"}, "by": null, "then": {"goal": {"name": "A"}, "by": {"kind": "car"}}}'
    found: Any = OutputType.of(trip).decode(text)
    assert found.by is None
    assert found.then.by.doors == 4
    assert "$defs" in schema(trip)
    cities: Any = OutputType.of(list[models().City]).decode('[{"name": "Ur"}]')
    assert cities[0].name == "Ur"


def test_a_pydantic_root_model_is_wrapped() -> None:
    """It is no object, and APIs want one at the top."""
    names = models().Names
    assert schema(names)["properties"]["value"]["type"] == "array"
    found: Any = OutputType.of(names).decode('{"value": ["a"]}')
    assert found.root == ["a"]


def test_unions_that_stand_in_each_other_are_gone_through_once() -> None:
    """As pydantic writes models without a tag: each may hold either, so trying all ways takes 2 to the depth."""
    either: Schema = {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, {"type": "null"}], "default": None}
    body: Schema = {"type": "object", "properties": {"child": either, "n": {"type": "integer", "default": 0}}}
    schema = body | {"$defs": {"A": body, "B": body}}
    value: Json = {"n": None}
    for _ in range(150):
        value = {"child": value, "n": 3.0}
    found = converted(value, Any, schema)
    for _ in range(150):
        assert type(found["n"]) is int
        found = found["child"]
    assert found == {}


@pytest.mark.parametrize("kind", [Person, list[Person], int])
def test_a_schema_that_was_given_away_may_be_changed(kind: Any) -> None:
    """One output type serves the process, and a provider may write into what it was told."""
    first = OutputType.of(kind)
    for asked in (first.format, first.strict_format):
        assert isinstance(asked.schema, dict)
        asked.schema["properties"].clear()
        asked.schema["required"].append("more")
    again = OutputType.of(kind)
    assert again.format.schema["properties"]  # type: ignore[index]
    assert "more" not in again.strict_format.schema["required"]  # type: ignore[index,operator]
