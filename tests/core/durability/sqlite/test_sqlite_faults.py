"""A file that cannot be written, and other writers: an error that says what to do, or a wait that blocks nobody."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import DONE, Doing, begun, ids, saving, spec, step
from tests.core.durability.sqlite.children import ROOT, child

from agentflow.clock import VirtualClock
from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending, Record
from agentflow.core.durability.sqlite import SqliteDurability, run_rows, store, tables
from agentflow.core.observability.store import RunStore
from agentflow.errors import ConfigurationError, DurabilityError, UnknownRunError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def writer(path: Path) -> sqlite3.Connection:
    """Another program that writes to the file, and takes its time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


# ---- before anything is used ---------------------------------------------------------------------------------


async def test_nothing_is_made_before_the_first_run(tmp_path: Path) -> None:
    """Also not by looking for runs that cannot be there."""
    engine = SqliteDurability(tmp_path / "folder" / "runs.db")
    assert await engine.runs() == ()
    with pytest.raises(UnknownRunError):
        await engine.find("r1")
    await engine.close()
    assert list(tmp_path.iterdir()) == []
    await engine.execute(spec(), saving())
    assert (tmp_path / "folder" / "runs.db").stat().st_mode & 0o777 == 0o600
    await engine.close()


@pytest.mark.parametrize("name", ["", ":memory:", "file:runs.db"])
def test_a_name_that_is_no_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        SqliteDurability(name)


def test_settings_that_mean_nothing_are_refused(path: Path) -> None:
    for settings in ({"sync": "off"}, {"patience": -1.0}, {"patience": float("nan")}, {"blob_bytes": 0}):
        with pytest.raises(ConfigurationError):
            SqliteDurability(path, **settings)  # type: ignore[arg-type]


# ---- other writers -------------------------------------------------------------------------------------------


async def test_others_may_write_for_a_while(path: Path) -> None:
    """The event loop goes on meanwhile, and what is saved then is saved together."""
    engine, doing = SqliteDurability(path), Doing()
    await engine.execute(spec("r0"), saving())
    turns = 0

    async def body(journal: Journal) -> Ending:
        nonlocal turns
        other = writer(path)
        saves = [asyncio.ensure_future(journal.save(step(f"a/{number}"))) for number in range(10)]
        while turns < 200:
            turns += 1
            await asyncio.sleep(0)
        assert not any(save.done() for save in saves)
        other.close()
        await asyncio.gather(*saves)
        return DONE

    assert await engine.execute(spec(), body) == DONE
    assert ids(await engine.records("r1")) == [f"a/{number}" for number in range(10)]
    assert not doing.cancelled
    await engine.close()


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_patience_has_an_end(path: Path, sync: store.Sync) -> None:
    """The record is not kept then, and the run may go on when the other one is gone."""
    engine = SqliteDurability(path, patience=0.05, sync=sync)
    other: list[sqlite3.Connection] = []

    async def body(journal: Journal) -> Ending:
        await journal.save(step("a/x#1"))
        other.append(writer(path))
        await journal.save(step("a/y#1"))
        raise AssertionError

    with pytest.raises(DurabilityError, match=r"runs\.db was being written by another process for longer than 0.05"):
        await engine.execute(spec(), body)
    assert (await engine.find("r1")).status == "lost"
    assert ids(await engine.records("r1")) == ["a/x#1"]
    with pytest.raises(DurabilityError, match="patience"):
        await engine.execute(spec("r2"), saving())
    other[0].close()
    assert await engine.execute(spec(), saving(step("a/y#1"))) == DONE
    await engine.close()


