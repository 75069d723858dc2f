"""Ten thousand callers at once, one request in twenty goes wrong, for five minutes: is anything lost, leaked or stuck?

    python benchmarks/soak.py [--seconds 300] [--concurrency 10000] [--delay 50]
    python benchmarks/soak.py --tiny                         200 callers for a few seconds, as the test-suite runs it

Each caller asks, alternately for a whole answer and for a stream, until the time is up; one stream in fifty is left
after its first piece. The server (`soak_server.py`, a process of its own) and this process both keep books of every
request, which must agree. In the end nothing may be held: no place, slot, permit, task or socket.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from agentflow.errors import AgentFlowError, ModelTimeoutError, RejectedError
from agentflow.llm import AgentFlow, ModelRegistry
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.openai.provider import OpenAIProvider
from processes import allow_files, ask, heard, started
from results import Report, median, note, number, options

HERE = Path(__file__).resolve().parent
LEFT = 0.02
"""The share of streams that their reader leaves after the first piece."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`delay` is how long an answer takes; `warm` the share of the time after which memory shall be flat."""

    seconds: float = 300.0
    concurrency: int = 10_000
    delay: float = 50.0
    warm: float = 0.5
    samples: int = 60

    @property
    def ramp(self) -> float:
        """Seconds until all callers are there."""
        return self.delay * 2


TINY = Plan(seconds=4.0, concurrency=200, delay=0.4, samples=8)


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    resident: float
    tasks: int
    sockets: int
    under_way: int
    answered: int


@dataclass(slots=True)
class Books:
    """What the callers did and got. Every call that was begun is in `ends` once."""

    begun: int = 0
    attempts: int = 0
    unsent: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    samples: list[Sample] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def explain(self, end: str, error: Exception) -> None:
        """Keep a few errors of each kind, for whoever wonders."""
        examples = self.examples.setdefault(end, [])
        if len(examples) < 5:
            examples.append("; ".join([str(error), *getattr(error, "__notes__", ())]))

    @property
    def under_way(self) -> int:
        return self.begun - sum(self.ends.values())


