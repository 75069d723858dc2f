"""A process that executes runs on PostgreSQL, and dies when it is told to.

python -m tests.support.dbos_worker '{"url": …, "log": FILE, "queue": "jobs"}'    works until its stdin is closed
python -m tests.support.dbos_worker '{"url": …, "log": FILE, "execute": "r1", "die": "before 2"}'    executes one run

Runs of the flow "chain" do `inputs.steps` pieces of work, one after the other, and `inputs.branches` at once; each is a
record. `inputs.ask` asks a question before the last; `inputs.publish` lets pieces be seen. Whatever is worked on is
written into `inputs.log`, else into the job's log, outside of all that is tested: {"run": …, "id": …, "pid": …, "at":
monotonic, "what": "begin", "end" or "cancelled"}. A worker says "ready" on stdout.

`die` is "before N" (the work is done, and not saved), "after N", or "parked": kill -9 of itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentflow.core.durability.protocol import Body, Journal
from agentflow.core.durability.records import Ending, Interrupt, Record, RunSpec
from agentflow.integrations.dbos import DbosDurability, QueueLimits

__all__ = ["Chain", "chain", "done_in"]


def chain(run_id: str, **inputs: object) -> RunSpec:
    return RunSpec(run_id, "chain", json.dumps(inputs, default=str))


class Chain:
    """The body. `die` kills this process at that point."""

    def __init__(
        self, spec: RunSpec, log: Path, die: str = "", publish: Callable[[str, str], object] | None = None
    ) -> None:
        self._publish = publish
        self._run_id = spec.run_id
        self._inputs: Mapping[str, Any] = json.loads(spec.inputs)
        self._log = log
        self._die = die

    async def __call__(self, journal: Journal) -> Ending:
        steps, branches = self._inputs.get("steps", 0), self._inputs.get("branches", 0)
        for number in range(steps):
            if number == steps - 1 and self._inputs.get("ask"):
                question = Interrupt(f"chain/{number}#1!wait:1", f"chain/{number}#1", "Go on?")
                if journal.find(f"{question.id}!answer") is None:
                    return await self._parked(journal, question)
            await self._work(journal, str(number))
        order = self._inputs.get("order", range(branches))
        gates = [asyncio.Event() for _ in range(branches + 1)]
        gates[0].set()

        async def branch(number: int) -> None:
            """They finish in the order that they are told."""
            place = list(order).index(number)
            await gates[place].wait()
            await self._work(journal, f"branch-{number}")
            gates[place + 1].set()

        await asyncio.gather(*(branch(number) for number in range(branches)))
        return Ending("done", action=str(len(journal.records())))

    async def _parked(self, journal: Journal, question: Interrupt) -> Ending:
        if journal.find(question.id) is None:
            await journal.save(Record(question.id, "wait", "{}", time.time()))
        self._die_at("parked")
        return Ending("waiting", interrupts=(question,))

    async def _work(self, journal: Journal, name: str) -> None:
        id = f"chain/{name}#1"
        if journal.find(id) is not None:
            return
        self._note(id, "begin")
        try:
            await asyncio.sleep(self._inputs.get("seconds", 0))
        except asyncio.CancelledError:
            self._note(id, "cancelled")
            raise
        self._note(id, "end")
        if self._publish is not None and self._inputs.get("publish"):
            self._publish(self._run_id, f"{name} ")
        self._die_at(f"before {name}")
        await journal.save(Record(id, "step", json.dumps({"pid": os.getpid()}), time.time()))
        self._die_at(f"after {name}")

    def _note(self, id: str, what: str) -> None:
        facts = {"run": self._run_id, "id": id, "pid": os.getpid(), "at": time.monotonic(), "what": what}
        with self._log.open("a") as file:  # lines this short are written in one piece
            file.write(json.dumps(facts) + "\n")

    def _die_at(self, point: str) -> None:
        if point == self._die:
            os.kill(os.getpid(), signal.SIGKILL)


def done_in(log: Path) -> list[dict[str, Any]]:
    """What was worked on, by whomever."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def main(job: dict[str, Any]) -> None:
    limits = QueueLimits(**job["limits"]) if "limits" in job else None
    timing = {"polling": 0.1, "beat": 0.2, "grace": 1.0} | job.get("timing", {})
    engine = DbosDurability(job["url"], queue=job.get("queue"), limits=limits, **timing)

    def body_of(spec: RunSpec) -> Body:
        return Chain(spec, Path(json.loads(spec.inputs).get("log") or job["log"]), job.get("die", ""), engine.publish)

    if "execute" in job:
        spec = chain(job["execute"], **job["inputs"])
        await engine.execute(spec, body_of(spec))
        await engine.close()
        return
    engine.serve("chain", body_of)
    stop = asyncio.Event()
    working = asyncio.create_task(engine.work(stop, drain=job.get("drain", 20.0)))
    while not engine.is_open and not working.done():
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop.set()
    await working


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