async def test_a_cancellation_that_cannot_be_written_at_once_is_written_later(path: Path) -> None:
    engine, doing = SqliteDurability(path), Doing(step("a/x#1"))
    task = await begun(engine, doing)
    other = writer(path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other.close()
    async for _ in engine.follow("r1"):
        """Until it has ended."""
    while (await engine.find("r1")).status == "lost":
        await asyncio.sleep(0.001)
    assert (await engine.find("r1")).status == "cancelled"
    await engine.close()


async def test_the_run_store_may_write_to_the_same_file(path: Path) -> None:
    recorder, engine = RunStore(path), SqliteDurability(path)
    recorder.open()
    assert await engine.execute(spec(), saving(*(step(f"a/{n}") for n in range(50)))) == DONE
    await engine.close()
    recorder.close()
    connection = sqlite3.connect(path)
    assert {name for (name,) in connection.execute("SELECT component FROM meta")} == {"runs", "durability"}
    connection.close()


# ---- no room, no permission ----------------------------------------------------------------------------------


def test_a_full_disk_is_an_error_and_no_loss(path: Path) -> None:
    """What was saved is there, and the run goes on when there is room."""
    with child(path, "fill", "-", 200_000) as process:
        lines = process.rest()
    before, _, after = "\n".join(lines[3:]).partition("\nerror ")
    said = before.count("saved")
    assert 0 < said < 200
    assert "no space is left for" in after or "cannot be read or written" in after
    assert f"\nbegan {said}\n" in after
    assert lines[-1] == "ended done"


_WITHOUT_PERMISSION = """
import asyncio, os, sys
from pathlib import Path
from agentflow.core.durability.records import Ending, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import DurabilityError
async def main():
    async def body(journal):
        return Ending("done")
    try:
        await SqliteDurability(sys.argv[1]).execute(RunSpec("r2", "article"), body)
    except DurabilityError as error:
        print(type(error).__name__, error)
if os.geteuid() == 0:
    import agentflow.core.durability.sqlite, encodings.idna
    os.setgid(65534), os.setuid(65534)
asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["file", "folder", "missing"])
async def test_what_cannot_be_written_is_an_error_that_names_it(path: Path, what: str) -> None:
    engine = SqliteDurability(path)
    if what != "missing":
        await engine.execute(spec(), saving(step("a/x#1")))
        await engine.close()
    for folder in (path.parent, *path.parent.parents[:2]):
        folder.chmod(0o755)
    if what == "file":
        path.chmod(0o444)
    if os.geteuid() != 0 and what != "file":
        path.parent.chmod(0o555)
    try:
        told = subprocess.run(
            [sys.executable, "-c", _WITHOUT_PERMISSION, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    finally:
        path.parent.chmod(0o755)
    assert told.stdout.startswith("DurabilityError")
    assert "runs.db" in told.stdout
    assert "cannot be written" in told.stdout


@pytest.mark.parametrize("content", [b"a diary\n" * 100, None])
async def test_a_file_that_is_not_ours_is_refused(path: Path, content: bytes | None) -> None:
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    engine = SqliteDurability(path)
    with pytest.raises(DurabilityError, match=r"runs\.db"):
        await engine.execute(spec(), saving())
    assert content is None or path.read_bytes() == content
    await engine.close()


async def test_a_file_that_is_taken_away_is_missed(path: Path) -> None:
    """What went on being written into it would be lost; a new one begins only with a new run."""
    engine = SqliteDurability(path)

    async def body(journal: Journal) -> Ending:
        await journal.save(step("a/x#1"))
        for each in path.parent.glob("runs.db*"):
            if each.is_file():
                each.unlink()
        await journal.save(step("a/y#1"))
        raise AssertionError

    with pytest.raises(DurabilityError, match="taken away"):
        await engine.execute(spec(), body)
    assert await engine.execute(spec("r2"), saving(step("a/x#1"))) == DONE
    assert [info.run_id for info in await engine.runs()] == ["r2"]
    await engine.close()


# ---- versions ------------------------------------------------------------------------------------------------


async def test_tables_of_a_newer_version_are_refused(path: Path) -> None:
    engine = SqliteDurability(path)
    await engine.execute(spec(), saving())
    await engine.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET version = version + 1 WHERE component = 'durability'")
    connection.commit()
    connection.close()
    with pytest.raises(DurabilityError, match="newer AgentFlow"):
        await engine.execute(spec("r2"), saving())
    await engine.close()


async def test_tables_of_an_older_version_are_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all runs in them; of two processes that do so at once, one does."""
    engine = SqliteDurability(path)
    await engine.execute(spec(), saving(step("a/x#1"), ending=Ending("waiting")))
    await engine.close()
    added = "ALTER TABLE durable_runs ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'"
    monkeypatch.setattr(store, "STEPS", (*tables.STEPS, (added,)))
    engines = [SqliteDurability(path) for _ in range(4)]
    assert [ids(found) for found in await asyncio.gather(*(each.records("r1") for each in engines))] == [["a/x#1"]] * 4
    assert await engines[0].execute(spec(), saving(step("a/y#1"))) == DONE
    for each in engines:
        await each.close()


# ---- records that cannot be written --------------------------------------------------------------------------


async def test_a_record_that_cannot_be_written_is_nobody_elses_trouble(path: Path) -> None:
    """Those that were saved at the same moment are kept."""
    engine = SqliteDurability(path, blob_bytes=1_000)
    bad = [
        Record("a/bad#1", "call", "{}", 1.0, tokens=2**70),
        step("a/bad#2", '"\ud800"'),
        step("a/bad#3", "\ud800" * 999),
    ]

    async def body(journal: Journal) -> Ending:
        good = [step(f"a/good#{number}") for number in range(5)]
        results = await asyncio.gather(*map(journal.save, [*good, *bad]), return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 5 + [DurabilityError] * 3
        assert [journal.find(record.id) for record in bad] == [None] * 3
        return DONE

    assert await engine.execute(spec(), body) == DONE
    assert len(await engine.records("r1")) == 5
    await engine.close()


# ---- loops and threads ---------------------------------------------------------------------------------------


async def test_threads_with_loops_of_their_own_share_an_engine(path: Path) -> None:
    """Each has runs, all have one that they save to: everything is kept, in the order of each."""
    engine, journals = SqliteDurability(path), []

    async def shared(journal: Journal) -> Ending:
        journals.append(journal)
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number)) for number in range(4)))
        return DONE

    async def work(number: int) -> None:
        for turn in range(40):
            await journals[0].save(step(f"a/{number}/{turn}"))
        own = [step(f"b/{turn}") for turn in range(40)]
        assert await engine.execute(spec(f"own{number}"), saving(*own)) == DONE

    assert await engine.execute(spec("all"), shared) == DONE
    saved = ids(await engine.records("all"))
    assert len(saved) == 160
    for number in range(4):
        assert [id for id in saved if id.startswith(f"a/{number}/")] == [f"a/{number}/{turn}" for turn in range(40)]
        assert ids(await engine.records(f"own{number}")) == [f"b/{turn}" for turn in range(40)]
    await engine.close()


