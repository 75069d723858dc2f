"""What goes wrong with a disk, a file or another program: the run goes on, and what is lost is known."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.recorded import a_run, read, record

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunStore, delivery, run_file
from agentflow.core.observability.store.database import open_database, prepare, transaction, version_of
from agentflow.core.observability.store.schema import COMPONENT, STEPS
from agentflow.errors import RunStoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentflow" / "runs.db"


def tell(store: RunStore, events: list[ExecutionEvent]) -> None:
    for event in events:
        store.observe(event)


# ---- what stands in the way ----------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_loses_all_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    store = RunStore(tmp_path / "file" / "runs.db")
    tell(store, a_run())
    assert not store.close()
    assert store.losses == {"disk": len(a_run())}
    assert store.trouble is not None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2  # once, and a sum at the end
    assert "6 events are not in" in caplog.text
    assert "runs.db: disk 6" in caplog.text


def test_what_could_not_be_written_is_written_when_it_can_be(tmp_path: Path) -> None:
    blocker = tmp_path / "store"
    blocker.write_text("in the way")
    with RunStore(blocker / "runs.db", max_age=None) as store:
        tell(store, a_run())
        assert not store.flush(timeout=0.2)
        blocker.unlink()
        assert store.flush(timeout=30)
        assert store.trouble is None
    assert read(blocker / "runs.db") == a_run()
    assert store.lost == 0


def test_a_full_disk_keeps_what_is_there_and_the_program_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path, a_run("before"))

    def on_a_full_disk(place: Path) -> sqlite3.Connection:
        connection = open_database(place)
        connection.execute("PRAGMA max_page_count = 1")  # as large as it is now
        return connection

    monkeypatch.setattr(run_file, "open_database", on_a_full_disk)
    store = RunStore(path, max_age=None)
    tell(store, a_run("after", nodes=400))
    assert not store.flush(timeout=0.2)
    assert store.trouble == "database or disk is full"
    assert not store.close()
    assert store.losses == {"disk": len(a_run(nodes=400))}
    assert read(path, "before") == a_run("before")
    assert read(path, "after") == []


def test_a_full_disk_that_has_room_again_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = ["PRAGMA max_page_count = 1"]

    def on_a_disk(place: Path) -> sqlite3.Connection:
        connection = open_database(place)
        for command in limit:
            connection.execute(command)
        return connection

    record(path, a_run("before"))
    monkeypatch.setattr(run_file, "open_database", on_a_disk)
    with RunStore(path, max_age=None) as store:
        tell(store, a_run("after", nodes=100))
        assert not store.flush(timeout=0.2)
        limit.clear()
        assert store.flush(timeout=30)
    assert read(path, "after") == a_run("after", nodes=100)
    assert store.lost == 0


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_file_is_left_as_it_is(path: Path) -> None:
    record(path, a_run("before"))
    path.chmod(0o400)
    store = RunStore(path)
    tell(store, a_run())
    assert not store.close()
    assert store.losses == {"disk": len(a_run())}
    assert read(path, "before") == a_run("before")


def test_a_file_that_sqlite_calls_read_only_costs_the_end_no_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(place: Path) -> sqlite3.Connection:
        connection = open_database(place)
        connection.execute("PRAGMA query_only = ON")
        return connection

    record(path, a_run("before"))
    monkeypatch.setattr(run_file, "open_database", read_only)
    store = RunStore(path, max_age=None)
    tell(store, a_run())
    assert not store.close(timeout=1000)
    assert store.trouble is not None
    assert "readonly" in store.trouble
    assert store.lost == len(a_run())


# ---- files that are not what they should be ------------------------------------------------------------------


def damage(path: Path) -> None:
    """Overwrite all but the header of the file, as a failing disk does."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))


