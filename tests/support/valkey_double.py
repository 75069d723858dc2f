"""A store that is no server: its decisions in a few lines of Python, an answer after a millisecond of virtual time.

remote = RemoteDouble(clock)          what the real one promises (remote.py), so that a sweep can cancel everywhere
remote.flush()                        all that is on its way arrives now
remote.leases, remote.queue           who holds what, and who waits
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.clock import Clock
from agentflow.integrations.valkey.remote import Argument, Message
from agentflow.integrations.valkey.scripts import ADJUST, FINISH, TAKE, Script

__all__ = ["RemoteDouble"]

_LATENCY = 0.001


@dataclass
class _Call:
    answer: asyncio.Future[Any]
    script: Script
    arguments: Sequence[Any]
    undo: Callable[[], None] | None


class RemoteDouble:
    """Limits refill as they do in the real one; leases do not expire."""

    def __init__(self, clock: Clock, *, replicas: int = 1) -> None:
        self.clock = clock
        self.replicas = replicas
        self.lease = 30.0
        self.up = True
        self.leases: dict[str, dict[str, float]] = {}  # what each holder was granted
        self.queue: list[str] = []
        self.held: set[str] = set()
        self.levels: dict[str, float] = {}
        self.sent: list[Message] = []
        self.asked = 0
        self._at = clock.monotonic()
        self._calls: list[_Call] = []
        self._back: list[Callable[[], None]] = []

    def keys(self, kind: str, key: str, *parts: str) -> tuple[str, ...]:
        return tuple(f"{kind}:{{{key}}}:{part}" for part in parts)

    async def ask(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, undo: Callable[[], None] | None
    ) -> Any | None:
        self.asked += 1
        if not self.up:
            return None
        call = _Call(asyncio.get_running_loop().create_future(), script, arguments, undo)
        self._calls.append(call)
        asyncio.get_running_loop().call_later(_LATENCY, self._serve, call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            # Cancelled while it was under way, the server's end will see that nobody listens. But it may have come.
            if undo is not None and not call.answer.cancelled():
                undo()
            raise

    def send(self, message: Message) -> None:
        self.sent.append(message)
        asyncio.get_running_loop().call_later(_LATENCY, self._deliver, message)

    def hold(self, lease: str, holder: str, *, often: bool) -> None:
        self.held.add(holder)

    def let_go(self, holder: str) -> None:
        self.held.discard(holder)

    def when_back(self, callback: Callable[[], None]) -> None:
        self._back.append(callback)

    def come_back(self) -> None:
        self.up = True
        for callback in self._back:
            callback()

    def flush(self) -> None:
        for call in list(self._calls):
            self._serve(call)
        for message in list(self.sent):
            self._deliver(message)

    # ---- the server's end

    def _serve(self, call: _Call) -> None:
        if call not in self._calls:
            return
        self._calls.remove(call)
        answer = self._take(*call.arguments) if call.script is TAKE else self._spend(*call.arguments)
        if call.answer.cancelled():
            if call.undo is not None:
                call.undo()
        else:
            call.answer.set_result(answer)

    def _deliver(self, message: Message) -> None:
        if message not in self.sent or not self.up:
            return
        self.sent.remove(message)
        if message.script is FINISH:
            self._finish(*message.arguments())
        elif message.script is ADJUST:
            self._adjust(*message.arguments())
        if message.sent is not None:
            message.sent()

    def _take(
        self, holder: str, lease: float, slots: int, patience: float, nap: float, *groups: Any
    ) -> tuple[int, str]:
        buckets = self._refilled(groups)
        ahead = self.queue.index(holder) if holder in self.queue else len(self.queue)
        waits = [(amount - self.levels[name]) / rate for name, _, rate, amount in buckets]
        if ahead or (slots and len(self.leases) >= slots):
            waits.append(0.05)
        wait = max([0.0, *waits])
        if wait <= 1e-6:
            for name, _, _, amount in buckets:
                self.levels[name] -= amount
            self.leases[holder] = {name: amount for name, _, _, amount in buckets}
        if wait <= 1e-6 or wait > patience:
            self._leave(holder)
        elif holder not in self.queue:
            self.queue.append(holder)
        return (1, "0") if wait <= 1e-6 else (0, str(wait))

    def _finish(self, holder: str, *groups: Any) -> None:
        self._leave(holder)
        if self.leases.pop(holder, None) is not None:
            for name, capacity, _, amount in self._refilled(groups):
                self.levels[name] = min(capacity, self.levels[name] + amount)

    def _adjust(self, mode: str, seconds: float, *groups: Any) -> None:
        for name, _, rate, amount in self._refilled(groups):
            level = self.levels[name]
            most = {"left": amount, "drain": amount - seconds * rate, "used": level - max(0, min(amount, level))}
            self.levels[name] = min(level, most[mode])

    def _spend(self, *arguments: Any) -> tuple[Any, ...]:
        return (1, "1", "0", "60", str(self.clock.time()))

    def _refilled(self, groups: Sequence[Any]) -> list[tuple[str, float, float, float]]:
        now, buckets = self.clock.monotonic(), [groups[index : index + 4] for index in range(0, len(groups), 4)]
        for name, capacity, rate, _ in buckets:
            self.levels[name] = min(capacity, self.levels.get(name, capacity) + (now - self._at) * rate)
        if buckets:
            self._at = now
        return [(str(name), capacity, rate, amount) for name, capacity, rate, amount in buckets]

    def _leave(self, holder: str) -> None:
        if holder in self.queue:
            self.queue.remove(holder)
