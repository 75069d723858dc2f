"""The input schema: a dataclass, a TypedDict or a validator of one's own checks what a run is given."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Protocol, Required, TypedDict, TypeVar

import pytest

from agentflow.core import AsyncFlow, Each, SharedState, Validator, node
from agentflow.core.schema import validator_for
from agentflow.errors import GraphError, InputError

T = TypeVar("T")


@node
async def nothing(state: SharedState) -> None: ...


@dataclass
class Article:
    topic: str
    words: int = 500
    _: KW_ONLY
    tags: list[str] = field(default_factory=list)
    mood: Literal["dry", "warm"] = "dry"
    score: float | None = None
    slug: str = field(init=False, default="never")


class Question(TypedDict):
    text: str
    depth: NotRequired[int]


class Loose(TypedDict, total=False):
    text: Required[str]
    depth: Annotated[int, "levels"]


async def given(schema: Any, values: Mapping[str, object]) -> dict[str, object]:
    return (await AsyncFlow(nothing, inputs=schema).run(values)).state.snapshot()


async def test_a_dataclass_checks_the_input_and_fills_in_defaults() -> None:
    assert await given(Article, {"topic": "tides", "words": 9}) == {
        "topic": "tides",
        "words": 9,
        "tags": [],
        "mood": "dry",
        "score": None,
    }


async def test_default_factories_make_a_new_value_each_run() -> None:
    first, second = await given(Article, {"topic": "a"}), await given(Article, {"topic": "a"})
    assert first["tags"] is not second["tags"]


@pytest.mark.parametrize("schema", [Question, Loose])
async def test_a_typed_dict_knows_required_and_optional_keys(schema: type) -> None:
    assert await given(schema, {"text": "why"}) == {"text": "why"}
    assert await given(schema, {"text": "why", "depth": 2}) == {"text": "why", "depth": 2}
    with pytest.raises(InputError, match=f"{schema.__name__} needs 'text', which the input lacks"):
        await given(schema, {"depth": 2})
    with pytest.raises(InputError, match="depth must be int, not str"):
        await given(schema, {"text": "why", "depth": "2"})


@pytest.mark.parametrize(
    ("values", "message", "misfit"),
    [
        ({}, "Article needs 'topic', which the input lacks", "topic"),
        ({"topic": 5}, "Article: topic must be str, not int", "topic"),
        ({"topic": "x", "words": "9"}, "words must be int, not str", "words"),
        ({"topic": "x", "words": True}, "words must be int, not bool", "words"),
        ({"topic": "x", "words": 9.5}, "words must be int, not float", "words"),
        ({"topic": "x", "tags": ["a", 5]}, r"tags\[1\] must be str, not int", "tags"),
        ({"topic": "x", "tags": "ab"}, r"tags must be list\[str\], not str", "tags"),
        ({"topic": "x", "mood": "cold"}, r"mood must be Literal\['dry', 'warm'\], not str 'cold'", "mood"),
        ({"topic": "x", "score": "high"}, r"score must be float \| None, not str", "score"),
        ({"topci": "x"}, "Article has no field 'topci'; did you mean 'topic'", "topci"),
        ({"topic": "x", "zzz": 1}, "has no field 'zzz'; it has topic, words, tags, mood, score", "zzz"),
        ({"topic": "x", "slug": "mine"}, "has no field 'slug'", "slug"),
    ],
)
async def test_a_misfit_is_an_input_error_that_names_the_field(
    values: dict[str, object], message: str, misfit: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        await given(Article, values)
    assert caught.value.field == misfit


class Colour(enum.Enum):
    RED = "red"


class Client(Protocol):
    def call(self) -> None: ...


class Inner(TypedDict):
    name: str


FITS: list[tuple[Any, object]] = [
    (Any, object()),
    (object, None),
    (float, 5),
    (int | str, "x"),
    (list[int], [1, 2]),
    (list, [1, "x"]),
    (list[Any], [1, "x"]),
    (tuple[int, str], (1, "x")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (set[int], {1}),
    (frozenset[str], frozenset({"a"})),
    (Sequence[int], (1, 2)),
    (dict[str, int], {"a": 1}),
    (Mapping[str, list[int]], {"a": [1]}),
    (Colour, Colour.RED),
    (Inner, {"name": "x"}),
    (list[Inner], [{"name": "x"}]),
    (Article, Article("x")),
    (Client, 5),
    (T, 5),
    (type[int], int),
    (Annotated[int, "seconds"], 5),
    (None, None),
    (Literal[1, None], None),
]

MISFITS: list[tuple[Any, object, str]] = [
    (float, True, "value must be float, not bool"),
    (int | str, 1.5, "value must be int | str, not float"),
    (None, 5, "value must be None, not int"),
    (tuple[int, str], (1,), "value must be tuple[int, str]: it has 1 items"),
    (tuple[int, ...], (1, "x"), "value[1] must be int, not str"),
    (set[int], [1], "value must be set[int], not list"),
    (Sequence[str], "text", "value must be collections.abc.Sequence[str], not str"),
    (dict[str, int], {"a": "b"}, "value['a'] must be int, not str"),
    (dict[str, int], {1: 1}, "value: the key 1 must be str, not int"),
    (dict[str, int], [1], "value must be dict[str, int], not list"),
    (Colour, "red", "value must be Colour, not str"),
    (Inner, {"name": 5}, "value: Inner: name must be str, not int"),
    (Inner, {}, "value: Inner needs 'name'"),
    (Inner, 5, "value must be Inner, not int"),
    (list[Inner], [{"nam": "x"}], "value[0]: Inner has no field 'nam'"),
    (Literal[1], True, "value must be Literal[1], not bool True"),
]


def schema_of(kind: Any) -> Validator:
    made = validator_for(TypedDict("Holder", {"value": kind}))  # type: ignore[arg-type, operator, misc]  # made on the fly
    assert made is not None
    return made


@pytest.mark.parametrize(("kind", "value"), FITS)
def test_what_fits_its_type_or_cannot_be_checked_passes(kind: Any, value: object) -> None:
    assert schema_of(kind).validate({"value": value}) == {"value": value}


@pytest.mark.parametrize(("kind", "value", "message"), MISFITS)
def test_what_does_not_fit_is_said_with_its_place(kind: Any, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        schema_of(kind).validate({"value": value})
    assert str(caught.value).startswith(f"Holder: {message}")


async def test_a_validator_of_ones_own_may_change_the_values() -> None:
    class Upper:
        def validate(self, values: Mapping[str, object], *, partial: bool = False) -> Mapping[str, object]:
            return {name: str(value).upper() for name, value in values.items()}

    assert await given(Upper(), {"topic": "tides"}) == {"topic": "TIDES"}


async def test_whatever_a_validator_raises_is_an_input_error() -> None:
    class Picky:
        def validate(self, values: Mapping[str, object], *, partial: bool = False) -> Mapping[str, object]:
            raise ValueError("too wet")

    with pytest.raises(InputError, match="flow refuses its input: too wet"):
        await given(Picky(), {"topic": "tides"})


@pytest.mark.parametrize("wrong", [5, int, {"topic": str}, Article("x")])
def test_what_is_no_schema_is_refused_when_the_flow_is_built(wrong: Any) -> None:
    with pytest.raises(GraphError, match="give a dataclass, a TypedDict, or an object with validate"):
        AsyncFlow(nothing, inputs=wrong)


def test_an_annotation_that_cannot_be_read_is_refused_when_the_flow_is_built() -> None:
    @dataclass
    class Broken:
        topic: Nowhere  # type: ignore[name-defined]  # noqa: F821 - on purpose

    with pytest.raises(GraphError, match="inputs=Broken: name 'Nowhere' is not defined"):
        AsyncFlow(nothing, inputs=Broken)


@pytest.mark.parametrize("wrong", [5, "topic", [("topic", "x")], Article("x")])
async def test_an_input_that_is_no_mapping_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="the input of a flow is a mapping of names to values, not"):
        await AsyncFlow(nothing).run(wrong)


async def test_a_nested_flows_schema_looks_at_its_own_fields_in_a_shared_state() -> None:
    inner = AsyncFlow(nothing, name="inner", inputs=Article)

    state = (await AsyncFlow(inner).run({"topic": "tides", "other": 1})).state
    assert (state["words"], state["other"]) == (500, 1)
    with pytest.raises(InputError, match="words must be int"):
        await AsyncFlow(inner).run({"topic": "tides", "words": "many"})


async def test_each_item_of_a_flow_is_checked() -> None:
    inner = AsyncFlow(nothing, name="inner", inputs=Question)
    with pytest.raises(InputError, match="text must be str, not int"):
        await AsyncFlow(Each(inner, over="texts", item="text", into="out", collect="text")).run({"texts": ["a", 5]})
