"""The thread that brings events into the file: it gathers for 25 ms, cleans, has them delivered, and makes room.

    run ──▶ [ intake ] ──▶ clean ──▶ one transaction ──▶ old runs go, a little at a time
                 ▲                        │
                 └── fills up while ──────┘ locked, disk full, read-only: tried again, later each time

So what is told is in the file within 25 ms and the time of a transaction. While the file cannot be written, nothing is
lost until the intake is full; then whole events are, and counted. What cannot be told of in the file meanwhile is told
there as soon as it can be.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store.cleaning import Cleaner, to_json
from agentflow.core.observability.store.delivery import Delivery
from agentflow.core.observability.store.intake import Intake, Mark
from agentflow.core.observability.store.losses import Losses
from agentflow.core.observability.store.run_file import Kept, RunFile

__all__ = ["Writer"]

_WINDOW: Final = 0.025  # seconds that events are gathered for
_BATCH: Final = 500  # events of one transaction
_SLICE: Final = 32  # events that are cleaned before other threads get their turn
_WINDING_UP: Final = 5.0  # seconds that a store that was forgotten waits for the disk
_FORKING: Final = 2.0  # seconds that a fork waits for a transaction
_log = logging.getLogger("agentflow.runs")


class Writer:
    """Owns the thread, which starts with the first event, ends with `close`, and starts anew in a child process."""

    def __init__(self, file: Callable[[], RunFile], cleaner: Cleaner, now: Callable[[], float]) -> None:
        self._make_file = file
        self._cleaner = cleaner
        self._now = now
        self._begin()

    def _begin(self) -> None:
        self.intake = Intake()
        self.losses = Losses(self._now)
        self._delivery = Delivery(self._make_file(), self.losses)
        self._hurry = threading.Event()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._deadline = math.inf
        self._busy_with = 0

    # ---- for whoever tells events ----------------------------------------------------------------------------

    def put(self, event: ExecutionEvent) -> None:
        """Never waits, and never fails."""
        if self._closing.is_set():
            self.losses.add("closed")
        elif not self.intake.put(event):
            self.losses.add("queue")
        elif self._thread is None:
            self.start()

    def start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._serve, name="agentflow run store", daemon=True)
                thread.start()
                self._thread = thread
                _close_with_child(self)

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be written just now."""
        return self._delivery.trouble

    @property
    def behind(self) -> int:
        """Events that are not in the file yet."""
        return len(self.intake) + self._busy_with

    def flush(self, timeout: float) -> bool:
        """Whether all that was told until now is in the file, within `timeout` seconds."""
        if self._thread is None:
            return len(self.intake) == 0
        mark = Mark()
        self.intake.mark(mark)
        self._hurry.set()
        return mark.wait(timeout) and not self.trouble

    def close(self, timeout: float) -> bool:
        """Write what there is, and end. Whether all of it was written within `timeout` seconds."""
        with self._starting:
            thread, self._thread = self._thread, None
            first = not self._closing.is_set()
            self._deadline = time.monotonic() + timeout
            self._closing.set()
        if thread is not None and first:
            self.intake.mark(Mark(last=True))
            self._hurry.set()
            thread.join(timeout + 1.5)  # a little more than SQLite waits for another process
            return not thread.is_alive() and self.trouble is None
        return True

    def stop(self) -> None:
        """`close` for one that nobody has any more: it ends when it is done.

        The garbage collector calls it, in any thread and at any place, so it takes no lock.
        """
        if not self._is_closing:
            self._deadline = time.monotonic() + _WINDING_UP
            self.intake.mark(Mark(last=True))

    @property
    def _is_closing(self) -> bool:
        return self._deadline < math.inf

    def check(self) -> None:
        """Open the file now. Raises RunStoreError where that is impossible."""
        self._delivery.check()

    # ---- forks -----------------------------------------------------------------------------------------------

    def before_fork(self) -> bool:
        """Close the file: SQLite's locks and files do not survive a fork. False where a transaction took too long."""
        if not self._delivery.gate.acquire(timeout=_FORKING):
            return False
        self._delivery.file.close()
        return True

    def after_fork_in_parent(self) -> None:
        self._delivery.gate.release()

    def after_fork_in_child(self) -> None:
        """The parent writes what was told before the fork, the child what it tells itself."""
        closed = self._closing.is_set()
        self._delivery.file.abandon()
        self._begin()
        if closed:
            self._closing.set()

    # ---- the thread ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        last = False
        while not last:
            taken = [self.intake.next()]
            if len(self.intake) < _BATCH:
                self._hurry.wait(_WINDOW)
            self._hurry.clear()
            taken += self.intake.more(_BATCH - 1)
            marks = [item for item in taken if isinstance(item, Mark)]
            last = any(mark.last for mark in marks)
            if last:  # told by another thread at the same moment
                taken += self.intake.more(len(self.intake))
            self._bring_in([item for item in taken if not isinstance(item, Mark)])
            for mark in marks:
                mark.set()
        self._bring_in([])  # what was lost with the last ones
        if self.losses.total:
            reasons = ", ".join(f"{reason} {events}" for reason, events in self.losses.by_reason.items())
            _log.warning("%d events are not in %s: %s", self.losses.total, self._delivery.file.path, reasons)
        self._delivery.close()

    def _bring_in(self, events: list[ExecutionEvent]) -> None:
        self._busy_with = len(events)
        batch = list(self._cleaned(events))
        try:
            if not self._delivery.insist(batch, self._left, self._wait):
                self._give_up(batch)
            self._busy_with = 0
            if batch:
                self._delivery.make_room()
        except Exception as error:  # noqa: BLE001 - the thread goes on, and what it could not do is counted
            self._delivery.say(f"{type(error).__name__}: {error}")
            self.losses.add("unwritable", len(batch))

    def _cleaned(self, events: Iterable[ExecutionEvent]) -> Iterator[Kept]:
        for number, event in enumerate(events, start=1):
            if number % _SLICE == 0:
                time.sleep(0)  # lets go of the interpreter: runs come first
            try:
                kept = self._cleaner.clean(event)
                data = to_json(kept.data) if kept.data else None
            except Exception as error:  # noqa: BLE001 - whatever was told as an event
                self.losses.add("unwritable", note=type(error).__name__)
                continue
            if self._cleaner.unredacted:
                self.losses.add("redaction", self._cleaner.unredacted)
                self._cleaner.unredacted = 0
            yield Kept(kept, data)

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _wait(self, seconds: float) -> None:
        """Until it is worth another try, or somebody wants to end."""
        if self._is_closing:
            time.sleep(seconds)
        else:
            self._closing.wait(seconds)

    def _give_up(self, batch: list[Kept]) -> None:
        lost = len(batch)
        for item in self.intake.more(len(self.intake)):
            if isinstance(item, Mark):
                self.intake.mark(item)  # somebody waits for it
            else:
                lost += 1
        self.losses.add("disk", lost)


def _close_with_child(writer: Writer) -> None:
    """A child of `multiprocessing` that was forked ends without `atexit` (until Python 3.13): it has its own list."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, writer.close, args=(_WINDING_UP,), exitpriority=0)
