"""What an answer to an interrupt may be: its type, its JSON Schema, what a person types, and that all of them agree."""

from __future__ import annotations

import enum
import json
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.durability.answers import answer_type, check_answer, describe_schema, parse_answer
from agentflow.errors import AnswerError, ConfigurationError


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3
    TOP = 3


class Size(enum.StrEnum):
    BIG = "BIG"
    SMALL = "SMALL"


class Crossed(enum.Enum):
    A = "B"
    B = "A"


class Odd(enum.Enum):
    PAIR = (1, 2)
    NOTHING = None


@dataclass(frozen=True)
class Item:
    name: str
    amount: float


@dataclass
class Verdict:
    """What becomes of the draft.

    In two paragraphs.
    """

    publish: bool
    why: Annotated[str, "for the author"] = ""
    items: list[Item] = field(default_factory=list, metadata={"description": "what to change"})
    number: int = field(default=0, init=False)


@dataclass
class Careful:
    share: float

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError("a share is at most 1")


class Note(TypedDict):
    text: str
    due: NotRequired[date]


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Tree:
    branches: list[Tree]


@dataclass
class Lost:
    where: Nowhere  # noqa: F821


Title = NewType("Title", str)


def accepted(schema: object, value: object) -> object:
    return answer_type(schema).accept(value)


def refused(schema: object, value: object) -> str:
    with pytest.raises(AnswerError) as caught:
        answer_type(schema).accept(value)
    return str(caught.value)


# ---- the typed value -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "made"),
    [
        (bool, True, True),
        (int, 3, 3),
        (int, 3.0, 3),  # JSON knows no difference
        (float, 3, 3.0),
        (float, 2.5, 2.5),
        (str, "", ""),
        (Title, "Tides", "Tides"),
        (type(None), None, None),
        (Literal["publish", "discard"], "discard", "discard"),
        (["publish", "discard"], "discard", "discard"),
        (("publish", 2, True, None), True, True),
        ([Colour.RED, "none"], "r", Colour.RED),
        (Literal[Colour.RED], "RED", Colour.RED),
        (Colour, "g", Colour.GREEN),
        (Colour, "GREEN", Colour.GREEN),
        (Level, 3, Level.HIGH),
        (Level, "LOW", Level.LOW),
        (Level, "TOP", Level.HIGH),
        (Size, "BIG", Size.BIG),
        (Crossed, "A", Crossed.B),  # the value comes before the name
        (Odd, "PAIR", Odd.PAIR),
        (Odd, None, Odd.NOTHING),
        (list[int], [1, 2], [1, 2]),
        (list, [1, "a"], [1, "a"]),
        (Sequence[str], ["a"], ["a"]),
        (set[Colour], ["r", "r", "g"], {Colour.RED, Colour.GREEN}),
        (frozenset[Item], [{"name": "a", "amount": 1}], frozenset({Item("a", 1.0)})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[()], [], ()),
        (dict[str, Level], {"a": 1}, {"a": Level.LOW}),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (dict, {"a": [None]}, {"a": [None]}),
        (int | None, None, None),
        (Colour | None, "r", Colour.RED),
        (date | str, "2026-11-27", date(2026, 11, 27)),
        (date | str, "soon", "soon"),
        (Verdict, {"publish": True}, Verdict(True)),
        (
            Verdict,
            {"publish": False, "why": "no", "items": [{"name": "a", "amount": 2}]},
            Verdict(False, "no", [Item("a", 2.0)]),
        ),
        (Note, {"text": "a", "due": "2026-11-27"}, {"text": "a", "due": date(2026, 11, 27)}),
        (Point, {"x": 1}, Point(1)),
        (namedtuple("Loose", "a b"), {"a": 1, "b": "x"}, (1, "x")),
        (date, "2026-11-27", date(2026, 11, 27)),
        (datetime, "2026-11-27T09:30", datetime(2026, 11, 27, 9, 30)),
        (Decimal, "12.50", Decimal("12.50")),
        (Decimal, 0.1, Decimal("0.1")),
        (Annotated[int, "in pages"], 4, 4),
        (None, {"any": [1, "thing", None, 2.5, True]}, {"any": [1, "thing", None, 2.5, True]}),
        (object, "x", "x"),
        (Any, [1], [1]),
    ],
)
def test_json_becomes_the_typed_value(schema: object, value: object, made: object) -> None:
    """What fits is made into the type, and a process without types lets it through as well."""
    kind = answer_type(schema)
    found = kind.accept(value)
    assert (found, type(found)) == (made, type(made)) or isinstance(found, tuple)
    assert found == made
    check_answer(value, kind.schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Colour, Colour.RED),
        (Verdict, Verdict(True)),
        (Point, Point(1, 2)),
        (date, date(2026, 11, 27)),
        (datetime, datetime(2026, 11, 27)),
        (Decimal, Decimal("1.5")),
        (set[int], {1, 2}),
        (tuple[int, ...], (1, 2)),
        (list[Item], [Item("a", 1.0)]),
        (str | Colour, Colour.RED),
        (str | Size, Size.BIG),
        (float | Level, Level.HIGH),
        (list[int] | Point, Point(1, 2)),
        (list[int] | set[int], {1}),
        (Note, {"text": "a", "due": date(2026, 11, 27)}),
        (Item | None, Item("a", 1.0)),
    ],
)
def test_a_value_of_the_type_passes_as_it_is(schema: object, value: object) -> None:
    found = accepted(schema, value)
    assert found == value
    assert type(found) is type(value)


