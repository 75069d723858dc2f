"""A server that goes away and comes back, a run that was taken from us, and errors that give no secret away."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import DONE, Doing, begun, saving, spec, step
from tests.support.dbos_processes import work_in, workers
from tests.support.dbos_worker import chain
from tests.support.postgres_server import PASSWORD, PostgresServer, running
from tests.support.programs import free_port

from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending
from agentflow.errors import DurabilityError, RunHeldError, SerializationError
from agentflow.integrations.dbos import DbosDurability
from agentflow.integrations.dbos.leases import Lease, Leases

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """What it has committed survives its own death, too."""
    with running(durable=True) as server:
        server.create("runs")
        yield server


@pytest.fixture
async def engine(server: PostgresServer) -> AsyncIterator[DbosDurability]:
    engine = DbosDurability(server.url("runs"), polling=0.05, beat=0.1, grace=1.0)
    yield engine
    for info in await engine.runs():
        await engine.delete(info.run_id)
    await engine.close()


# ---- the server ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_a_run_goes_on_when_the_server_was_away(server: PostgresServer, engine: DbosDurability, how: str) -> None:
    """Each step is done once, and kept: a save waits until the server is back."""
    done: list[int] = []

    async def body(journal: Journal) -> Ending:
        for number in range(6):
            done.append(number)
            await journal.save(step(f"a/{number}"))
            if number == 2:
                await asyncio.to_thread(server.stop if how == "restarted" else server.kill)
                asyncio.get_running_loop().call_later(0.3, back.set)
        return DONE

    async def bring_it_back() -> None:
        await back.wait()
        await asyncio.to_thread(server.start)

    back = asyncio.Event()
    starting = asyncio.create_task(bring_it_back())
    assert await engine.execute(spec(), body) == DONE
    await starting
    assert done == list(range(6))
    assert [record.id for record in await engine.records("r1")] == [f"a/{number}" for number in range(6)]


async def test_workers_keep_their_runs_when_the_server_was_away(
    server: PostgresServer, engine: DbosDurability, tmp_path: Path
) -> None:
    """All locks are gone with it, and every worker takes its own again before others count it for dead."""
    await engine.close()
    log = tmp_path / "log"
    job = {"url": server.url("runs"), "log": str(log), "queue": "jobs", "timing": {"grace": 5.0}}
    with workers(2, **job):
        caller = DbosDurability(server.url("runs"), queue="jobs", polling=0.1, beat=0.1, grace=5.0)
        for number in range(6):
            await caller.submit(chain(f"r{number}", steps=4, seconds=0.3))
        while not work_in(log):
            await asyncio.sleep(0.02)
        await asyncio.to_thread(server.restart)
        while len(await caller.runs(status="done")) < 6:
            await asyncio.sleep(0.1)
        await caller.close()
    assert set(work_in(log).values()) == {1}
    assert len(work_in(log)) == 24


async def test_a_call_does_not_wait_for_ever(server: PostgresServer) -> None:
    engine = DbosDurability(server.url("runs"), beat=0.1, patience=1.0)
    await engine.runs()
    server.stop()
    try:
        with pytest.raises(DurabilityError, match="has not answered for 1 s"):
            await engine.runs()
    finally:
        server.start()
    await engine.close()


async def test_a_lease_is_taken_again(server: PostgresServer) -> None:
    leases = Leases(server.url("runs"), 1.0)
    lease = Lease(leases, "one", 0.05)
    assert lease.take()
    assert not Lease(leases, "one", 0.05).take()
    assert leases.alive({"one", "two"}) == {"one"}
    server.query("runs", "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    while lease.held_for() > 0:
        await asyncio.sleep(0.01)
    while not lease.held_for():
        await asyncio.sleep(0.01)
    assert leases.alive({"one"}) == {"one"}
    assert not await asyncio.to_thread(leases.is_dead, "one")
    lease.give_up()
    assert await asyncio.to_thread(leases.is_dead, "one")


# ---- taken for dead ------------------------------------------------------------------------------------------


def taken_from_us(server: PostgresServer) -> None:
    """What a take-over and the next execution do to the row."""
    server.query("runs", "UPDATE dbos.workflow_status SET owner_xid = 'theirs', executor_id = 'theirs'")


async def test_a_run_that_was_taken_over_saves_nothing_more(server: PostgresServer) -> None:
    """The fence behind the leases: DBOS keeps what bears the row's token, and nothing else. This process, which looks
    after its runs once a minute, hears of it in no other way."""
    engine = DbosDurability(server.url("runs"), beat=60.0, grace=1.0)
    went_on: list[str] = []

    async def body(journal: Journal) -> Ending:
        await journal.save(step("a/x#1"))
        await asyncio.to_thread(taken_from_us, server)
        await journal.save(step("a/y#1"))
        went_on.append("after the save that was refused")
        return DONE

    with pytest.raises(RunHeldError):
        await engine.execute(spec(), body)
    assert went_on == []
    assert [record.id for record in await engine.records("r1")] == ["a/x#1"]
    assert (await engine.find("r1")).status == "lost"
    await engine.delete("r1")
    await engine.close()


async def test_a_body_whose_run_was_taken_over_is_ended(server: PostgresServer, engine: DbosDurability) -> None:
    """Also while it saves nothing."""
    doing = Doing(step("a/x#1"))
    task = await begun(engine, doing)
    await asyncio.to_thread(taken_from_us, server)
    with pytest.raises(RunHeldError) as caught:
        await task
    assert doing.cancelled
    assert caught.value.owner == "theirs"


# ---- words ---------------------------------------------------------------------------------------------------


async def test_no_secret_is_told(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by errors, their causes and their tracebacks, nor in the log: no password and nothing of what is run."""
    caplog.set_level(logging.DEBUG)
    wrong = "wr0ng-password"
    nowhere = f"postgresql://agentflow:{PASSWORD}@127.0.0.1:{free_port()}/runs"
    told = ""
    for url in (nowhere, server.url("runs", password=wrong), f"postgresql://agentflow:{PASSWORD}@127.0.0.1:1/runs?x=1"):
        engine = DbosDurability(url, patience=2.0)
        with pytest.raises(DurabilityError) as caught:
            await engine.runs()
        told += "".join(map(str, chain_of(caught.value)))
        assert caught.value.__cause__ is not None
        await engine.close()
    engine = DbosDurability(server.url("runs"))
    await engine.execute(spec(inputs='{"card":"4111-1111"}'), saving(step("a/x#1", '"4111-1111"')))
    await engine.delete("r1")
    await engine.close()
    told += caplog.text
    for secret in (PASSWORD, wrong, "4111-1111"):
        assert secret not in told


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def test_a_payload_that_cannot_be_stored_fails_the_run_and_says_why(engine: DbosDurability) -> None:
    from agentflow.core.durability.records import Interrupt

    async def body(journal: Journal) -> Ending:
        return Ending("waiting", interrupts=(Interrupt("a/j#1!wait:1", "a/j#1", "Well?", object()),))

    with pytest.raises(SerializationError, match="a/j#1"):
        await engine.execute(spec(), body)
    assert (await engine.find("r1")).status == "failed"


async def test_a_run_goes_on_after_many_records(engine: DbosDurability) -> None:
    """What earlier executions saved is read at once, and costs no step again."""
    records = [step(f"a/{number}", json.dumps({"number": number})) for number in range(300)]

    async def body(journal: Journal) -> Ending:
        await asyncio.gather(*map(journal.save, records))
        return Ending("waiting")

    await engine.execute(spec(), body)
    begun_at = time.perf_counter()
    assert await engine.execute(spec(), saving(*records)) == DONE
    assert await engine.records("r1") == records
    assert time.perf_counter() - begun_at < 20
