"""A coroutine that nobody ends but the garbage collector, and a clock in whose midst that happens.

clock = Collecting()
abandon(use(guard))                it has begun, and hangs; nobody knows it any more
clock.when = lock.locked           from now on whoever asks this clock under that lock is the one who closes it
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from agentflow.clock import VirtualClock

__all__ = ["Collecting", "abandon", "for_ever"]


class Collecting(VirtualClock):
    """Whoever asks it runs the garbage collector, as any line of Python may, `when` that says so."""

    when: Callable[[], bool] | None = None
    collected = 0

    def monotonic(self) -> float:
        self._collect()
        return super().monotonic()

    def random(self) -> float:
        self._collect()
        return super().random()

    def _collect(self) -> None:
        if self.when is not None and self.when():
            self.collected += 1
            gc.collect()


class _Never:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def for_ever() -> None:
    """Wait for what never comes; needs no event loop."""
    await _Never()


def abandon(coroutine: Coroutine[Any, Any, object]) -> None:
    """Start it, and leave it in a cycle that only the collector breaks."""
    coroutine.send(None)
    cycle: list[object] = [coroutine]
    cycle.append(cycle)
