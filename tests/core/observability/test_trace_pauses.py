"""A run in several stretches is one tree: what each did, and between them pauses in which nobody ran it."""

from __future__ import annotations

import random
from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.run_events import START, RunEvents

from agentflow.core.observability.events import STRETCH, ExecutionEvent
from agentflow.core.observability.trace.critical_path import critical_spans, stretches
from agentflow.core.observability.trace.totals import totals
from agentflow.core.observability.trace.tree import Trace, trace_of

HOUR = 3600.0
GRAPH = {"nodes": [{"name": "read"}, {"name": "judge"}, {"name": "write"}], "edges": []}


def visit(run: RunEvents, flow: int, path: str, how: str | None = "success", seconds: float = 2.0) -> None:
    node = run.begin("node", path, flow)
    run.at += seconds
    if how is not None:
        run.end(node, how, breakdown={"own": seconds})


def parked(run: RunEvents) -> None:
    """4 s: `read`, then `judge` asks a person."""
    flow = run.begin("flow", "digest", graph=GRAPH, tenant="acme")
    visit(run, flow, "digest/read#1")
    node = run.begin("node", "digest/judge#1", flow)
    run.at += 2.0
    run.point("interrupt", node, interrupt="digest/judge#1!wait:1", due=None)
    run.end(node, "interrupted", breakdown={"own": 2.0})
    run.end(flow, "interrupted", breakdown={"own": 4.0})


def died(run: RunEvents) -> None:
    """4 s, and `judge` was at work when the process died."""
    flow = run.begin("flow", "digest", graph=GRAPH)
    visit(run, flow, "digest/read#1")
    judge = run.begin("node", "digest/judge#1", flow)
    run.begin("model", "digest/judge#1", judge, model="fast", provider="lab")
    run.at += 2.0
    run.point("limiter_wait", judge, guard="lab", seconds=1.0)


def ended(run: RunEvents, how: str = "success", **data: object) -> None:
    """4 s: `judge` again, and `write`."""
    flow = run.begin("flow", "digest", graph=GRAPH)
    run.point("resume", flow, stretch=1, steps=1)
    visit(run, flow, "digest/judge#1")
    visit(run, flow, "digest/write#1")
    run.end(flow, how, breakdown={"own": 4.0}, **data)


def gone_on(*parts: object, after: float = HOUR) -> RunEvents:
    run = RunEvents()
    for number, part in enumerate(parts):
        if number:
            run.go_on(after=after)
        part(run)  # type: ignore[operator]
    return run


def shown(trace: Trace) -> list[tuple[str, str, float, float]]:
    return [(span.name, span.status, span.start, span.end) for span in trace.roots[0].children]


def by_category(trace: Trace) -> dict[str, float]:
    found: dict[str, float] = {}
    for piece in stretches(trace.roots[0]):
        found[piece.category] = found.get(piece.category, 0.0) + piece.duration
    return found


# ---- parked, and gone on -------------------------------------------------------------------------------------


def test_what_all_stretches_did_stands_in_one_root_with_the_pauses_between() -> None:
    trace = trace_of(gone_on(parked, ended).events)
    assert len(trace.roots) == 1
    assert (trace.status, trace.started, trace.duration, trace.parked) == ("done", START, HOUR + 8.0, HOUR)
    assert shown(trace) == [
        ("read", "done", 0.0, 2.0),
        ("judge", "parked", 2.0, 4.0),
        ("waiting for an answer", "done", 4.0, HOUR + 4.0),
        ("judge", "done", HOUR + 4.0, HOUR + 6.0),
        ("write", "done", HOUR + 6.0, HOUR + 8.0),
    ]


def test_waiting_is_a_category_of_its_own_in_the_breakdown_and_on_the_critical_path() -> None:
    trace = trace_of(gone_on(parked, ended, after=60.0).events)
    assert trace.roots[0].breakdown == {"own": 8.0, "waiting": 60.0}
    assert by_category(trace) == {"own": 8.0, "waiting": 60.0}
    critical = critical_spans(trace.roots[0])
    assert {span.name for span in trace.walk() if span.number in critical} >= {"waiting for an answer", "read", "write"}