def test_a_damaged_file_is_set_aside_and_a_new_one_begins(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(path, a_run("before", nodes=50))
    damage(path)
    store = record(path, a_run("after"))
    assert read(path, "after") == a_run("after")
    [aside] = path.parent.glob("runs.db.damaged-*")
    assert store.lost == 0
    assert aside.name in caplog.text
    with RunReader(path) as reader:
        assert [(loss.reason, loss.events, loss.note) for loss in reader.losses()] == [("damaged", 0, aside.name)]


def test_damage_that_shows_while_it_is_open_loses_nothing_new(path: Path) -> None:
    with RunStore(path, max_age=None) as store:
        tell(store, a_run("before", nodes=200))
        assert store.flush()
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        damage(path)
        tell(store, a_run("after"))
    assert read(path, "after") == a_run("after")
    assert store.lost == 0


def test_a_disk_that_damages_every_file_does_not_fill_with_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(sqlite3.DatabaseError):
        sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def always(place: Path) -> sqlite3.Connection:
        open_database(place).close()
        raise Damaged("malformed")

    monkeypatch.setattr(run_file, "open_database", always)
    store = RunStore(path)
    tell(store, a_run())
    assert not store.close()
    assert store.losses == {"disk": len(a_run())}
    assert len(list(path.parent.glob("runs.db.damaged-*"))) == delivery.RENEWALS


@pytest.mark.parametrize("content", [b"my notes, which are no database\n" * 100, b"short"])
def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = RunStore(path)
    tell(store, a_run())
    with pytest.raises(RunStoreError, match="is no run store, and is left as it is"):
        store.open()
    assert not store.close()
    assert path.read_bytes() == content
    assert store.lost == len(a_run())
    with pytest.raises(RunStoreError, match="is no run store"):
        RunReader(path)


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE runs(theirs)")
    other.commit()
    other.close()
    with RunStore(path) as store:
        with pytest.raises(RunStoreError, match="of another program"):
            store.open()
    with pytest.raises(RunStoreError, match="of another program"):
        RunReader(path)
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    other.close()


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store, pytest.raises(RunStoreError, match="is a folder"):
        store.open()
    with pytest.raises(RunStoreError, match="is a folder"):
        RunReader(tmp_path)


def test_an_empty_file_is_a_beginning(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    record(path, a_run())
    assert read(path) == a_run()


@pytest.mark.parametrize("again", [lambda path: None, lambda path: record(path, a_run("theirs"))])
def test_a_file_that_is_deleted_or_replaced_while_open_is_left_and_a_new_one_written(
    path: Path, again: Callable[[Path], object]
) -> None:
    with RunStore(path, max_age=None) as store:
        events = a_run(nodes=3)
        tell(store, events[:4])
        assert store.flush()
        for file in path.parent.glob("runs.db*"):
            file.unlink()
        again(path)
        tell(store, events[4:])
    assert read(path) == events[4:]
    with RunReader(path) as reader:
        assert reader.find("run1").name == "digest"
    assert store.lost == 0


# ---- versions ------------------------------------------------------------------------------------------------


def test_the_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    record(path, a_run())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET version = 99")
    connection.close()
    with RunStore(path) as store:
        with pytest.raises(RunStoreError, match=r"newer AgentFlow .*update agentflow-engine"):
            store.open()
        tell(store, a_run("after"))
    assert store.losses == {"disk": len(a_run())}
    with pytest.raises(RunStoreError, match="newer AgentFlow"):
        RunReader(path)


def test_the_file_of_an_older_version_is_brought_up_to_date(path: Path) -> None:
    first = ("CREATE TABLE things(a)", "INSERT INTO things VALUES (1)")
    second = ("ALTER TABLE things ADD COLUMN b DEFAULT 2",)
    connection = open_database(path)
    prepare(connection, "things", [first], path)
    prepare(connection, "things", [first, second], path)
    prepare(connection, "things", [first, second], path)
    assert connection.execute("SELECT a, b FROM things").fetchall() == [(1, 2)]
    assert version_of(connection, "things") == 2
    connection.close()


def test_a_step_that_fails_leaves_the_version_before(path: Path) -> None:
    connection = open_database(path)
    prepare(connection, "things", [("CREATE TABLE things(a)",)], path)
    with pytest.raises(sqlite3.OperationalError):
        prepare(connection, "things", [(), ("ALTER TABLE things ADD COLUMN b", "NO SQL")], path)
    assert version_of(connection, "things") == 1
    assert len(connection.execute("PRAGMA table_info(things)").fetchall()) == 1
    connection.close()


def test_components_live_side_by_side_each_with_its_version(path: Path) -> None:
    connection = open_database(path)
    prepare(connection, "durability", [("CREATE TABLE checkpoints(a)",)], path)
    connection.close()
    with pytest.raises(RunStoreError, match="no run has been recorded in it yet"):
        RunReader(path)
    record(path, a_run())
    connection = open_database(path)
    assert version_of(connection, "durability") == 1
    assert version_of(connection, COMPONENT) == len(STEPS)
    connection.close()


def test_a_reader_of_an_older_file_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path, a_run())
    monkeypatch.setattr("agentflow.core.observability.store.run_reader.STEPS", (*STEPS, ()))
    with pytest.raises(RunStoreError, match="older AgentFlow: record a run"):
        RunReader(path)


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    connection = open_database(path)
    prepare(connection, "things", [("CREATE TABLE things(a)",)], path)
    with pytest.raises(KeyError), transaction(connection):
        connection.execute("INSERT INTO things VALUES (1)")
        raise KeyError
    assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)
    connection.close()
