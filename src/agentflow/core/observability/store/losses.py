"""How many events are not in the file, and why: counted by any thread, handed to the writer, which writes it down.

losses.add("queue")                 it was not kept
news = losses.take()                {("queue", ""): Loss(3, first, last)}; put_back(news) where it was not written
losses.total, losses.by_reason      since the beginning

queue        there was no room: the disk is too slow
disk         the file could not be written until the end
bound        the file is full of what may not be deleted
closed       it was told after the end
unwritable   it was no event
redaction    the redactor failed at a text, which was left out; the event is there
damaged      a note alone: where the damaged file lies now
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Loss", "LossKey", "Losses"]

LossKey: TypeAlias = tuple[str, str]
"""The reason, and a note."""


@dataclass(frozen=True, slots=True)
class Loss:
    """So many events, the first and the last of them at these times."""

    events: int
    first: float
    last: float

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.events + other.events, min(self.first, other.first), max(self.last, other.last))


class Losses:
    """Counts, and what of it is still to be written down."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._total: Counter[str] = Counter()
        self._unwritten: dict[LossKey, Loss] = {}
        self._lock = threading.RLock()  # the garbage collector may tell an event while this thread holds it

    @property
    def total(self) -> int:
        """Events that are not there."""
        with self._lock:
            return self._total.total() - self._total["redaction"]

    @property
    def by_reason(self) -> dict[str, int]:
        with self._lock:
            return dict(self._total)

    def add(self, reason: str, events: int = 1, note: str = "") -> None:
        now = self._now()
        with self._lock:
            if events:
                self._total[reason] += events
            self._merge((reason, note), Loss(events, now, now))

    def take(self) -> dict[LossKey, Loss]:
        """What is to be written down."""
        if not self._unwritten:
            return {}
        with self._lock:
            taken, self._unwritten = self._unwritten, {}
        return taken

    def put_back(self, taken: Mapping[LossKey, Loss]) -> None:
        with self._lock:
            for key, loss in taken.items():
                self._merge(key, loss)

    def _merge(self, key: LossKey, loss: Loss) -> None:
        before = self._unwritten.get(key)
        self._unwritten[key] = loss if before is None else before + loss
