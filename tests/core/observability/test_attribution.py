"""Where time went: the critical path through what ran inside, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.attribution import Account, Entry, Parts


@dataclass
class Child:
    began: float
    ended: float
    parts: Parts


def path_of(started: float, ended: float, *children: Child) -> Parts:
    """The account of something that ran from `started` to `ended` with these inside."""
    account = Account(started, "own")
    entries: dict[int, Entry] = {}
    moments = [(child.began, 1, index) for index, child in enumerate(children)]
    moments += [(child.ended, 0, index) for index, child in enumerate(children)]
    for now, begins, index in sorted(moments):
        if begins:
            entries[index] = entry = Entry()
            account.begin(entry, now)
        else:
            account.end(entries[index], now, children[index].parts)
    return account.total(ended)


def test_without_children_all_time_is_its_own():
    assert path_of(10, 13) == {"own": 3}


def test_one_child_leaves_what_is_before_and_behind_it():
    assert path_of(0, 10, Child(2, 7, {"generation": 5})) == {"own": 5, "generation": 5}


def test_children_one_after_the_other_add_up():
    assert path_of(0, 9, Child(0, 4, {"limiter": 3, "generation": 1}), Child(5, 9, {"generation": 4})) == {
        "limiter": 3,
        "generation": 5,
        "own": 1,
    }


def test_of_children_side_by_side_the_one_that_ended_last_counts():
    assert path_of(0, 5, Child(0, 5, {"limiter": 5}), Child(0, 3, {"generation": 3})) == {"limiter": 5}


def test_what_had_ended_last_when_the_last_began_counts_before_it():
    """Two workers: the slow item of the first began as its quick one ended, the second's items cost nothing."""
    quick, slow = Child(0, 1, {"pool": 1}), Child(1, 9, {"generation": 8})
    beside = [Child(0, 4, {"backoff": 4}), Child(4, 8, {"backoff": 4})]
    assert path_of(0, 9, quick, slow, *beside) == {"pool": 1, "generation": 8}


def test_a_gap_that_another_child_fills_is_not_its_own_time():
    """The last began while another ran that ended meanwhile: until then that one was what was waited for."""
    assert path_of(0, 6, Child(0, 4, {"limiter": 4}), Child(3, 6, {"generation": 3})) == {
        "limiter": 3,
        "generation": 3,
    }


def test_what_is_kept_does_not_grow_with_the_number_of_children():
    account = Account(0, "own")
    for number in range(10_000):
        entry = Entry()
        account.begin(entry, number)
        account.end(entry, number + 0.5, {"generation": 0.5})
    assert not account._open
    assert account.total(10_000) == pytest.approx({"own": 5_000, "generation": 5_000})


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
    ),
    st.integers(71, 80),
)
def test_the_parts_of_any_children_add_up_to_the_whole(spans: list[tuple[int, int]], ended: int) -> None:
    children = [Child(began, done, {f"{index}": done - began}) for index, (began, done) in enumerate(spans)]
    parts = path_of(0, ended, *children)
    assert sum(parts.values()) == pytest.approx(ended)
    assert all(seconds >= -1e-9 for seconds in parts.values())


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])),
        min_size=1,
        max_size=12,
    )
)
def test_what_ended_last_counts_in_full(spans: list[tuple[int, int]]) -> None:
    children = [Child(began, done, {f"{index}": done - began}) for index, (began, done) in enumerate(spans)]
    parts = path_of(0, 80, *children)
    last = max(done for _, done in spans)
    counted = [index for index, (began, done) in enumerate(spans) if done == last and f"{index}" in parts]
    assert any(parts[f"{index}"] == pytest.approx(last - spans[index][0]) for index in counted)
