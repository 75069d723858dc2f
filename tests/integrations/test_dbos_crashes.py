"""Processes are killed with kill -9, and others go on: what had been saved is not done again, what was under way is."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.dbos_processes import ended, started, work_in
from tests.support.dbos_worker import Chain, chain
from tests.support.postgres_server import PostgresServer, emptied, running

from agentflow.core.durability.records import Ending
from agentflow.errors import RunHeldError
from agentflow.integrations.dbos import DbosDurability

pytestmark = pytest.mark.service

GRACE = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """It keeps what it says it keeps: fsync is on."""
    with running(durable=True) as server:
        server.create("runs")
        yield server


@pytest.fixture
async def engine(server: PostgresServer) -> AsyncIterator[DbosDurability]:
    emptied(server, "runs")
    engine = DbosDurability(server.url("runs"), polling=0.05, beat=0.2, grace=GRACE)
    yield engine
    await engine.close()


def killed(server: PostgresServer, log: Path, die: str, **inputs: object) -> None:
    """A process executes the run "r1" until it dies there."""
    child = started(url=server.url("runs"), log=str(log), execute="r1", inputs=inputs, die=die)
    assert ended(child) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("point", "repeated"), [("before 0", [0]), ("before 2", [2]), ("after 2", []), ("after 3", [])]
)
async def test_a_run_goes_on_in_another_process(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path, point: str, repeated: list[int]
) -> None:
    """It ends as an undisturbed one does. Only what was done and not yet saved was done twice."""
    killed(server, tmp_path / "log", point, steps=4)
    what = chain("r1", steps=4)
    assert (await engine.find("r1")).status == "lost"
    assert await engine.execute(what, Chain(what, tmp_path / "log")) == Ending("done", "4")
    assert (await engine.find("r1")).status == "done"
    assert [record.id for record in await engine.records("r1")] == [f"chain/{number}#1" for number in range(4)]
    twice = {f"r1 chain/{number}#1": 2 for number in repeated}
    assert work_in(tmp_path / "log") == {f"r1 chain/{number}#1": 1 for number in range(4)} | twice


@pytest.mark.parametrize("point", ["before branch-1", "after branch-1", "after branch-0"])
async def test_branches_go_on_in_another_order_in_another_process(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path, point: str
) -> None:
    killed(server, tmp_path / "log", point, branches=4, order=[3, 1, 0, 2])
    what = chain("r1", branches=4, order=[0, 2, 1, 3])
    info = await engine.find("r1")
    assert await engine.execute(info.spec, Chain(what, tmp_path / "log")) == Ending("done", "4")
    assert max(work_in(tmp_path / "log").values()) <= 2
    assert {record.id for record in await engine.records("r1")} == {f"chain/branch-{number}#1" for number in range(4)}


async def test_a_process_that_dies_when_it_has_asked_loses_no_question(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path
) -> None:
    killed(server, tmp_path / "log", "parked", steps=3, ask=True)
    what = chain("r1", steps=3, ask=True)
    ending = await engine.execute(what, Chain(what, tmp_path / "log"))
    assert [each.id for each in ending.interrupts] == ["chain/2#1!wait:1"]
    await engine.answer("r1", {"chain/2#1!wait:1": "true"})
    await engine.close()  # an answer survives its process, too
    again = DbosDurability(server.url("runs"), polling=0.05, beat=0.2, grace=GRACE)
    assert (await again.execute(what, Chain(what, tmp_path / "log"))).status == "done"
    await again.close()
    assert set(work_in(tmp_path / "log").values()) == {1}


async def test_an_answer_reaches_a_run_whose_process_died(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path
) -> None:
    killed(server, tmp_path / "log", "parked", steps=3, ask=True)
    await engine.answer("r1", {"chain/2#1!wait:1": "true"})
    what = chain("r1", steps=3, ask=True)
    assert (await engine.execute(what, Chain(what, tmp_path / "log"))).status == "done"


async def test_a_parked_run_goes_on_in_another_process(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path
) -> None:
    child = started(url=server.url("runs"), log=str(tmp_path / "log"), execute="r1", inputs={"steps": 2, "ask": True})
    assert ended(child) == 0
    what = chain("r1", steps=2, ask=True)
    assert (await engine.find("r1")).status == "waiting"
    await engine.answer("r1", {"chain/1#1!wait:1": "true"})
    assert (await engine.execute(what, Chain(what, tmp_path / "log"))).status == "done"
    assert set(work_in(tmp_path / "log").values()) == {1}


async def test_a_run_is_not_taken_from_a_process_that_lives(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    child = started(url=server.url("runs"), log=str(log), execute="r1", inputs={"steps": 1, "seconds": 60})
    try:
        while not work_in(log):
            assert child.poll() is None
        what = chain("r1", steps=1, seconds=60)
        with pytest.raises(RunHeldError) as caught:
            await engine.execute(what, Chain(what, log))
        assert caught.value.owner
        assert (await engine.find("r1")).status == "running"
        assert await engine.cancel("r1")  # and it hears of that
        assert child.wait(30) == 1
    finally:
        child.kill()
        ended(child)
    assert (await engine.find("r1")).status == "cancelled"