# ---- what does not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        (int, "3", 'answer must be a whole number, not "3"'),
        (int, True, "answer must be a whole number, not true"),
        (int, 3.5, "answer must be a whole number, not 3.5"),
        (int, float("inf"), "answer must be a whole number, not Infinity"),
        (float, "3", 'answer must be a number, not "3"'),
        (float, float("nan"), "answer must be a number, not NaN"),
        (float, 10**400, "answer must be a number, not a number of more digits than fit here"),
        (float, False, "answer must be a number, not false"),
        (bool, 1, "answer must be true or false, not 1"),
        (str, None, "answer must be a text, not null"),
        (str, {"a": 1}, "answer must be a text, not an object"),
        (["publish", "discard"], "burn", 'answer must be one of "publish", "discard", not "burn"'),
        (Literal["a"] | None, 1, 'answer must be "a" or null, not 1'),
        (Literal[1], True, "answer must be 1, not true"),
        (Colour, "blue", 'answer must be one of "r", "g", not "blue"'),
        (Level, 2, 'answer must be one of "LOW", "HIGH", not 2'),
        (Colour | None, "blue", 'answer must be one of "r", "g" or null, not "blue"'),
        (date, "27.11.2026", 'answer must be a date like 2026-11-27, not "27.11.2026"'),
        (date, datetime(2026, 11, 27, 9), "answer must be a date like 2026-11-27, not a Python datetime"),
        (datetime | None, "soon", 'answer must be a date and time like 2026-11-27T09:30 or null, not "soon"'),
        (Decimal, "1_000", 'answer must be a number, not "1_000"'),
        (Decimal, "1e9999999999999999999", 'answer must be a number, not "1e9999999999999999999"'),
        (list[int], {}, "answer must be a list, not an object"),
        (list[int], [1, "x"], 'answer[1] must be a whole number, not "x"'),
        (tuple[int, str], [1], "answer must have 2 items, not 1"),
        (tuple[int, str], "x", 'answer must be a list of 2, not "x"'),
        (tuple[()], [1], "answer must have 0 items, not 1"),
        (dict[str, int], {"two words": "x"}, 'answer["two words"] must be a whole number, not "x"'),
        (dict[str, int], {1: 1}, "answer has a key that is no text: 1"),
        (Verdict, {}, 'answer lacks "publish"'),
        (Item, {}, 'answer lacks "name" and "amount"'),
        (Verdict, {"publish": True, "wy": ""}, 'answer has no "wy"; it has publish, why, items'),
        (Verdict, {"publish": True, "number": 1}, 'answer has no "number"; it has publish, why, items'),
        (
            Verdict,
            {"publish": True, "items": [{"name": "a", "amount": 1}, {"name": "b", "amount": "x"}]},
            'answer.items[1].amount must be a number, not "x"',
        ),
        (Item | None, {"name": "a", "amount": "x"}, 'answer.amount must be a number, not "x"'),
        (Item | Note, {"name": "a"}, "answer must be an object, not an object"),
        (list[int] | str, [None], "answer[0] must be a whole number, not null"),
        (Note, {"text": "a", "due": "soon"}, 'answer.due must be a date like 2026-11-27, not "soon"'),
        (None, {"a": object()}, "answer.a must be what JSON holds, not a Python object"),
        (None, [float("nan")], "answer[0] must be what JSON holds, not NaN"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(schema: object, value: object, words: str) -> None:
    """The words say what is wanted and where, and are the same for a process that has no types."""
    assert refused(schema, value) == words
    if not isinstance(value, datetime):
        with pytest.raises(AnswerError) as caught:
            check_answer(value, answer_type(schema).schema)
        assert str(caught.value) == words


def test_long_values_are_shortened_in_messages() -> None:
    assert len(refused(int, "x" * 10_000)) < 120


def test_what_a_class_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(AnswerError, match="answer: a share is at most 1") as caught:
        accepted(Careful, {"share": 2})
    assert isinstance(caught.value.__cause__, ValueError)
    assert refused(list[Careful], [{"share": 1}, {"share": 2}]) == "answer[1]: a share is at most 1"


def test_a_value_nested_without_end_is_refused() -> None:
    """Also where Python could not follow it."""
    endless: list[object] = []
    endless.append(endless)
    assert refused(None, endless) == "answer is nested too deeply"
    with pytest.raises(AnswerError, match="nested too deeply"):
        check_answer(endless, None)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (object(), "can be bool, int"),
        ("int", "can be bool, int"),
        ({"type": "string"}, "can be bool, int"),
        (bytes, "schema=bytes cannot be asked for"),
        (list[bytes], "schema=bytes cannot be asked for"),
        (complex | None, "schema=complex cannot be asked for"),
        (dict[int, str], "the keys of a JSON object are texts"),
        (set[list[int]], "its items have no hash"),
        (set[Note], "its items have no hash"),
        (set[Verdict], "its items have no hash"),
        (set, "its items have no hash"),
        ([], "leaves nothing to choose"),
        ([1.5], "1.5 is no choice"),
        (["a", ["b"]], "is no choice"),
        (enum.Enum("Empty", []), "schema=Empty cannot be asked for"),
        (Tree, "Tree contains itself"),
        (Lost, "Nowhere"),
    ],
)
def test_a_type_that_no_json_can_be_read_as_is_refused_at_once(schema: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        answer_type(schema)


# ---- the JSON Schema -------------------------------------------------------------------------------------------


def test_the_schema_says_what_a_person_needs() -> None:
    """Docstrings and field notes become descriptions; what has a default is not required."""
    assert answer_type(Verdict).schema == {
        "type": "object",
        "description": "What becomes of the draft.\n\nIn two paragraphs.",
        "properties": {
            "publish": {"type": "boolean"},
            "why": {"type": "string", "description": "for the author"},
            "items": {
                "type": "array",
                "description": "what to change",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "amount": {"type": "number"}},
                    "required": ["name", "amount"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["publish"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        (None, None),
        (object, {}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1], {"type": ["string", "integer"], "enum": ["a", 1]}),
        (Size, {"type": "string", "enum": ["BIG", "SMALL"]}),
        (
            Level,
            {"anyOf": [{"title": "LOW", "enum": ["LOW", 1]}, {"title": "HIGH", "enum": ["HIGH", "TOP", 3]}]},
        ),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Annotated[bool, "may it go out?"], {"type": "boolean", "description": "may it go out?"}),
    ],
)
def test_types_are_written_as_json_schema(schema: object, written: object) -> None:
    found = answer_type(schema).schema
    assert found == written
    assert json.loads(json.dumps(found)) == found


def test_keywords_that_we_do_not_write_are_let_through() -> None:
    """The node that asked judges again, so that a check here may know less, and never refuses too much."""
    check_answer("ab", {"type": "string", "pattern": "^x", "minLength": 9, "format": "email"})
    check_answer([1], {"oneOf": [{"type": "string"}]})
    check_answer({"a": 1}, {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}})
    check_answer(None, {"type": ["string", "null"]})
    check_answer("a", {"const": "a"})
    with pytest.raises(AnswerError, match=r'answer must be "a", not 1'):
        check_answer(1, {"const": "a"})


