"""Many processes on one PostgreSQL: work is shared, limits hold, and what a dead one had is finished by the others."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.dbos_processes import ended, most_at_once, started, work_in, workers
from tests.support.dbos_worker import Chain, chain, done_in
from tests.support.postgres_server import PostgresServer, emptied, running

from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending, Interrupt, Record, RunInfo, RunSpec
from agentflow.errors import RunEndedError
from agentflow.integrations.dbos import DbosDurability, QueueLimits

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

TIMING = {"polling": 0.1, "beat": 0.2, "grace": 1.0}
CREW = "crew"
"""The queue of two workers that all tests share that do not kill any."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running() as server:
        server.create("runs")
        yield server


@pytest.fixture(scope="module")
def crew(server: PostgresServer) -> Iterator[None]:
    with workers(2, url=server.url("runs"), queue=CREW):
        yield


@pytest.fixture
async def crewed(server: PostgresServer, crew: None) -> AsyncIterator[DbosDurability]:
    """Its runs are executed by the crew."""
    emptied(server, "runs")
    engine = DbosDurability(server.url("runs"), queue=CREW, **TIMING)
    yield engine
    await engine.close()


@pytest.fixture
def queue() -> str:
    """One that nobody else uses, as limits stay with a queue."""
    return f"queue-{uuid4().hex[:8]}"


@pytest.fixture
async def engine(server: PostgresServer, queue: str) -> AsyncIterator[DbosDurability]:
    """One that puts runs into the queue, and runs none."""
    emptied(server, "runs")
    engine = DbosDurability(server.url("runs"), queue=queue, **TIMING)
    yield engine
    await engine.close()


def job(server: PostgresServer, queue: str, **more: object) -> dict[str, Any]:
    return {"url": server.url("runs"), "queue": queue, **more}


def ended_by_itself(process: Any) -> int:
    code: int = process.wait(60)
    ended(process)
    return code


async def until(condition: Callable[[], bool], process: Any = None) -> None:
    """The tests' own time limit is the only one."""
    while not condition():
        assert process is None or process.poll() is None
        await asyncio.sleep(0.02)


async def all_done(engine: DbosDurability, count: int, named: str = "") -> list[RunInfo]:
    """So many whose ids begin so: what a schedule has begun in an earlier test may end beside them."""
    while True:
        done = [each for each in await engine.runs(status="done") if each.run_id.startswith(named)]
        if len(done) >= count:
            return done
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("count", [2, 4])
async def test_others_finish_what_a_killed_worker_had(
    server: PostgresServer, engine: DbosDurability, queue: str, tmp_path: Path, count: int
) -> None:
    """Under load, one is killed: every run ends, no record's work is done more than twice, it was shared, and
    no more runs are under way than the queue allows."""
    log, runs = tmp_path / "log", 5 * count
    with workers(count, **job(server, queue, limits={"concurrency": 3 * count})) as processes:
        for number in range(runs):
            await engine.submit(chain(f"r{number}", steps=3, seconds=0.1, log=log))
        victim = processes[0]
        await until(lambda: any(note["pid"] == victim.pid for note in done_in(log)), victim)
        victim.kill()
        victim.wait()
        done = await all_done(engine, runs)
        for info in done:
            assert [record.id for record in await engine.records(info.run_id)] == [f"chain/{n}#1" for n in range(3)]
    times = work_in(log)
    assert set(times) == {f"r{number} chain/{step}#1" for number in range(runs) for step in range(3)}
    assert max(times.values()) <= 2
    shared = {note["pid"] for note in done_in(log)}
    assert shared <= {process.pid for process in processes}
    assert len(shared) >= 2  # whoever asks first may take as much as the queue lets out at once
    assert most_at_once(log, without=victim.pid) <= 3 * count


async def test_a_run_is_executed_by_one_worker_at_a_time(crewed: DbosDurability, tmp_path: Path) -> None:
    """Nobody is killed: each piece of work is done once."""
    log = tmp_path / "log"
    for number in range(20):
        await crewed.submit(chain(f"r{number}", steps=2, seconds=0.02, log=log))
    await all_done(crewed, 20)
    assert set(work_in(log).values()) == {1}
    assert len(work_in(log)) == 40