async def test_what_is_saved_in_one_turn_is_one_transaction(path: Path) -> None:
    engine = SqliteDurability(path)

    async def body(journal: Journal) -> Ending:
        await journal.save(step("a/first"))
        other = sqlite3.connect(path)
        before = other.execute("PRAGMA data_version").fetchone()
        seen = set()

        async def save(number: int) -> None:
            await journal.save(step(f"a/{number}"))
            seen.add(other.execute("PRAGMA data_version").fetchone())

        await asyncio.gather(*map(save, range(100)))
        other.close()
        assert len(seen - {before}) == 1
        return DONE

    assert await engine.execute(spec(), body) == DONE
    await engine.close()


async def test_nothing_is_left_when_all_runs_are_over(path: Path) -> None:
    engine = SqliteDurability(path)
    threads = threading.active_count()
    await engine.execute(spec(), saving(step("a/x#1")))
    assert len(asyncio.all_tasks()) == 1
    await engine.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("agentflow durability")]
    assert threading.active_count() <= threads + 1  # asyncio's own


def test_a_week_passes_at_once(path: Path) -> None:
    """A run that sleeps under a clock that jumps costs nothing in real time, and is stamped with that clock."""
    clock = VirtualClock()

    async def main() -> None:
        engine = SqliteDurability(path, clock=clock)

        async def body(journal: Journal) -> Ending:
            await clock.sleep(7 * 86_400)
            return DONE

        await engine.execute(spec(), body)
        info = await engine.find("r1")
        assert info.updated - info.created == pytest.approx(7 * 86_400)
        await engine.close()

    clock.run(main())


async def test_a_large_log_is_copied_into_the_file_while_runs_go_on(path: Path) -> None:
    """It does not grow without end, though no writer ever waits for the disk."""
    engine = SqliteDurability(path)
    log, largest = path.with_name("runs.db-wal"), 0

    async def body(journal: Journal) -> Ending:
        nonlocal largest
        for number in range(1_500):
            await journal.save(step(f"a/{number}", '"' + "x" * 40_000 + '"'))
            largest = max(largest, log.stat().st_size)
        return DONE

    await engine.execute(spec(), body)
    assert path.stat().st_size + log.stat().st_size > 1_500 * 40_000
    assert largest < 45_000_000
    await engine.close()
    assert not log.exists()


# ---- ten thousand --------------------------------------------------------------------------------------------


class Explaining:
    """A connection that finds nothing, and says how it would have looked for it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plan = ""

    def execute(self, query: str, values: tuple[object, ...]) -> list[object]:
        self.plan = str(self._connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall())
        return []


async def test_ten_thousand_parked_runs_cost_nothing_but_rows(path: Path) -> None:
    """Those that are due are found by an index, whatever else is parked."""
    engine = SqliteDurability(path)
    await engine.execute(spec("seed"), saving(step("a/x#1"), ending=Ending("waiting")))
    await engine.close()
    connection = sqlite3.connect(path)
    connection.execute(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000) INSERT INTO durable_runs"
        "(id, flow, status, wake, created, updated, inputs, graph) SELECT 'run' || n, 'article', 'waiting', n, n, n, "
        "'{}', '{}' FROM n"
    )
    connection.commit()
    explaining = Explaining(connection)
    run_rows.select(explaining, flow="article", status="waiting", due=20.0, owners=None, limit=9)  # type: ignore[arg-type]
    connection.close()
    assert "durable_runs_by_wake" in explaining.plan
    assert "TEMP B-TREE" not in explaining.plan
    assert len(await engine.runs(limit=20_000)) == 10_001
    assert [info.run_id for info in await engine.runs(due=5.0, status="waiting")] == [f"run{n}" for n in range(1, 6)]
    assert len(asyncio.all_tasks()) == 1
    await engine.close()
