"""An alarm that rings late, because the event loop was blocked, lets what came in time win."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.deadline import Deadline
from agentflow.errors import OperationTimeoutError


def test_what_came_while_the_loop_was_blocked_counts() -> None:
    """The answer lies there when the loop goes on, and so does the alarm: the answer goes first."""
    clock = VirtualClock()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        loop.call_later(0.9, lambda: clock.advance(5))  # blocked, from just before the limit
        loop.call_later(0.95, lambda: answer.set_result("in time"))
        with Deadline(1.0) as deadline:
            try:
                return await answer
            finally:
                deadline.close()

    assert clock.run(main()) == "in time"


def test_a_blocked_loop_makes_nothing_wait_for_ever() -> None:
    clock = VirtualClock()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.9, lambda: clock.advance(5))
        with pytest.raises(OperationTimeoutError):
            with Deadline(1.0):
                await loop.create_future()
        assert clock.monotonic() == pytest.approx(5.9, abs=0.01)

    clock.run(main())


def test_a_caller_s_cancellation_still_wins_over_a_late_alarm() -> None:
    clock = VirtualClock()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def wait() -> None:
            with Deadline(1.0):
                await loop.create_future()

        task = asyncio.create_task(wait())
        loop.call_later(0.9, lambda: clock.advance(5))
        loop.call_later(0.95, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    clock.run(main())
