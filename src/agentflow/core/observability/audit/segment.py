"""One file of the log, open for writing at its end: a line is written whole, or the file is as it was before.

segment = Segment(path)
segment.append(line)         OSError: nothing was added; what was half written is cut off again
segment.sync()
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Segment"]


class Segment:
    """Called under the log's lock. `size` is what was written, in bytes; `intact` looks whether that is still there."""

    __slots__ = ("_torn", "handle", "path", "size")

    def __init__(self, path: Path, *, new: bool = False) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self.handle = os.open(path, flags | (os.O_EXCL if new else 0), 0o600)
        self.path = path
        self.size = os.fstat(self.handle).st_size
        self._torn = False

    def append(self, line: bytes) -> None:
        if self._torn:
            self._mend()
        try:
            written = os.write(self.handle, line)
            while written < len(line):  # full, or nearly so: the next write says
                written += os.write(self.handle, line[written:])
        except OSError:
            self._torn = True
            with suppress(OSError):  # it is tried again before the next line
                self._mend()
            raise
        self.size += len(line)

    def cut(self, size: int) -> None:
        """Drop what stands behind the first `size` bytes."""
        os.ftruncate(self.handle, size)
        self.size = size

    def _mend(self) -> None:
        os.ftruncate(self.handle, self.size)
        self._torn = False

    def intact(self) -> bool:
        """False where somebody has removed the file, or made it longer or shorter."""
        status = os.fstat(self.handle)
        return status.st_nlink > 0 and (self._torn or status.st_size == self.size)

    def twin(self) -> int:
        """A handle of the caller's own, so that it can sync and close without the log's lock."""
        return os.dup(self.handle)

    def close(self) -> None:
        os.close(self.handle)
