"""One action's queue: alerts wait here for it, in order, and for nobody else.

    lane = Lane("ops", action)
    lane.put(alert)                ── returns at once; a task works while there is something to do
    await lane.drained(5.0)        ── until all that waits has been done, or the time is up

A queue that is full lets go of its oldest: what is newer says more. What is dropped or fails is counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from dataclasses import dataclass

from agentflow.core.observability.alerts.action import Action
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.redaction.redactor import redact
from agentflow.errors import describe

__all__ = ["ActionCounts", "Lane"]

_ROOM = 1000
_log = logging.getLogger("agentflow.alerts")


@dataclass(frozen=True, slots=True)
class ActionCounts:
    """How one action fared: alerts it was told of, failed at, and never got because they were `dropped`; how many wait,
    the one that it is busy with included; and its last failure in words."""

    told: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0
    last_error: str | None = None


class Lane:
    """Belongs to one event loop at a time; on a new one it goes on with what was left."""

    __slots__ = (
        "_action",
        "_busy",
        "_dropped",
        "_failed",
        "_last_error",
        "_name",
        "_task",
        "_told",
        "_unfinished",
        "_waiting",
    )

    def __init__(self, name: str, action: Action) -> None:
        self._name = name
        self._action = action
        self._waiting: deque[Alert] = deque()
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._told = self._failed = self._dropped = 0
        self._unfinished = 0  # what was broken off: dropped, and said with the rest when the lane is closed
        self._last_error: str | None = None

    def put(self, alert: Alert) -> None:
        """From a running event loop."""
        if len(self._waiting) >= _ROOM:
            self._waiting.popleft()
            self._drop(1)
        self._waiting.append(alert)
        if self._here() is None:
            # A context of its own: what is done about an alert is no part of the run that it was noticed in.
            self._task = asyncio.get_running_loop().create_task(self._work(), context=Context())

    async def drained(self, timeout: float) -> bool:
        """Whether nothing waits any more, within so many seconds."""
        task = self._here()
        if task is not None:
            await asyncio.wait([task], timeout=timeout)
        return task is None or task.done()

    async def aclose(self) -> None:
        """End at once. What is not done by then counts as dropped."""
        task, self._task = self._here(), None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        unfinished = self._unfinished + len(self._waiting)
        self._unfinished = 0
        self._waiting.clear()
        if unfinished:
            self._dropped += unfinished
            _log.warning("the alert action %s was not done in time: %d alerts were not told", self._name, unfinished)

    def counts(self) -> ActionCounts:
        waiting = len(self._waiting) + self._busy
        return ActionCounts(self._told, self._failed, self._dropped + self._unfinished, waiting, self._last_error)

    # ---- within

    def _here(self) -> asyncio.Task[None] | None:
        """The task that works, if it does so on this event loop."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    async def _work(self) -> None:
        while self._waiting:
            alert = self._waiting.popleft()
            self._busy = True
            try:
                await self._action.act(alert)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this action's own trouble
                self._fail(error)
            except asyncio.CancelledError:
                self._unfinished += 1
                raise
            else:
                self._told += 1
            finally:
                self._busy = False

    def _fail(self, error: Exception) -> None:
        self._failed += 1
        self._last_error = redact(describe(error))[:500]
        if _worth_a_line(self._failed):
            _log.warning("the alert action %s failed (%d times): %s", self._name, self._failed, self._last_error)

    def _drop(self, number: int) -> None:
        before, self._dropped = self._dropped, self._dropped + number
        if len(str(before)) < len(str(self._dropped)) or before == 0:
            _log.warning("the alert action %s is behind: %d alerts dropped", self._name, self._dropped)


def _worth_a_line(count: int) -> bool:
    """The first, the tenth, the hundredth, …"""
    return str(count).rstrip("0") == "1"
