"""Time limits that know of each other: work within work has no more time than what is around it.

    with limit(5.0, "search"):            # around awaits; raises OperationTimeoutError("search", 5.0)
        with limit(60.0, "fetch"):        # has at most what is left of the five seconds
            await fetch(headers={"x-timeout-ms": str(remaining_ms())})

A limit travels in a context variable, so a task that is started inside inherits it: its own limits are bounded by it,
but the task is not cancelled by it. A limit that was left binds nobody any more, also not the tasks started in it.

Edges:

- The rules of `asyncio.timeout`: what is awaited is cancelled when the time is up. A caller's own cancellation passes
  through, also when both come at once. A block that does not wait is not interrupted, and one that ends is not late.
- The error names the limit that expired, not the one that noticed: the outer's name and seconds, if that was nearer.
- Where the time is up already (0 s, or a blocked loop), entering raises, and the block does not run.
- A thread started with `asyncio.to_thread` can ask for `remaining_ms()`, but cannot be interrupted.
- An async generator should not yield inside of a limit: it would bind whoever iterates.

A limit costs an entry in the one timer of its loop (see deadline.py), and not even that inside a nearer one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from agentflow.core.robustness.attempt import current_attempt
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.waiting import running_loop
from agentflow.errors import OperationTimeoutError

__all__ = ["Limit", "bounded_by_context", "current_deadline", "limit", "remaining", "remaining_ms"]


def remaining() -> float:
    """Seconds until the work around must be done, 0 or more; infinite without a limit.

    A call that a pipeline makes is bounded by the pipeline's limit of time as well."""
    around, attempt = _around(), current_attempt.get()
    left = math.inf if around is None else around.remaining
    if attempt is None or attempt.deadline is None:
        return left
    return min(left, attempt.deadline.remaining)


def remaining_ms() -> int | None:
    """The same for another process, whose clock is another: whole milliseconds, rounded down. None without a limit."""
    seconds = remaining()
    return None if seconds == math.inf else int(seconds * 1000)


def current_deadline() -> float | None:
    """The moment by which the work around must be done, by the clock of the event loop that runs here (of the one that
    set the limit, in a thread without); None without a limit."""
    around, here, left = _around(), running_loop(), remaining()
    if left == math.inf:
        return None
    if around is not None and left == around.remaining and (here is None or here is around.loop):
        return around.when
    return (time.monotonic() if here is None else here.time()) + left


def bounded_by_context(seconds: float | None) -> float | None:
    """A limit of so many seconds (None: no limit) where the work around may have less time left."""
    if _current.get() is None and current_attempt.get() is None:
        return seconds  # most calls have no work around them, and each pays for this
    left = remaining()
    if left == math.inf:
        return seconds
    return left if seconds is None else min(seconds, left)


def limit(seconds: float | None, operation: str = "operation") -> Limit:
    """`with limit(5.0, "search"):` gives what is awaited inside five seconds, or what is left around it; None sets no
    limit of its own. `operation` is named by the error."""
    if seconds is not None and seconds != seconds:
        raise ValueError("seconds is a number of seconds or None, not nan")
    return Limit(seconds, operation)


class Limit:
    """Made by `limit`. Used for one block; `when` is the moment (of the loop's clock) at which the time is up."""

    __slots__ = (
        "_counts",
        "_deadline",
        "_outer",
        "_task",
        "_token",
        "_watch",
        "expired",
        "left",
        "loop",
        "operation",
        "seconds",
        "when",
    )

    _deadline: Deadline | None
    _outer: Limit | None
    _counts: Limit | None  # whose moment it is, None for ours
    _task: asyncio.Task[object] | None  # which is cancelled at that moment

    def __init__(
        self, seconds: float | None, operation: str, watch: Callable[[Limit, bool], None] | None = None
    ) -> None:
        """`watch` hears of the end of the block, and whether it was a success."""
        self.seconds = seconds
        self.operation = operation
        self.when = math.inf
        self.expired = False
        """Whether the time was up: our own, not the nearer one around."""
        self.left = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._watch = watch

    @property
    def remaining(self) -> float:
        """Seconds that are left, 0 or more; infinite without a limit, here or around."""
        if self.loop is None:
            return math.inf if self.seconds is None else max(0.0, self.seconds)
        return max(0.0, self.when - self.loop.time())

    def __enter__(self) -> Limit:
        if self.loop is not None:
            raise RuntimeError(f"the limit of {self.operation} was used already: make one for each block")
        self.loop = loop = asyncio.get_running_loop()
        now = loop.time()
        if self.seconds is not None:
            self.when = now + self.seconds
        task = self._task = asyncio.current_task()
        outer = self._outer = _around()
        self._counts = self._deadline = None
        ends_us = outer is not None and self._bound_by(outer, now) and outer._task is task
        if self.when <= now:
            raise self._late("", 0.0)
        # A nearer limit around us cancels this very task: no second timer for the same moment.
        if not ends_us and self.when != math.inf:
            self._deadline = deadline = Deadline(self.when - now, failure=self._late)
            deadline.__enter__()
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        try:  # noqa: SIM105 - suppress() would cost each block
            _current.reset(self._token)
        except ValueError:  # a generator that is closed from another context
            pass
        deadline, self._deadline = self._deadline, None
        try:
            if deadline is not None:
                deadline.close()
                deadline.__exit__(kind, error, trace)
        finally:
            if self._watch is not None:
                self._watch(self, kind is None)

    def _leave(self) -> None:
        """Bind nobody any more, and keep nothing alive that was left, too."""
        self.left = True
        self._task = None
        if self._outer is not None:
            self._outer = _living(self._outer)

    def _bound_by(self, outer: Limit, now: float) -> bool:
        """Whether the one around us is nearer; then its moment is ours."""
        when = outer.when if outer.loop is self.loop else now + outer.remaining
        if when > self.when or when == math.inf:
            return False
        self.when, self._counts = when, outer._counts or outer
        return True

    def _late(self, _: str, __: float) -> Exception:
        self.expired = self._counts is None
        counts = self._counts or self
        return OperationTimeoutError(counts.operation, counts.seconds or 0.0)


_current: ContextVar[Limit | None] = ContextVar("agentflow_limit", default=None)


def _around() -> Limit | None:
    around = _current.get()
    return around if around is None or not around.left else _living(around)


def _living(innermost: Limit | None) -> Limit | None:
    """The innermost that was not left yet: a task inherits limits that may end before it does."""
    while innermost is not None and innermost.left:
        innermost = innermost._outer
    return innermost