class Counted(OpenAIProvider):
    """The provider for OpenAI's format, and how often it was asked, and never sent what it was asked for."""

    books = Books()

    async def execute(self, request: Request) -> Response:
        self.books.attempts += 1
        try:
            return await super().execute(request)
        except ModelTimeoutError as error:
            self._note(error)
            raise

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        self.books.attempts += 1
        try:
            async with aclosing(super().execute_streaming(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ModelTimeoutError as error:
            self._note(error)
            raise

    def _note(self, error: ModelTimeoutError) -> None:
        self.books.unsent += error.operation in ("connect", "pool")


# ---- the callers -------------------------------------------------------------------------------------------------


def models_yml(plan: Plan, port: int) -> str:
    """Every guard on. Places and rates are such that all callers can be before the server at once, whatever it says:
    the limit that learns (AIMD, what one gets unasked) would rightly halve itself before a server like this one.

    The breaker is the default one. With so many calls under way failures come back sooner than answers, and the last 50
    that have ended may be failures alone: it has to know better."""
    late, never = plan.delay * 2.5, plan.delay * 30
    timeout = f"{{connect: 60, first_byte: {late}, idle: {late}, total: {never}, pool: {never}}}"
    return f"""
defaults:
  timeout: {timeout}
  shedder: {{algorithm: fixed, maximum: {plan.concurrency}}}
providers:
  lab:
    kind: soak
    base_url: http://127.0.0.1:{port}/v1
    options: {{max_connections: {plan.concurrency}}}
models:
  soak:
    provider: lab
    model_id: soak
    rate_limit: {{requests_per_minute: 10000000, tokens_per_minute: 1000000000}}
"""


def registry_for(plan: Plan, port: int) -> ModelRegistry:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.yml"
        file.write_text(models_yml(plan, port), "utf-8")
        registry = ModelRegistry.load(file, environ={}, cwd=file.parent, home=file.parent)

    def made(settings: ProviderSettings) -> OpenAIProvider:
        return Counted(settings)

    registry.register_provider("soak", made)
    return registry


class Callers:
    def __init__(self, plan: Plan, registry: ModelRegistry, books: Books) -> None:
        self._plan = plan
        self._books = books
        self._call = AgentFlow.model("soak", registry=registry).prompt("Explain the tides.").build()
        self._chance = Random(11)
        self._until = 0.0

    async def run(self) -> None:
        """All of them, until the time is up and each has its last answer."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._plan.seconds
        async with asyncio.TaskGroup() as group:
            for number_ in range(self._plan.concurrency):
                group.create_task(self._caller(number_ % 2 == 0))

    async def _caller(self, streams: bool) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._chance.random() * self._plan.ramp)
        while loop.time() < self._until:
            self._books.begun += 1
            try:
                end = await (self._stream() if streams else self._whole())
            except AgentFlowError as error:
                end = type(error).__name__
                self._books.explain(end, error)
                if isinstance(error, RejectedError):
                    await asyncio.sleep(error.retry_after or 1.0)
            self._books.ends[end] += 1
            streams = not streams

    async def _whole(self) -> str:
        answer = await self._call.execute()
        if answer.timing is not None and answer.timing.attempts > 1:
            self._books.repeated += 1
        return "answered" if answer.finish_reason == "stop" else "cut short"

    async def _stream(self) -> str:
        leaves = self._chance.random() < LEFT
        end = "cut short"
        async with self._call.execute_streaming() as stream:
            async for chunk in stream:
                if leaves:
                    return "left by its reader"
                if chunk.finish_reason is not None:
                    end = "answered"
        return end


# ---- looking -----------------------------------------------------------------------------------------------------


def resident() -> float:
    """Megabytes of this process that lie in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def watch(plan: Plan, books: Books, base: int) -> None:
    """A sample now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while True:
        await asyncio.sleep(plan.seconds / plan.samples)
        sample = Sample(
            at=loop.time() - since,
            resident=resident(),
            tasks=len(asyncio.all_tasks()),
            sockets=descriptors() - base,
            under_way=books.under_way,
            answered=books.ends["answered"],
        )
        books.samples.append(sample)
        if len(books.samples) % 6 == 0:
            note(f"soak: {sample}, {dict(books.ends)}")


def held(registry: ModelRegistry) -> dict[str, object]:
    """What the guards hold, and whether the breaker ever changed its state."""
    config, _ = registry.resolve("soak")
    pipeline: Any = registry.pipeline(config, "chat")
    counts = pipeline._breaker.counts()
    return {
        "places": pipeline._shedder.in_flight,
        "queued": pipeline._shedder.queued,
        "slots": pipeline._limiter.in_use,
        "waiting": pipeline._limiter.waiting,
        "probes": counts.probes,
        "refused by the breaker": counts.refused,
        "breaker": pipeline._breaker.state.value,
        "breaker's changes": counts.generation,
    }


async def soak(plan: Plan, server: subprocess.Popen[str], port: int) -> dict[str, Any]:
    """Everything that was counted."""
    base = descriptors()
    registry = registry_for(plan, port)
    books = Counted.books = Books()
    watcher = asyncio.create_task(watch(plan, books, base))
    cpu = time.process_time()
    await Callers(plan, registry, books).run()
    cpu = time.process_time() - cpu
    watcher.cancel()
    await asyncio.wait([watcher])
    guards = held(registry)
    await registry.aclose()
    await asyncio.sleep(0.5)  # until what was closed has said goodbye
    told = await asyncio.to_thread(ask, server, do="tell")
    gc.collect()
    return {
        "begun": books.begun,
        "ends": dict(books.ends.most_common()),
        "attempts": books.attempts - books.unsent,
        "unsent": books.unsent,
        "repeated": books.repeated,
        "examples": books.examples,
        "server": told,
        "held": guards,
        "tasks": len(asyncio.all_tasks()) - 1,
        "sockets": descriptors() - base,
        "cpu": cpu,
        "samples": [[s.at, s.resident, s.tasks, s.sockets, s.under_way, s.answered] for s in books.samples],
    }


# ---- reporting ---------------------------------------------------------------------------------------------------


def growth(plan: Plan, samples: list[list[float]]) -> float | None:
    """How much larger memory was in the last fifth of the time than when it was warm, as a share."""
    inside = [(at, size) for at, size, *_ in samples if at <= plan.seconds]
    warm = [size for at, size in inside if plan.warm <= at / plan.seconds < plan.warm + 0.2]
    last = [size for at, size in inside if at / plan.seconds >= 0.8]
    return median(last) / median(warm) - 1 if warm and last else None


def report(plan: Plan, found: dict[str, Any]) -> Report:
    made = Report(
        "soak",
        "Five minutes before a server that fails",
        f"{plan.concurrency:,} callers at once for {plan.seconds:g} s, whole answers and streams in turn, of about "
        f"{plan.delay:g} s each, against a server on loopback that fails one request in twenty: 500, 529, 429 with "
        "Retry-After, half an answer and RST, a stream without an end, nothing at all. Every guard is on, with the "
        f"defaults but for {plan.concurrency:,} places and rates that nobody reaches.",
    )
    accounts(made, found)
    over_time(made, plan, found["samples"])
    promises(made, plan, found)
    made.raw = found
    return made


def accounts(made: Report, found: dict[str, Any]) -> None:
    rows = [["begun", f"{found['begun']:,}"], *([what, f"{count:,}"] for what, count in found["ends"].items())]
    made.table(
        "What became of the calls",
        ["calls", ""],
        [*rows, ["whole answers that took another attempt", f"{found['repeated']:,}"]],
        "Names of errors are those that the caller got, after the attempts there are for such an error.",
    )
    server = found["server"]
    did = [[what, f"{count:,}"] for what, count in server["did"].items()]
    made.table(
        "What became of the requests",
        ["requests, as the server counts them", ""],
        [["came", f"{server['requests']:,}"], *did, ["sent, as the client counts", f"{found['attempts']:,}"]],
        "`left` are those whose caller hung up before all had been sent.",
    )


def over_time(made: Report, plan: Plan, samples: list[list[float]]) -> None:
    step = max(1, len(samples) // 12)
    made.table(
        "Over time",
        ["after, s", "resident, MB", "tasks", "sockets", "calls under way", "answered so far"],
        [
            [number(at), number(size), f"{tasks:,}", f"{sockets:,}", f"{way:,}", f"{answered:,}"]
            for at, size, tasks, sockets, way, answered in samples[step - 1 :: step]
        ],
        f"The callers come within the first {plan.ramp:g} s, and begin nothing after {plan.seconds:g} s.",
    )


def promises(made: Report, plan: Plan, found: dict[str, Any]) -> None:
    guards, server = found["held"], found["server"]
    busiest = max((way for _, _, _, _, way, _ in found["samples"]), default=0)
    left = ("places", "queued", "slots", "waiting", "probes")
    lost = abs(found["begun"] - sum(found["ends"].values()))
    apart = abs(found["attempts"] - server["requests"]) + abs(server["requests"] - sum(server["did"].values()))
    faults = 1 - (server["did"].get("answered", 0) + server["did"].get("left", 0)) / max(server["requests"], 1)
    made.promise(
        "soak: calls under way at the same time",
        limit=plan.concurrency * 0.95,
        measured=busiest,
        unit="calls",
        at_least=True,
        beside=f"{found['begun']:,} in all, {faults:.1%} of the requests failed",
    )
    made.promise("soak: calls without an end", limit=0, measured=lost, unit="calls")
    made.promise("soak: requests that only one side knows of", limit=0, measured=apart, unit="requests")
    grown = growth(plan, found["samples"])
    made.promise(
        "soak: memory, last fifth over warm",
        limit=5,
        measured=None if grown is None else grown * 100,
        unit="% more",
        beside=f"{number(found['samples'][-1][1])} MB" if found["samples"] else "",
    )
    made.promise(
        "soak: places, slots, permits, tasks and sockets held in the end",
        limit=0,
        measured=sum(guards[what] for what in left) + found["tasks"] + found["sockets"],
        unit="",
    )
    made.promise(
        "soak: calls that the breaker refused, at 5 % of faults",
        limit=0,
        measured=guards["refused by the breaker"],
        unit="calls",
    )


def planned(said: argparse.Namespace) -> Plan:
    plan = TINY if said.tiny else Plan()
    return Plan(
        seconds=said.seconds or plan.seconds,
        concurrency=said.concurrency or plan.concurrency,
        delay=said.delay or plan.delay,
        samples=plan.samples,
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, help="for how long calls are begun (300)")
    parser.add_argument("--concurrency", type=int, help="callers at the same time (10,000)")
    parser.add_argument("--delay", type=float, help="seconds that an answer takes, give or take half of it (50)")
    said = parser.parse_args()
    plan = planned(said)
    if not allow_files(plan.concurrency + 500):
        sys.exit(f"soak: {plan.concurrency:,} callers need as many open files: raise the hard limit (ulimit -Hn)")
    command = (sys.executable, str(HERE / "soak_server.py"), "--delay", str(plan.delay))
    with started(*command) as server:
        found = asyncio.run(soak(plan, server, heard(server)))
    report(plan, found).finish(said.output)
    note(f"soak: {json.dumps(found['held'])}")


if __name__ == "__main__":
    main()
