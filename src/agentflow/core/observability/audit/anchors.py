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

__all__ = ["Anchor", "FileAnchor", "heads_in"]

Anchor: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """Appends heads to a file: on another disk, a write-once share, in another account's folder. Processes may share
    it."""

    path: Path

    def __call__(self, head: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(self.path, flags, 0o600)
        try:
            os.write(handle, head + b"\n")  # one write, so that those of two processes do not mingle
            os.fsync(handle)
        finally:
            os.close(handle)


def heads_in(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line within the first `size` bytes; a torn one at the end is left out."""
    read = 0
    for number, line, whole in lines_of(path):
        read += len(line) + 1
        if read > size:
            return
        if whole and line:
            yield number, line
