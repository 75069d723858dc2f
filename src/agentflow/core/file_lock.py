"""A lock on a file, held by the process and given up with it, however it ends.

    lock = FileLock(path)
    if lock.take(): …          another process holds it: False, at once

The kernel keeps it, so no clock and no heartbeat come into it: a process that is stopped keeps its locks, one that is
killed has none. A forked child does not hold what its parent holds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["FileLock"]


class FileLock:
    """Not shared between threads: whoever takes it gives it up."""

    __slots__ = ("_handle", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def take(self) -> bool:
        """Whether the lock is ours now. Raises OSError where the file cannot be made."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(handle)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def stands(self) -> bool:
        """Whether we hold it, and the file at its path is still the one that we locked."""
        if self._handle is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._handle), self.path.stat())
        except OSError:
            return False

    def give_up(self) -> None:
        """Close the file, which is what frees it: in a forked child the parent's hold goes on."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
