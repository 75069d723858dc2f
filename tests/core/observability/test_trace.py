"""Events → a tree of spans, whatever of them is missing; where the time went on the critical path; what it cost."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.run_events import START, RunEvents, busy_run

from agentflow.core.observability.attribution import Account, Entry
from agentflow.core.observability.trace.critical_path import critical_spans, stretches
from agentflow.core.observability.trace.totals import by_model, by_node, place_of, totals, totals_by
from agentflow.core.observability.trace.tree import trace_of


def by_category(span) -> dict[str, float]:
    found: dict[str, float] = {}
    for stretch in stretches(span):
        found[stretch.category] = found.get(stretch.category, 0.0) + stretch.duration
    return found


# ---- the tree ------------------------------------------------------------------------------------------------


def test_spans_hang_in_each_other_and_know_what_they_are() -> None:
    trace = trace_of(busy_run(items=3).events)
    root = trace.root
    assert (trace.name, trace.status, trace.run_id, trace.started) == ("digest", "done", "0197a1b2c3d4e5f60718", START)
    assert [(child.what, child.name, child.item) for child in root.children] == [
        ("node", "read", None), ("node", "summarise", None), ("node", "judge", None), ("node", "write", None),
    ]  # fmt: skip
    each = root.children[1]
    assert [(item.name, item.item) for item in each.children] == [("summarise", 0), ("summarise", 1), ("summarise", 2)]
    [call] = each.children[1].children
    assert (call.what, call.name, call.data["input_tokens"], call.status) == ("model", "fast", 900, "done")
    assert [(mark.kind, mark.data["seconds"]) for mark in call.marks] == [("limiter_wait", 0.2)]
    assert [child.name for child in call.children] == ["attempt 1"]
    assert call.duration == pytest.approx(1.7)
    assert trace.graph["start"] == "read"
    assert "breakdown" not in call.data


def test_the_order_in_which_events_come_makes_no_difference() -> None:
    events = busy_run(items=4).events
    shuffled = [*events, *events]
    random.Random(7).shuffle(shuffled)
    assert trace_of([events[0], *shuffled]) == trace_of(events)


def test_a_run_that_goes_on_is_running_up_to_now() -> None:
    events = busy_run(items=2, ends=False).events
    trace = trace_of(events, now=10.0)
    write = trace.root.children[-1]
    assert (trace.status, write.status, write.end, trace.duration) == ("running", "running", 10.0, 10.0)
    assert write.breakdown == {"own": pytest.approx(10.0 - write.start)}
    assert sum(trace.root.breakdown.values()) == pytest.approx(10.0, abs=0.02)


def test_what_a_run_that_is_over_did_not_end_is_unknown() -> None:
    trace = trace_of(busy_run(items=2, ends=False).events, over=True)
    assert (trace.status, trace.root.children[-1].status, trace.root.children[0].status) == (
        "unknown",
        "unknown",
        "done",
    )


def test_a_lost_end_leaves_the_span_unknown_and_the_run_done() -> None:
    events = [event for event in busy_run(items=2).events if event.kind != "model_success"]
    trace = trace_of(events)
    calls = [span for span in trace.walk() if span.what == "model"]
    assert trace.status == "done"
    assert {call.status for call in calls} == {"unknown"}


def test_a_lost_beginning_is_worked_out_from_the_end() -> None:
    whole = trace_of(busy_run(items=2).events)
    trace = trace_of([event for event in busy_run(items=2).events if event.kind != "model_start"])
    starts = {span.number: span.start for span in trace.walk() if span.what == "model"}
    assert starts == pytest.approx({span.number: span.start for span in whole.walk() if span.what == "model"})


def test_what_lost_its_parent_hangs_below_the_root() -> None:
    events = [event for event in busy_run(items=2).events if event.path != "digest/summarise#1"]
    trace = trace_of(events)
    assert [child.path for child in trace.root.children][1:3] == ["digest/summarise#1/0", "digest/summarise#1/1"]


def test_nothing_at_all_is_an_empty_trace() -> None:
    trace = trace_of([])
    assert (trace.root, trace.duration, trace.name, trace.graph, list(trace.walk())) == (None, 0.0, "", None, [])


def test_feedback_that_comes_after_the_run_is_the_run_s() -> None:
    run = busy_run(items=1)
    late = replace(run.events[-1], kind="feedback", sequence=0, span=0, parent=None, data={"score": 0.5}, duration=None)
    assert [mark.kind for mark in trace_of([*run.events, late]).marks] == ["feedback"]


def test_a_kind_of_the_user_s_own_is_a_mark_even_if_it_sounds_like_an_end() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    run.point("payment_success", flow, amount=3)
    run.point("payment_start", flow)
    run.end(flow)
    assert [mark.kind for mark in trace_of(run.events).root.marks] == ["payment_success", "payment_start"]


def test_another_run_s_events_are_left_out() -> None:
    other = RunEvents("other")
    other.begin("flow", "f")
    assert trace_of([*busy_run(items=1).events, *other.events]).events == len(busy_run(items=1).events)


@given(st.data())
def test_any_loss_leaves_a_tree_with_every_span_that_is_known(data) -> None:
    """Whatever is dropped, repeated or nonsense in `parent`, the trace is a tree and nothing raises."""
    events = busy_run(items=3, failing=1).events
    kept = data.draw(st.lists(st.sampled_from(events), min_size=1, max_size=40))
    wild = [
        replace(event, parent=data.draw(st.integers(-1, 60) | st.none())) if data.draw(st.booleans()) else event
        for event in kept
    ]
    trace = trace_of(wild)
    numbers = [span.number for span in trace.walk()]
    assert len(numbers) == len(set(numbers))
    for span in trace.walk():
        assert span.end >= span.start >= 0.0
        path = stretches(span)
        assert sum(each.duration for each in path) == pytest.approx(span.duration, abs=1e-6)
        assert span.number in critical_spans(span)


# ---- where the time went -------------------------------------------------------------------------------------


def test_stretches_follow_each_other_and_add_up_to_the_breakdown() -> None:
    root = trace_of(busy_run(items=5).events).root
    path = stretches(root)
    assert path[0].start == root.start
    assert path[-1].end == root.end
    assert all(isclose(one.end, two.start) for one, two in itertools.pairwise(path))
    assert by_category(root)["limiter"] > 0.0


def test_what_ran_beside_is_not_on_the_critical_path() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    slow = run.begin("node", "f/slow#1", flow)
    quick = run.begin("node", "f/quick#1", flow)
    run.at = 1.0
    run.end(quick, breakdown={"own": 1.0})
    run.at = 3.0
    run.end(slow, breakdown={"own": 3.0})
    last = run.begin("node", "f/last#1", flow)
    run.at = 4.0
    run.end(last, breakdown={"own": 1.0})
    run.end(flow)
    root = trace_of(run.events).root
    assert critical_spans(root) == {flow, slow, last}
    assert [(each.span.name, each.duration) for each in stretches(root)] == [("slow", 3.0), ("last", 1.0)]


def test_a_call_s_waits_stand_where_they_were_and_failed_attempts_too() -> None:
    run = RunEvents()
    call = run.begin("model", "gpt", model="gpt")
    run.at = 2.0
    run.point("limiter_wait", call, guard="g", seconds=2.0)
    attempt = run.begin("attempt", "gpt", call)
    run.at = 3.0
    run.end(attempt, "error", error="boom")
    run.point("retry", call, delay=0.5)
    run.at = 3.5
    attempt = run.begin("attempt", "gpt", call)
    run.at = 6.0
    run.end(attempt)
    spent = {"limiter": 2.0, "failed": 1.0, "backoff": 0.5, "connect": 0.1, "first_token": 0.9, "generation": 1.5}
    run.end(call, breakdown=spent)
    path = stretches(trace_of(run.events).root)
    assert [(each.category, round(each.start, 3), round(each.end, 3)) for each in path] == [
        ("limiter", 0.0, 2.0), ("failed", 2.0, 3.0), ("backoff", 3.0, 3.5),
        ("connect", 3.5, 3.6), ("first_token", 3.6, 4.5), ("generation", 4.5, 6.0),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.01, 5)), min_size=1, max_size=8))
def test_the_path_through_siblings_is_the_one_that_breakdowns_are_added_up_by(children) -> None:
    """Both ways of following the critical path agree on how much of a flow's time was its own."""
    run = RunEvents()
    flow = run.begin("flow", "f")
    moments = sorted(
        [(start, 0, index) for index, (start, _) in enumerate(children)]
        + [(start + took, 1, index) for index, (start, took) in enumerate(children)]
    )
    account, entries, spans = Account(0.0, "own"), {}, {}
    for at, ends, index in moments:
        run.at = at
        if ends:
            account.end(entries[index], at, {"generation": children[index][1]})
            run.end(spans[index], breakdown={"generation": children[index][1]})
        else:
            entries[index] = Entry()
            account.begin(entries[index], at)
            spans[index] = run.begin("model", f"f/n#{index}", flow, model="m")
    run.at += 1.0
    run.end(flow)
    assert by_category(trace_of(run.events).root).get("own", 0.0) == pytest.approx(
        account.total(run.at).get("own", 0.0), abs=1e-6
    )


