"""Single keys from a terminal, without Return: for a display that ends with `q`.

    with pressed_keys() as key:
        while key(1.0) != "q":                  # waits for a second at most
            …

The terminal is put back as it was, whatever happens. Where stdin is no terminal, or has no such mode, no key is ever
pressed, and the wait is only a wait.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["pressed_keys"]


@contextmanager
def pressed_keys() -> Iterator[Callable[[float], str | None]]:
    """What waits so many seconds for a key: the key, or None."""
    try:
        import termios
        import tty

        source = sys.stdin.fileno()
        before = termios.tcgetattr(source)
    except (ImportError, OSError, ValueError, AttributeError):
        yield _only_wait
        return
    except Exception as error:  # noqa: BLE001 - termios.error is no OSError, and only termios can name it
        del error
        yield _only_wait
        return
    try:
        tty.setcbreak(source)
        yield lambda seconds: _key(source, seconds)
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _only_wait(seconds: float) -> None:
    time.sleep(seconds)


def _key(source: int, seconds: float) -> str | None:
    ready, _, _ = select.select([source], [], [], seconds)
    return os.read(source, 16).decode("utf-8", "replace")[:1] or None if ready else None
