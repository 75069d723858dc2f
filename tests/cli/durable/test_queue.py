"""`agentflow worker --queue` on a real PostgreSQL: a run that was put into a queue is run by it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgres_server import PostgresServer, running

from agentflow.core import AsyncFlow, node
from agentflow.integrations.dbos import DbosDurability

pytestmark = pytest.mark.service

FLOW = """
from agentflow import *

@node(writes="output")
async def work(): return "worked"

flow = AsyncFlow(work, name="works")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running() as server:
        server.create("runs")
        yield server


async def ended(engine: DbosDurability, run_id: str, patience: float = 60.0) -> str:
    """How the run stands when it has been run, or after so long."""
    end = time.monotonic() + patience
    while (status := (await engine.find(run_id)).status) in ("running", "waiting") and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return status


async def test_a_worker_runs_what_stands_in_the_queue_and_ends_when_it_is_asked_to(
    server: PostgresServer, place: Path, spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "f.py").write_text(FLOW)
    monkeypatch.setenv("AGENTFLOW_DATABASE", server.url("runs"))
    process = spawn("worker", "f.py", "--queue", "jobs")

    @node(writes="output")
    async def work() -> str:
        raise AssertionError("it is the worker that runs it")

    engine = DbosDurability(server.url("runs"), queue="jobs", polling=0.1)
    try:
        await engine.submit(AsyncFlow(work, name="works").spec({}, run_id="r"))
        assert await ended(engine, "r") == "done"
    finally:
        await engine.close()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 60) == 0
    assert b"Traceback" not in process.stderr.read()
