"""Several processes and one file: a run has one owner, who is known by a lock that only the kernel can take away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import DONE, Doing, begun, found, ids, saving, spec, step
from tests.core.durability.sqlite.children import child

from agentflow.clock import VirtualClock
from agentflow.core.durability.records import Ending
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import RunEndedError, RunHeldError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SqliteDurability]:
    engine = SqliteDurability(path)
    yield engine
    await engine.close()


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteDurability]:
    """To the file it is another process."""
    engine = SqliteDurability(path)
    yield engine
    await engine.close()


async def test_of_two_processes_that_want_a_run_one_gets_it(path: Path) -> None:
    """At the same moment, twenty times."""
    with child(path, "race", "-", 20) as first, child(path, "race", "-", 20) as second:
        for each in (first, second):
            each.until("ready")
        for each in (first, second):
            each.say()
        got = [each.until("tried")[:-1] for each in (first, second)]
        for each in (first, second):
            each.say()
        for each in (first, second):
            assert each.rest() == []
    assert sorted(got[0] + got[1]) == sorted(f"got r{number}" for number in range(20))


async def test_a_run_of_another_process_is_held(engine: SqliteDurability, path: Path) -> None:
    """And its owner is named; killed, it has no runs any more, at once."""
    with child(path, "run", "r1", 3, "--stay") as process:
        process.until("saved 2")
        with pytest.raises(RunHeldError, match=f"process {process.pid} on"):
            await engine.execute(spec(), saving())
        info = await engine.find("r1")
        assert (info.status, info.steps) == ("running", 3)
        assert str(process.pid) in (info.owner or "")
        assert [each.run_id for each in await engine.runs(status="running")] == ["r1"]
        process.process.kill()
        process.process.wait()
        assert (await engine.find("r1")).status == "lost"
        assert [each.run_id for each in await engine.runs(status="lost")] == ["r1"]
        assert await engine.runs(status="running") == []
        assert list(await found(engine)) == ["a/0", "a/1", "a/2"]


async def test_a_stopped_process_keeps_its_runs(engine: SqliteDurability, path: Path) -> None:
    """No heartbeat is missed, as there is none: it goes on later as if nothing had been."""
    with child(path, "run", "r1", 2, "--stay") as process:
        process.until("saved 1")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RunHeldError):
                await engine.execute(spec(), saving())
            with pytest.raises(RunHeldError):
                await engine.delete("r1")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        process.say()
        assert process.rest() == ["ended done"]
    assert (await engine.find("r1")).status == "done"


async def test_a_run_in_another_process_hears_that_it_is_cancelled(engine: SqliteDurability, path: Path) -> None:
    """Also where it does nothing at all."""
    with child(path, "run", "r1", 1, "--stay") as process:
        process.until("saved 0")
        assert await engine.cancel("r1")
        assert process.line() == "ended cancelled"
        process.say()
    assert (await engine.find("r1")).status == "cancelled"
    with pytest.raises(RunEndedError):
        await engine.execute(spec(), saving())


async def test_a_run_hears_of_its_cancellation_with_what_it_saves(
    engine: SqliteDurability, other: SqliteDurability
) -> None:
    first, go = asyncio.Event(), asyncio.Event()

    async def body(journal) -> Ending:  # type: ignore[no-untyped-def]
        first.set()
        await go.wait()
        for number in range(1_000):
            await journal.save(step(f"a/{number}"))
        return Ending("waiting")

    task = asyncio.create_task(engine.execute(spec(), body))
    await first.wait()
    await other.cancel("r1")
    go.set()
    with pytest.raises(RunEndedError):
        await task
    assert len(await other.records("r1")) < 100


async def test_a_run_cancelled_when_its_process_had_died_unheard_is_over(engine: SqliteDurability, path: Path) -> None:
    """The process was asked to end it and was killed before it did."""
    with child(path, "run", "r1", 1, "--stay") as process:
        process.until("saved 0")
        os.kill(process.pid, signal.SIGSTOP)
        assert await engine.cancel("r1")
        process.process.kill()
        process.process.wait()
    assert (await engine.find("r1")).status == "cancelled"
    assert await engine.runs(status="lost") == []
    with pytest.raises(RunEndedError):
        await engine.execute(spec(), saving())


async def test_a_run_in_another_process_can_be_followed(engine: SqliteDurability, path: Path) -> None:
    with child(path, "run", "r1", 5, "--stay") as process:
        process.until("began")
        seen = []
        async for record in engine.follow("r1"):
            seen.append(record.id)
            if len(seen) == 5:
                process.say()
        assert seen == [f"a/{number}" for number in range(5)]


async def test_a_clock_that_is_set_back_frees_nothing(path: Path) -> None:
    """Nor does one that leaps ahead: who has a run is no matter of time."""
    clock = VirtualClock()
    engine = SqliteDurability(path, clock=clock)
    doing = Doing(step("a/x#1"))
    task = await begun(engine, doing)
    for seconds in (-86_400.0, 10 * 86_400.0):
        late = SqliteDurability(path, clock=VirtualClock(start=clock.time() + seconds))
        with pytest.raises(RunHeldError):
            await late.execute(spec(), saving())
        await late.close()
    doing.go.set()
    assert await task == DONE
    await engine.close()


async def test_a_forked_child_leaves_the_runs_of_its_parent_alone(path: Path) -> None:
    """It cannot write into them, does not hold them, and has runs of its own with the same engine."""
    with child(path, "fork") as process:
        lines = process.rest()
        pid = process.pid
    assert lines[0] == "child refused"
    assert lines[1].startswith(f"held process {pid} on")
    assert lines[2:] == ["began 0", "saved 0", "saved 1", "ended done", "ended done"]
    engine = SqliteDurability(path)
    assert ids(await engine.records("r1")) == ["a/before", "a/after"]
    await engine.close()


async def test_a_closed_engine_has_no_runs(engine: SqliteDurability, other: SqliteDurability, path: Path) -> None:
    """And leaves nothing behind: no lock, no task, no thread."""
    await engine.execute(spec(), saving(step("a/x#1"), ending=Ending("waiting")))
    owners = path.with_name("runs.db-owners")
    assert len(list(owners.iterdir())) == 1
    await engine.close()
    assert list(owners.iterdir()) == []
    assert len(asyncio.all_tasks()) == 1
    assert await other.execute(spec(), saving(step("a/y#1"))) == DONE
    assert await engine.execute(spec("r2"), saving()) == DONE


async def test_what_dead_processes_have_left_is_cleared(engine: SqliteDurability, path: Path) -> None:
    with child(path, "run", "r1", 1, "--stay") as process:
        process.until("saved 0")
    owners = path.with_name("runs.db-owners")
    [left] = owners.iterdir()
    assert f".{process.pid}." in left.name
    await engine.execute(spec("r2"), saving())
    assert left not in list(owners.iterdir())
