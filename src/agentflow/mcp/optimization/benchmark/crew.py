"""Several load processes as one: the plan is dealt out like cards, all begin at once, their records are laid together.

    plan ──0,3,6…──▶ worker 0 ──┐
         ──1,4,7…──▶ worker 1 ──┼──▶ records in the plan's order
         ──2,5,8…──▶ worker 2 ──┘

Each has its own interpreter, event loop and connections. Dealing keeps every worker's part as bursty as the whole.
Leaving the `with` ends all of them, whatever happened.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from agentflow.errors import AgentFlowError, ProcessError
from agentflow.mcp.optimization.benchmark.asking import Target
from agentflow.mcp.optimization.benchmark.generator import Generated, Limits, Planned, Standing
from agentflow.mcp.optimization.benchmark.worker import LENGTH, Failed, Go, Job, Ready, Stop, packed

__all__ = ["Crew", "laid_together", "together"]

_PROGRAM: Final = "from agentflow.mcp.optimization.benchmark.worker import main; main()"
"""Not `-m`: the messages must be of the module's classes, and not of those of `__main__`."""
_HEAD_START: Final = 0.25
"""Seconds from the word to the common moment: enough for it to reach everybody."""
_LAST_WORDS: Final = 60.0
"""Seconds that a worker has to tell what it has, beyond the end of the run."""


class Crew:
    """Workers for one plan.

        async with Crew(target, plan, limits, workers=4) as crew:
            generated = await crew.run(watching)

    `stop()` ends the run early; what was measured until then is returned. Raises what a worker raised before it began
    (UnknownModelError, MissingKeyError, …), and ProcessError for one that died.
    """

    def __init__(self, target: Target, plan: Sequence[Planned], limits: Limits, *, workers: int) -> None:
        share = replace(limits, max_in_flight=max(1, limits.max_in_flight // workers))
        self._jobs = [Job(target, list(plan[number::workers]), share, number) for number in range(workers)]
        self._processes: list[asyncio.subprocess.Process] = []
        self._standings = [Standing() for _ in self._jobs]
        self._stopping = False

    async def __aenter__(self) -> Crew:
        try:
            for job in self._jobs:
                self._processes.append(await _started())
                await self._tell(len(self._processes) - 1, job)
            await asyncio.gather(*(self._expect(number, Ready) for number in range(len(self._jobs))))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        for process in self._processes:
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()

    async def run(self, watch: Callable[[Standing], None] = lambda standing: None) -> tuple[float, Generated]:
        """The common moment, of the machine's monotonic clock, and all records."""
        start = time.monotonic() + _HEAD_START
        numbers = range(len(self._jobs))
        await asyncio.gather(*(self._tell(number, Go(start)) for number in numbers))
        parts = await asyncio.gather(*(self._records_of(number, watch) for number in numbers))
        return start, laid_together(parts)

    def stop(self) -> None:
        """Have everybody tell what there is."""
        if self._stopping:
            return
        self._stopping = True
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError, RuntimeError):
                process.stdin.write(packed(Stop()))

    async def _records_of(self, number: int, watch: Callable[[Standing], None]) -> Generated:
        limits = self._jobs[number].limits
        patience = limits.duration + limits.drain + _HEAD_START + _LAST_WORDS
        try:
            async with asyncio.timeout(patience):
                while not isinstance(message := await self._next(number), Generated):
                    self._standings[number] = message
                    watch(together(self._standings))
                return message
        except TimeoutError:
            raise ProcessError(f"load process {number} told nothing within {patience:g} s of its start") from None

    async def _expect(self, number: int, kind: type) -> None:
        message = await self._next(number)
        assert isinstance(message, kind)

    async def _tell(self, number: int, message: object) -> None:
        stdin = self._processes[number].stdin
        assert stdin is not None
        with suppress(ConnectionError):  # one that has died is told of where it is listened to
            stdin.write(packed(message))
            await stdin.drain()

    async def _next(self, number: int) -> Any:
        process = self._processes[number]
        assert process.stdout is not None
        try:
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            message = pickle.loads(await process.stdout.readexactly(length))
        except asyncio.IncompleteReadError:
            code = await process.wait()
            raise ProcessError(f"load process {number} died (exit code {code}); its error output says why") from None
        if isinstance(message, Failed):
            raise _raised(message)
        return message


async def _started() -> asyncio.subprocess.Process:
    # In a session of its own, where Ctrl-C does not reach it: the parent says when to stop.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _raised(failed: Failed) -> BaseException:
    error = pickle.loads(failed.error) if failed.error is not None else None
    return error if isinstance(error, AgentFlowError) else ProcessError(f"a load process failed: {failed.story}")


def laid_together(parts: Sequence[Generated]) -> Generated:
    """As one process would have told it: records by their place in the plan."""
    records = sorted((record for part in parts for record in part.records), key=lambda record: record.index)
    beats = [beat for part in parts for beat in part.beats]
    return Generated(records, beats, min((part.stopped for part in parts if part.stopped is not None), default=None))


def together(standings: Sequence[Standing]) -> Standing:
    """Sums, and the largest lag."""
    errors: Counter[str] = Counter()
    for each in standings:
        errors.update(each.errors)
    return Standing(
        sum(each.sent for each in standings),
        sum(each.answered for each in standings),
        sum(each.in_flight for each in standings),
        errors,
        max((each.lag for each in standings), default=0.0),
        [latency for each in standings for latency in each.recent],
    )
