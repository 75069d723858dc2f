"""What a run hands out, as text and as JSON."""

from __future__ import annotations

import datetime
import json
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from agentflow.cli.outcome import as_json, as_text
from agentflow.errors import SerializationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: tuple[int, ...]


class Row(Struct):
    x: int
    names: tuple[str, ...]


@given(JSON)
def test_what_is_json_comes_back_equal(value: object) -> None:
    made = as_json(value, "state")
    assert json.loads(made.text) == value
    assert made.types == ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, (2, 3)), {"x": 1, "y": [2, 3]}),
        ({"b", "a"}, ["a", "b"]),
        (deque([1]), [1]),
        ({1: {None: 2}}, {"1": {"None": 2}}),
        (datetime.date(2026, 11, 23), "2026-11-23"),
        (Path("a/b"), "a/b"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Row(1, ("a",)), {"x": 1, "names": ["a"]}),
        (Colour.RED, "red"),
    ],
)
def test_the_nearest_is_taken_for_common_types(value: object, plain: object) -> None:
    made = as_json(value, "state")
    assert (json.loads(made.text), made.types) == (plain, ())


@pytest.mark.parametrize(
    ("value", "said"),
    [(float("nan"), "nan"), (b"x", "b'x'"), (ValueError("no"), "ValueError: no"), (int, "<class 'int'>")],
)
def test_for_the_rest_stands_the_repr_and_its_type_is_named(value: object, said: str) -> None:
    made = as_json({"a": [value]}, "state")
    assert json.loads(made.text) == {"a": [said]}
    assert made.types == (type(value).__name__,)


def test_a_value_within_itself_is_refused_with_its_place_and_one_used_twice_is_not() -> None:
    shared = [1]
    assert json.loads(as_json([shared, shared], "state").text) == [[1], [1]]
    loop: dict[str, object] = {}
    loop["in"] = [loop]
    with pytest.raises(SerializationError, match=r"state\.in\.0: the value contains itself"):
        as_json(loop, "state")
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(SerializationError, match="too deeply"):
        as_json(deep, "state")


def test_text_is_handed_out_as_it_is() -> None:
    assert as_text("a ✓ b") == "a ✓ b"
    assert json.loads(as_text({"a": "✓"})) == {"a": "✓"}
