"""Functions as tools: their schema, the reading of a model's arguments, the call, and what goes back."""

from __future__ import annotations

import contextvars
import functools
import inspect
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from agentflow.errors import ConfigurationError, SerializationError, ToolArgumentsError
from agentflow.llm.content import Audio, Document, Image, Text, ToolCall
from agentflow.llm.tools.function import function_tool, result_content


class Unit(Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


@dataclass
class Place:
    """A spot on the map."""

    city: str
    country: str = "FR"


class Options(TypedDict):
    days: int
    unit: NotRequired[Unit]


class Forecast(Struct):
    degrees: float
    day: date


def weather(city: str, days: int = 1, unit: Unit = Unit.CELSIUS) -> str:
    """The weather forecast.

    Asks no service at all.

    Args:
        city: Where, in
            English.
        days (int, optional): How many days.

    Returns:
        str: Words.

    Raises:
        ValueError: Never.
    """
    return f"{city} {days} {unit.name}"


def called(name: str = "f", /, **arguments: Any) -> ToolCall:
    return ToolCall("call-1", name, arguments)


def parameters(function: Callable[..., object]) -> Any:
    return function_tool(function).tool.parameters


def properties(function: Callable[..., object]) -> Any:
    return parameters(function)["properties"]


# ---- the tool ------------------------------------------------------------------------------------------------


def test_a_function_says_what_it_needs() -> None:
    """Name, description and parameters come from the function; defaults are not required."""
    tool = function_tool(weather).tool
    assert tool.name == "weather"
    assert tool.description == "The weather forecast.\n\nAsks no service at all.\n\nReturns: str: Words."
    assert tool.strict is None
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where, in English."},
            "days": {"type": "integer", "description": "How many days.", "default": 1},
            "unit": {"$ref": "#/$defs/Unit", "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"type": "string", "enum": ["C", "F"]}},
    }


def test_name_and_description_can_be_given() -> None:
    """The caller's words win over the function's."""
    tool = function_tool(weather, name="forecast", description="Look outside.").tool
    assert (tool.name, tool.description) == ("forecast", "Look outside.")


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    """And no arguments at all are an empty object too."""

    def now() -> int:
        return 3

    tool = function_tool(now)
    assert tool.tool.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert tool.bind(ToolCall.parse("1", "now", "")) == {}


def test_every_sort_of_annotation_has_a_schema() -> None:
    """What typed answers can hold, parameters can."""

    def f(
        a: Annotated[int, Meta(ge=0, description="a count")],
        b: Annotated[str, "some words"],
        c: Literal["x", "y"],
        d: list[Place],
        e: Options,
        f: dict[str, float] | None,
        g: tuple[int, ...],
        h: UUID,
        i: Decimal,
        j,  # type: ignore[no-untyped-def]
        k: int | str = 3,
    ) -> None: ...

    found = properties(f)
    assert found["a"] == {"type": "integer", "minimum": 0, "description": "a count"}
    assert found["b"] == {"type": "string", "description": "some words"}
    assert found["c"] == {"type": "string", "enum": ["x", "y"]}
    assert found["d"] == {"type": "array", "items": {"$ref": "#/$defs/Place"}}
    assert parameters(f)["$defs"]["Place"]["properties"]["country"] == {"type": "string", "default": "FR"}
    assert parameters(f)["$defs"]["Options"]["required"] == ["days"]
    assert found["f"]["anyOf"][1] == {"type": "null"}
    assert found["g"] == {"type": "array", "items": {"type": "integer"}}
    assert (found["h"]["format"], found["i"]["format"]) == ("uuid", "decimal")
    assert found["j"] == {}
    assert found["k"] == {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 3}


def test_a_default_that_json_cannot_hold_is_not_told() -> None:
    """The parameter may still be left out."""
    nothing = object()

    def f(a: Any = nothing, b: float = float("nan"), c: Place = Place("Ur"), d: int = None) -> object:  # type: ignore[assignment]  # noqa: B008, RUF013
        return a

    assert properties(f) == {
        "a": {},
        "b": {"type": "number"},
        "c": {**properties(lambda_of_place())["c"], "default": {"city": "Ur", "country": "FR"}},
        "d": {"type": "integer", "default": None},
    }
    assert function_tool(f).bind(called(d=None)) == {}


def lambda_of_place() -> Callable[..., object]:
    def f(c: Place) -> None: ...

    return f


def test_strict_closes_the_schema_or_says_why_not() -> None:
    """A parameter that may be left out may be null there, and null is then its default."""
    tool = function_tool(weather, strict=True)
    assert tool.tool.strict is True
    assert tool.tool.parameters["required"] == ["city", "days", "unit"]
    assert tool.bind(called(city="Ur", days=None, unit=None)) == {"city": "Ur"}
    with pytest.raises(ConfigurationError, match="strict=True cannot be kept"):
        function_tool(dict_taker, strict=True)
    assert function_tool(dict_taker, strict=False).tool.strict is False


def dict_taker(table: dict[str, int]) -> None: ...


@pytest.mark.parametrize("name", ["auto", "none", "required", "", "has space", "a" * 65, "größe", "a.b", "a\n"])
def test_a_name_that_apis_refuse_is_refused(name: str) -> None:
    """Also the words that mean something else in tool_choice."""
    with pytest.raises(ConfigurationError, match="name="):
        function_tool(lambda: 1, name=name or "?")


def test_a_lambda_needs_a_name() -> None:
    """Its own is none that an API takes."""
    with pytest.raises(ConfigurationError, match="give one with name="):
        function_tool(lambda x: x)
    assert properties_of_lambda() == {"x": {}}


def properties_of_lambda() -> Any:
    return function_tool(lambda x: x, name="same").tool.parameters["properties"]


def test_an_annotation_describes_better_than_a_docstring() -> None:
    """It stands nearer to the type, and a parameter's words say more than its class's."""

    def f(a: Annotated[int, "from the annotation"], place: Place) -> None:
        """F.

        Args:
            a: from the docstring
            place: where to go
        """

    assert properties(f)["a"]["description"] == "from the annotation"
    assert properties(f)["place"]["description"] == "where to go"


# ---- what can be called --------------------------------------------------------------------------------------


class Shop:
    """Sells things."""

    def price(self, item: str) -> int:
        """What an item costs."""
        return len(item)

    @classmethod
    def open(cls, day: str) -> str:
        return f"{cls.__name__} {day}"

    @staticmethod
    def close(hour: int) -> int:
        return hour

    async def __call__(self, item: str, count: int = 1) -> str:
        return item * count


async def greet(name: str) -> str:
    """Say hello."""
    return f"hello {name}"


def traced(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return wrapper


def placed(a: int, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
    return (a, b, c, d)


def eventually(name: str) -> Awaitable[str]:
    return greet(name)


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (weather, {"city": "Ur", "unit": "F"}, "Ur 1 FAHRENHEIT"),
        (greet, {"name": "Ada"}, "hello Ada"),
        (eventually, {"name": "Ada"}, "hello Ada"),
        (Shop().price, {"item": "tea"}, 3),
        (Shop.open, {"day": "Monday"}, "Shop Monday"),
        (Shop.close, {"hour": 6}, 6),
        (Shop(), {"item": "tea", "count": 2}, "teatea"),
        (functools.partial(weather, "Ur"), {"days": 3}, "Ur 3 CELSIUS"),
        (functools.partial(weather, days=7), {"city": "Ur"}, "Ur 7 CELSIUS"),
        (functools.partial(greet), {"name": "Ada"}, "hello Ada"),
        (traced(weather), {"city": "Ur"}, "Ur 1 CELSIUS"),
        (traced(greet), {"name": "Ada"}, "hello Ada"),
        (placed, {"a": 1, "c": 5}, (1, 2, 5, 4)),
        (placed, {"a": 1, "b": 9, "d": 0}, (1, 9, 3, 0)),
        (Place, {"city": "Ur"}, Place("Ur")),
    ],
)
async def test_whatever_can_be_called_is_called(
    function: Callable[..., object], arguments: dict[str, Any], result: object
) -> None:
    """Functions, methods, partials, decorated functions, objects and classes, async or not."""
    tool = function_tool(function)
    assert await tool.call(called(tool.tool.name, **arguments)) == result


def test_what_a_partial_has_filled_in_is_not_asked_for() -> None:
    """Neither by place nor by name."""
    assert list(properties(functools.partial(weather, "Ur", unit=Unit.CELSIUS))) == ["days"]
    assert function_tool(functools.partial(weather, "Ur")).tool.name == "weather"


def test_an_object_is_described_by_its_call_or_its_class() -> None:
    """Whoever has words."""
    assert function_tool(Shop()).tool.description == "Sells things."
    assert function_tool(Shop()).tool.name == "Shop"
    assert function_tool(Shop().price).tool.description == "What an item costs."


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(greet, True), (weather, False), (functools.partial(greet), True), (Shop(), True), (Shop().price, False)],
)
def test_a_tool_knows_whether_it_is_async(function: Callable[..., object], is_async: bool) -> None:
    """Sync ones run in a thread."""
    assert function_tool(function).is_async is is_async


