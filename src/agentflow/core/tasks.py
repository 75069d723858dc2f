"""Several coroutines as one: started together, ended together, none left behind.

crew ─┬─ task        wait until all are done, enough have succeeded, or too many failed;
      ├─ task        cancel the rest, wait for those too, and only then go on.
      └─ task
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agentflow.core.parking import Parked, parked_in
from agentflow.errors import DurabilityError, NodeError

__all__ = ["Outcome", "raise_first", "run_together"]


@dataclass(slots=True)
class Outcome:
    """How it went: positions of those that succeeded and errors of those that failed, each in order of time.

    Errors of those that were cancelled come last, in order of position.
    """

    winners: list[int] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    """Those that wait for somebody: they neither succeeded nor failed."""
    fatal: BaseException | None = None
    """A SystemExit, or that a durable run cannot be kept, which no section may collect: it ends everything."""

    def fail(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, DurabilityError):
            self.failures.append(error)
        elif (parked := parked_in(error)) is not None:
            self.parked.append(parked)
        else:
            self.fatal = self.fatal or error


async def run_together(
    coroutines: Iterable[Coroutine[Any, Any, object]], *, enough: int | None = None, tolerate: bool = False
) -> Outcome:
    """Run coroutines at the same time and return when all of them have ended.

    The others are cancelled once `enough` have succeeded, once one has failed, or, with `tolerate`, once so many have
    failed that enough cannot be reached; what they still return counts for nothing. One that is parked keeps nobody
    from going on. A cancellation from outside cancels all, waits for all, and is passed on; so is what is no Exception
    (SystemExit, KeyboardInterrupt).
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(coroutine) for coroutine in coroutines]
    outcome = Outcome()
    if not tasks:
        return outcome
    over = loop.create_future()
    spare = 0 if not tolerate else len(tasks) if enough is None else len(tasks) - enough
    running = {task: index for index, task in enumerate(tasks)}

    def ended(task: asyncio.Task[object]) -> None:
        error = _error(task)  # looked at even when it comes late, so that asyncio does not report it as forgotten
        if over.done():
            return
        index = running.pop(task)
        if error is None:
            outcome.winners.append(index)
        else:
            outcome.fail(error)
        if not running or outcome.fatal or len(outcome.failures) > spare or len(outcome.winners) == enough:
            over.set_result(None)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        await over
    except asyncio.CancelledError:
        await _end(tasks)
        raise
    await _end(running)
    for task in running:
        if not task.cancelled() and (error := task.exception()) is not None:
            outcome.fail(error)
    if outcome.fatal is not None:
        raise outcome.fatal
    return outcome


def raise_first(failures: Sequence[Exception]) -> NoReturn:
    """Raise the first failure; where it is a NodeError, the others stand in its `siblings`."""
    first, *others = failures
    if isinstance(first, NodeError):
        first.siblings += tuple(others)
    raise first


def _error(task: asyncio.Task[object]) -> BaseException | None:
    if task.cancelled():
        return RuntimeError("a branch was cancelled from within, though nobody asked the run to stop")
    return task.exception()


async def _end(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel what still runs and wait for it. Cancelled meanwhile, it cancels them again and still waits."""
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
