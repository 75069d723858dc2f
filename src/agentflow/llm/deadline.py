"""One time limit for a whole model call, however many waits it consists of.

    deadline = Deadline(60.0, provider="openai", model="gpt-4o")
    with deadline:                        # as often as you like; only what is awaited inside is ever cancelled
        chunk = await anext(chunks)
    deadline.close()

This is `asyncio.timeout` (whose rules about `uncancel` it follows), except that one timer serves all the waits of a
stream: entering costs a fraction of a microsecond, and the consumer is never cancelled between two chunks.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from agentflow.errors import ModelTimeoutError

__all__ = ["Deadline"]


class Deadline:
    """`seconds` from now on, None for no limit. What is late raises ModelTimeoutError with operation "total"."""

    __slots__ = (
        "_cancelled",
        "_cancelling",
        "_expires",
        "_late",
        "_loop",
        "_model",
        "_provider",
        "_seconds",
        "_task",
        "_timer",
    )

    def __init__(self, seconds: float | None, *, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model
        self._seconds = seconds
        self._late = False
        self._cancelled = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self._loop = asyncio.get_running_loop()
        self._expires = None if seconds is None else self._loop.time() + seconds
        self._timer = None if self._expires is None else self._loop.call_at(self._expires, self._expire)

    def allows(self, seconds: float) -> bool:
        """Whether a wait of so many seconds would end in time."""
        return self._expires is None or self._loop.time() + seconds < self._expires

    def extend(self, seconds: float) -> None:
        """Give so much more time: what was spent waiting for a person does not count."""
        if self._expires is None:
            return
        self._expires += seconds
        self.close()
        self._late = False
        self._timer = self._loop.call_at(self._expires, self._expire)

    def close(self) -> None:
        """Stop the timer. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> Deadline:
        if self._late:
            raise self._failure()
        self._task = task = asyncio.current_task()
        if task is not None:
            self._cancelling = task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return
        self._cancelled = False
        # A count above the one at entry means that somebody else cancelled too: theirs wins.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._failure() from error

    def _expire(self) -> None:
        self._late = True
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def _failure(self) -> ModelTimeoutError:
        return ModelTimeoutError("total", self._seconds or 0.0, provider=self._provider, model=self._model)