def stars(*words: str) -> None: ...
def double_stars(**words: str) -> None: ...
def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def hidden(__x: int) -> None: ...
def magic(__init__: int) -> None: ...
def unknown_type(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def odd_type(a: list[complex]) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (stars, r"'stars': a model cannot be told what \*words takes"),
        (double_stars, r"'double_stars': a model cannot be told what \*\*words takes"),
        (generator, "'generator': it yields"),
        (async_generator, "'async_generator': it yields"),
        (unknown_type, "'unknown_type': name 'Nowhere' is not defined"),
        (hidden, "'hidden': __x is a name of Python's own"),
        (magic, "'magic': __init__ is a name of Python's own"),
        (odd_type, r"'odd_type': a: list\[complex\]: JSON has no complex"),
        (Shop.price, "'price': self is for no model to give"),
        (next, "'next': it has no signature"),
        ("weather", "is made of a function, not of str"),
    ],
)
def test_what_a_model_cannot_be_asked_for_is_refused(function: Any, words: str) -> None:
    """The error names the function and the parameter."""
    with pytest.raises(ConfigurationError, match=words):
        function_tool(function)


async def test_a_sync_function_runs_in_a_thread_with_the_callers_context() -> None:
    """It may block, and still sees the context variables of whoever asked."""
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("Ada")

    def f() -> tuple[str, bool]:
        return who.get(), threading.current_thread() is threading.main_thread()

    assert await function_tool(f).call(called()) == ("Ada", False)


