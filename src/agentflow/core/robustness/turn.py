"""A guard's lock that a release never waits for, so that it cannot stop its own thread for ever.

    turn = Turn()
    with turn: ...                     decide; short, and without foreign code
    turn.soon(action)                  release: at once if the lock is free, else done by whoever has it, as it lets go

A plain lock is not enough. The garbage collector may run while a thread holds it, and close an abandoned coroutine,
whose `async with` then releases what it held: in the same thread, under the same lock. (For this reason
`queue.SimpleQueue` is written in C.) Whoever takes something does wait for it; a finalizer must not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

__all__ = ["Turn"]


class Turn:
    """`lock` may be taken alone where every nanosecond counts; `if turn.left: turn.catch_up()` follows its release.

    A release may do so, too, after `lock.locked()` has said that the lock is free: should another thread be quicker,
    it waits for that one, and never for itself. (To ask is half as dear as an `acquire` that does not wait.)
    """

    __slots__ = ("left", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.left: deque[Callable[[], None]] = deque()

    def soon(self, action: Callable[[], None]) -> None:
        """Carry it out under the lock, now or a moment later. It must not raise."""
        self.left.append(action)
        self.catch_up()

    def catch_up(self) -> None:
        """Carry out what was left. Whoever holds the lock does so in our place: it looks once more after letting go."""
        while self.left and self.lock.acquire(blocking=False):
            try:
                if self.left:
                    self.left.popleft()()
            finally:
                self.lock.release()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()
        if self.left:
            self.catch_up()