async def test_who_executes_a_run_in_a_queue_waits_for_its_end(crewed: DbosDurability, tmp_path: Path) -> None:
    log = tmp_path / "log"
    what = chain("r1", steps=3, ask=True, log=log)
    ending = await crewed.execute(what, Chain(what, log))
    assert (ending.status, [each.id for each in ending.interrupts]) == ("waiting", ["chain/2#1!wait:1"])
    await crewed.answer("r1", {"chain/2#1!wait:1": "true"})
    ending = await crewed.execute(what, Chain(what, log))
    assert ending == Ending("done", "5")
    assert len(work_in(log)) == 3
    assert set(work_in(log).values()) == {1}


async def test_parked_runs_take_no_place_in_a_queue(
    server: PostgresServer, engine: DbosDurability, queue: str, tmp_path: Path
) -> None:
    """One run may be under way, and three wait for people: the fourth runs."""
    log = tmp_path / "log"
    with workers(1, **job(server, queue, limits={"concurrency": 1})):
        for number in range(3):
            await engine.submit(chain(f"parked{number}", steps=1, ask=True, log=log))
        what = chain("r1", steps=1, log=log)
        assert (await engine.execute(what, Chain(what, log))).status == "done"
        waiting = await engine.runs(status="waiting")
        assert {info.run_id for info in waiting} == {"parked0", "parked1", "parked2"}


async def test_no_more_runs_begin_than_the_rate_allows(
    server: PostgresServer, engine: DbosDurability, queue: str, tmp_path: Path
) -> None:
    """3 in any 2 seconds, whichever of two workers has them."""
    log = tmp_path / "log"
    with workers(2, **job(server, queue, limits={"starts": 3, "period": 2.0})):
        for number in range(8):
            await engine.submit(chain(f"r{number}", steps=1, log=log))
        await all_done(engine, 8)
    begun = [at for (at,) in server.query("runs", _STARTED)]
    assert len(begun) == 8
    assert all(later - sooner >= 2000 for sooner, later in zip(begun, begun[3:], strict=False))


_STARTED = """SELECT started_at_epoch_ms FROM dbos.workflow_status
              WHERE name = 'agentflow_run' ORDER BY started_at_epoch_ms"""


async def test_a_cancelled_run_ends_where_it_is_executed(crewed: DbosDurability, tmp_path: Path) -> None:
    log = tmp_path / "log"
    what = chain("r1", steps=2, seconds=60.0, log=log)
    task = asyncio.create_task(crewed.execute(what, Chain(what, log)))
    await until(lambda: bool(work_in(log)))
    assert await crewed.cancel("r1")
    with pytest.raises(RunEndedError):
        await task
    await until(lambda: [note["what"] for note in done_in(log)] == ["begin", "cancelled"])
    assert (await crewed.find("r1")).status == "cancelled"


async def test_a_cancelled_caller_ends_what_a_worker_executes(crewed: DbosDurability, tmp_path: Path) -> None:
    """And the run may go on."""
    log = tmp_path / "log"
    what = chain("r1", steps=3, seconds=3.0, log=log)  # a worker hears of it within a second
    task = asyncio.create_task(crewed.execute(what, Chain(what, log)))
    await until(lambda: len(work_in(log)) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await crewed.find("r1")).status == "cancelled"
    ending = await crewed.execute(what, Chain(what, log))
    assert ending.status == "done", ending
    times = work_in(log)
    assert times["r1 chain/0#1"] == 1
    assert times["r1 chain/2#1"] == 1


async def test_records_and_pieces_are_seen_from_another_process(crewed: DbosDurability, tmp_path: Path) -> None:
    log = tmp_path / "log"
    await crewed.submit(chain("r1", steps=3, seconds=0.2, publish=True, log=log))
    seen = [record.id async for record in crewed.follow("r1")]
    assert seen == [f"chain/{number}#1" for number in range(3)]
    assert [piece async for piece in crewed.stream("r1")] == ["0 ", "1 ", "2 "]


async def test_a_schedule_begins_runs(crewed: DbosDurability, tmp_path: Path) -> None:
    """Every second, here; two workers begin each moment's run once."""
    log = tmp_path / "log"
    await crewed.schedule("tides", "* * * * * *", chain("any", steps=1, log=log))
    done = await all_done(crewed, 3)
    await crewed.unschedule("tides")
    names = sorted(info.run_id for info in done)
    assert all(name.startswith("tides.") for name in names)
    moments = [int(name.split("T")[1].split(".")[0]) for name in names]
    assert all(sooner < later for sooner, later in pairwise(moments))
    assert set(work_in(log).values()) == {1}


