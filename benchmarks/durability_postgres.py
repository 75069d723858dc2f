"""Who takes part in `durability.py` on PostgreSQL, each in a process of its own: DBOS allows one instance in each.

python benchmarks/durability_postgres.py SIDE URL      a line {"steps": n} in, a line of seconds out

dbos        a workflow of DBOS that awaits a step of it in a loop, and nothing else
agentflow   the loop of `durability_sides.py`, kept by DbosDurability
langgraph   the same with LangGraph's AsyncPostgresSaver
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from durability_sides import LangGraph, Ours

ROOT = Path(__file__).resolve().parent.parent

Loop = Callable[[int], Awaitable[None]]


@contextmanager
def server() -> Iterator[Any]:
    """A PostgreSQL as Debian sets it up: fsync and all that is on. None where it cannot be started."""
    sys.path.insert(0, str(ROOT))
    import pytest
    from tests.support.postgres_server import running

    try:
        started = running(durable=True)
        made = started.__enter__()
    except pytest.skip.Exception as why:
        print(f"durability: {why}", file=sys.stderr)
        yield None
        return
    try:
        yield made
    finally:
        started.__exit__(None, None, None)


@asynccontextmanager
async def plain_dbos(url: str) -> AsyncIterator[Loop]:
    from dbos import DBOS, DBOSConfig

    logging.getLogger("dbos").addHandler(logging.NullHandler())
    DBOS(config=DBOSConfig(name="bench", system_database_url=url))

    async def add(number: int) -> int:
        return number + 1

    @DBOS.workflow()
    async def loop(steps: int) -> int:
        number = 0
        while number < steps:
            number = await DBOS.run_step_async({"name": "count"}, add, number)
        return number

    DBOS.launch()

    async def run(steps: int) -> None:
        assert await loop(steps) == steps

    try:
        yield run
    finally:
        DBOS.destroy()


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Loop]:
    from agentflow.integrations.dbos import DbosDurability

    engine = DbosDurability(url)
    try:
        yield Ours(engine).loop
    finally:
        await engine.close()


@asynccontextmanager
async def langgraph(url: str) -> AsyncIterator[Loop]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()
        yield LangGraph(saver, "async").loop


SIDES = {"dbos": plain_dbos, "agentflow": ours, "langgraph": langgraph}


async def answer(side: str, url: str) -> None:
    loop = asyncio.get_running_loop()
    async with SIDES[side](url) as run:
        await run(2)  # everything is open then
        print(json.dumps({"ready": side}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            steps = json.loads(line)["steps"]
            cpu, wall = time.process_time(), time.perf_counter()
            await run(steps)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            print(json.dumps({"cpu": cpu / steps, "wall": wall / steps}), flush=True)


if __name__ == "__main__":
    asyncio.run(answer(*sys.argv[1:]))