async def test_what_a_function_raises_is_handed_on() -> None:
    """The caller decides whether a model should hear of it."""

    def f() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await function_tool(f).call(called())


# ---- arguments -----------------------------------------------------------------------------------------------


def plan(place: Place, days: list[date], options: Options, when: date | None = None) -> None: ...


def test_arguments_arrive_in_the_types_of_the_signature() -> None:
    """What the model left out is not in them."""
    bound = function_tool(plan).bind(
        called(place={"city": "Ur"}, days=["2026-01-02"], options={"days": 3, "unit": "F"}, when=None)
    )
    assert bound == {
        "place": Place("Ur"),
        "days": [date(2026, 1, 2)],
        "options": {"days": 3, "unit": Unit.FAHRENHEIT},
        "when": None,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Object missing required field `city`"),
        ({"city": 3}, "Expected `str`, got `int` - at `$.city`"),
        ({"city": "Ur", "days": "two"}, "Expected `int`, got `str` - at `$.days`"),
        ({"city": "Ur", "unit": "K"}, "Invalid enum value 'K' - at `$.unit`"),
        ({"city": "Ur", "day": 1}, "Object contains unknown field `day`"),
        ({"city": None}, "Expected `str`, got `null` - at `$.city`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_words_for_the_model(arguments: dict[str, Any], words: str) -> None:
    """Unknown, missing and wrong ones, with the path, what was expected and what was found."""
    with pytest.raises(ToolArgumentsError) as caught:
        function_tool(weather).bind(called("weather", **arguments))
    assert caught.value.tool == "weather"
    assert caught.value.message == f"the arguments do not fit: {words}"


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """As JSON has it, and as some APIs write numbers."""
    assert function_tool(weather).bind(called(city="Ur", days=2.0)) == {"city": "Ur", "days": 2}


@pytest.mark.parametrize("raw", ["{", "[1]", "null", "{'city': 'Ur'}"])
def test_arguments_that_are_no_json_object_are_refused(raw: str) -> None:
    """The model's own text is what it hears about."""
    with pytest.raises(ToolArgumentsError, match="the arguments are"):
        function_tool(weather).bind(ToolCall.parse("1", "weather", raw))


def test_read_only_arguments_are_read() -> None:
    """A provider may hand on mappings and sequences of its own."""
    call = ToolCall(
        "1", "plan", MappingProxyType({"place": MappingProxyType({"city": "Ur"}), "days": (), "options": {"days": 1}})
    )
    assert function_tool(plan).bind(call)["place"] == Place("Ur")


def typed(
    a: int, b: list[str], c: dict[str, float] | None = None, *, d: Literal["x", 1] = "x", e: bool = False
) -> None: ...


@given(
    st.fixed_dictionaries(
        {"a": st.integers(), "b": st.lists(st.text())},
        optional={
            "c": st.none() | st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
            "d": st.sampled_from(["x", 1]),
            "e": st.booleans(),
        },
    )
)
def test_whatever_fits_the_schema_is_bound_unchanged(arguments: dict[str, Any]) -> None:
    """Parsed or as text, plain arguments arrive as they were sent, and fit the signature."""
    tool = function_tool(typed)
    bound = tool.bind(ToolCall("1", "typed", arguments))
    assert bound == arguments
    assert tool.bind(ToolCall.parse("1", "typed", json.dumps(arguments))) == arguments
    inspect.signature(typed).bind(**bound)


# ---- results -------------------------------------------------------------------------------------------------


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("words", "words"),
        ("", ""),
        (None, ""),
        (3, "3"),
        (True, "true"),
        ([1, None], "[1,null]"),
        ([], "[]"),
        ({"a": date(2026, 1, 2)}, '{"a":"2026-01-02"}'),
        (Place("Ur"), '{"city":"Ur","country":"FR"}'),
        (Forecast(3.5, date(2026, 1, 2)), '{"degrees":3.5,"day":"2026-01-02"}'),
        (Unit.CELSIUS, '"C"'),
        (Decimal("1.50"), '"1.50"'),
        (MappingProxyType({"a": (1, 2)}), '{"a":[1,2]}'),
        ("é", "é"),
        (["é"], '["é"]'),
        (Text("hi"), (Text("hi"),)),
        (Image("cat.png"), (Image("cat.png"),)),
        ([Image("cat.png"), "a cat", 3, None], (Image("cat.png"), Text("a cat"), Text("3"), Text(""))),
        ((Text("a"),), (Text("a"),)),
    ],
)
def test_a_result_is_words_media_or_json(value: object, content: object) -> None:
    """Words and media as they are, nothing as an empty text, all else as JSON."""
    assert result_content(value) == content


