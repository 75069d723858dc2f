"""A run that is parked, or dies, and goes on later is one run in the store, whoever goes on with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.recorded import ANSWERED, child, read, record
from tests.support.run_events import START, RunEvents

from agentflow.core.observability.events import STRETCH, ExecutionEvent
from agentflow.core.observability.store import RunReader, RunRecord, RunStore
from agentflow.core.observability.store.database import prepare
from agentflow.core.observability.store.process import this_process
from agentflow.core.observability.store.schema import COMPONENT, STEPS

HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentflow" / "runs.db"


def stretch(run: RunEvents, how: str | None = "success", **data: object) -> None:
    """Two seconds in which a model is asked, to the end `how`; with None its process dies then."""
    flow = run.begin("flow", "digest", tenant="acme")
    node = run.begin("node", "digest/ask#1", flow)
    model = run.begin("model", "digest/ask#1", node, model="fast", provider="openai")
    run.at += 2.0
    run.end(model, **ANSWERED, breakdown={"generation": 2.0})
    if how is not None:
        run.end(node, how, breakdown={"generation": 2.0})
        run.end(flow, how, breakdown={"generation": 2.0}, **data)


def of(path: Path, run_id: str = "run1") -> RunRecord:
    with RunReader(path) as reader:
        return reader.find(run_id)


def in_batches(path: Path, events: list[ExecutionEvent], *ends: int) -> None:
    """Each batch is a transaction of its own."""
    with RunStore(path, max_age=None) as store:
        for first, last in zip((0, *ends), (*ends, len(events)), strict=True):
            for event in events[first:last]:
                store.observe(event)
            assert store.flush()


# ---- parked, and gone on -------------------------------------------------------------------------------------


def test_a_run_that_is_parked_waits(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    record(path, run.events)
    found = of(path)
    assert (found.status, found.is_over, found.duration, found.error) == ("waiting", False, None, None)
    assert (found.stretches, found.parked) == (1, 0.0)
    with RunReader(path) as reader:
        assert [each.id for each in reader.runs(status="waiting")] == ["run1"]
        assert reader.waiting() == 1


def test_a_run_that_goes_on_is_under_way_again(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    run.go_on(after=HOUR)
    run.begin("flow", "digest")
    record(path, run.events)
    found = of(path)
    assert (found.status, found.stretches, found.parked, found.duration) == ("running", 2, HOUR, None)


def test_it_is_one_run_from_its_first_beginning_to_its_last_end(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    run.go_on(after=HOUR)
    stretch(run, "interrupted")
    run.go_on(after=2 * HOUR)
    stretch(run, "success")
    record(path, run.events)
    found = of(path)
    assert (found.status, found.started, found.duration) == ("done", START, 3 * HOUR + 6.0)
    assert (found.stretches, found.parked) == (3, 3 * HOUR)
    assert found.breakdown == {"generation": 6.0, "waiting": 3 * HOUR}
    assert (found.calls, found.input_tokens, found.cost) == (3, 300, 0.75)
    with RunReader(path) as reader:
        assert len(reader.runs()) == 1
        assert [row.cost for row in reader.costs(by="tenant")] == [0.75]


def test_its_events_stand_in_the_order_of_its_stretches(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    run.go_on(after=HOUR)
    stretch(run)
    record(path, run.events)
    assert read(path) == run.events
    with RunReader(path) as reader:
        assert list(reader.events("run1", after=STRETCH)) == run.events[6:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 19), max_size=6, unique=True).map(sorted))
def test_it_does_not_matter_which_events_come_into_the_file_together(
    tmp_path_factory: pytest.TempPathFactory, ends: list[int]
) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    run.go_on(after=HOUR)
    stretch(run, None)
    run.go_on(after=60.0)
    stretch(run)
    file = tmp_path_factory.mktemp("runs") / "runs.db"
    in_batches(file, run.events, *[end for end in ends if end < len(run.events)])
    found = of(file)
    assert (found.status, found.stretches, found.duration) == ("done", 3, HOUR + 66.0)
    assert found.parked == HOUR + 60.0
    assert found.breakdown == {"generation": 4.0, "waiting": HOUR, "stopped": 60.0}
    assert (found.calls, found.events) == (3, len(run.events))


def test_a_clock_that_was_set_back_makes_no_time_negative(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    run.go_on(after=-2.0)
    stretch(run)
    record(path, run.events)
    found = of(path)
    assert (found.status, found.duration, found.parked) == ("done", 2.0, 0.0)


def test_a_run_that_failed_can_go_on_and_end_well(path: Path) -> None:
    run = RunEvents()
    stretch(run, "error", error="it broke", error_type="ValueError")
    run.go_on(after=60.0)
    stretch(run)
    record(path, run.events)
    found = of(path)
    assert (found.status, found.error, found.error_type, found.parked) == ("done", None, None, 60.0)
    assert found.breakdown["stopped"] == 60.0


def test_a_run_whose_beginning_has_left_the_file_is_recorded_from_where_it_goes_on(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    gone = len(run.events)
    run.go_on(after=HOUR)
    stretch(run)
    record(path, run.events[gone:])
    found = of(path)
    assert (found.status, found.started, found.duration, found.stretches) == ("done", START, HOUR + 4.0, 2)


# ---- died, and gone on in another process --------------------------------------------------------------------

_DIES = """
import os, sys
from tests.core.observability.store.test_run_stretches import RunEvents, RunStore, stretch
run = RunEvents()
stretch(run, None)
store = RunStore(sys.argv[1])
for event in run.events:
    store.observe(event)