def test_every_span_hangs_in_the_one_root_and_has_a_number_of_its_own() -> None:
    trace = trace_of(gone_on(parked, parked, ended).events)
    [root] = trace.roots
    assert {span.parent for span in root.children} == {root.number}
    numbers = [span.number for span in trace.walk()]
    assert len(numbers) == len(set(numbers))
    assert [span.number for span in root.children if span.what == "pause"] == [STRETCH, 2 * STRETCH]


def test_what_its_first_and_its_last_event_said_is_known() -> None:
    trace = trace_of(gone_on(parked, lambda run: ended(run, action="accept")).events)
    root = trace.roots[0]
    assert (root.data["tenant"], root.data["action"], trace.graph) == ("acme", "accept", GRAPH)
    assert [mark.kind for mark in root.marks] == ["resume"]


def test_the_order_in_which_events_come_makes_no_difference() -> None:
    events = gone_on(parked, died, ended).events
    shuffled = [*events, *events]
    random.Random(3).shuffle(shuffled)
    assert trace_of(shuffled) == trace_of(events)


def test_a_run_that_waits_waits_up_to_now() -> None:
    trace = trace_of(gone_on(parked).events, now=100.0)
    assert (trace.status, trace.duration, trace.parked) == ("waiting", 100.0, 96.0)
    assert shown(trace)[1:] == [("judge", "waiting", 2.0, 4.0), ("waiting for an answer", "waiting", 4.0, 100.0)]
    assert by_category(trace) == {"own": 4.0, "waiting": 96.0}


def test_without_a_now_it_is_known_as_far_as_its_last_event() -> None:
    trace = trace_of(gone_on(parked).events)
    assert (trace.status, trace.duration, trace.parked) == ("waiting", 4.0, 0.0)


def test_a_run_that_goes_on_is_running_up_to_now() -> None:
    def begun(run: RunEvents) -> None:
        run.begin("node", "digest/judge#1", run.begin("flow", "digest"))

    trace = trace_of(gone_on(parked, begun).events, now=HOUR + 10.0)
    assert (trace.status, trace.duration, trace.parked) == ("running", HOUR + 10.0, HOUR)
    assert shown(trace)[-1] == ("judge", "running", HOUR + 4.0, HOUR + 10.0)


def test_who_waits_for_a_timer_alone_waits_for_no_answer() -> None:
    def asleep(run: RunEvents) -> None:
        flow = run.begin("flow", "digest")
        run.point("timer", flow, due=START + 60.0)
        run.end(flow, "interrupted", breakdown={})

    trace = trace_of(gone_on(asleep, ended).events)
    assert shown(trace)[0] == ("waiting for a timer", "done", 0.0, HOUR)


def test_what_a_later_stretch_only_walked_through_stands_where_it_happened() -> None:
    """Flows and `Each`es are walked again, so they tell again that they began and ended; their steps do not."""

    def first(run: RunEvents) -> None:
        flow = run.begin("flow", "digest")
        each = run.begin("node", "digest/each#1", flow, items=1)
        visit(run, each, "digest/each#1/0")
        run.end(each, breakdown={"own": 2.0})
        inner = run.begin("flow", "digest/inner#1", flow)
        visit(run, inner, "digest/inner#1/a#1")
        run.end(inner, breakdown={"own": 2.0})
        visit(run, flow, "digest/judge#1", "interrupted")
        run.end(flow, "interrupted", breakdown={"own": 6.0})

    def second(run: RunEvents) -> None:
        flow = run.begin("flow", "digest")
        run.end(run.begin("node", "digest/each#1", flow, items=1), breakdown={})
        run.end(run.begin("flow", "digest/inner#1", flow), breakdown={})
        visit(run, flow, "digest/judge#1")
        run.end(run.begin("node", "digest/each#2", flow, items=0), breakdown={})
        run.end(run.begin("node", "digest/again#1", flow), breakdown={})
        run.end(flow, breakdown={"own": 2.0})

    trace = trace_of(gone_on(first, second).events)
    assert [(span.name, span.visit) for span in trace.roots[0].children] == [
        ("each", 1),
        ("inner", 1),
        ("judge", 1),
        ("waiting for an answer", 1),
        ("judge", 1),
        ("each", 2),
        ("again", 1),
    ]


# ---- died, failed, ended from outside ------------------------------------------------------------------------


