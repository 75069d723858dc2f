"""The thread that attends to an engine while it has runs: hears of cancellations, and copies the log into the file.

    engine.execute ──▶ attendant.needed()         it looks every half a second, and ends when there is nothing to do
    large log      ──▶ attendant.hurry()

It is a thread and no task, so that it costs an event loop nothing, works while one is blocked, and lets a clock that
jumps stand still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Attendant"]

_EVERY: Final = 0.5  # seconds


class Attendant:
    """`look` is called again and again, while `is_needed`. It must not raise."""

    def __init__(self, look: Callable[[], None], is_needed: Callable[[], bool]) -> None:
        self._look = look
        self._is_needed = is_needed
        self.begin()

    def begin(self) -> None:
        """Without a thread, as at first: in a forked child there is none."""
        self._lock = threading.Lock()
        self._nudge = threading.Event()
        self._thread: threading.Thread | None = None

    def needed(self) -> None:
        with self._lock:
            if self._thread is None:
                self._nudge.clear()
                self._thread = threading.Thread(target=self._attend, name="agentflow durability", daemon=True)
                self._thread.start()

    def hurry(self) -> None:
        """Look now, not only at the next time."""
        self.needed()
        self._nudge.set()

    def end(self) -> None:
        """Once it is not needed any more: return when its thread has ended. Not for an event loop."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._nudge.set()
            thread.join()

    def _attend(self) -> None:
        while True:
            self._nudge.wait(_EVERY)
            self._nudge.clear()
            self._look()
            with self._lock:
                if not self._is_needed():
                    self._thread = None
                    return
