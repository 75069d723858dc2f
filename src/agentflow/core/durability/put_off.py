"""Types that are registered when something is stored, and not before: most programs store nothing.

when_storing(register)     called once, before a value of an unknown type is written or read

What stores values is slow to load, so that whoever defines types for others says here how they are registered.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Final

__all__ = ["catch_up", "when_storing"]

_put_off: list[Callable[[], None]] = []
_lock: Final = RLock()


def when_storing(register: Callable[[], None]) -> None:
    """`register` makes types storable. It must not fail."""
    _put_off.append(register)


def catch_up() -> None:
    """Do what was put off. Whoever comes meanwhile waits until it is done."""
    with _lock:
        while _put_off:
            _put_off.pop(0)()