@dataclass
class Album:
    pictures: list[Image]


class Recording(Struct):
    sound: Audio


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Opaque(), "Opaque: .*JSON has no Opaque; return text"),
        ({"a": [Opaque()]}, "dict: .*JSON has no Opaque"),
        (b"\x89PNG", "bytes tell a model nothing"),
        (iter([1]), "JSON has no list_iterator"),
        ([Image("a.png"), [Image("b.png")]], "cannot hold another"),
        ({"image": Image("a.png")}, "a model cannot see media inside a dict: return them, alone"),
        ([{"pages": (Document("a.pdf"),)}], "media inside a list"),
        (Album([Image("a.png")]), "media inside a Album"),
        (Recording(Audio(b"abc", "audio/wav")), "media inside a Recording"),
        (["\ud800"], "list: "),
        ({(1, 2): 3}, "dict: "),
    ],
)
def test_what_json_cannot_hold_is_refused(value: object, words: str) -> None:
    """The message says what a function may return instead."""
    with pytest.raises(SerializationError, match=words):
        result_content(value)


def test_json_that_looks_like_media_is_json() -> None:
    assert result_content({"x": {"type": "image", "source": "a.png"}}) == '{"x":{"type":"image","source":"a.png"}}'


# ---- pydantic ------------------------------------------------------------------------------------------------

_MODELS = """
from pydantic import BaseModel, Field

class City(BaseModel):
    name: str = Field(min_length=1)
    size: int = 1

def visit(city: City, backup: City | None = None) -> City:
    return city
"""


def models() -> Any:
    """A module with a pydantic model, as a user would have one."""
    pytest.importorskip("pydantic")
    name = "agentflow_test_tools_models"
    if name not in sys.modules:
        module = type(sys)(name)
        sys.modules[name] = module
        exec(_MODELS, module.__dict__)
    return sys.modules[name]


async def test_pydantic_models_are_parameters_and_results() -> None:
    """They check themselves on the way in and write themselves on the way out."""
    tool = function_tool(models().visit)
    found = await tool.call(called("visit", city={"name": "Ur"}))
    assert found == models().City(name="Ur")
    assert json.loads(str(result_content(found))) == {"name": "Ur", "size": 1}
    assert json.loads(str(result_content([found])))[0]["name"] == "Ur"
    assert "$ref" not in tool.tool.parameters
    with pytest.raises(ToolArgumentsError, match=r"name: String should have at least 1 character - at `\$.city`"):
        tool.bind(called("visit", city={"name": ""}))
