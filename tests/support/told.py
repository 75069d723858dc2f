"""A reader of one run's events that hands each to a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Told"]


class Told:
    """`put` hands an event to `sink`; what may not wait goes to `aside`, and to nobody without one."""

    def __init__(
        self,
        sink: Callable[[ExecutionEvent], Awaitable[None]],
        aside: Callable[[ExecutionEvent], None] | None = None,
    ) -> None:
        self.put = sink
        self._aside = aside

    def leave(self, event: ExecutionEvent) -> None:
        if self._aside is not None:
            self._aside(event)
