"""What of an event is kept: JSON to the letter, everything else in words, nothing without end, and never a failure."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.recorded import read, record

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.kinds import CONTENT, FACTS
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.core.observability.store.cleaning import Cleaner, to_json
from agentflow.core.observability.store.rows import event_of, event_row


def same(text: str) -> str:
    return text


def cleaned(value: object, *, longest: int = 1_000, redact: Any = same) -> Any:
    cleaner = Cleaner(redact, content=True, longest=longest)
    kept = cleaner.clean(ExecutionEvent("x", "r", "p", "n", 1, 1, 0.0, data={"it": value}))
    text = to_json(kept.data)
    assert json.loads(text) == kept.data
    text.encode()
    return kept.data["it"]


# ---- to the letter -------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec=None), max_size=50)
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | FINITE | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
PATHS = st.builds(
    lambda parts, end: "/".join([*parts, end]),
    st.lists(st.from_regex(r"[a-zä-é]{1,8}(#[0-9]{1,3})?", fullmatch=True), max_size=3),
    st.from_regex(r"([a-z]{0,8}(#[0-9]{0,20})?){1,2}", fullmatch=True),
)
EVENTS = st.builds(
    ExecutionEvent,
    kind=st.sampled_from(["flow_start", "node_error", "model_success", "mine", ""]),
    run_id=st.just("run1"),
    path=PATHS | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    node=st.sampled_from(["", "a", "write"]),
    visit=st.integers(0, 2**40),
    sequence=st.integers(1, 2**62),
    time=st.floats(0, 1e11),
    duration=st.none() | FINITE,
    attempt=st.integers(0, 100),
    data=st.dictionaries(TEXTS, VALUES, max_size=5),
    span=st.integers(0, 2**62),
    parent=st.none() | st.integers(0, 2**62),
    at=st.floats(0, 1e9),
)


@given(event=EVENTS)
def test_an_event_becomes_a_row_and_the_same_event_again(event: ExecutionEvent) -> None:
    """Every field, every value that JSON has a word for, halves of characters included."""
    kept = Cleaner(same, content=True, longest=1_000).clean(event)
    row = event_row(7, kept, to_json(kept.data) if kept.data else None)
    assert event_of(row[1:], "run1") == event


@settings(max_examples=15)
@given(events=st.lists(EVENTS, min_size=1, max_size=10))
def test_whatever_events_are_told_the_same_come_back(events: list[ExecutionEvent]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = record(Path(folder) / "runs.db", events, redactor=same, capture="content")
        assert store.losses == {}
        assert read(Path(folder) / "runs.db") == events


# ---- in words ------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 3


@dataclasses.dataclass
class Held:
    password: str = "hunter2"


class Broken(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**70, "<integer of 71 bits>"),
        (1 << 16_609, "<integer of 16610 bits>"),
        (True, True),
        (Level.LOW, 3),
        (Colour.RED, "red"),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "… (2 more)": "c"}),
        (b"\xff\x00", "<2 bytes>"),
        (datetime(2026, 11, 30, tzinfo=UTC), "2026-11-30T00:00:00+00:00"),
        (date(2026, 11, 30), "2026-11-30"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (PurePosixPath("a/b"), "a/b"),
        (Held(), "<Held>"),
        (object, "<type>"),
        (Broken(), "<Broken: RuntimeError when read>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_no_word_for_is_put_in_words(value: object, kept: object) -> None:
    assert cleaned(value) == kept


def test_data_that_cannot_be_read_leaves_the_event() -> None:
    kept = Cleaner(same, content=False, longest=100).clean(ExecutionEvent("x", "r", "p", "n", 1, 1, 0.0, data=Broken()))
    assert kept.data == {"…": "<Broken: RuntimeError when read>"}


# ---- bounds --------------------------------------------------------------------------------------------------


def size(value: object) -> int:
    return len(json.dumps(cleaned(value)))


def test_a_value_inside_itself_ends() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "… (1 more)" in str(cleaned(endless))


def test_a_text_is_cut_with_its_length() -> None:
    assert cleaned("ä" * 5_000) == "ä" * 1_000 + "… (5,000 characters)"
    assert cleaned("ä" * 1_000) == "ä" * 1_000


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 900] * 100_000,
        [[[["x" * 10] * 50] * 50] * 50] * 50,
        {str(number): number for number in range(100_000)},
        {"k" * 300 + str(number): {} for number in range(20_000)},
        [""] * 1_000_000,
        {"deep": {"deep": [0] * 1_000_000}},
    ],
    ids=["texts", "deep", "names", "long names", "empty", "numbers"],
)
def test_nothing_is_without_end(value: object) -> None:
    assert size(value) < 600_000


def test_what_is_cut_says_how_much_is_missing() -> None:
    assert cleaned(list(range(30_000)))[-1] == "… (20,000 more)"
    assert cleaned({str(number): 1 for number in range(30_000)}, longest=65_536)["…"] == "20,000 more"


def test_numbers_outlast_texts_that_are_too_long() -> None:
    """A long answer does not take the tokens and the cost with it."""
    data = {**{str(number): "x" * 1_000 for number in range(10)}, "cost": 0.5}
    kept = Cleaner(same, content=True, longest=1_000).clean(ExecutionEvent("x", "r", "p", "n", 1, 1, 0.0, data=data))
    assert kept.data["cost"] == 0.5
    assert kept.data["9"] == "… (1,000 characters)"


def test_a_key_at_the_cut_is_not_kept_in_part() -> None:
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789AB"
    for before in range(940, 1_010):
        text = "x " * (before // 2) + key + " y" * 10_000
        assert "sk-proj-abc" not in cleaned(text, redact=Redactor())


def test_names_that_become_the_same_stay_two() -> None:
    kept = cleaned({"a@example.org": 1, "b@example.org": 2}, redact=Redactor())
    assert sorted(kept.values()) == [1, 2]


def test_a_field_whose_name_says_that_it_is_secret_is_redacted() -> None:
    kept = cleaned({"password": "x1", "nested": [{"api_key": "x2"}], "input_tokens": 7}, redact=Redactor())
    assert kept == {"password": "[redacted:field]", "nested": [{"api_key": "[redacted:field]"}], "input_tokens": 7}


def test_a_card_number_is_redacted_also_as_a_number() -> None:
    assert cleaned(4111111111111111, redact=Redactor()) == "[redacted:card]"


def test_content_is_what_the_kinds_say_is_content() -> None:
    assert {name for name, fact in FACTS.items() if "only where content is wanted" in fact.meaning} <= CONTENT


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_documented_name_is_none_that_would_be_redacted(name: str) -> None:
    """So that it needs no look; what stands under it is looked at as everywhere."""
    assert Redactor().redact_json({name: "x"}) == {name: "x"}
    assert cleaned({name: "ada@example.org"}, redact=Redactor()) == {name: "[redacted:email]"}
