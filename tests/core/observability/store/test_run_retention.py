"""The file stays within its bounds: the oldest runs leave, what they have cost stays known, and what goes on stays."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.support.recorded import a_run, record
from tests.support.run_events import START

from agentflow.clock import VirtualClock
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.core.observability.store.database import open_database, prepare
from agentflow.core.observability.store.process import this_process
from agentflow.core.observability.store.retention import Retention
from agentflow.core.observability.store.schema import COMPONENT, STEPS

DAY = 24 * 3600.0
BOUND = 512 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentflow" / "runs.db"


def files(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob("runs.db*"))


def trimmed(path: Path, clock: VirtualClock, **bounds: object) -> None:
    """Do all that is to be done, as the writer does little by little."""
    connection = open_database(path)
    prepare(connection, COMPONENT, STEPS, path)
    retention = Retention(here=this_process(), clock=clock, **{"max_bytes": None, "max_age": None, **bounds})  # type: ignore[arg-type]
    while retention.step(connection):
        pass
    connection.close()


def ids(path: Path) -> list[str]:
    with RunReader(path) as reader:
        return [run.id for run in reader.runs(limit=None)]


def test_the_file_stays_within_its_bound_while_several_times_as_much_is_told(path: Path) -> None:
    """With its log, and at any time."""
    most = 0
    with RunStore(path, max_bytes=BOUND, max_age=None) as store:
        for number in range(120):
            for event in a_run(f"run{number:04}", nodes=25, started=START + number):
                store.observe(event)
            assert store.flush(timeout=30)
            most = max(most, path.stat().st_size)
    told = 120 * len(a_run(nodes=25))
    assert told > 12_000
    assert most < 1.5 * BOUND
    assert path.stat().st_size <= 1.1 * BOUND
    assert store.lost == 0
    left = ids(path)
    assert left == [f"run{number:04}" for number in range(119, 119 - len(left), -1)]  # the oldest have left
    with RunReader(path) as reader:
        [row] = reader.costs()
        assert (row.calls, row.cost) == (120 * 25, 120 * 25 * 0.25)  # what was spent is still known
        assert [run.key for run in reader.costs("flow")] == ["digest"]


def test_a_file_over_its_bound_shrinks(path: Path) -> None:
    record(path, *[a_run(f"run{number}", nodes=50, started=START + number) for number in range(60)])
    before = path.stat().st_size
    assert before > 2 * BOUND
    trimmed(path, VirtualClock(start=START), max_bytes=BOUND)
    assert path.stat().st_size <= BOUND
    assert 0 < len(ids(path)) < 60


def test_a_run_that_goes_on_stays_however_old_it_is(path: Path) -> None:
    with RunStore(path, max_age=None) as store:
        for event in a_run("going", nodes=400, over=False, started=START - 1000 * DAY):
            store.observe(event)
        for number in range(20):
            for event in a_run(f"run{number}", nodes=20, started=START + number):
                store.observe(event)
    trimmed(path, VirtualClock(start=START), max_bytes=BOUND // 2)
    assert "going" in ids(path)


def test_a_run_that_alone_fills_the_file_goes_on_without_its_events_and_that_is_counted(path: Path) -> None:
    with RunStore(path, max_bytes=BOUND, max_age=None) as store:
        events = a_run("huge", nodes=1_500, over=False)
        for number, event in enumerate(events):
            store.observe(event)
            if number % 1_000 == 0:
                assert store.flush(timeout=30)
        assert store.flush(timeout=30)
        assert path.stat().st_size < 1.5 * BOUND
    assert store.losses["bound"] > 500
    with RunReader(path) as reader:
        run = reader.find("huge")
        assert (run.calls, run.status) == (1_500, "running")  # its sums go on
        assert len(list(reader.events("huge"))) == len(events) - store.lost
        assert [(loss.reason, loss.events) for loss in reader.losses()] == [("bound", store.lost)]


def test_runs_that_are_too_old_leave_with_all_that_belongs_to_them(path: Path) -> None:
    record(path, a_run("old"), a_run("young", started=START + 9 * DAY))
    trimmed(path, VirtualClock(start=START + 10 * DAY), max_age=5 * DAY)
    assert ids(path) == ["young"]
    connection = sqlite3.connect(path)
    for table in ("events", "usage"):
        [[count]] = connection.execute(f"SELECT count(*) FROM {table} WHERE run NOT IN (SELECT number FROM runs)")
        assert count == 0
    connection.close()


def test_a_long_run_is_as_old_as_its_end(path: Path) -> None:
    record(path, a_run("long", nodes=200_000 // 1000, started=START))
    trimmed(path, VirtualClock(start=START + 500), max_age=200.0)
    assert ids(path) == ["long"]


def test_a_run_whose_process_died_is_over_and_leaves(path: Path) -> None:
    record(path, a_run("dead", over=False))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE processes SET began = 'another'")
    connection.commit()
    connection.close()
    trimmed(path, VirtualClock(start=START + DAY))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT status FROM runs").fetchall() == [("lost",)]
    connection.close()
    trimmed(path, VirtualClock(start=START + 10 * DAY), max_age=DAY)
    assert ids(path) == []


def test_a_large_run_leaves_in_small_steps_and_is_not_seen_any_more(path: Path) -> None:
    record(path, a_run("large", nodes=1_500), a_run("last", started=START + DAY))
    connection = open_database(path)
    clock = VirtualClock(start=START + 2 * DAY)
    retention = Retention(max_bytes=None, max_age=DAY / 2, here=this_process(), clock=clock)
    retention.step(connection)
    retention.step(connection)
    [[left]] = connection.execute("SELECT count(*) FROM events")
    assert 0 < left < len(a_run(nodes=1_500))
    with RunReader(path) as reader:
        assert [run.id for run in reader.runs()] == ["last"]
        assert list(reader.events("large")) == []
        assert sum(row.calls for row in reader.costs()) == 1_501
    connection.close()


def test_a_clock_that_jumps_ahead_deletes_nothing(path: Path) -> None:
    class Jumping(VirtualClock):
        ahead = 0.0

        def time(self) -> float:
            return super().time() + self.ahead

    record(path, a_run("run1"))
    clock = Jumping(start=START)
    connection = open_database(path)
    retention = Retention(max_bytes=None, max_age=DAY, here=this_process(), clock=clock)
    clock.ahead = 3650 * DAY
    for _ in range(5):
        clock.advance(100)
        while retention.step(connection):
            pass
    clock.ahead = -3650 * DAY
    clock.advance(100)
    while retention.step(connection):
        pass
    connection.close()
    assert ids(path) == ["run1"]


def test_times_that_go_back_are_kept_as_they_are(path: Path) -> None:
    events = a_run("run1")
    jumped = [*events[:3], *a_run("run1", started=START - 1000 * DAY)[3:]]
    record(path, jumped)
    with RunReader(path) as reader:
        run = reader.find("run1")
        assert list(reader.events("run1")) == jumped
    assert (run.started, run.duration, run.status) == (START, 2.0, "done")


def test_what_is_small_does_not_grow_for_ever_either(path: Path) -> None:
    record(path, a_run("run1"))
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO processes VALUES (99, 1, '', '', '', '', '', 0)")
    connection.execute("INSERT INTO losses VALUES (98, 'queue', '', 1, 0, 0)")
    connection.execute("INSERT INTO feedback(run_id, time, path) VALUES ('gone', 0, '')")
    connection.execute("INSERT INTO spending(hour, flow, model, provider, tenant) VALUES (0, '', '', '', '')")
    connection.commit()
    trimmed(path, VirtualClock(start=START + DAY), max_age=30 * DAY)
    for table, left in (("processes", 1), ("losses", 0), ("feedback", 0), ("spending", 0)):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (left,), table
    connection.close()
