"""Whether the store can be asked: a short memory of its failures, so that an outage is paid for once, not by each call.

    up ── a question failed ──▶ down ── every `retry` seconds, one probe in the background ──▶ up

While it is down nobody waits for it, not even the one whose turn it is to start the probe.
"""

from __future__ import annotations

import threading

__all__ = ["Health"]


class Health:
    """Shared by all threads and event loops of a process. Times are monotonic seconds."""

    __slots__ = ("_lock", "_next_probe", "_retry", "_since")

    def __init__(self, retry: float) -> None:
        self._retry = retry
        self._since: float | None = None  # when it went down
        self._next_probe = 0.0
        self._lock = threading.Lock()

    @property
    def up(self) -> bool:
        return self._since is None

    def failed(self, now: float) -> bool:
        """A question had no answer. True where that is news."""
        with self._lock:
            news = self._since is None
            if news:
                self._since = now
            self._next_probe = now + self._retry
            return news

    def answered(self, now: float) -> float | None:
        """It answered. How many seconds it had been down, None where it had not."""
        if self._since is None:
            return None
        with self._lock:
            since, self._since = self._since, None
            return None if since is None else max(0.0, now - since)

    def probe_due(self, now: float) -> bool:
        """Whether the caller is to probe now; nobody else is then asked to for a while."""
        if self._since is None or now < self._next_probe:
            return False
        with self._lock:
            if self._since is None or now < self._next_probe:
                return False
            self._next_probe = now + self._retry
            return True
