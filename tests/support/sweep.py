"""Cancels an operation at each place where it waits, one after the other: what it held must be free again each time.

    sweep(operation, check)        operation(clock) sets up, waits, tidies up; check() asserts that all is free

Each place is tried in two ways: cancelled while what it waits for is still to come, and cancelled when that has come
already but the task has not been resumed yet, so that a grant is on its way to somebody who leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agentflow.clock import VirtualClock

__all__ = ["sweep"]

LONGEST = 500  # places, after which an operation is taken to go on for ever


def sweep(
    operation: Callable[[VirtualClock], Awaitable[object]],
    check: Callable[[], None],
    *,
    clock: Callable[[], VirtualClock] = VirtualClock,
) -> int:
    """Run `operation` on a fresh virtual loop again and again, cancelled at its 1st wait, its 2nd, … until it ends.

    `operation` tells `check` what it made (most often through a variable that both see), and may start other tasks, for
    which it waits. `check` runs on the loop after each round. Returns how many places there are.
    """
    places = 0
    for late in (False, True):
        place = 1
        while _cancelled_at(place, late, operation, check, clock()):
            place += 1
            assert place < LONGEST, f"still not done after {LONGEST} waits"
        places = max(places, place - 1)
    return places


def _cancelled_at(
    place: int,
    late: bool,
    operation: Callable[[VirtualClock], Awaitable[object]],
    check: Callable[[], None],
    clock: VirtualClock,
) -> bool:
    """Whether the operation waited so often."""
    reached = False

    async def main() -> None:
        task: asyncio.Task[object]

        def waits(number: int, awaited: object) -> None:
            nonlocal reached
            if number != place:
                return
            reached = True
            if late and isinstance(awaited, asyncio.Future):
                awaited.add_done_callback(lambda _: task.cancel())  # before the task itself hears of it
            else:
                asyncio.get_running_loop().call_soon(task.cancel)

        async def work() -> object:
            return await operation(clock)

        async def counted() -> object:
            return await _Counted(work(), waits)

        task = asyncio.create_task(counted())
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # a cancellation may come too late to change the result
        for _ in range(5):
            await asyncio.sleep(0)
        check()
        left = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        assert not left, f"cancelled at wait {place}, these are still there: {left}"

    clock.run(main())
    return reached


class _Counted:
    """An awaitable that carries out a coroutine and tells of each wait: its number, from 1, and what is waited for."""

    def __init__(self, work: Coroutine[Any, Any, object], waits: Callable[[int, object], None]) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Any:
        number = 0
        error: BaseException | None = None
        while True:
            try:
                awaited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as done:
                return done.value
            error = None
            number += 1
            self._waits(number, awaited)
            try:
                yield awaited
            except BaseException as caught:
                error = caught
