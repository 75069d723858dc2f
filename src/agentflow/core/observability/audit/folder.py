"""Where an audit log lies, and what its files are called.

    .agentflow/audit/
      log.json                      the log's name, signed
      keys/                         one content key a subject: what is dropped to erase
      chain-1/                      written by one process at a time; a second process writes chain-2
        lock
        audit-00000001.jsonl …      the segments
        head.json                   the last record that was known of, signed
        removed.jsonl               what retention took away: one signed tombstone a segment

Reading changes nothing here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentflow.core.observability.audit.record import LONGEST_LINE

__all__ = ["Chain", "Folder", "lines_of", "replace_file", "settle", "write_file"]

_SEGMENT: Final = re.compile(r"audit-([0-9]{8,})\.jsonl")
_CHAIN: Final = re.compile(r"chain-([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Chain:
    """The folder of one chain."""

    path: Path
    number: int

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def head(self) -> Path:
        return self.path / "head.json"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def removed(self) -> Path:
        return self.path / "removed.jsonl"

    def segment(self, number: int) -> Path:
        return self.path / f"audit-{number:08d}.jsonl"

    def segments(self) -> list[tuple[int, Path]]:
        """The segments that are there, by their numbers."""
        return sorted((int(match[1]), path) for path in _entries(self.path) if (match := _SEGMENT.fullmatch(path.name)))


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a log."""

    path: Path

    @property
    def name_file(self) -> Path:
        return self.path / "log.json"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def chain(self, number: int) -> Chain:
        return Chain(self.path / f"chain-{number}", number)

    def chains(self) -> list[Chain]:
        """The chains that are there, by their numbers."""
        numbers = sorted(int(match[1]) for path in _entries(self.path) if (match := _CHAIN.fullmatch(path.name)))
        return [self.chain(number) for number in numbers]


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except FileNotFoundError:
        return []


def lines_of(path: Path, *, start: int = 0) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes and wholeness of each line: one at a time, and none longer than a record may be.

    A line is whole when its end is there; the last one may not be. What is too long comes in pieces that are not whole.
    """
    number = 0
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(LONGEST_LINE):
            number += 1
            whole = line.endswith(b"\n")
            yield number, line[:-1] if whole else line, whole


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Whoever reads the file sees the old bytes or the new ones. With `sync` they outlast a power cut.

    One process at a time: whoever holds the lock of the chain.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        write_file(beside, data, sync=sync)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        settle(path.parent)


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """A file for the owner's eyes alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def settle(folder: Path) -> None:
    """Make a file's being there outlast a power cut, where the system lets us."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse
        return
    finally:
        os.close(handle)
