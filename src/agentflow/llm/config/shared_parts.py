"""Parts that run once in a process, however many registries want them.

    with shared(("runs", path), lambda: store_at(path)) as store: ...

The first who asks makes it, the others get the same, and the last who leaves ends it. All of it happens under `lock()`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, TypeVar, cast

__all__ = ["lock", "shared"]

T = TypeVar("T")


class _Part:
    """Something that runs, what ends it, and how many use it."""

    __slots__ = ("ending", "users", "value")

    def __init__(self, value: object, ending: ExitStack) -> None:
        self.value = value
        self.ending = ending
        self.users = 0


_running: Final[dict[Hashable, _Part]] = {}
_lock = threading.RLock()


def lock() -> AbstractContextManager[object]:
    """For whoever starts or ends several parts in one go."""
    return _lock


@contextmanager
def shared(key: Hashable, make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """What runs under that key already, or is made now. The last who uses it ends it."""
    part = _running.get(key)
    if part is None:
        ending = ExitStack()
        part = _running[key] = _Part(ending.enter_context(make()), ending)
    part.users += 1
    try:
        yield cast(T, part.value)
    finally:
        part.users -= 1
        if not part.users:
            del _running[key]
            part.ending.close()


def _renew_lock() -> None:
    """In a forked child: a thread that it does not have may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
