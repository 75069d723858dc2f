"""So many dollars (or tokens, …) a day for all processes together.

    budget = store.budget("search", amount=20.0, per_seconds=86_400)
    spend = await budget.try_spend(0.04)          None where it would be too much
    spend.settle(0.031)                           what it was in the end; queued, not awaited

Windows are counted from 1970 by the server's clock. What is estimated is spent at once, so two calls cannot both take
the last dollar; a call that costs more than its estimate is counted in full, and may leave the budget overdrawn.

Each process (each event loop in it) has its own entry in the store and tells, with whatever it asks, its own sum. So a
store that lost its memory is told again, what is spent while it is away is counted when it is back, and nothing is
counted twice. While it is away each process may spend up to amount ÷ replicas of the window, what it spent before
included: until the window ends, no more than twice the amount can go, and only where processes spent unevenly before.

The listener hears `budget_refused` (amount, spent, seconds until the window ends, shared).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.turn import Turn
from agentflow.integrations.valkey.lane import Lane
from agentflow.integrations.valkey.remote import Argument, Message, Remote
from agentflow.integrations.valkey.scripts import SPEND

__all__ = ["SharedBudget", "Spend"]


class SharedBudget:
    """Made by `ValkeyStore.budget`; each process makes it once for a key."""

    def __init__(
        self, remote: Remote, key: str, *, amount: float, per_seconds: float, listener: Listener | None = None
    ) -> None:
        if not 0 < amount < math.inf:
            raise ValueError(f"amount must be positive and finite, not {amount:g}")
        if not 1 <= per_seconds < math.inf:
            raise ValueError(f"per_seconds must be at least 1 second and finite, not {per_seconds:g}")
        self._remote = remote
        self._name = key
        self._amount = amount
        self._length = per_seconds
        self._listener = listener
        self._keys = remote.keys("spent", key, f"{per_seconds:g}")
        self._offset = remote.clock.time() - remote.clock.monotonic()  # until the server has told its time
        self._entries: dict[asyncio.AbstractEventLoop, _Entry] = {}
        self._total = 0.0
        self._turn = Turn()

    def __repr__(self) -> str:
        return f"<shared budget {self._name}: {self._amount:g} in {self._length:g} s>"

    @property
    def spent(self) -> float:
        """What all had spent in this window when the store last answered."""
        return self._total

    async def try_spend(self, amount: float) -> Spend | None:
        """Spend it if it is there. None where the window's amount does not allow it."""
        if not 0 < amount < math.inf:
            raise ValueError(f"amount must be positive and finite, not {amount:g}")
        entry = self._entry()
        await entry.lane.turn(None, TimeoutError)
        try:
            with self._turn:
                arguments = self._arguments(entry, amount)
                entry.asking = amount
            answer = await self._remote.ask(SPEND, self._keys, arguments, undo=lambda: self._report(entry))
            granted = self._alone(entry, amount) if answer is None else self._together(entry, amount, answer)
        finally:
            self._asked(entry)
        return Spend(self, entry, entry.window, amount) if granted else None

    def _asked(self, entry: _Entry) -> None:
        with self._turn:
            entry.asking, unsure = 0.0, entry.unsure
            entry.unsure = False
        if unsure:
            self._report(entry)
        entry.lane.next()

    def _together(self, entry: _Entry, amount: float, answer: Sequence[Any]) -> bool:
        granted, window, total, rest, now = (float(part) for part in answer)
        with self._turn:
            self._offset = now - self._remote.clock.monotonic()
            self._total = total
            entry.turn_to(int(window))
            if granted:
                entry.spent += amount
        if not granted:
            self._refused(amount, total, rest, shared=True)
        return bool(granted)

    def _alone(self, entry: _Entry, amount: float) -> bool:
        now = self._offset + self._remote.clock.monotonic()
        window = math.floor(now / self._length)
        with self._turn:
            entry.turn_to(window)
            spent = sum(other.spent for other in self._entries.values() if other.window == window)
            granted = spent + amount <= self._amount / self._remote.replicas + 1e-9
            if granted:
                entry.spent += amount
        if granted:
            self._report(entry)
        else:
            self._refused(amount, spent, (window + 1) * self._length - now, shared=False)
        return granted

    def _settle(self, spend: Spend, actual: float) -> None:
        """Never waits for the lock (see turn)."""
        self._turn.soon(partial(self._end, spend, actual))

    def _end(self, spend: Spend, actual: float) -> None:
        if spend.closed:
            return
        spend.closed = True
        entry = spend.entry
        if entry.window == spend.window:  # else that window is over
            entry.spent = max(0.0, entry.spent + actual - spend.amount)
            self._report(entry)

    def _report(self, entry: _Entry) -> None:
        """Tell the store this entry's sum, soon."""
        self._remote.send(Message(SPEND, self._keys, lambda: self._told(entry)))

    def _told(self, entry: _Entry) -> Sequence[Argument]:
        with self._turn:
            entry.unsure = entry.asking > 0  # which of the two arrives first? The larger sum, and another one later
            return self._arguments(entry, 0.0, entry.asking)

    def _arguments(self, entry: _Entry, amount: float, asked: float = 0.0) -> Sequence[Argument]:
        return (
            repr(self._amount),
            repr(self._length),
            entry.name,
            next(entry.numbers),
            entry.window,
            f"{entry.spent + asked:.9f}",
            f"{amount:.9f}",
        )

    def _entry(self) -> _Entry:
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None:
            entry = self._entries[loop] = _Entry(loop)
        return entry

    def _refused(self, amount: float, spent: float, seconds: float, *, shared: bool) -> None:
        tell(self._listener, "budget_refused", self._name, amount=amount, spent=spent, seconds=seconds, shared=shared)


class _Entry:
    """What one event loop has spent in a window. Its messages are numbered: an older one that comes late is ignored."""

    __slots__ = ("asking", "lane", "name", "numbers", "spent", "unsure", "window")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = Lane(loop)
        self.name = uuid.uuid4().hex[:16]
        self.numbers = itertools.count(1)
        self.window = -1
        self.spent = 0.0
        self.asking = 0.0  # what a question on its way would spend
        self.unsure = False  # a sum was sent while it was

    def turn_to(self, window: int) -> None:
        if window > self.window:
            self.window, self.spent = window, 0.0


class Spend:
    """What was spent, to be corrected. The first of `settle` and `cancel` counts; both are synchronous."""

    __slots__ = ("_budget", "amount", "closed", "entry", "window")

    def __init__(self, budget: SharedBudget, entry: _Entry, window: int, amount: float) -> None:
        self._budget = budget
        self.entry = entry
        self.window = window
        self.amount = amount
        self.closed = False

    def settle(self, actual: float) -> None:
        """It was this much in the end. Without a word it counts as it was estimated. What cannot be (below 0, NaN) is
        taken for the estimate."""
        self._budget._settle(self, actual if 0 <= actual < math.inf else self.amount)

    def cancel(self) -> None:
        """Nothing was spent."""
        self._budget._settle(self, 0.0)
