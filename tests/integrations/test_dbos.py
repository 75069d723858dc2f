"""The engine on PostgreSQL does what every engine must do, and keeps what it keeps as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import pickle
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tests.core.durability.engine_contract import DONE, EngineContract, parking, saving, spec, step
from tests.support.dbos_worker import Chain, chain, done_in
from tests.support.postgres_server import PostgresServer, emptied, running

from agentflow.core import AsyncFlow, SharedState, emit, node
from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending, Interrupt
from agentflow.errors import DurabilityError
from agentflow.integrations.dbos import DbosDurability, QueueLimits, Tokens

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that nobody disturbs."""
    with running() as server:
        server.create("runs")
        yield server


@pytest.fixture(scope="module")
def shared(server: PostgresServer) -> Iterator[DbosDurability]:
    """One for all tests: it opens itself again when it was closed."""
    engine = DbosDurability(server.url("runs"), polling=0.05, beat=0.2, grace=0.5)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def engine(server: PostgresServer, shared: DbosDurability) -> DbosDurability:
    emptied(server, "runs")
    return shared


class TestDbos(EngineContract):
    """Each run of it begins with no runs."""


# ---- the journal ---------------------------------------------------------------------------------------------


async def test_branches_may_finish_in_another_order_when_a_run_goes_on(engine: DbosDurability, tmp_path: Path) -> None:
    """Records are found by their ids, so the order in which DBOS counted them binds nobody."""
    log = tmp_path / "log"

    async def first(journal: Journal) -> Ending:
        for number in (2, 0):
            await journal.save(step(f"chain/branch-{number}#1"))
        return Ending("failed", error="killed, say")

    what = chain("r1", branches=4, order=[3, 1, 2, 0])
    await engine.execute(what, first)
    assert await engine.execute(what, Chain(what, log)) == Ending("done", "4")
    assert [note["id"] for note in done_in(log) if note["what"] == "end"] == ["chain/branch-3#1", "chain/branch-1#1"]
    assert [record.id for record in await engine.records("r1")] == [
        f"chain/branch-{number}#1" for number in (2, 0, 3, 1)
    ]


async def test_records_may_be_saved_from_other_threads_and_loops(engine: DbosDurability) -> None:
    async def body(journal: Journal) -> Ending:
        await asyncio.gather(
            *(asyncio.to_thread(lambda n=n: asyncio.run(journal.save(step(f"a/{n}")))) for n in range(5))
        )
        return DONE

    assert await engine.execute(spec(), body) == DONE
    assert {record.id for record in await engine.records("r1")} == {f"a/{number}" for number in range(5)}


async def test_of_two_records_of_one_id_the_one_saved_later_counts(engine: DbosDurability) -> None:
    """However the threads that write them overtake each other."""

    async def body(journal: Journal) -> Ending:
        await asyncio.gather(*(journal.save(step("a/x#1", str(number))) for number in range(20)))
        return Ending("waiting")

    await engine.execute(spec(), body)
    assert [record.body for record in await engine.records("r1")] == ["19"]


async def test_a_body_sees_what_surrounds_its_caller_and_nothing_of_dbos(engine: DbosDurability) -> None:
    from dbos import DBOS

    seen: list[object] = []
    colour: ContextVar[str] = ContextVar("colour", default="none")

    async def body(journal: Journal) -> Ending:
        seen.extend([colour.get(), DBOS.workflow_id, asyncio.get_running_loop() is loop])
        return DONE

    loop = asyncio.get_running_loop()
    colour.set("blue")
    await engine.execute(spec(), body)
    assert seen == ["blue", None, True]


async def test_a_run_may_run_another(engine: DbosDurability) -> None:
    async def body(journal: Journal) -> Ending:
        return await engine.execute(spec("r2"), saving(step("b/x#1")))

    assert await engine.execute(spec(), body) == DONE
    assert [info.run_id for info in await engine.runs()] == ["r2", "r1"]


async def test_the_loop_of_a_caller_is_left_as_it_was(engine: DbosDurability) -> None:
    """DBOS puts a thread pool under the loops it is used from, which is gone when it was closed."""
    await engine.execute(spec(), saving(step("a/x#1")))
    await engine.close()
    assert await asyncio.to_thread(lambda: 3) == 3


