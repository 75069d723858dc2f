"""One client in a process of its own: makes model calls when told to, and says what they cost.

    python benchmarks/llm_caller.py agentflow PORT      says what its import cost and what lies in memory after one call

Commands and results are lines of JSON on standard input and output (`llm_overhead.py` speaks them):

    {"do": "call", "calls": 200, "at_once": 1}      → CPU and wall time of so many calls
    {"do": "stream", "calls": 20, "pieces": 50}     → the same for streams, and when each first piece came
    {"do": "burst", "calls": 10000, "delay": 1000, "seconds": 60}
                                                    → so many calls at the same time: how many were answered, failed, or
                                                      late; if any were late the process ends with this
    {"do": "others"}                                → what lies in memory after three further providers, if it has them
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from llm_clients import CLIENTS, Client

ANSWER = "The tide is the rise and fall of the sea that the moon and the sun cause together"
PROMPT = "Explain the tides in one sentence."


async def calls(client: Client, *, count: int, at_once: int) -> dict[str, object]:
    async def some(number: int) -> None:
        for _ in range(number):
            assert await client.call(PROMPT) == ANSWER

    await _together(some, at_once, at_once)  # opens connections that were closed for idling
    return await timed(lambda: _together(some, count, at_once), count)


async def _together(some: Callable[[int], Awaitable[None]], count: int, at_once: int) -> None:
    if at_once == 1:
        await some(count)
    else:
        await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))


async def streams(client: Client, *, count: int, pieces: int) -> dict[str, object]:
    first: list[float] = []

    async def all_of_them() -> None:
        for _ in range(count):
            started = time.perf_counter()
            seen = 0
            async for _content in client.stream(f"{PROMPT} pieces={pieces}"):
                if not seen:
                    first.append(time.perf_counter() - started)
                seen += 1
            assert seen == pieces, f"{seen} pieces came, not {pieces}"

    return {**await timed(all_of_them, count), "first": first}


async def timed(work: Callable[[], Awaitable[None]], count: int) -> dict[str, object]:
    """CPU and wall seconds a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return {"cpu": (time.process_time() - cpu) / count, "wall": (time.perf_counter() - wall) / count}


class Burst:
    """Calls that all begin at the same time. Failures are counted by their kind, and do not end it."""

    def __init__(self, client: Client, count: int, delay: int) -> None:
        self._client = client
        self._count = count
        self._prompt = f"{PROMPT} delay={delay}" if delay else PROMPT
        self._answered = 0
        self._failed: Counter[str] = Counter()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    async def run(self, seconds: float) -> None:
        # An alarm, because some loops are too busy to look at a clock; and nothing can be tidied up then in good time.
        signal.signal(signal.SIGALRM, self._late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        await asyncio.gather(*(self._one() for _ in range(self._count)))
        signal.setitimer(signal.ITIMER_REAL, 0)

    async def _one(self) -> None:
        try:
            right = await self._client.call(self._prompt) == ANSWER
        except Exception as error:
            self._failed[type(error).__name__] += 1
        else:
            self._answered += right
            self._failed.update([] if right else ["wrong answer"])

    def told(self) -> dict[str, object]:
        failed = self._failed.total()
        return {
            "cpu": (time.process_time() - self._cpu) / max(self._answered, 1),
            "wall": time.perf_counter() - self._wall,
            "answered": self._answered,
            "failed": failed,
            "late": self._count - self._answered - failed,
            "errors": dict(self._failed),
        }

    def _late(self, *_: object) -> None:
        _say(self.told())
        os._exit(0)


def resident() -> float | None:
    """Resident memory of this process in MB; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def others(client: Client) -> dict[str, object]:
    texts = await client.others(PROMPT)
    assert texts in ([], [ANSWER] * 3), texts
    return {"resident": resident() if texts else None}


async def serve(name: str, server: str) -> None:
    started = time.process_time()
    client = CLIENTS[name](server)
    imported = time.process_time() - started
    assert await client.call(PROMPT) == ANSWER
    _say({"import_cpu": imported, "resident": resident()})
    crowd: Client | None = None  # one of its own: a hundred idle connections in the pool slow some clients down
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if command["do"] == "others":
            _say(await others(client))
        elif command["do"] == "stream":
            _say(await streams(client, count=command["calls"], pieces=command["pieces"]))
        elif command["do"] == "call" and command["at_once"] == 1:
            _say(await calls(client, count=command["calls"], at_once=1))
        else:
            crowd = crowd or CLIENTS[name](server)
            _say(await many(crowd, command))
    await client.close()
    if crowd is not None:
        await crowd.close()


async def many(client: Client, command: dict[str, Any]) -> dict[str, object]:
    if command["do"] == "call":
        return await calls(client, count=command["calls"], at_once=command["at_once"])
    burst = Burst(client, command["calls"], command["delay"])
    await burst.run(command["seconds"])
    return burst.told()


def _say(result: dict[str, object]) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], f"http://127.0.0.1:{sys.argv[2]}"))
