"""What a shared limiter, budget or breaker asks of the store: a question, a message that nobody waits for, a lease.

The store is one; a test's double is another, which is how cancellation is tested at every place that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from agentflow.clock import Clock
from agentflow.integrations.valkey.scripts import Script

__all__ = ["Argument", "Message", "Remote"]

Argument: TypeAlias = str | float | bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A script to be run some time soon. `arguments` is called when it is sent, as time may have passed until then;
    `sent` is called on the event loop that sent it, once the server has carried it out."""

    script: Script
    keys: Sequence[str]
    arguments: Callable[[], Sequence[Argument]]
    sent: Callable[[], None] | None = None


class Remote(Protocol):
    @property
    def clock(self) -> Clock: ...

    @property
    def replicas(self) -> int:
        """How many processes share the store: each takes that part of every limit while it is away."""
        ...

    @property
    def lease(self) -> float:
        """Seconds after which what a process held comes back if it is not heard of."""
        ...

    @property
    def up(self) -> bool: ...

    def keys(self, kind: str, key: str, *parts: str) -> tuple[str, ...]:
        """The names of a thing's keys in the store, all in one cluster slot."""
        ...

    async def ask(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, undo: Callable[[], None] | None
    ) -> Any | None:
        """The script's answer; None where the store does not answer in time, or is known to be down.

        `undo` is called where nobody will see the answer, though there may be one: the caller was cancelled (then once
        the question has ended), or it took too long. It must be quick, and raise nothing.
        """
        ...

    def send(self, message: Message) -> None:
        """Queue a message. Synchronous, from any thread; raises nothing."""
        ...

    def hold(self, lease: str, holder: str, *, often: bool) -> None:
        """Renew the lease that `holder` has in the sorted set `lease`, until it is let go. `often`: it is a slot, and a
        store that has lost its memory must hear of it before it gives that to another."""
        ...

    def let_go(self, holder: str) -> None: ...

    def when_back(self, callback: Callable[[], None]) -> None:
        """Call this each time the store has come back. It is kept weakly, so it must be a bound method."""
        ...