# ---- what it cost --------------------------------------------------------------------------------------------


def test_an_unknown_price_is_not_nothing() -> None:
    trace = trace_of(busy_run(items=4).events)
    total = totals(trace.walk())
    assert (total.calls, total.unpriced, total.input_tokens) == (4, 2, 3600)
    assert total.cost == pytest.approx(2 * 0.0123)
    models = totals_by(trace, by_model)
    assert list(models) == ["gpt-4o", "fast"]
    assert models["fast"].known_cost is None
    assert list(totals_by(trace, by_node)) == ["digest/summarise"]


def test_requests_sent_in_vain_are_paid_as_well() -> None:
    run = RunEvents()
    call = run.begin("model", "gpt", model="gpt")
    run.at = 1.0
    run.end(call, cost=0.5, lost_requests=1, lost_cost=0.25, timing={"attempts": 2})
    total = totals(trace_of(run.events).walk())
    assert (total.cost, total.lost, total.attempts) == (0.75, 1, 2)


def test_a_place_is_a_path_without_visits_and_items() -> None:
    assert place_of("a/each#1/7/inner#2/write#11") == "a/each/inner/write"


def test_a_question_outside_of_a_flow_has_a_span_around_all_its_requests() -> None:
    run = RunEvents()
    for number in (1, 2):
        call = run.begin("model", "gpt", model="gpt", round=number)
        run.at += 1.0
        run.end(call, breakdown={"generation": 1.0})
        run.at += 0.5
    trace = trace_of(run.events)
    assert (len(trace.roots), trace.root.number, trace.status, trace.duration) == (2, 0, "done", 2.5)
    assert trace.root.breakdown == {"generation": 2.0, "own": 0.5}
    assert by_category(trace.root) == {"generation": 2.0, "own": 0.5}
    assert trace_of(run.events[:3]).status == "running"