def test_what_was_at_work_when_a_process_died_is_lost_where_it_was_last_heard_of() -> None:
    trace = trace_of(gone_on(died, ended).events)
    [root] = trace.roots
    assert shown(trace)[1:4] == [
        ("judge", "lost", 2.0, 4.0),
        ("stopped", "done", 4.0, HOUR + 4.0),
        ("judge", "done", HOUR + 4.0, HOUR + 6.0),
    ]
    assert [(span.what, span.status, span.end) for span in root.children[1].children] == [("model", "lost", 4.0)]
    assert (trace.status, root.breakdown["stopped"]) == ("done", HOUR)
    assert not any(span.is_open for span in trace.walk())


def test_a_run_that_failed_and_then_went_well_is_done_and_has_no_error() -> None:
    failed = gone_on(lambda run: ended(run, "error", error="it broke", error_type="ValueError"), ended)
    trace = trace_of(failed.events)
    assert (trace.status, trace.roots[0].error) == ("done", None)
    assert [span.name for span in trace.roots[0].children if span.what == "pause"] == ["stopped"]


def test_a_parked_run_that_was_ended_from_outside_is_cancelled() -> None:
    events = gone_on(parked).events
    cancel = ExecutionEvent("cancel", "run1", "digest", "digest", 1, 0, START + 50.0)
    trace = trace_of([*events, cancel], now=80.0)
    assert (trace.status, trace.duration) == ("cancelled", 4.0)
    assert [mark.kind for mark in trace.marks] == ["cancel"]


def test_model_calls_of_all_stretches_add_up() -> None:
    def call(run: RunEvents) -> None:
        flow = run.begin("flow", "digest")
        model = run.begin("model", "digest/ask#1", flow, model="fast", provider="lab")
        run.at += 1.0
        run.end(model, model="fast", provider="lab", cost=0.25, input_tokens=10, breakdown={"generation": 1.0})
        run.end(flow, "interrupted", breakdown={"generation": 1.0})

    total = totals(trace_of(gone_on(call, call, call).events).walk())
    assert (total.calls, total.cost, total.input_tokens) == (3, 0.75, 30)


# ---- what is missing, or cannot be ---------------------------------------------------------------------------


def test_a_clock_that_was_set_back_lets_no_stretch_begin_before_the_one_before_it_ended() -> None:
    trace = trace_of(gone_on(parked, ended, after=-4.0).events)
    assert [(name, start) for name, _, start, _ in shown(trace)] == [
        ("read", 0.0),
        ("judge", 2.0),
        ("judge", 4.0),
        ("write", 6.0),
    ]
    assert (trace.duration, trace.parked, trace.started) == (8.0, 0.0, START)


def test_a_stretch_whose_beginning_was_lost_is_there_all_the_same() -> None:
    events = [event for event in gone_on(parked, ended).events if event.sequence not in (1, STRETCH + 1)]
    trace = trace_of(events)
    assert {span.name for span in trace.walk()} >= {"read", "judge", "write"}


def test_a_run_whose_first_stretch_has_left_the_file_begins_with_the_second() -> None:
    events = [event for event in gone_on(parked, ended).events if event.sequence > STRETCH]
    trace = trace_of(events)
    assert (trace.status, trace.start, trace.duration) == ("done", HOUR + 4.0, 4.0)


KINDS = st.sampled_from([parked, died])


@given(st.lists(KINDS, max_size=4), st.lists(st.integers(0, 60)), st.floats(-10.0, 100.0), st.randoms())
def test_whatever_is_missing_there_is_a_tree_whose_time_adds_up(
    parts: list[object], dropped: list[int], after: float, order: random.Random
) -> None:
    events = gone_on(*parts, ended, after=after).events
    events = [event for at, event in enumerate(events) if at not in dropped]
    order.shuffle(events)
    trace = trace_of(events, now=1e6)
    for root in trace.roots:
        pieces = stretches(root)
        assert isclose(sum(piece.duration for piece in pieces), root.duration, abs_tol=1e-6)
    for span in trace.walk():
        assert span.end >= span.start
    assert trace_of([replace(event) for event in events], now=1e6) == trace


@pytest.mark.parametrize("count", [1, 3])
def test_a_mark_in_a_moved_stretch_moves_with_it(count: int) -> None:
    run = RunEvents()
    for _ in range(count):
        parked(run)
        run.go_on(after=-4.0)
    ended(run)
    trace = trace_of(run.events)
    [resumed] = [mark for mark in trace.roots[0].marks if mark.kind == "resume"]
    assert resumed.at == 4.0 * count
