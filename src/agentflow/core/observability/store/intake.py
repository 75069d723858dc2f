"""The way from a run to the writer: a queue that never makes anybody wait.

    intake.put(event)          any thread; False where there was no room
    intake.mark(mark)          something that comes after all events put before it, room or not
    intake.next()              for the writer: waits for the first
    intake.more(500)           for the writer: what else is there, in order

It holds a number of events and, roughly, of characters: a thousand prompts weigh more than a thousand node_starts. When
it is full, there is still some room for how runs began and ended, and for what was spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Event
from typing import Final

from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Intake", "Mark"]

_EVENTS: Final = 50_000
_CHARACTERS: Final = 64 * 1024 * 1024
_FOR_SUMS: Final = 0.2  # parts of the room that there are beside it
_FOR_RUNS: Final = 0.4
_SUMS: Final = frozenset({"model_success", "model_error", "model_cancelled", "feedback"})
_LOOKED_AT: Final = 50  # items of a list: a longer one is weighed by these


class Mark(Event):
    """Set when all that was told before it is in the file. After the last one the writer ends."""

    def __init__(self, *, last: bool = False) -> None:
        super().__init__()
        self.last = last


class Intake:
    """`put` takes a microsecond, and no lock that it could be interrupted under (`SimpleQueue` is reentrant)."""

    __slots__ = ("_queue", "_room", "_weight")

    def __init__(self, room: int = _EVENTS) -> None:
        self._queue: SimpleQueue[ExecutionEvent | Mark] = SimpleQueue()
        self._room = room
        self._weight = 0

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, event: ExecutionEvent) -> bool:
        held = self._queue.qsize()
        if (held >= self._room or self._weight > _CHARACTERS) and not self._is_let_in(event, held):
            return False
        if event.data:
            # Where threads really run at once one of two sums may be lost: it is rough, and begins anew in `more`.
            self._weight += weight_of(event.data)
        self._queue.put(event)
        return True

    def _is_let_in(self, event: ExecutionEvent, held: int) -> bool:
        """Where there is no room: how a run ended, and what was spent, are worth more than a step in between."""
        more = _FOR_RUNS if event.parent is None else _FOR_SUMS if event.kind in _SUMS else 0.0
        return max(held / self._room, self._weight / _CHARACTERS) < 1.0 + more

    def mark(self, mark: Mark) -> None:
        self._queue.put(mark)

    def next(self) -> ExecutionEvent | Mark:
        return self._weighed_off(self._queue.get())

    def more(self, most: int) -> list[ExecutionEvent | Mark]:
        taken: list[ExecutionEvent | Mark] = []
        try:
            while len(taken) < most:
                taken.append(self._weighed_off(self._queue.get_nowait()))
        except Empty:
            self._weight = 0
        return taken

    def _weighed_off(self, item: ExecutionEvent | Mark) -> ExecutionEvent | Mark:
        if not isinstance(item, Mark):
            self._weight -= weight_of(item.data)
        return item


def weight_of(data: Mapping[str, object]) -> int:
    """Roughly how many characters it holds; prompts are lists of dictionaries of texts."""
    weight = 0
    try:
        for value in data.values():
            kind = type(value)
            if kind is str:
                weight += len(value)  # type: ignore[arg-type]
            elif kind is list:
                weight += _weight_of_list(value)  # type: ignore[arg-type]
    except RuntimeError:  # another thread is changing it
        pass
    return weight


def _weight_of_list(items: list[object]) -> int:
    weight = 0
    for item in islice(items, _LOOKED_AT):
        if type(item) is dict:
            for text in item.values():
                if type(text) is str:
                    weight += len(text)
    return weight * max(1, len(items) // _LOOKED_AT)
