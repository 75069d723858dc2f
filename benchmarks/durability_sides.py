"""Who takes part in `durability.py` on SQLite: the same work, kept by each in its own way.

    loop     a step that writes a number, and a text where one is wanted, and is visited again until there were enough
    each     one function over many items, and their results in a list

A side is a context manager: `async with side(folder) as kept: await kept.loop(100)`. LangGraph is imported where it is
used, so that the others run without it.
"""

from __future__ import annotations

import operator
import random
import sqlite3
import string
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypedDict

from agentflow import END, AsyncFlow, AsyncNode, Each, Key, node
from agentflow.core import SharedState
from agentflow.core.durability.sqlite import SqliteDurability

LETTERS = string.ascii_letters + string.digits
TEXTS = 64
MOST = 1_000_000
"""Steps of one run."""


class Kept(Protocol):
    """`loop` writes a text of `size` bytes at each step, or adds it to a list."""

    async def loop(self, steps: int, size: int = 0, *, grows: bool = False) -> None: ...
    async def each(self, items: int) -> None: ...


Side = Callable[[Path], AbstractAsyncContextManager[Kept]]


@cache
def texts(size: int) -> list[str]:
    """Texts that cannot be packed well, always the same."""
    letters = random.Random(size)
    return ["".join(letters.choices(LETTERS, k=size)) for _ in range(TEXTS)]


def text(number: int, size: int) -> str:
    """Another one at every step, so that nothing is the same thing kept twice."""
    return f"{number:08}{texts(size - 8)[number % TEXTS]}"


# ---- AgentFlow ---------------------------------------------------------------------------------------------------

LOG = Key[list[str]]("log", reduce=operator.add, initial=list)


def after(state: Any, number: int) -> str:
    """What a step does beside counting, and the action that follows."""
    if state["size"]:
        made = text(number, state["size"])
        if state["grows"]:
            state.add(LOG, [made])
        else:
            state["text"] = made
    state["n"] = number
    return "again" if number < state["limit"] else "stop"


@node
async def counted(state: SharedState) -> str:
    """One record a step: nothing of the program's own runs after the function."""
    number: Any = state["n"]
    return after(state, number + 1)


class Counting(AsyncNode[int, int]):
    """Two records a step: what exec returned is kept before post runs."""

    async def prep(self, state: SharedState) -> int:
        number: Any = state["n"]
        return number

    async def exec(self, item: int) -> int:
        return item + 1

    async def post(self, state: SharedState, item: int, result: int) -> str:
        return after(state, result)


async def double(item: int) -> int:
    return 2 * item


class Ours:
    """`engine` None keeps nothing."""

    def __init__(self, engine: Any, *, two_records: bool = False) -> None:
        step: Any = Counting(name="count") if two_records else counted.named("count")
        flow = AsyncFlow(step.on("again") >> step, step.on("stop") >> END, name="loop", max_steps=MOST)
        self._loop = partial(flow.run, durability=engine)
        each = AsyncFlow(Each(double, over="items", into="doubled", name="each"), name="each")
        self._each = partial(each.run, durability=engine)

    async def loop(self, steps: int, size: int = 0, *, grows: bool = False) -> None:
        result = await self._loop({"n": 0, "limit": steps, "size": size, "grows": grows})
        assert result.state["n"] == steps

    async def each(self, items: int) -> None:
        result = await self._each({"items": list(range(items))})
        assert result.state["doubled"] == list(range(0, 2 * items, 2))


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[Kept]:
    yield Ours(None)


def ours(sync: Literal["normal", "full"], *, two_records: bool = False) -> Side:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Kept]:
        engine = SqliteDurability(folder / "runs.db", sync=sync)
        try:
            yield Ours(engine, two_records=two_records)
        finally:
            await engine.close()

    return opened


# ---- LangGraph ---------------------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    n: int
    limit: int
    size: int
    grows: bool
    text: str
    log: Annotated[list[str], operator.add]
    items: list[int]
    doubled: Annotated[list[int], operator.add]


class LangGraph:
    """`durability` is "sync", "async" or "exit", and None where nothing is kept."""

    def __init__(self, saver: Any, durability: str | None) -> None:
        from langgraph.graph import END as STOP
        from langgraph.graph import START, StateGraph
        from langgraph.types import Send

        async def counting(state: State) -> State:
            written = State(n=state["n"] + 1)
            if state["size"]:
                made = text(written["n"], state["size"])
                written |= State(log=[made]) if state["grows"] else State(text=made)
            return written

        async def doubling(item: int) -> State:
            return State(doubled=[await double(item)])

        def following(state: State) -> str:
            return "count" if state["n"] < state["limit"] else STOP

        loop: Any = StateGraph(State)
        loop.add_node("count", counting)
        loop.add_edge(START, "count")
        loop.add_conditional_edges("count", following, ["count", STOP])
        each: Any = StateGraph(State)
        each.add_node("double", doubling)
        each.add_conditional_edges(START, lambda state: [Send("double", item) for item in state["items"]], ["double"])
        each.add_edge("double", STOP)
        self._loop, self._each = (graph.compile(checkpointer=saver) for graph in (loop, each))
        self._said = {} if durability is None else {"durability": durability}
        self._names = count()

    def _thread(self) -> dict[str, Any]:
        return {"configurable": {"thread_id": f"run-{next(self._names)}"}, "recursion_limit": MOST}

    async def loop(self, steps: int, size: int = 0, *, grows: bool = False) -> None:
        start = State(n=0, limit=steps, size=size, grows=grows)
        state = await self._loop.ainvoke(start, self._thread(), **self._said)
        assert state["n"] == steps

    async def each(self, items: int) -> None:
        state = await self._each.ainvoke(State(items=list(range(items))), self._thread(), **self._said)
        assert state["doubled"] == list(range(0, 2 * items, 2))


@asynccontextmanager
async def langgraph_plain(folder: Path) -> AsyncIterator[Kept]:
    yield LangGraph(None, None)


def langgraph(durability: Literal["sync", "async", "exit"], *, full: bool = False) -> Side:
    """`full` is what its saver does as it comes: it waits for the disk at every commit."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Kept]:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
            await saver.setup()
            if not full:
                await saver.conn.execute("PRAGMA synchronous = NORMAL")
            yield LangGraph(saver, durability)

    return opened


# ---- the floor ---------------------------------------------------------------------------------------------------


class Inserts:
    """An INSERT of a small row for each step, each a transaction of its own, and nothing else."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names = count()

    async def loop(self, steps: int, size: int = 0, *, grows: bool = False) -> None:
        run = next(self._names)
        for number in range(1, steps + 1):
            body = f'{{"action":"again","set":[["n",{number}]]}}'
            self._connection.execute("INSERT INTO steps VALUES (?, ?, ?)", (run, f"loop/count#{number}", body))

    async def each(self, items: int) -> None:
        await self.loop(items)


def inserts(sync: Literal["normal", "full"]) -> Side:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Kept]:
        connection = sqlite3.connect(folder / "rows.db", isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {sync}")
            connection.execute("CREATE TABLE steps(run INTEGER, id TEXT, body TEXT)")
            yield Inserts(connection)
        finally:
            connection.close()

    return opened


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
