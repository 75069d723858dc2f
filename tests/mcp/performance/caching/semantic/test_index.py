"""The nearest vectors, exactly; and wordings that come, go, and never meet where they may not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentflow.mcp.performance.caching.semantic.entries import Entries, Entry, Wording
from agentflow.mcp.performance.caching.semantic.index import Index, unit
from agentflow.mcp.performance.caching.semantic.marks import marks_of

MARKS = marks_of("")


def vector(seed: int) -> NDArray[np.float32]:
    made = unit(np.random.default_rng(seed).normal(size=8).astype(np.float32))
    assert made is not None
    return made


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=80), st.integers(1, 6))
def test_it_finds_what_a_plain_search_finds_whatever_came_and_went(steps: list[tuple[bool, int]], most: int) -> None:
    index: Index[int] = Index()
    plain: dict[int, NDArray[np.float32]] = {}
    for adds, key in steps:
        if adds:
            index.add(key, vector(key))
            plain[key] = vector(key)
        else:
            index.remove(key)
            plain.pop(key, None)
    asked = vector(99)
    expected = sorted(plain, key=lambda key: -float(plain[key] @ asked))[:most]
    found = index.nearest(asked, most)
    assert [key for key, _ in found] == expected
    assert [cosine for _, cosine in found] == pytest.approx([float(plain[key] @ asked) for key in expected], abs=1e-6)
    assert len(index) == len(plain)


def test_a_vector_without_direction_or_with_what_is_no_number_is_none() -> None:
    assert unit(np.zeros(3, np.float32)) is None
    assert unit(np.array([1.0, np.nan], np.float32)) is None
    assert unit(np.array([1.0, np.inf], np.float32)) is None


def test_another_length_is_refused() -> None:
    index: Index[int] = Index()
    index.add(1, vector(1))
    with pytest.raises(ValueError, match="broadcast"):
        index.add(2, np.ones(3, np.float32))


def entry(number: int, frame: bytes = b"f") -> Entry:
    return Entry(number, "realm", frame, f"key {number}", b"", False)


def test_wordings_are_bounded_and_the_answer_of_no_use_for_longest_leaves_with_all_of_its_own() -> None:
    entries = Entries(4)
    one, two, three = entry(1), entry(2), entry(3)
    for number, owner in enumerate((one, one, two, two)):
        assert entries.add(Wording(number, owner, MARKS), vector(number)) == []
    entries.use(one)
    assert entries.add(Wording(9, three, MARKS), vector(9)) == [two]
    assert len(entries) == 3
    assert two not in entries
    assert one in entries
    assert {found.entry.id for found, _ in entries.nearest(b"f", vector(2), 9)} == {1, 3}
    assert entries.of_key("key 2") is None


def test_frames_do_not_meet() -> None:
    entries = Entries(9)
    entries.add(Wording(1, entry(1, b"one"), MARKS), vector(1))
    assert entries.nearest(b"other", vector(1), 9) == []


def test_an_answer_is_found_by_its_newest_name() -> None:
    entries = Entries(9)
    one = entry(1)
    entries.add(Wording(1, one, MARKS), vector(1))
    entries.rename(one, "newer")
    assert entries.of_key("newer") is one
    assert entries.of_key("key 1") is None
