"""A thread that does what need not be waited for: syncing, heads, anchors. It sleeps while there is nothing to do.

keeper = Keeper(tend, "agentflow-audit")
keeper.poke(1.0)        call tend in a second, unless it is to be called sooner
tend() -> float | None  in how many seconds it wants to be called again
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Keeper"]


class Keeper:
    """The thread starts with the first poke. `stop` ends it; what `tend` is doing then, it finishes."""

    def __init__(self, tend: Callable[[], float | None], name: str) -> None:
        self._tend = tend
        self._name = name
        self._changed = threading.Condition()
        self._due: float | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def poke(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._due is not None and self._due <= due:
            return  # the usual case, without the lock: the thread looks again before it sleeps
        with self._changed:
            if self._stopped or (self._due is not None and self._due <= due):
                return
            self._due = due
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Wait for the thread's end."""
        with self._changed:
            self._stopped = True
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (self._due is None or self._due > time.monotonic()):
                    self._changed.wait(None if self._due is None else max(0.0, self._due - time.monotonic()))
                if self._stopped:
                    return
                self._due = None
            again = self._tend()
            if again is not None:
                self.poke(again)
