"""Reading recorded runs: filters, prefixes, sums, judgements, and following while they are written."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.recorded import a_call, a_run, record
from tests.support.run_events import START, RunEvents

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import CostRow, RunReader, RunStore
from agentflow.errors import ConfigurationError, RunStoreError, UnknownRunError

HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentflow" / "runs.db"


@pytest.fixture
def reader(path: Path):
    record(
        path,
        a_run("aaa1", "digest", started=START, tenant="ann"),
        a_run("aaa2", "digest", started=START + HOUR, how="error", answer={"model": "slow", "provider": "lab"}),
        a_run("bbb1", "article", started=START + 2 * HOUR, how="cancelled", answer={"cost": None}),
        a_call("ccc1", "fast", started=START + 25 * HOUR),
        a_run("ddd1", "long", started=START + 26 * HOUR, over=False),
    )
    with RunReader(path) as reader:
        yield reader


def ids(found) -> list[str]:
    return [run.id for run in found]


def feedback(run_id: str, score: float | None, sequence: int = 0, **data: object) -> ExecutionEvent:
    data = {"score": score, "source": "user", **data}
    return ExecutionEvent("feedback", run_id, "digest", "digest", 1, sequence, START + 9, data=data, span=1)


# ---- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({}, ["ddd1", "ccc1", "bbb1", "aaa2", "aaa1"]),
        ({"limit": 2}, ["ddd1", "ccc1"]),
        ({"limit": None}, ["ddd1", "ccc1", "bbb1", "aaa2", "aaa1"]),
        ({"name": "digest"}, ["aaa2", "aaa1"]),
        ({"name": "d*t"}, ["aaa2", "aaa1"]),
        ({"status": "failed"}, ["aaa2"]),
        ({"status": "running"}, ["ddd1"]),
        ({"status": "lost"}, []),
        ({"kind": "call"}, ["ccc1"]),
        ({"tenant": "ann"}, ["aaa1"]),
        ({"model": "slow"}, ["aaa2"]),
        ({"since": START + HOUR, "until": START + 3 * HOUR}, ["bbb1", "aaa2"]),
        ({"name": "digest", "status": "done"}, ["aaa1"]),
        ({"name": "nobody"}, []),
    ],
)
def test_runs_are_filtered_newest_first(reader: RunReader, question: dict[str, object], answer: list[str]) -> None:
    assert ids(reader.runs(**question)) == answer  # type: ignore[arg-type]


def test_a_run_has_its_facts_in_one_row(reader: RunReader) -> None:
    run = reader.find("aaa1")
    assert (run.kind, run.name, run.status, run.started, run.duration) == ("flow", "digest", "done", START, 2.0)
    assert (run.calls, run.input_tokens, run.output_tokens, run.cached_tokens, run.reasoning_tokens) == (
        1,
        100,
        20,
        10,
        5,
    )
    assert (run.cost, run.known_cost, run.unpriced, run.tenant, run.models) == (0.25, 0.25, 0, "ann", ("fast",))
    assert (run.breakdown, run.error, run.events, run.pid, run.is_over) == (
        {"generation": 2.0},
        None,
        6,
        os.getpid(),
        True,
    )


def test_a_failed_run_says_why_and_an_unpriced_one_that_its_cost_is_unknown(reader: RunReader) -> None:
    failed, unpriced = reader.find("aaa2"), reader.find("bbb1")
    assert (failed.status, failed.error, failed.error_type) == ("failed", "it broke", "ValueError")
    assert (unpriced.status, unpriced.unpriced, unpriced.cost, unpriced.known_cost) == ("cancelled", 1, 0.0, None)


def test_a_run_that_goes_on_is_running_with_what_it_has_used(reader: RunReader) -> None:
    run = reader.find("ddd1")
    assert (run.status, run.is_over, run.duration, run.calls, run.seen) == (
        "running",
        False,
        None,
        1,
        START + 26 * HOUR + 2,
    )


def test_a_run_is_found_by_the_beginning_of_its_id(reader: RunReader) -> None:
    assert reader.find("b").id == "bbb1"
    assert reader.find("aaa2").id == "aaa2"


def test_an_ambiguous_beginning_lists_whom_it_may_mean(reader: RunReader) -> None:
    with pytest.raises(UnknownRunError, match="several runs begin so: aaa2, aaa1") as raised:
        reader.find("aaa")
    assert raised.value.matches == ("aaa2", "aaa1")


def test_an_id_that_begins_another_is_found_all_the_same(path: Path) -> None:
    record(path, a_run("run"), a_run("run1"))
    with RunReader(path) as reader:
        assert reader.find("run").id == "run"


@pytest.mark.parametrize("run", ["zzz", "", "%", "a*", "AAA1", "aaa1x", "\ud800"])
def test_an_unknown_run_is_an_error_that_says_where_to_look(reader: RunReader, run: str) -> None:
    with pytest.raises(RunStoreError):
        reader.find(run)


def test_a_child_run_names_its_parent(path: Path) -> None:
    run = RunEvents("child")
    run.end(run.begin("flow", "inner", parent_run="4111111111111111"))  # which no redactor may take for a card
    record(path, run.events)
    with RunReader(path) as reader:
        assert reader.find("child").parent_run == "4111111111111111"


def test_a_question_of_several_requests_is_one_run_with_all_of_their_time(path: Path) -> None:
    run = RunEvents("call")
    for _ in range(2):
        asked = run.begin("model", "fast", model="fast", provider="lab")
        run.at += 3.0
        run.end(asked, cost=1.0, model="fast", provider="lab", breakdown={"generation": 3.0})
    with RunStore(path, max_age=None) as store:
        for event in run.events:
            store.observe(replace(event, node=""))
            store.flush()
    with RunReader(path) as reader:
        found = reader.find("call")
    assert (found.kind, found.status, found.duration, found.breakdown) == ("call", "done", 6.0, {"generation": 6.0})
    assert (found.calls, found.cost, found.started) == (2, 2.0, START)


def test_a_question_is_named_by_its_whole_model(path: Path) -> None:
    asked = [replace(event, path="openai/gpt-4o", node="") for event in a_call("call1", "openai/gpt-4o")]
    record(path, [feedback("call1", 1.0), *asked])
    with RunReader(path) as reader:
        found = reader.find("call1")
    assert (found.name, found.kind, found.started, found.events) == ("openai/gpt-4o", "call", START, 3)


def test_what_comes_after_the_end_does_not_change_how_it_ended(path: Path) -> None:
    run = RunEvents("run1")
    flow = run.begin("flow", "digest")
    attempt = run.begin("attempt", "digest/a#1", parent=flow)
    run.end(flow)
    run.at += 5
    run.end(attempt, "cancelled")
    record(path, run.events)
    with RunReader(path) as reader:
        found = reader.find("run1")
    assert (found.status, found.duration, found.seen) == ("done", 0.0, START + 5)


def test_a_run_that_is_begun_again_goes_on(path: Path) -> None:
    first = a_run("run1", how="error")
    record(path, first, [first[0]])
    with RunReader(path) as reader:
        found = reader.find("run1")
    assert (found.status, found.error, found.duration, found.calls) == ("running", None, None, 1)


# ---- events --------------------------------------------------------------------------------------------------


def test_events_of_nobody_are_none(reader: RunReader) -> None:
    assert list(reader.events("nobody")) == []


def test_only_events_after_one_are_read(reader: RunReader) -> None:
    assert [event.sequence for event in reader.events("aaa1", after=4)] == [5, 6]


def test_many_events_are_read_in_pages(path: Path) -> None:
    events = a_run(nodes=400)
    record(path, events)
    with RunReader(path) as reader:
        assert list(reader.events("run1")) == events


def test_a_reader_follows_while_a_writer_writes(path: Path) -> None:
    events = a_run(nodes=2)
    with RunStore(path, max_age=None) as store:
        store.open()
        with RunReader(path) as reader:
            one, all_of_them = reader.follow("run1"), reader.follow()
            heard: list[ExecutionEvent] = []
            for event in events:
                store.observe(event)
                store.observe(feedback("run1", 1.0, sequence=event.sequence + 100))
                assert store.flush()
                heard += one.poll()
                assert one.poll() == []
            assert [event for event in heard if event.kind != "feedback"] == events
            assert len(heard) == 2 * len(events)
            assert all_of_them.poll() == heard
            assert reader.follow(from_now=True).poll() == []


def test_a_reader_finds_the_new_file_when_the_old_one_is_gone(path: Path) -> None:
    record(path, a_run("old"))
    with RunReader(path) as reader:
        assert ids(reader.runs()) == ["old"]
        path.unlink()
        with pytest.raises(RunStoreError, match="no recorded runs"):
            reader.runs()
        record(path, a_run("new"))
        assert ids(reader.runs()) == ["new"]


# ---- sums ----------------------------------------------------------------------------------------------------


def test_costs_are_added_up_by_what_is_asked_for(reader: RunReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    by_model = {row.key: row for row in reader.costs()}
    assert list(by_model) == ["fast", "slow"]  # the dearest first
    assert (by_model["fast"].calls, by_model["fast"].cost, by_model["fast"].unpriced) == (4, 0.75, 1)
    assert (by_model["slow"].calls, by_model["slow"].cost, by_model["slow"].input_tokens) == (1, 0.25, 100)
    assert {row.key: row.calls for row in reader.costs("flow")} == {"digest": 2, "article": 1, "fast": 1, "long": 1}
    assert {row.key: row.calls for row in reader.costs("provider")} == {"openai": 4, "lab": 1}
    assert {row.key: row.calls for row in reader.costs("tenant")} == {"ann": 1, "": 4}
    assert [(row.key, row.calls) for row in reader.costs("day")] == [("2027-01-15", 3), ("2027-01-16", 2)]


def test_costs_are_those_of_a_time(reader: RunReader) -> None:
    assert sum(row.calls for row in reader.costs(since=START + HOUR)) == 4
    assert sum(row.calls for row in reader.costs(until=START + HOUR)) == 1
    assert sum(row.calls for row in reader.costs(since=START + 24 * HOUR, until=START + 25 * HOUR)) == 0
    assert reader.costs(since=START + 1000 * HOUR) == []


def test_costs_by_what_nobody_keeps_are_an_error(reader: RunReader) -> None:
    with pytest.raises(ConfigurationError, match="by model, flow, day, provider, tenant"):
        reader.costs("colour")  # type: ignore[arg-type]


def test_failed_calls_and_lost_requests_count(path: Path) -> None:
    run = RunEvents("run1")
    flow = run.begin("flow", "digest")
    run.end(
        run.begin("model", "digest/a#1", flow, model="m", provider="p"), "error", model="m", provider="p", lost_cost=0.5
    )
    run.end(run.begin("model", "digest/a#1", flow, model="m", provider="p"), "cancelled", model="m", provider="p")
    run.end(run.begin("model", "digest/a#1", flow), cost=1, lost_cost=0.5, input_tokens="many", output_tokens=-1)
    record(path, run.events)
    with RunReader(path) as reader:
        rows = {row.key: row for row in reader.costs()}
        assert (rows["m"].calls, rows["m"].failed_calls, rows["m"].unpriced, rows["m"].cost) == (2, 1, 0, 0.5)
        assert (rows["?"].calls, rows["?"].cost, rows["?"].input_tokens, rows["?"].output_tokens) == (1, 1.5, 0, 0)


# ---- judgements ----------------------------------------------------------------------------------------------


def test_feedback_is_kept_with_the_run_and_as_an_event(path: Path) -> None:
    given = feedback("run1", 0.5, label="good", comment="but long")
    record(path, a_run(), [given, feedback("run1", None, sequence=9, label="bad", source="checker")])
    with RunReader(path) as reader:
        first, second = reader.feedback("run1")
        assert (first.score, first.label, first.comment, first.source, first.path) == (
            0.5,
            "good",
            "but long",
            "user",
            "digest",
        )
        assert (second.score, second.label, second.source) == (None, "bad", "checker")
        assert list(reader.events("run1"))[6] == given
        assert reader.find("run1").status == "done"


def test_feedback_on_a_run_that_is_not_here_is_kept_and_makes_no_run(path: Path) -> None:
    store = record(path, a_run(), [feedback("elsewhere", 1.0)])
    with RunReader(path) as reader:
        assert ids(reader.runs()) == ["run1"]
        assert len(reader.feedback("elsewhere")) == 1
        assert list(reader.outcomes()) == []
    assert store.lost == 0


def test_outcomes_are_runs_with_what_was_said_of_them(path: Path) -> None:
    judged = [feedback("r1", 1.0), feedback("c1", 0.0), feedback("r2", 0.5)]
    record(path, a_run("r1"), a_run("r2", "other"), a_call("c1", "slow"), judged)
    with RunReader(path) as reader:
        found = [(each.run.id, each.feedback.score) for each in reader.outcomes()]
        assert found == [("r1", 1.0), ("c1", 0.0), ("r2", 0.5)]
        assert [each.run.id for each in reader.outcomes(model="slow")] == ["c1"]
        assert [each.run.id for each in reader.outcomes(name="other", since=START)] == ["r2"]
        assert list(reader.outcomes(since=START + HOUR)) == []


# ---- the file ------------------------------------------------------------------------------------------------


def test_a_missing_file_says_how_to_record_and_is_not_made(path: Path) -> None:
    with pytest.raises(
        RunStoreError, match=r"`agentflow run` records them, and in a program `observe\(RunStore\(\)\)`"
    ):
        RunReader(path)
    assert not path.parent.exists()


def test_reading_changes_nothing(path: Path) -> None:
    record(path, a_run())
    before = path.read_bytes()
    with RunReader(path) as reader:
        reader.runs()
        with pytest.raises(RunStoreError):
            reader._ask("DELETE FROM runs", {})
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == [".gitignore", "runs.db"]


class Unopenable(sqlite3.Connection):
    """What SQLite gives where a file beside the database would have to be made, and cannot be."""

    def execute(self, *_: object) -> sqlite3.Cursor:
        raise sqlite3.OperationalError("unable to open database file")


@pytest.mark.parametrize("refused", [["mode=rw"], ["mode=rw", "mode=ro"]])
def test_a_file_in_a_folder_that_is_read_only_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, refused: list[str]
) -> None:
    record(path, a_run())
    connect = sqlite3.connect

    def refusing(place: str, **options: object) -> sqlite3.Connection:
        if any(mode in place for mode in refused):
            options["factory"] = Unopenable
        return connect(place, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("agentflow.core.observability.store.database.sqlite3.connect", refusing)
    with RunReader(path) as reader:
        assert ids(reader.runs()) == ["run1"]


def test_a_damaged_file_is_an_error_that_says_so(path: Path) -> None:
    record(path, a_run(nodes=50))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (path.stat().st_size - 100))
    with pytest.raises(RunStoreError, match="it is damaged"), RunReader(path) as reader:
        reader.runs()


def test_an_empty_file_says_that_nothing_was_recorded(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with pytest.raises(RunStoreError, match="no run has been recorded"):
        RunReader(path)


@pytest.mark.parametrize(
    ("calls", "failed", "unpriced", "cost", "known"),
    [(3, 0, 0, 0.0, 0.0), (3, 0, 1, 0.0, 0.0), (3, 0, 3, 0.0, None), (3, 2, 1, 0.0, None), (3, 0, 1, 0.5, 0.5)],
    ids=["all free", "some free", "none known", "the one that answered unknown", "some priced"],
)
def test_a_cost_is_known_as_far_as_one_call_has_one(
    calls: int, failed: int, unpriced: int, cost: float, known: float | None
) -> None:
    row = CostRow("m", calls, failed, unpriced, 0, 0, 0, 0, cost)
    assert row.known_cost == known