async def test_nothing_is_pickled(engine: DbosDurability, server: PostgresServer) -> None:
    """Neither what runs are made of nor what goes wrong in them."""
    question = Interrupt("a/j#1!wait:1", "a/j#1", "Well?", {"draft": "…"})

    async def failing(journal: Journal) -> Ending:
        raise ValueError("no tides today")

    await engine.execute(spec("parked"), parking(question))
    await engine.answer("parked", {question.id: '{"yes": true}'})
    await engine.execute(spec("parked"), parking(question))
    await engine.fork(spec("forked", forked_from="parked"), None)
    with pytest.raises(ValueError, match="no tides"):
        await engine.execute(spec("failed"), failing)
    texts = [text for text in texts_in(server) if text]
    assert len(texts) >= 7
    for text in texts:
        json.loads(text)
        with pytest.raises((binascii.Error, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError)):
            pickle.loads(base64.b64decode(text, validate=True))


def texts_in(server: PostgresServer) -> list[str]:
    """Whatever DBOS has serialised."""
    columns = {
        "workflow_status": ("inputs", "output", "error"),
        "workflow_input": ("inputs",),
        "workflow_output": ("output", "error"),
        "operation_outputs": ("output", "error"),
        "notifications": ("message",),
        "workflow_events": ("value",),
        "streams": ("value",),
    }
    return [
        text
        for table, names in columns.items()
        for name in names
        for (text,) in server.query("runs", f"SELECT {name} FROM dbos.{table}")
    ]


# ---- watching from here --------------------------------------------------------------------------------------


async def test_pieces_are_seen_while_a_run_goes_on(engine: DbosDurability) -> None:
    seen: list[str] = []
    arrived, go = asyncio.Event(), asyncio.Event()

    async def body(journal: Journal) -> Ending:
        assert engine.publish("r1", "Once ")
        assert engine.publish("r1", "upon ")
        await arrived.wait()
        engine.publish("r1", "a time")
        return DONE

    async def watch() -> None:
        async for piece in engine.stream("r1"):
            seen.append(piece)
            arrived.set()

    task = asyncio.create_task(engine.execute(spec(), body))
    while not await engine.runs():
        await asyncio.sleep(0.01)
    await watch()
    go.set()
    assert await task == DONE
    assert seen == ["Once ", "upon ", "a time"]
    assert not engine.publish("r1", "too late")
    assert await engine.records("r1") == []


async def test_the_tokens_of_a_flow_are_seen_from_anywhere(engine: DbosDurability) -> None:
    seen, arrived = [], asyncio.Event()

    @node
    async def tell(state: SharedState) -> None:
        for piece in ("Once ", "upon ", ""):
            await emit("chunk", {"content": piece})
        await arrived.wait()
        await emit("chunk", {"content": "a time"})

    async def watch() -> None:
        async for piece in engine.stream("r1"):
            seen.append(piece)
            arrived.set()

    flow = AsyncFlow(tell, durability=engine)
    running = asyncio.create_task(flow.run(run_id="r1", observers=[Tokens(engine)]))
    while not await engine.runs():
        await asyncio.sleep(0.01)
    await watch()

    assert (await running).status == "done"
    assert "".join(seen) == "Once upon a time"


async def test_pieces_of_a_run_that_is_not_there(engine: DbosDurability) -> None:
    with pytest.raises(DurabilityError):
        assert [piece async for piece in engine.stream("nobody")] == []


# ---- one engine ----------------------------------------------------------------------------------------------


async def test_a_process_has_one_engine(engine: DbosDurability, server: PostgresServer) -> None:
    await engine.runs()
    with pytest.raises(DurabilityError, match="open DbosDurability"):
        await DbosDurability(server.url("runs")).runs()
    assert await engine.runs() == []


async def test_an_engine_in_use_does_not_begin_to_work(engine: DbosDurability) -> None:
    await engine.runs()
    with pytest.raises(DurabilityError, match="of its own"):
        await engine.work(asyncio.Event())


async def test_an_engine_without_a_queue_has_nothing_to_put_runs_into(engine: DbosDurability) -> None:
    with pytest.raises(DurabilityError, match="queue="):
        await engine.submit(spec())
    with pytest.raises(DurabilityError, match="queue="):
        await engine.schedule("nightly", "0 3 * * *", spec())


@pytest.mark.parametrize(
    "given",
    [
        {"database_url": "mysql://db/runs"},
        {"database_url": "postgresql://db"},
        {"database_url": "postgresql://me:s3cret@db:port/runs"},
        {"database_url": "postgresql://db/runs", "limits": QueueLimits(concurrency=1)},
    ],
)
def test_what_is_wrong_with_an_engine_is_said_when_it_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"database_url|limits") as caught:
        DbosDurability(**given)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("given", [{"concurrency": 0}, {"per_worker": -1}, {"starts": 0}, {"period": 0.0}])
def test_limits_leave_something(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        QueueLimits(**given)