async def test_a_schedule_is_triggered_by_hand(crewed: DbosDurability, tmp_path: Path) -> None:
    log = tmp_path / "log"
    await crewed.schedule("yearly", "0 0 1 1 *", chain("any", steps=1, log=log), timezone="Europe/London")
    await crewed.trigger("yearly")
    while not (begun := [each for each in await crewed.runs(status="done") if each.run_id.startswith("yearly.")]):
        await asyncio.sleep(0.1)
    await crewed.unschedule("yearly")
    [info] = begun
    assert info.spec.inputs == chain("any", steps=1, log=log).inputs


# ---- a worker in this process --------------------------------------------------------------------------------


@pytest.fixture
async def worker(server: PostgresServer, queue: str, tmp_path: Path) -> AsyncIterator[DbosDurability]:
    emptied(server, "runs")
    engine = DbosDurability(server.url("runs"), queue=queue, limits=QueueLimits(), **TIMING)
    engine.serve("chain", lambda spec: Chain(spec, tmp_path / "log"))
    stop = asyncio.Event()
    working = asyncio.create_task(engine.work(stop, drain=10.0))
    yield engine
    stop.set()
    await working


async def test_a_worker_runs_bodies_on_the_loop_that_it_works_on(worker: DbosDurability, tmp_path: Path) -> None:
    loops: list[object] = []

    def body_of(spec: RunSpec) -> Body:
        async def body(journal: Journal) -> Ending:
            loops.append(asyncio.get_running_loop())
            return Ending("done")

        return body

    worker.serve("looks", body_of)
    await worker.submit(RunSpec("r1", "looks"))
    await all_done(worker, 1, "r1")
    assert loops == [asyncio.get_running_loop()]


async def test_a_run_of_a_flow_that_nobody_serves_fails_and_says_so(worker: DbosDurability) -> None:
    await worker.submit(RunSpec("r1", "unheard-of"))
    while not (failed := await worker.runs(status="failed")):
        await asyncio.sleep(0.05)
    assert "unheard-of" in (failed[0].error or "")


async def test_a_parked_run_of_a_queue_goes_on_when_it_is_due(worker: DbosDurability) -> None:
    """Nobody calls: the moment is kept in the database."""

    def body_of(spec: RunSpec) -> Body:
        async def body(journal: Journal) -> Ending:
            timer = journal.find("sleeps#1!timer:1")
            if timer is None:
                timer = Record("sleeps#1!timer:1", "timer", json.dumps(time.time() + 0.5), time.time())
                await journal.save(timer)
            due = float(timer.body)
            if time.time() < due:
                waits = Interrupt(timer.id, "sleeps#1", "sleeps", due=due, kind="timer")
                return Ending("waiting", interrupts=(waits,))
            return Ending("done", action="woke")

        return body

    worker.serve("sleeps", body_of)
    await worker.submit(RunSpec("r1", "sleeps"))
    [info] = await all_done(worker, 1, "r1")
    assert info.action == "woke"


async def test_a_run_that_kills_its_processes_is_left_alone(server: PostgresServer, tmp_path: Path) -> None:
    """After two, here: the third worker does not die of it."""
    url, log = server.create("deadly"), tmp_path / "log"
    engine = DbosDurability(url, queue="deadly", **TIMING)
    await engine.submit(chain("r1", steps=1, log=log))
    await engine.close()
    options = {"url": url, "queue": "deadly", "die": "before 0", "timing": {"take_overs": 1}}
    for _ in range(2):
        assert ended_by_itself(started(**options)) == -signal.SIGKILL
    with workers(1, **options) as [process]:
        await asyncio.sleep(3 * TIMING["grace"])
        assert process.poll() is None
        assert ended(process) == 0
    assert work_in(log) == {"r1 chain/0#1": 2}


async def test_a_run_is_gone_on_with_by_a_worker_that_serves_its_flow(
    server: PostgresServer, worker: DbosDurability, tmp_path: Path
) -> None:
    """Also one that was in no queue, but in a process that died."""
    log = tmp_path / "log"
    child = started(
        url=server.url("runs"), log=str(log), execute="r1", inputs={"steps": 3, "log": str(log)}, die="after 1"
    )
    assert ended(child) != 0
    await all_done(worker, 1, "r1")
    assert work_in(log) == {f"r1 chain/{number}#1": 1 for number in range(3)}
