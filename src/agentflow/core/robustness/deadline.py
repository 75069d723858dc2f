"""One time limit for a whole operation, however many waits it consists of.

    deadline = Deadline(60.0, "translate")
    with deadline:                        # as often as you like; only what is awaited inside is ever cancelled
        chunk = await anext(chunks)
    deadline.close()

This is `asyncio.timeout` (whose rules about `uncancel` it follows), except that one timer serves all the waits of a
stream: entering costs a fraction of a microsecond, and the consumer is never cancelled between two chunks.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import current_task, get_running_loop
from collections.abc import Callable
from types import TracebackType
from typing import Final

from agentflow.errors import OperationTimeoutError

__all__ = ["Deadline", "is_bounded_by"]


def is_bounded_by(when: float) -> bool:
    """Whether this task is under a deadline that will end it no later, so that it needs no timer of its own.

    Only this task: what it starts in another one, or in a thread, outlives the deadline and is not cancelled by it.
    """
    alarm = _alarms.get(get_running_loop())
    task = current_task()
    return alarm is not None and task is not None and alarm.ends(task, when)


class Deadline:
    """`seconds` from now on, None for no limit. What is late raises OperationTimeoutError for the `operation`, or what
    `failure` makes of it and of the seconds."""

    __slots__ = (
        "_alarm",
        "_cancelled",
        "_cancelling",
        "_expires",
        "_failure",
        "_late",
        "_loop",
        "_operation",
        "_outer",
        "_seconds",
        "_task",
    )
    # What is only known while a block runs is only set then: each call makes one of these.
    _cancelled: bool
    _cancelling: int
    _outer: Deadline | None

    def __init__(
        self,
        seconds: float | None,
        operation: str = "total",
        *,
        failure: Callable[[str, float], Exception] = OperationTimeoutError,
    ) -> None:
        self._operation = operation
        self._seconds = seconds
        self._failure = failure
        self._late = False
        self._task: asyncio.Task[object] | None = None
        self._loop = loop = get_running_loop()
        self._alarm = alarm = _alarms.get(loop) or _alarm_of(loop)
        self._expires: float | None = None
        if seconds is not None:
            self._expires = when = alarm.now() + seconds
            alarm.add(self, when)

    @property
    def remaining(self) -> float:
        """Seconds that are left, 0 or more; infinite without a limit."""
        return math.inf if self._expires is None else max(0.0, self._expires - self._loop.time())

    def check(self) -> None:
        """Raises what is late raises, if the time is up already."""
        if self._late or (self._expires is not None and self._alarm.now() >= self._expires):
            raise self._failure(self._operation, self._seconds or 0.0)

    def restart(self, seconds: float | None) -> None:
        """So many seconds from now on, whatever there was before; None for no limit."""
        self._seconds, self._late = seconds, False
        self.end_at(None if seconds is None else self._loop.time() + seconds)

    def beside(self) -> Deadline:
        """The same limit for another task: a deadline belongs to one."""
        twin = Deadline(None, self._operation, failure=self._failure)
        twin._seconds = self._seconds
        twin.end_at(self._expires)
        return twin

    def fails_with(self, failure: Callable[[str, float], Exception]) -> None:
        """From now on what is late raises something else."""
        self._failure = failure

    def allows(self, seconds: float) -> bool:
        """Whether a wait of so many seconds would end in time."""
        return self._expires is None or self._loop.time() + seconds < self._expires

    def extend(self, seconds: float) -> None:
        """Give so much more time: what was spent waiting for a person does not count."""
        if self._expires is None:
            return
        self._expires += seconds
        self._late = False
        self._alarm.add(self, self._expires)

    def end_at(self, when: float | None) -> None:
        """Be over at another time of the loop's clock; None for never."""
        self.close()
        self._expires = when
        if when is not None:
            self._alarm.add(self, when)

    def close(self) -> None:
        """It is over: it bounds and cancels nothing any more. Safe to call twice."""
        # The timer stays, also when nothing waits any more: the next deadline is most often a later one and needs no
        # other, which saves a call that is alone half of what its limit costs.
        self._alarm._waiting.pop(self, None)
        self._expires = None

    def __enter__(self) -> Deadline:
        if self._late:
            raise self._failure(self._operation, self._seconds or 0.0)
        self._task = task = current_task(self._loop)
        if task is not None:
            inside = self._alarm._inside
            self._cancelling, self._cancelled = task.cancelling(), False
            self._outer = inside.get(task)
            inside[task] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        if self._outer is None:
            self._alarm._inside.pop(task, None)
        else:
            self._alarm._inside[task] = self._outer
            self._outer = None
        if not self._cancelled:
            return
        self._cancelled = False
        # A count above the one at entry means that somebody else cancelled too: theirs wins.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._failure(self._operation, self._seconds or 0.0) from error

    def expire(self) -> None:
        """The time is up; the alarm says so."""
        self._late = True
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()


class _Alarm:
    """One timer of an event loop for all its deadlines: a timer for each would be a tenth of what a call costs.

    It is set for the earliest, and goes off once where that has ended long since. Most deadlines are gone by then,
    because their calls have ended: then it looks for the next. With many waiting it does so less often, a microsecond
    later for each, so that a storm of them stays linear.

    Where it rings late itself, because the loop was blocked, it lets the loop have one turn first: what came in time,
    while nobody looked, counts.
    """

    __slots__ = ("_inside", "_loop", "_timer", "_waiting", "_when", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        usual = type(loop).time is asyncio.BaseEventLoop.time
        self.now = time.monotonic if usual else loop.time  # the same, without a call in between
        self._waiting: dict[Deadline, float] = {}
        self._inside: dict[asyncio.Task[object], Deadline] = {}  # the innermost that each task waits under
        self._when = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: Deadline, when: float) -> None:
        self._waiting[deadline] = when
        if when < self._when:
            self._set(when)

    def ends(self, task: asyncio.Task[object], when: float) -> bool:
        """Whether the task is going to be cancelled by that time, give or take a hundredth of a second."""
        deadline = self._inside.get(task)
        return deadline is not None and self._waiting.get(deadline, math.inf) <= when + 0.01

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if now - self._when > _BLOCKED:
            self._set(now)
            return
        self._timer, self._when = None, math.inf
        for deadline in [deadline for deadline, when in self._waiting.items() if when <= now]:
            del self._waiting[deadline]
            deadline.expire()
        if self._waiting:
            self._set(max(min(self._waiting.values()), now + len(self._waiting) * _LATER))


_LATER: Final = 1e-6
_BLOCKED: Final = 0.05  # seconds that a timer is late only where something held up the loop
_alarms: dict[asyncio.AbstractEventLoop, _Alarm] = {}


def _alarm_of(loop: asyncio.AbstractEventLoop) -> _Alarm:
    """The loop's own alarm; those of loops that have ended are forgotten when another one begins."""
    alarm = _alarms.get(loop)
    if alarm is None:
        for ended in [other for other in list(_alarms) if other.is_closed()]:
            _alarms.pop(ended, None)
        alarm = _alarms[loop] = _Alarm(loop)
    return alarm