assert store.flush()
os._exit(0)
"""


def test_a_run_whose_process_died_is_lost_until_another_process_goes_on_with_it(path: Path) -> None:
    child(_DIES, path)
    if this_process().boot:
        assert of(path).status == "lost"
    run = RunEvents()
    stretch(run, None)
    run.go_on(after=60.0)
    flow = run.begin("flow", "digest")
    in_batches(path, run.events[-1:])
    assert of(path).status == "running"
    run.end(flow, breakdown={})
    in_batches(path, run.events[-1:])
    found = of(path)
    assert (found.status, found.duration, found.parked) == ("done", 62.0, 60.0)
    assert (found.calls, found.breakdown) == (1, {"stopped": 60.0})


def test_what_a_process_tells_that_lost_its_run_changes_the_sums_alone(path: Path) -> None:
    """It stood still while its lease ran out, and another one went on meanwhile."""
    run = RunEvents()
    flow = run.begin("flow", "digest")
    early = len(run.events)
    run.go_on(after=60.0)
    stretch(run, "interrupted")
    late = RunEvents()
    late.begin("flow", "digest")
    late.at = 70.0
    model = late.begin("model", "digest", flow, model="fast", provider="openai")
    late.end(model, **ANSWERED)
    late.end(1, "cancelled", breakdown={"own": 70.0})
    in_batches(path, [*run.events, *late.events[1:]], early, len(run.events))
    found = of(path)
    assert (found.status, found.stretches, found.calls, found.cost) == ("waiting", 2, 2, 0.5)
    assert "own" not in found.breakdown


# ---- ended from outside --------------------------------------------------------------------------------------


def cancelled(at: float) -> ExecutionEvent:
    return ExecutionEvent("cancel", "run1", "digest", "digest", 1, 0, START + at)


def test_a_parked_run_that_is_cancelled_has_ended(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    in_batches(path, [*run.events, cancelled(HOUR)], len(run.events))
    found = of(path)
    assert (found.status, found.is_over, found.duration, found.parked) == ("cancelled", True, HOUR, HOUR - 2.0)
    assert found.breakdown == {"generation": 2.0, "waiting": HOUR - 2.0}
    assert found.events == len(run.events) + 1


def test_in_one_transaction_it_comes_to_the_same(path: Path) -> None:
    run = RunEvents()
    stretch(run, "interrupted")
    in_batches(path, [*run.events, cancelled(HOUR)])
    assert (of(path).status, of(path).parked) == ("cancelled", HOUR - 2.0)


def test_a_run_that_has_ended_stays_as_it_ended(path: Path) -> None:
    run = RunEvents()
    stretch(run)
    record(path, [*run.events, cancelled(HOUR)])
    assert (of(path).status, of(path).duration) == ("done", 2.0)


def test_what_is_said_of_a_lost_run_does_not_make_it_live(path: Path) -> None:
    child(_DIES, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE runs SET status = 'lost'")
        connection.commit()
    praise = ExecutionEvent("feedback", "run1", "", "", 1, 0, START + HOUR, data={"source": "user", "score": 1.0})
    in_batches(path, [praise])
    assert of(path).status == "lost"


# ---- what leaves, and older files ----------------------------------------------------------------------------


def test_runs_that_wait_leave_after_those_that_are_over(path: Path) -> None:
    runs = []
    for number in range(40):
        run = RunEvents(f"r{number:02}", START + number)
        stretch(run, "interrupted" if number < 2 else "success")
        runs.append(run.events)
    with RunStore(path, max_age=None, max_bytes=1_000_000) as store:
        for events in runs:
            for event in events:
                store.observe(replace(event, data={**event.data, "filler": "x" * 8_000}))
            assert store.flush()
    with RunReader(path) as reader:
        left = {run.id for run in reader.runs(limit=None)}
    assert {"r00", "r01"} <= left
    assert len(left) < 40


def test_a_run_that_nobody_answers_leaves_at_its_age(path: Path) -> None:
    run, other = RunEvents("old", START), RunEvents("new", START)
    stretch(run, "interrupted")
    stretch(other)
    with RunStore(path, max_age=1.0) as store:
        for event in run.events:
            store.observe(replace(event, time=event.time - 800 * 24 * HOUR))
        assert store.flush()
    with RunReader(path) as reader:
        assert [each.id for each in reader.runs(limit=None)] == []


def test_a_file_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        prepare(connection, COMPONENT, STEPS[:1], path)
        connection.execute(
            "INSERT INTO runs(id, kind, name, status, started, seen, duration, process) "
            "VALUES ('old', 'flow', 'digest', 'done', 1.0, 3.0, 2.0, 1)"
        )
    run = RunEvents()
    stretch(run, "interrupted")
    record(path, run.events)
    old = of(path, "old")
    assert (old.status, old.duration, old.stretches, old.parked) == ("done", 2.0, 1, 0.0)
    assert of(path).status == "waiting"
