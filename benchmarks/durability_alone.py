"""What `durability.py` measures in a process of its own, as it is about what a fresh process needs or holds.

python benchmarks/durability_alone.py WHAT FOLDER NUMBER     prints one line of JSON

keep, resume         a run of so many steps that waits for an answer; go on with it
keep-lg, resume-lg   the same in LangGraph
park                 so many runs that wait for an answer, one in a hundred of them for an hour at most
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentflow import END, AsyncFlow, interrupt, node
from agentflow.core import SharedState
from agentflow.core.durability.sqlite import SqliteDurability
from durability_sides import MOST, State, counted, size_of

DUE, SOON = 100, 3600.0
"""One run in so many is due, within so many seconds."""


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def most_resident() -> int:
    """The most that it was. What `getrusage` says began before this program did."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@node
async def ask(state: SharedState) -> None:
    state["answer"] = await interrupt("Go on?")


@node
async def ask_in_time(state: SharedState) -> None:
    state["answer"] = await interrupt("Go on?", timeout=state["timeout"], default="yes")  # type: ignore[arg-type]


def long_flow() -> AsyncFlow:
    return AsyncFlow(counted.on("again") >> counted, counted.on("stop") >> ask >> END, name="long", max_steps=MOST)


async def keep(folder: Path, steps: int) -> dict[str, Any]:
    engine = SqliteDurability(folder / "runs.db")
    state = {"n": 0, "limit": steps, "size": 0, "grows": False}
    result = await long_flow().run(state, run_id="long", durability=engine)
    assert result.status == "interrupted"
    await engine.close()
    return {}


async def resume(folder: Path, steps: int) -> dict[str, Any]:
    engine, flow = SqliteDurability(folder / "runs.db"), long_flow()

    async def go_on() -> int:
        result = await flow.resume("long", "yes", durability=engine)
        number: Any = result.state["n"]
        return number

    return await measured(go_on, steps)


async def measured(go_on: Callable[[], Awaitable[int]], steps: int) -> dict[str, Any]:
    gc.collect()
    before, cpu, wall = resident(), time.process_time(), time.perf_counter()
    assert await go_on() == steps
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "more": most_resident() - before}


async def park(folder: Path, runs: int) -> dict[str, Any]:
    """Each run is a step and a question. What the first few need once is not counted."""
    engine = SqliteDurability(folder / "runs.db")
    flow = AsyncFlow(counted.on("again") >> counted, counted.on("stop") >> ask_in_time >> END, name="short")

    async def one(number: int) -> None:
        timeout = SOON if number % DUE == 0 else 1e6
        state = {"n": 0, "limit": 1, "size": 0, "grows": False, "timeout": timeout}
        result = await flow.run(state, durability=engine)
        assert result.status == "interrupted"

    for number in range(1, DUE):
        await one(number)
    gc.collect()
    before, cpu = resident(), time.process_time()
    for number in range(runs):
        await one(number)
    cpu = time.process_time() - cpu
    gc.collect()
    held, tasks = resident() - before, len(asyncio.all_tasks()) - 1
    listing = await listed(engine, runs // DUE)
    await engine.close()
    bytes_ = size_of(folder) / (runs + DUE - 1)
    return {"held": held / runs, "tasks": tasks, "cpu": cpu / runs, "bytes": bytes_, **listing}


async def listed(engine: SqliteDurability, due: int) -> dict[str, Any]:
    """Seconds of CPU for a list of those that are due, and of the hundred newest."""
    began = time.process_time()
    found = await engine.runs(status="waiting", due=time.time() + SOON, limit=MOST)
    due_took = time.process_time() - began
    assert len(found) == due, f"{len(found)} are due"
    began = time.process_time()
    assert len(await engine.runs(limit=100)) == 100
    return {"due": due_took, "newest": time.process_time() - began}


# ---- LangGraph ---------------------------------------------------------------------------------------------------


def long_graph(saver: Any) -> Any:
    from langgraph.graph import END as STOP
    from langgraph.graph import START, StateGraph
    from langgraph.types import interrupt as wait

    async def counting(state: State) -> State:
        return State(n=state["n"] + 1)

    def following(state: State) -> str:
        return "count" if state["n"] < state["limit"] else "ask"

    async def asking(state: State) -> State:
        wait("Go on?")
        return State()

    graph: Any = StateGraph(State)
    graph.add_node("count", counting)
    graph.add_node("ask", asking)
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", following, ["count", "ask"])
    graph.add_edge("ask", STOP)
    return graph.compile(checkpointer=saver)


async def in_graph(folder: Path, steps: int, what: str) -> dict[str, Any]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.types import Command

    said: Any = {"configurable": {"thread_id": "long"}, "recursion_limit": MOST}
    async with AsyncSqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA synchronous = NORMAL")
        graph = long_graph(saver)
        if what == "keep-lg":
            await graph.ainvoke(State(n=0, limit=steps), said)
            return {}

        async def go_on() -> int:
            state = await graph.ainvoke(Command(resume="yes"), said)
            number: int = state["n"]
            return number

        return await measured(go_on, steps)


def main(what: str, folder: Path, number: int) -> None:
    ways = {"keep": keep, "resume": resume, "park": park}
    work = ways[what](folder, number) if what in ways else in_graph(folder, number, what)
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