# ---- what a person types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "text", "meant"),
    [
        *((bool, text, True) for text in ("y", "Yes", "true", " Y ")),
        *((bool, text, False) for text in ("n", "NO", "false")),
        (int, " 12 ", 12),
        (float, "12.5", 12.5),
        (float, "-3", -3),
        (str, "12", "12"),
        (str, '{"a": 1}', '{"a": 1}'),
        (str, " kept as it is ", " kept as it is "),
        (str, "", ""),
        (["publish", "discard"], "discard", "discard"),
        (["publish", "discard"], "DIS", "discard"),
        (["publish", "discard"], "2", "discard"),
        (["post", "postpone"], "post", "post"),
        (["Yes", "yes"], "yes", "yes"),
        ([10, 20], "10", 10),
        ([True, "later"], "true", True),
        (Colour, "red", "r"),
        (Colour, "gre", "g"),
        (Level, "high", "HIGH"),
        (Level, "3", "HIGH"),
        (Level, "l", "LOW"),
        (Colour | None, "none", None),
        (Colour | None, "", None),
        (Literal["a", "b"] | None, "2", "b"),
        (Literal["publish"] | str, "pub", "pub"),
        (Literal["publish"] | str, "PUBLISH", "publish"),
        (int | str, "12", 12),
        (int | str, "twelve", "twelve"),
        (bool | str, "no", False),
        (bool | str, "not yet", "not yet"),
        (int | None, "null", None),
        (str | None, "none", None),
        (str | None, "", None),
        (str | None, "no one", "no one"),
        (date, "2026-11-27 ", "2026-11-27"),
        (Decimal, "12.50", "12.50"),
        (list[int], "[1, 2]", [1, 2]),
        (Item, '{"name": "a", "amount": 1}', {"name": "a", "amount": 1}),
        (Item | None, "none", None),
        (None, '{"a": [1]}', {"a": [1]}),
        (None, "12", 12),
        (None, "as you like", "as you like"),
        (None, "NaN", "NaN"),
        (None, "1e999", "1e999"),
        (None, "[" * 100_000, "[" * 100_000),
        (object, "x", "x"),
    ],
)
def test_what_is_typed_is_understood(schema: object, text: str, meant: object) -> None:
    """And it is an answer that the type takes."""
    kind = answer_type(schema)
    found = parse_answer(text, kind.schema)
    assert found == meant
    assert type(found) is type(meant)
    kind.accept(found)


