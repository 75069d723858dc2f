"""The far side of a load process: is told a plan, says it is ready, begins at the common moment, sends its records.

    parent ──▶ Job ──▶           ◀── Ready        it has loaded models.yml, and nothing was sent yet
           ──▶ Go(start) ──▶     ◀── Standing …   four times a second
           ──▶ Stop ──▶          ◀── Generated    all of it; then it ends

It is started by `crew`, with pipes for both directions. What travels is pickled, which is safe between a process and
the child that it started. It ends when its standard input does, so a parent that was killed leaves nobody behind, and
whatever else is printed here goes to standard error.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import struct
import sys
import traceback
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from agentflow.clock import SystemClock
from agentflow.errors import describe
from agentflow.mcp.optimization.benchmark.asking import Target, asking_model, loaded
from agentflow.mcp.optimization.benchmark.generator import Generated, Generator, Limits, Planned
from agentflow.mcp.optimization.benchmark.precise_loop import precise_loop

__all__ = ["LENGTH", "Failed", "Go", "Job", "Ready", "Stop", "main", "packed"]

LENGTH: Final = struct.Struct("!Q")
_TELLING: Final = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    target: Target
    plan: list[Planned]
    limits: Limits
    worker: int


@dataclass(frozen=True, slots=True)
class Go:
    """The moment from which the plan counts, of the machine's monotonic clock, which all processes share."""

    start: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Send no more, and tell what there is."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The job is understood."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be done, and why; `error` is pickled, None where it cannot be."""

    story: str
    error: bytes | None = None


def packed(message: object) -> bytes:
    """A message with its length before it."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


async def work(reader: asyncio.StreamReader, out: BinaryIO) -> None:
    """One job, from its being told to its end."""
    job = await _next(reader)
    registry = loaded(job.target.config, guards=job.target.guards)
    try:
        ask = asking_model(job.target, registry)
        generator = Generator(ask, job.plan, job.limits, clock=SystemClock(), worker=job.worker)
        _warm_up()
        _say(out, Ready())
        go = await _next(reader)
        if not isinstance(go, Go):  # stopped before it began, or nobody is there any more
            _say(out, Generated([], [], 0.0))
            return
        listening = asyncio.create_task(_listen(reader, generator))
        telling = asyncio.create_task(_tell(generator, out))
        generated = await generator.run(go.start)
        telling.cancel()
        listening.cancel()
        _say(out, generated)
    finally:
        await registry.aclose()


def _warm_up() -> None:
    """What the first request would stop for: loading the HTTP client takes a third of a second. What lives to the end
    of the process is kept out of the garbage collector's rounds."""
    import agentflow.llm.providers.http.connections  # noqa: F401

    gc.collect()
    gc.freeze()


async def _listen(reader: asyncio.StreamReader, generator: Generator) -> None:
    """Whatever comes now means: stop. So does the end of the pipe, at which nobody is there to be told."""
    if await _next(reader) is None:
        os._exit(1)
    generator.stop()


async def _tell(generator: Generator, out: BinaryIO) -> None:
    while True:
        await asyncio.sleep(_TELLING)
        _say(out, generator.standing)
        generator.standing.recent.clear()


async def _next(reader: asyncio.StreamReader) -> Any:
    """The next message; None when there will be no more."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _say(out: BinaryIO, message: object) -> None:
    out.write(packed(message))
    out.flush()


async def _main(out: BinaryIO) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    try:
        await work(reader, out)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
        _say(out, Failed(f"{describe(error)}\n{traceback.format_exc()}", _portable(error)))
        return 1
    return 0


def _portable(error: BaseException) -> bytes | None:
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001 - a class's own pickling may raise anything
        return None
    return pickled


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between our messages
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        sys.exit(runner.run(_main(out)))
