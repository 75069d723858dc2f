"""Answers that are pydantic models or msgspec Structs: read by their own libraries, refused in our words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from agentflow.core.durability.answers import answer_type, check_answer, describe_schema, parse_answer
from agentflow.errors import AnswerError, ConfigurationError


class Mood(Enum):
    DRY = "dry"
    WARM = "warm"


def pydantic_model() -> Any:
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):
        name: str
        amount: float

    class Verdict(pydantic.BaseModel):
        """What becomes of the draft."""

        publish: bool
        pages: Annotated[int, pydantic.Field(gt=0, description="how many")] = 1
        mood: Mood = Mood.DRY
        items: list[Item] = []
        due: date | None = None
        price: Decimal = Decimal(0)

    Verdict.model_rebuild(_types_namespace={**globals(), "Item": Item, "pydantic": pydantic})
    return Verdict


def msgspec_struct() -> Any:
    msgspec = pytest.importorskip("msgspec")
    item = msgspec.defstruct("Item", [("name", str), ("amount", float)])
    return msgspec.defstruct(
        "Verdict",
        [
            ("publish", bool),
            ("pages", Annotated[int, msgspec.Meta(gt=0, description="how many")], 1),
            ("mood", Mood, Mood.DRY),
            ("items", list[item], []),
            ("due", date | None, None),
            ("price", Decimal, Decimal(0)),
        ],
    )


@pytest.fixture(params=[pydantic_model, msgspec_struct])
def verdict(request: pytest.FixtureRequest) -> Any:
    return request.param()


GIVEN = {
    "publish": True,
    "pages": 3,
    "mood": "warm",
    "items": [{"name": "a", "amount": 2}],
    "due": "2026-11-27",
    "price": "1.50",
}


def test_json_becomes_an_instance(verdict: Any) -> None:
    kind = answer_type(verdict)
    made: Any = kind.accept(GIVEN)
    assert type(made) is verdict
    assert (made.pages, made.mood, made.due, made.price) == (3, Mood.WARM, date(2026, 11, 27), Decimal("1.50"))
    assert made.items[0].amount == 2.0
    assert kind.accept(made) is made
    check_answer(GIVEN, kind.schema)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pages": "3"}, 'answer.pages must be a whole number, not "3"'),
        ({"pages": True}, "answer.pages must be a whole number, not true"),
        ({"mood": "sad"}, 'answer.mood must be one of "dry", "warm", not "sad"'),
        ({"items": [{"name": "a", "amount": "x"}]}, 'answer.items[0].amount must be a number, not "x"'),
        ({"due": "soon"}, 'answer.due must be a date like 2026-11-27 or null, not "soon"'),
    ],
)
def test_what_does_not_fit_is_refused_in_our_words(verdict: Any, change: dict[str, object], words: str) -> None:
    """Strictly, and the same with types and without."""
    kind = answer_type(verdict)
    for judge in (kind.accept, lambda value: check_answer(value, kind.schema)):
        with pytest.raises(AnswerError) as caught:
            judge({**GIVEN, **change})
        assert str(caught.value) == words


def test_what_only_the_class_knows_is_refused_in_its_words(verdict: Any) -> None:
    """A keyword that we do not know is let through without types, and caught where they are."""
    kind = answer_type(verdict)
    check_answer({**GIVEN, "pages": 0}, kind.schema)
    with pytest.raises(AnswerError, match=r"^answer\.pages: (Input should be greater than 0|Expected `int` >= 1)$"):
        kind.accept({**GIVEN, "pages": 0})


def test_the_schema_has_no_references(verdict: Any) -> None:
    """So that whoever shows or checks it needs to look nothing up."""
    schema = answer_type(verdict).schema
    assert schema is not None
    assert "$ref" not in str(schema)
    assert "$defs" not in schema
    assert describe_schema(schema) == (
        'JSON: {publish: true/false, pages?: whole number, mood?: "dry" | "warm", '
        "items?: [{name: text, amount: number}, …], due?: date | null, price?: " + _price(verdict)
    )


def _price(verdict: Any) -> str:
    return "number | text}" if hasattr(verdict, "model_json_schema") else "text}"


def test_they_may_stand_in_other_types(verdict: Any) -> None:
    @dataclass
    class Round:
        verdicts: list[verdict]
        last: verdict | Literal["none"] = "none"

    Round.__annotations__ = {"verdicts": list[verdict], "last": verdict | Literal["none"]}
    made: Any = answer_type(Round).accept({"verdicts": [GIVEN], "last": "none"})
    assert type(made.verdicts[0]) is verdict
    with pytest.raises(AnswerError, match=r'^answer\.verdicts\[0\] lacks "publish"$'):
        answer_type(Round).accept({"verdicts": [{}]})


def test_a_person_types_json_for_them(verdict: Any) -> None:
    schema = answer_type(verdict).schema
    assert parse_answer('{"publish": false}', schema) == {"publish": False}
    with pytest.raises(AnswerError, match=r'^answer\.publish must be true or false, not "no"; wanted is JSON: '):
        parse_answer('{"publish": "no"}', schema)


def test_a_class_that_json_cannot_describe_is_refused_at_once() -> None:
    pydantic = pytest.importorskip("pydantic")
    msgspec = pytest.importorskip("msgspec")
    model = pydantic.create_model("Odd", __config__={"arbitrary_types_allowed": True}, what=(Strange, ...))
    for cls in (model, msgspec.defstruct("Odd", [("what", Strange)])):
        with pytest.raises(ConfigurationError, match="Odd cannot be asked for as an answer"):
            answer_type(cls)


class Strange:
    """Nothing that JSON has."""


def test_a_model_that_contains_itself_may_hold_anything_there() -> None:
    """In the schema: the class still judges."""
    msgspec = pytest.importorskip("msgspec")
    fields = {"__annotations__": {"name": str, "branches": "list[Branch]"}, "branches": []}
    globals()["Branch"] = branch = type(msgspec.Struct)("Branch", (msgspec.Struct,), {"__module__": __name__, **fields})
    kind = answer_type(branch)
    check_answer({"name": "a", "branches": [{"name": 1}]}, kind.schema)
    with pytest.raises(AnswerError, match=r"^answer\.branches\[0\]\.name: Expected `str`, got `int`$"):
        kind.accept({"name": "a", "branches": [{"name": 1}]})


def test_answers_import_neither_library() -> None:
    program = "import agentflow.core.durability.answers, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert {"pydantic", "msgspec"} & set(loaded) == set()
