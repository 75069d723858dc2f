"""Any value becomes JSON: odd ones, endless ones, and those that raise when they are looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.plain import cut, plain


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int


class Raising:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Hollow(Mapping[str, int]):
    """Says that it has two entries and raises when asked for them."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        ("text", "text"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10**5000, "<integer of 16610 bits>"),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (b"\x00secret", "<7 bytes>"),
        (datetime(2026, 11, 30, tzinfo=UTC), "2026-11-30T00:00:00+00:00"),
        (PurePosixPath("/a/b"), "PurePosixPath('/a/b')"),
        (Point(1), "Point(x=1)"),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (MappingProxyType({1: "a", None: "b"}), {"1": "a", "None": "b"}),
        ("half \ud800", "half ?"),
        (Raising(), "<Raising: RuntimeError when read>"),
        ({"a": Raising(), "b": 1}, {"a": "<Raising: RuntimeError when read>", "b": 1}),
        (Hollow(), "<Hollow: KeyError when read>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_becomes(value: object, becomes: object) -> None:
    assert plain(value) == becomes
    json.dumps(plain(value), allow_nan=False).encode()


def test_what_holds_itself_ends() -> None:
    endless: list[object] = []
    endless.append(endless)
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert json.dumps(plain([endless, loop])).count("…".encode("ascii", "backslashreplace").decode()) == 2


def test_what_is_long_is_cut_and_says_so() -> None:
    assert plain("x" * 10_000_000) == "x" * 32_768 + "… (10,000,000 characters)"
    assert cut("short") == "short"


def test_what_is_wide_is_cut_and_says_so() -> None:
    numbers = plain(list(range(5_000)))
    assert isinstance(numbers, list)
    assert (len(numbers), numbers[-1]) == (1_001, "… 4000 more")
    entries = plain({str(number): number for number in range(5_000)})
    assert isinstance(entries, dict)
    assert (len(entries), entries["…"]) == (1_001, "4000 more")


def test_what_is_wide_and_deep_is_bounded_as_a_whole() -> None:
    row: object = list(range(900))
    for _ in range(4):
        row = [row] * 900
    assert len(json.dumps(plain(row))) < 1_000_000
    assert len(json.dumps(plain(["x" * 10_000_000] * 1_000))) < 500_000


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.dates()


@given(
    st.recursive(
        _SCALARS,
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner)
        ),
    )
)
def test_any_value_is_json_and_utf8(value: object) -> None:
    written = json.dumps(plain(value), allow_nan=False, ensure_ascii=False).encode()
    assert json.loads(written) == plain(value)
