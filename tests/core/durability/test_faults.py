"""What goes wrong around a run is a clear error or no matter, and the run goes on afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.core.durability.crash.harness import Trial, zygote
from tests.core.durability.crash.points import Doom

from agentflow.clock import VirtualClock
from agentflow.core import END, AsyncFlow, SharedState, node
from agentflow.core.durability.interrupts import interrupt
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.core.durability.timers import sleep
from agentflow.errors import DurabilityError, RunHeldError

WEEK = 7 * 86_400.0


@node(reads="n", writes="n")
async def grow(n: int) -> int:
    return n + 1


@node
async def more(state: SharedState) -> str:
    state["text"] = "x" * 2_000
    return "more" if int(str(state["n"])) < 200 else "done"


def growing(engine: SqliteDurability) -> AsyncFlow:
    return AsyncFlow(grow >> more, more.on("more") >> grow, more.on("done") >> END, name="growing", durability=engine)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become larger than 600 000 bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


async def test_a_disk_that_is_full_in_the_middle_of_a_run_is_an_error_and_no_loss(
    tmp_path: Path, small_files: None
) -> None:
    engine = SqliteDurability(tmp_path / "runs.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    try:
        with pytest.raises(DurabilityError, match=r"no space is left|cannot be read or written just now"):
            await growing(engine).run({"n": 0}, run_id="r")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = len(await engine.records("r"))

    result = await growing(engine).run({"n": 0}, run_id="r")

    assert kept > 10
    assert result.state["n"] == 200
    await engine.close()


async def test_a_file_that_is_locked_for_too_long_is_an_error_and_no_loss(tmp_path: Path) -> None:
    engine = SqliteDurability(tmp_path / "runs.db", patience=0.05)
    lock: list[sqlite3.Connection] = []

    @node(durable=False)
    async def lock_it(state: SharedState) -> None:
        if not lock:
            lock.append(sqlite3.connect(tmp_path / "runs.db", isolation_level=None))
            lock[0].execute("BEGIN IMMEDIATE")

    flow = AsyncFlow(grow >> lock_it >> node(name="last", reads="n", writes="m")(grow.function), durability=engine)
    with pytest.raises(DurabilityError, match="being written by another process"):
        await flow.run({"n": 0}, run_id="r")
    with closing(lock[0]):
        lock[0].execute("ROLLBACK")

    result = await flow.run({"n": 0}, run_id="r")

    assert (result.state["n"], result.state["m"]) == (1, 2)
    await engine.close()


async def test_of_two_that_go_on_with_one_run_one_is_told_so(tmp_path: Path) -> None:
    first, second = SqliteDurability(tmp_path / "runs.db"), SqliteDurability(tmp_path / "runs.db")
    is_in, go = asyncio.Event(), asyncio.Event()

    @node
    async def wait(state: SharedState) -> None:
        is_in.set()
        await go.wait()

    flow = AsyncFlow(grow >> wait, name="waits")
    run = asyncio.create_task(flow.run({"n": 0}, run_id="r", durability=first))
    await is_in.wait()

    with pytest.raises(RunHeldError):
        await flow.resume("r", durability=second)
    go.set()

    assert (await run).state["n"] == 1
    assert (await flow.run({"n": 0}, run_id="r", durability=second)).state["n"] == 1
    await first.close()
    await second.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_log_that_was_torn_off_by_a_crash_costs_steps_and_nothing_else(tmp_path: Path, share: float) -> None:
    """The steps in the part that is missing happen again: nothing that is there contradicts another."""
    with zygote() as lives:
        trial = Trial(lives, tmp_path, "loop")
        report = trial.live("torn", Doom(at=len(trial.points) - 5), 0)
        assert report == {"signal": signal.SIGKILL}
        log = tmp_path / "runs.db-wal"
        os.truncate(log, int(log.stat().st_size * share))

        carried_on = trial.live("torn", Doom(), 1)

        assert carried_on == trial.undisturbed


def _rests(engine: SqliteDurability, clock: VirtualClock) -> AsyncFlow:
    @node(name="rest")
    async def rest(state: SharedState) -> None:
        await sleep(WEEK, park=True)
        state["rested"] = True

    return AsyncFlow(grow >> rest, name="rests", durability=engine, clock=clock)


@pytest.mark.parametrize("back", [0.0, 3_600.0, 10 * WEEK])
def test_a_run_parked_for_a_week_goes_on_also_where_the_clock_was_set_back(tmp_path: Path, back: float) -> None:
    async def park(clock: VirtualClock) -> str:
        engine = SqliteDurability(tmp_path / "runs.db", clock=clock)
        try:
            return (await _rests(engine, clock).run({"n": 0}, run_id="r")).status
        finally:
            await engine.close()

    async def go_on(clock: VirtualClock) -> list[str]:
        engine = SqliteDurability(tmp_path / "runs.db", clock=clock)
        try:
            early = (await _rests(engine, clock).resume("r")).status
            clock.advance(back + WEEK)
            return [early, (await _rests(engine, clock).resume("r")).status]
        finally:
            await engine.close()

    before = VirtualClock(start=2_000_000_000.0)
    after = VirtualClock(start=2_000_000_000.0 - back)

    assert before.run(park(before)) == "interrupted"
    assert after.run(go_on(after)) == ["interrupted", "done"]


@node(name="ask", reads="n", writes="said")
async def ask(n: int) -> object:
    return await interrupt("And?", n)


async def test_parked_runs_cost_no_task_and_little_memory_and_are_found_again(tmp_path: Path) -> None:
    engine, some = SqliteDurability(tmp_path / "runs.db"), 200
    flow = AsyncFlow(ask, name="asks", durability=engine)

    async def park(numbers: range) -> int:
        """The bytes that are in use afterwards."""
        await asyncio.gather(*[flow.run({"n": n}, run_id=f"r{n}") for n in numbers])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tasks = len(asyncio.all_tasks())
    tracemalloc.start()
    sizes = [await park(range(start, start + some)) for start in range(0, 4 * some, some)]
    tracemalloc.stop()

    assert len(await engine.runs(flow="asks", status="waiting", limit=5 * some)) == 4 * some
    assert len(asyncio.all_tasks()) == tasks
    assert (sizes[-1] - sizes[0]) / (3 * some) < 500  # bytes a run
    assert (await flow.resume("r471", "yes")).state["said"] == "yes"
    assert await flow.recover() == [], "nobody has answered the others"
    await engine.close()
