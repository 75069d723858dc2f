"""Where time went: the critical path through what ran inside, and the rest."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.run_events import RunEvents

from agentflow.core.observability.attribution import Account, Entry, Parts
from agentflow.core.observability.trace.critical_path import stretches
from agentflow.core.observability.trace.tree import trace_of


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


def test_what_another_thread_tells_late_counts_from_where_the_path_had_come_to():
    account = Account(0, "own")
    first, late = Entry(), Entry()
    account.begin(first, 0)
    account.end(first, 4, {"generation": 4})
    account.begin(late, 2)
    account.end(late, 6, {"limiter": 4})
    assert account.total(6) == {"generation": 4, "limiter": 2}


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


# ---- the rule, spelled out -----------------------------------------------------------------------------------

SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=9
)


def by_the_rule(ended: float, children: list[Child]) -> Parts:
    """The last-finishing-child rule, worked out from the end with all children known."""
    moments = [(child.ended, 0, index) for index, child in enumerate(children)]
    moments += [(child.began, 1, index) for index, child in enumerate(children)]
    order = {(kind, index): place for place, (_, kind, index) in enumerate(sorted(moments))}
    total: Counter[str] = Counter()

    def last_before(place: int) -> int | None:
        over = [index for index in range(len(children)) if order[0, index] < place]
        return max(over, key=lambda index: order[0, index], default=None)

    deciding, until = last_before(len(moments)), ended
    total["own"] += until - (0.0 if deciding is None else children[deciding].ended)
    while deciding is not None:
        child, began = children[deciding], order[1, deciding]
        total.update(child.parts)
        earlier = last_before(began)
        since = 0.0 if earlier is None else children[earlier].ended
        running = [index for index in range(len(children)) if order[1, index] < began < order[0, index]]
        gap, covered = child.began - since, 0.0
        if running and gap > 0:
            cover = min(running, key=lambda index: order[1, index])
            beside = children[cover]
            covered = min(gap, child.began - beside.began)
            known = order[0, cover] < order[0, deciding]
            for name, seconds in (beside.parts if known else {"unattributed": beside.ended - beside.began}).items():
                total[name] += seconds * covered / (beside.ended - beside.began)
        total["own"] += gap - covered
        deciding = earlier
    return {name: seconds for name, seconds in total.items() if seconds > 1e-9}


@given(SPANS)
def test_what_is_added_up_as_things_end_is_what_the_rule_says_of_all_of_them(spans: list[tuple[int, int]]) -> None:
    children = [
        Child(began, done, {f"{index}": (done - began) * 0.75, "wait": (done - began) * 0.25})
        for index, (began, done) in enumerate(spans)
    ]
    told = {name: seconds for name, seconds in path_of(0, 61, *children).items() if seconds > 1e-9}
    assert told == pytest.approx(by_the_rule(61, children))


@given(SPANS)
def test_it_is_the_path_that_a_finished_run_is_drawn_with(spans: list[tuple[int, int]]) -> None:
    """Where no two moments are the same: of things that ended at once, either may be said to be the last."""
    apart = [(began + index / 50, done + index / 50 + 0.01) for index, (began, done) in enumerate(spans)]
    children = [Child(began, done, {f"flow/{index}#1": done - began}) for index, (began, done) in enumerate(apart)]
    told = path_of(0, 61, *children)
    if "unattributed" in told:  # it was not known yet what was waited for, which a finished run tells
        return
    run = RunEvents()
    flow = run.begin("flow", "flow")
    numbers: dict[int, int] = {}
    moments = [(child.began, 1, index) for index, child in enumerate(children)]
    for run.at, begins, index in sorted(moments + [(child.ended, 0, index) for index, child in enumerate(children)]):
        if begins:
            numbers[index] = run.begin("node", f"flow/{index}#1", flow)
        else:
            run.end(numbers[index], breakdown={"own": children[index].ended - children[index].began})
    run.at = 61.0
    run.end(flow)
    drawn: Counter[str] = Counter()
    for stretch in stretches(trace_of(run.events).root):
        drawn["own" if stretch.span.path == "flow" else stretch.span.path] += stretch.duration
    assert {name: seconds for name, seconds in told.items() if seconds > 1e-9} == pytest.approx(dict(drawn))


def test_what_is_over_is_not_kept_by_what_ran_beside_it() -> None:
    """Each began while the one before still ran: a chain without an end, in an `Each` of two at a time."""

    class Known(Entry):
        __slots__ = ("__weakref__",)

    account = Account(0, "own")
    before = Known()
    account.begin(before, 0.0)
    account.begin(Known(), 0.0)
    refs = []
    for number in range(1, 1_000):
        entry = Known()
        refs.append(weakref.ref(entry))
        account.begin(entry, number - 0.25)
        account.end(before, number, {"generation": 1.0})
        before = entry
    del entry
    gc.collect()
    assert sum(ref() is not None for ref in refs) == 1
