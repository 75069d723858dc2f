"""How late an event loop is: a timer that is due now and does not run is waited for by every task as well.

    lag = LoopLag()
    lag.seconds()          # of the loop that runs here: 0.0 at first, then what the timer finds

The first question starts a timer on that loop, and it measures as long as somebody asks: after `idle` seconds without a
question it stops, and keeps no loop busy. The value is a moving average over half a second, so that one pause of the
garbage collector is not taken for overload, but a loop that hangs for a second is.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from agentflow.core.robustness.waiting import running_loop

__all__ = ["LoopLag"]

_OVER: Final = 0.5  # seconds that the average reaches back
_LONGEST: Final = 10.0  # what is later was asleep with its machine, and is fresh again


class LoopLag:
    """One timer a loop, every `interval` seconds."""

    __slots__ = ("_idle", "_interval", "_probes")

    def __init__(self, *, interval: float = 0.1, idle: float = 5.0) -> None:
        for name, value in (("interval", interval), ("idle", idle)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} is a finite number of seconds above 0, not {value!r}")
        self._interval, self._idle = interval, idle
        self._probes: dict[asyncio.AbstractEventLoop, _Probe] = {}

    def seconds(self) -> float:
        """How late the running loop is. 0.0 where none runs."""
        loop = running_loop()
        if loop is None:
            return 0.0
        probe = self._probes.get(loop)
        return self._start(loop) if probe is None else probe.ask()

    @property
    def measuring(self) -> int:
        """Loops on which a timer runs."""
        return sum(not loop.is_closed() for loop in list(self._probes))

    def _start(self, loop: asyncio.AbstractEventLoop) -> float:
        for ended in [other for other in list(self._probes) if other.is_closed()]:
            self._probes.pop(ended, None)
        self._probes[loop] = _Probe(self._probes, loop, self._interval, self._idle)
        return 0.0


class _Probe:
    """The timer of one loop; everything here runs on that loop."""

    __slots__ = ("_asked", "_due", "_idle", "_interval", "_loop", "_probes", "_value")

    def __init__(
        self,
        probes: dict[asyncio.AbstractEventLoop, _Probe],
        loop: asyncio.AbstractEventLoop,
        interval: float,
        idle: float,
    ) -> None:
        self._probes, self._loop = probes, loop
        self._interval, self._idle = interval, idle
        self._value = 0.0
        self._asked = loop.time()
        self._due = 0.0
        self._wait(self._asked)

    def ask(self) -> float:
        now = self._asked = self._loop.time()
        # A loop that is busy asks before its timer has run: what it is late by now counts as well.
        return max(self._value, self._averaged(now)) if now > self._due else self._value

    def _wait(self, now: float) -> None:
        self._due = now + self._interval
        self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        self._value = self._averaged(now)
        if now - self._asked <= self._idle:
            self._wait(now)
        else:
            self._probes.pop(self._loop, None)

    def _averaged(self, now: float) -> float:
        late = min(_LONGEST, max(0.0, now - self._due))
        weight = 1.0 - math.exp(-(self._interval + late) / _OVER)
        return self._value + weight * (late - self._value)
