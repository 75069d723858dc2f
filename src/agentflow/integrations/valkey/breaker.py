"""A circuit breaker that opens for all processes when it opens in one. Only until when it is open is shared.

    shared = store.share_breaker("openai/gpt-4o", lambda listener: CircuitBreaker(name="gpt-4o", listener=listener))
    with shared.guard(): ...                    as with the breaker itself: synchronous, never waits for the store

    one process                      the store                     the others
    opens for a while ─(queued)──▶  a key that lives so long  ◀── ask once a second, in the background, when used
                                                                ──▶ breaker.hold_open(what is left)

Each process tries the service again by itself when the time is over. While the store is away each breaker stands alone.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from agentflow.core.robustness.breaker_state import BreakerState
from agentflow.core.robustness.circuit_breaker import CircuitBreaker, Permit
from agentflow.core.robustness.decision import Decision, Listener
from agentflow.core.robustness.waiting import running_loop
from agentflow.integrations.valkey.remote import Message, Remote
from agentflow.integrations.valkey.scripts import OPEN

__all__ = ["BreakerGate", "SharedBreaker"]

P = ParamSpec("P")
R = TypeVar("R")

_FRESH: Final = 1.0  # seconds for which an answer is believed


class BreakerGate:
    """Made by `ValkeyStore.breaker_gate`."""

    def __init__(self, remote: Remote, key: str) -> None:
        self._remote = remote
        self._keys = remote.keys("open", key, "until")
        self._asked_at = -_FRESH
        self._ours = self._told = -math.inf  # until when it is open: as published here, and as the store said
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """For how long it is still open, as far as is known here; 0 where it is not."""
        return max(0.0, max(self._ours, self._told) - self._remote.clock.monotonic())

    def due(self) -> bool:
        """Whether the store should be asked again. Whoever is told so, once a second, is to ask."""
        now = self._remote.clock.monotonic()
        with self._lock:
            if now - self._asked_at < _FRESH:
                return False
            self._asked_at = now
            return True

    async def open_until(self) -> float:
        """For how many seconds it is still open; asks at most once a second, and not while the store is down."""
        if self.due():
            await self.ask()
        return self.seconds

    async def ask(self) -> float:
        """The same, asked now."""
        answer = await self._remote.ask(OPEN, self._keys, (0,), undo=None)
        if answer is not None:
            self._told = self._remote.clock.monotonic() + int(answer) / 1000
        return self.seconds

    def publish(self, seconds: float) -> None:
        """It has opened here for so long. Queued; what is open for longer already stays so."""
        until = self._remote.clock.monotonic() + seconds
        self._ours = max(self._ours, until)
        self._remote.send(Message(OPEN, self._keys, lambda: (self._milliseconds(until),)))

    def _milliseconds(self, until: float) -> int:
        return max(0, round((until - self._remote.clock.monotonic()) * 1000))


class SharedBreaker:
    """Core's breaker, with what others found. It has the breaker's face; the breaker itself is `breaker`.

    A process that has not used it for a while may let the calls of one moment through before it hears.
    """

    def __init__(
        self, gate: BreakerGate, breaker: Callable[[Listener], CircuitBreaker], listener: Listener | None = None
    ) -> None:
        self._gate = gate
        self._listener = listener
        self._asking: set[asyncio.Task[None]] = set()
        self._told = threading.local()  # set while the breaker is held open for another process
        self.breaker = breaker(self._heard)

    @property
    def name(self) -> str:
        return self.breaker.name

    @property
    def state(self) -> BreakerState:
        """As far as is known here."""
        return self.breaker.state

    @property
    def retry_after(self) -> float | None:
        return self.breaker.retry_after

    @property
    def announced(self) -> BreakerState:
        return self.breaker.announced

    @announced.setter
    def announced(self, state: BreakerState) -> None:
        self.breaker.announced = state

    @property
    def summary(self) -> str:
        return f"{self.breaker.summary}; open where another process's is"

    def check(self) -> None:
        """Raise CircuitOpenError if no call would be let through now. Takes nothing."""
        self._look()
        self.breaker.check()

    def acquire(self) -> Permit:
        """Leave to make one call, or CircuitOpenError."""
        self._look()
        return self.breaker.acquire()

    def guard(self) -> AbstractContextManager[Permit]:
        """`with breaker.guard():` one call, recorded by how the block ends."""
        self._look()
        return self.breaker.guard()

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Guard every call of an async function."""

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.guard():
                return await function(*args, **kwargs)

        return guarded

    async def refresh(self) -> None:
        """Ask the store, if it was not asked within the last second, and open if another process has."""
        self._obey(await self._gate.open_until())

    def _look(self) -> None:
        """The same in the background, for a caller who does not wait."""
        loop = running_loop()
        if loop is not None and self._gate.due():
            task = loop.create_task(self._ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self) -> None:
        self._obey(await self._gate.ask())

    def _obey(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self._told.by_another = True
        try:
            self.breaker.hold_open(seconds)
        finally:
            self._told.by_another = False

    def _heard(self, decision: Decision) -> None:
        """What the breaker decided; that it opened by itself is told to the others."""
        if self._listener is not None:
            self._listener(decision)
        seconds = decision.data.get("open_for")
        opened = decision.kind == "breaker_state" and decision.data.get("to") == "open"
        if opened and isinstance(seconds, float | int) and not getattr(self._told, "by_another", False):
            self._gate.publish(seconds)