@pytest.mark.parametrize(
    ("schema", "text", "words"),
    [
        (bool, "perhaps", '"perhaps" will not do; wanted is yes/no'),
        (bool, "1", '"1" will not do; wanted is yes/no'),
        (int, "3.5", '"3.5" will not do; wanted is a whole number'),
        (int, "", '"" will not do; wanted is a whole number'),
        (float, "NaN", '"NaN" will not do; wanted is a number'),
        (["publish", "discard"], "burn", '"burn" will not do; wanted is publish | discard'),
        (["publish", "discard"], "", '"" will not do; wanted is publish | discard'),
        (["publish", "discard"], "3", '"3" will not do; wanted is publish | discard'),
        (["publish", "postpone"], "P", '"p" may be publish or postpone: write more of it'),
        ([10, 20], "2", None),  # a beginning, not a number in the list
        ([1, 5], "2", '"2" will not do; wanted is 1 | 5'),
        (date, "soon", '"soon" will not do; wanted is a date like 2026-11-27'),
        (Item, "name=a", '"name=a" will not do; wanted is JSON: {name: text, amount: number}'),
        (
            Item,
            '{"name": "a", "amount": "x"}',
            'answer.amount must be a number, not "x"; wanted is JSON: {name: text, amount: number}',
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_what_would_do(schema: object, text: str, words: str | None) -> None:
    if words is None:
        assert parse_answer(text, answer_type(schema).schema) == 20
        return
    with pytest.raises(AnswerError) as caught:
        parse_answer(text, answer_type(schema).schema)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, "anything"),
        (object, "anything"),
        (bool, "yes/no"),
        (int, "a whole number"),
        (float | None, "a number | none"),
        (str, "text"),
        (Decimal, "a number"),
        (datetime, "a date and time like 2026-11-27T09:30"),
        (["publish", "discard"], "publish | discard"),
        (Literal[True, 3, None], "true | 3 | null"),
        (Colour | None, "r | g | none"),
        (Level, "LOW | HIGH"),
        (list[str], "JSON: [text, …]"),
        (list, "JSON: […]"),
        (tuple[int, bool], "JSON: [whole number, true/false]"),
        (dict[str, int], "JSON: {name: whole number, …}"),
        (dict, "JSON: {…}"),
        (Note, "JSON: {text: text, due?: date}"),
        (
            Verdict,
            "JSON: {publish: true/false, why?: text, items?: [{name: text, amount: number}, …]}",
        ),
        (list[Colour | None], 'JSON: ["r" | "g" | null, …]'),
        (list[Decimal], "JSON: [number | text, …]"),
        (list[list[list[list[int]]]], "JSON: [[[[…], …], …], …]"),
        ([f"c{n}" for n in range(30)], "c0 | c1 | c2 | c3 | c4 | c5 | c6 | c7 | c8 | c9 | c10 | c11 | … (30 in all)"),
    ],
)
def test_a_prompt_says_in_few_words_what_may_be_answered(schema: object, words: str) -> None:
    assert describe_schema(answer_type(schema).schema) == words


