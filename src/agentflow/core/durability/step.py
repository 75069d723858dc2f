"""The step that this code is part of: its journal, its id, and what it has asked and been answered.

    step = current_step.get()                      None where nothing is kept
    call = step.call(fingerprint)                  the same question, for the n-th time in this step
    if call.found is None:
        await call.save(body, cost=…, tokens=…)    what it came to; found on the next replay

A step that runs again, because it was parked or its process died, runs from its top and finds the answers it had.
Ordinals count per fingerprint, and a question to a person is found by what it asks, so that what is asked at the same
time needs no order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import Lock

from agentflow.clock import Clock
from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Interrupt, Record
from agentflow.core.parking import Parked

__all__ = ["Call", "DurableStep", "current_step", "step_out"]


class DurableStep:
    """One visit of a node, or one item of an `Each`, as whoever works in it sees it. Safe to use from threads.

    `cost`, `tokens` and `calls` are those of all that it asked, also of what it found in the journal; `attempts` how
    often its exec was tried.
    """

    __slots__ = (
        "_asked",
        "_before",
        "_lock",
        "_ordinals",
        "attempts",
        "calls",
        "clock",
        "cost",
        "journal",
        "path",
        "tokens",
        "undo",
        "waits",
    )

    def __init__(self, journal: Journal, path: str, clock: Clock) -> None:
        self.journal = journal
        self.path = path
        self.clock = clock
        self.attempts = 1
        self.calls = 0
        self.cost: float | None = 0.0
        self.tokens = 0
        self.undo: tuple[object, object] | None = None
        """What exec took and returned, where that can be undone."""
        self._ordinals: dict[str, int] = {}  # a Counter takes longer to make than the rest of a step
        self._lock = Lock()
        self.waits: dict[str, Interrupt] = {}
        """What it has to wait for, by id."""
        self._asked: frozenset[str] = frozenset()
        self._before: frozenset[str] | None = None  # what had been asked when exec was first tried

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal digits: the same whenever this step runs, in whatever process, and no other step's."""
        return _key(self.journal.run_id, self.path)

    def id_of(self, what: str) -> str:
        """The id of the next thing of its sort in this step: `what` is "call:3fa9…", "wait", "timer"."""
        with self._lock:
            self._ordinals[what] = number = self._ordinals.get(what, 0) + 1
        return f"{self.path}!{what}:{number}"

    def call(self, fingerprint: str) -> Call:
        """The next call of what `fingerprint`, a text without "/", "#" or "!", tells from all others."""
        return Call(self, self.id_of(f"call:{fingerprint}"))

    def question(self, asks: Callable[[Record], bool]) -> tuple[str, Record | None]:
        """The id of the next question, and its record where it was asked before: the first that `asks` knows again."""
        number = 1
        with self._lock:
            while True:
                id = f"{self.path}!wait:{number}"
                record = self.journal.find(id)
                if id not in self._asked and (record is None or asks(record)):
                    self._asked |= {id}
                    return id, record
                number += 1

    def trying(self) -> None:
        """Exec is tried, perhaps once more: it finds the answers that an earlier attempt was given."""
        with self._lock:
            if self._before is None:
                self._before = self._asked
            self._asked = self._before

    def park(self, wait: Interrupt) -> Parked:
        """To be raised: the step has to wait for it. Should that be swallowed, it takes effect after the step."""
        self.waits[wait.id] = wait
        return Parked([wait])

    def count(self, cost: float | None, tokens: int) -> None:
        """Something in it has cost so much."""
        with self._lock:
            self.calls += 1
            self.tokens += tokens
            self.cost = None if cost is None or self.cost is None else self.cost + cost


class Call:
    """A question to a model or a tool, in a step. `found` is what it came to earlier, None where it is to be asked."""

    __slots__ = ("_begun", "_step", "found", "id")

    def __init__(self, step: DurableStep, id: str) -> None:
        self.id = id
        self._step = step
        record = step.journal.find(id)
        self._begun = step.clock.monotonic()
        self.found = None if record is None else record.body
        if record is not None:
            step.count(record.cost, record.tokens)

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal digits: the same whenever this call is made, so that it is not billed twice."""
        return _key(self._step.journal.run_id, self.id)

    async def save(self, body: str, *, cost: float | None = 0.0, tokens: int = 0, attempts: int = 1) -> None:
        """Keep what it came to, as JSON text. Raises DurabilityError."""
        step = self._step
        step.count(cost, tokens)
        seconds = step.clock.monotonic() - self._begun
        await step.journal.save(Record(self.id, "call", body, step.clock.time(), seconds, attempts, cost, tokens))


current_step: ContextVar[DurableStep | None] = ContextVar("agentflow_step", default=None)


def step_out(token: Token[DurableStep | None]) -> None:
    """What follows is no part of the step that was set any more."""
    try:  # noqa: SIM105 - `suppress` takes ten times as long, at every step
        current_step.reset(token)
    except ValueError:
        pass  # closed from outside, in another context


def _key(run_id: str, path: str) -> str:
    return hashlib.sha256(f"{run_id}\0{path}".encode()).hexdigest()[:32]
