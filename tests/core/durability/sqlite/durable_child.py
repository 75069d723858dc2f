"""A process of its own that runs durable runs, and dies where it is told to.

python -m tests.core.durability.sqlite.durable_child FILE run r1 20 --die after-insert:7

It writes a line for whatever has happened: "saved 3" once `save` has returned, "held", "ended cancelled", "error …".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending, Record, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability, record_rows, run_rows
from agentflow.core.durability.sqlite.large_bodies import LargeBodies
from agentflow.core.durability.sqlite.store import Store
from agentflow.errors import DurabilityError, RunEndedError, RunHeldError

PLACES: dict[str, tuple[Any, str, bool]] = {
    "before-insert": (record_rows, "save", False),
    "after-insert": (record_rows, "save", True),
    "after-commit": (Store, "_count", True),
    "before-claim": (run_rows, "claim", False),
    "after-claim": (run_rows, "claim", True),
    "before-end": (run_rows, "end", False),
    "after-end": (run_rows, "end", True),
    "before-value": (LargeBodies, "put", False),
    "in-value": (os, "fsync", False),
    "after-value": (LargeBodies, "put", True),
}
"""Where it can die: in what, in which function, and whether behind it."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def die_at(place: str, time: int) -> None:
    """Be killed there, the `time`-th time."""
    owner, name, behind = PLACES[place]
    original: Callable[..., Any] = getattr(owner, name)
    left = [time]

    def dying(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not behind:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if left[0] == 0 and behind:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def body_of(number: int, size: int) -> str:
    return '"' + f"{number} " * (size // len(f"{number} ") + 1) + '"'


async def run(engine: SqliteDurability, run_id: str, count: int, size: int, stay: bool) -> None:
    async def body(journal: Journal) -> Ending:
        say("began", len(journal.records()))
        for number in range(count):
            if journal.find(f"a/{number}") is None:
                await journal.save(Record(f"a/{number}", "step", body_of(number, size), float(number)))
                say("saved", number)
        if stay:
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return Ending("done", "default")

    try:
        ending = await engine.execute(RunSpec(run_id, "article"), body)
        say("ended", ending.status)
    except RunHeldError as error:
        say("held", error.owner)
    except RunEndedError as error:
        say("ended", error.status)
    except DurabilityError as error:
        say("error", error)


async def race(engine: SqliteDurability, count: int) -> None:
    """Try to get as many runs, and keep those that one gets until the other has tried."""
    say("ready")
    sys.stdin.readline()
    tried, go = asyncio.Semaphore(0), asyncio.Event()

    async def body(journal: Journal) -> Ending:
        say("got", journal.run_id)
        tried.release()
        await go.wait()
        return Ending("done")

    async def attempt(number: int) -> None:
        try:
            await engine.execute(RunSpec(f"r{number}", "article"), body)
        except RunHeldError:
            tried.release()

    tasks = [asyncio.create_task(attempt(number)) for number in range(count)]
    for _ in tasks:
        await tried.acquire()
    say("tried")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    go.set()
    await asyncio.gather(*tasks)


async def fork(engine: SqliteDurability, path: Path) -> None:
    """A run forks its process: the child may not write into it, but has runs of its own."""

    async def body(journal: Journal) -> Ending:
        await journal.save(Record("a/before", "step", "1", 1.0))
        child = os.fork()
        if child == 0:
            try:
                _in_child(engine, journal)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        await journal.save(Record("a/after", "step", "1", 1.0))
        return Ending("done")

    ending = await engine.execute(RunSpec("r1", "article"), body)
    say("ended", ending.status)


def _in_child(engine: SqliteDurability, journal: Journal) -> None:
    asyncio._set_running_loop(None)

    async def use() -> None:
        try:
            await journal.save(Record("a/child", "step", "1", 1.0))
        except DurabilityError:
            say("child refused")
        await run(engine, "r1", 1, 1, stay=False)
        await run(engine, "r2", 2, 1, stay=False)
        await engine.close()

    asyncio.run(use())


async def fill(engine: SqliteDurability, limit: int) -> None:
    """Save until files cannot grow any more, then let them, and go on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    await run(engine, "r0", 1, 1, stay=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    await run(engine, "r1", 200, 4_000, stay=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await run(engine, "r1", 200, 4_000, stay=False)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("what", choices=["run", "race", "fork", "fill"])
    parser.add_argument("run_id", nargs="?", default="r1")
    parser.add_argument("count", nargs="?", type=int, default=10)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--sync", default="normal")
    parser.add_argument("--die", default="")
    parser.add_argument("--stay", action="store_true")
    given = parser.parse_args()
    if given.die:
        place, _, time = given.die.partition(":")
        die_at(place, int(time))
    engine = SqliteDurability(given.file, sync=given.sync, blob_bytes=20_000)
    match given.what:
        case "run":
            await run(engine, given.run_id, given.count, given.size, given.stay)
        case "race":
            await race(engine, given.count)
        case "fork":
            await fork(engine, given.file)
        case "fill":
            await fill(engine, given.count)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
