"""Where signed heads are put, so that whoever can change the log cannot also make it seem shorter than it was.

    AuditLog(…, anchors=[FileAnchor("/mnt/elsewhere/heads.jsonl"), send_to_the_other_machine])

An anchor is any function of one signed line. It is called in the background, never under the log's lock, and again
later where it raises.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentflow.core.observability.audit.folder import lines_of

__all__ = ["Anchor", "FileAnchor", "heads_in", "name_of"]

Anchor: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """Appends heads to a file: on another disk, a write-once share, in another account's folder. Processes may share
    it, and it need not be readable. What a full disk made half a line of stays half a line: the next head begins anew.
    """

    path: Path

    def __call__(self, head: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, begun = self._opened()
        try:
            line = b"\n" * begun + head + b"\n"
            written = os.write(handle, line)  # in one, so that the lines of two processes do not mingle
            while written < len(line):  # full, or nearly so: the next write says
                written += os.write(handle, line[written:])
            os.fsync(handle)
        finally:
            os.close(handle)

    def _opened(self) -> tuple[int, bool]:
        """The file, and whether a line may have been begun in it."""
        flags = os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(self.path, flags | os.O_RDWR, 0o600)
        except PermissionError:
            return os.open(self.path, flags | os.O_WRONLY, 0o600), True
        if os.fstat(handle).st_size == 0:
            return handle, False
        os.lseek(handle, -1, os.SEEK_END)
        return handle, os.read(handle, 1) != b"\n"


def name_of(anchor: Anchor) -> str:
    """What an anchor is called in a log: the path of a file, the name of a function."""
    if isinstance(anchor, FileAnchor):
        return str(anchor.path)
    return str(getattr(anchor, "__qualname__", type(anchor).__name__))


def heads_in(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line within the first `size` bytes; one without its end is left out."""
    read = 0
    for number, line, whole in lines_of(path):
        read += len(line) + 1
        if read > size:
            return
        if whole and line:
            yield number, line