# ---- all of them agree -----------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "a", "r", "RED", "LOW", "x y", "2026-11-27", "2026-11-27T09:30", "1.5", "3", "none"])
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from([1.0, 2.5, -0.0, 1e300]), TEXTS)
KEYS = st.sampled_from(["a", "b", "name", "amount", "text", "due", "x", "y"])
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
HASHABLE = [bool, int, float, str, date, datetime, Decimal, Colour, Level, Size, Odd, Literal["a", 3, None, True], Item]
NAMES = st.lists(st.sampled_from(["a", "b", "x"]), unique=True, max_size=3)


def class_of(names: list[str], kinds: list[Any], bare: int) -> Any:
    """A dataclass, in which those after the first `bare` have a default."""
    return make_dataclass(
        "Made",
        [
            (name, kind) if index < bare else (name, kind, field(default=None))
            for index, (name, kind) in enumerate(zip(names, kinds, strict=False))
        ],
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        inner.map(lambda kind: tuple[kind, ...]),
        st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),
        st.tuples(inner, inner).map(lambda kinds: kinds[0] | kinds[1] if kinds[0] != kinds[1] else kinds[0]),
        inner.map(lambda kind: kind | None),
        st.builds(class_of, NAMES, st.lists(inner, min_size=3, max_size=3), st.integers(0, 3)),
    )


TYPES = st.recursive(
    st.sampled_from([*HASHABLE, Note, Point, object]) | st.sampled_from(HASHABLE).map(lambda kind: set[kind]),
    containers,
    max_leaves=6,
)


def outcome(judge: Callable[[Any], object], value: object) -> str | None:
    """What it says against the value."""
    try:
        judge(value)
    except AnswerError as error:
        return str(error)
    return None


def filled(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that mostly fit a schema, with something else in them here and there."""
    if options := schema.get("anyOf"):
        return st.one_of([filled(option) for option in options])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | PLAIN
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return st.tuples(*map(filled, schema["prefixItems"])).map(list)
        case "array":
            return st.lists(filled(schema.get("items", {})), max_size=3)
        case "object" if "properties" in schema:
            wanted = {name: filled(inner) for name, inner in schema["properties"].items()}
            needed = {name: wanted.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(needed, optional=wanted)
        case "object":
            return st.dictionaries(KEYS, filled(schema.get("additionalProperties", {})), max_size=3)
        case _:
            return PLAIN
    return JSON


@given(data=st.data(), kind=TYPES)
@settings(max_examples=400, deadline=None)
def test_the_type_and_its_schema_judge_alike(data: st.DataObject, kind: object) -> None:
    """Whatever the type accepts its schema does, too; what one refuses the other refuses in the same words; and what
    is accepted is of the type, so that it is accepted again."""
    answers = answer_type(kind)
    value = data.draw(JSON | filled(answers.schema or {}))
    said = outcome(answers.accept, value)
    assert outcome(lambda value: check_answer(value, answers.schema), value) == said
    if said is None:
        made = answers.accept(value)
        assert answers.accept(made) == made


@given(data=st.data(), kind=TYPES)
@settings(max_examples=300, deadline=None)
def test_a_validator_we_did_not_write_agrees(data: st.DataObject, kind: object) -> None:
    """The schemas are valid JSON Schema 2020-12, and mean what we take them to mean; formats aside, which are only
    notes there."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = answer_type(kind).schema or {}
    jsonschema.Draft202012Validator.check_schema(schema)
    value = data.draw(JSON | filled(schema))
    theirs = jsonschema.Draft202012Validator(schema).is_valid(value)
    ours = outcome(lambda value: check_answer(value, schema), value) is None
    assert theirs or not ours
    if "format" not in json.dumps(schema):
        assert ours == theirs


@given(kind=TYPES, text=TEXTS | st.text() | JSON.map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_whatever_is_typed_is_an_answer_or_an_error(kind: object, text: str) -> None:
    """What is understood fits; what is not says what would do."""
    answers = answer_type(kind)
    said = outcome(lambda text: answers.accept(parse_answer(text, answers.schema)), text)
    assert said is None or "wanted is" in said or "may be" in said
