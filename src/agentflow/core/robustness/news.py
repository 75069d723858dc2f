"""What a guard has decided under its lock, kept until the lock is free: a listener may ask the guard.

    news = News(listener, "openai/gpt-4o", turn.lock)
    with turn:
        news.add("shedder_limit", {"from": 20, "to": 18})
    news.tell()                          after each time that the lock was held

With several threads each item is told once, by one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock

from agentflow.core.robustness.decision import Listener, tell

__all__ = ["News"]


class News:
    """`if news.items: news.tell()` is the same as `tell` alone, and quicker."""

    __slots__ = ("_listener", "_lock", "_name", "items")

    def __init__(self, listener: Listener | None, name: str, lock: Lock) -> None:
        self._listener = listener
        self._name = name
        self._lock = lock
        self.items: deque[tuple[str, Mapping[str, object]]] = deque()

    def add(self, kind: str, data: Mapping[str, object]) -> None:
        if self._listener is not None:
            self.items.append((kind, data))

    def tell(self) -> None:
        """Nothing while the lock is held: whoever holds it comes by here afterwards. It may even be this thread, where
        the garbage collector has interrupted it (see turn)."""
        while self.items and not self._lock.locked():
            with suppress(IndexError):  # another thread was quicker
                kind, data = self.items.popleft()
                tell(self._listener, kind, self._name, **data)
