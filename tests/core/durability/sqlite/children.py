"""Child processes of tests: started, read line by line, and surely gone at the end.

with child(path, "run", "r1", 20, die="after-insert:7") as process:
    process.line()             the next line that it writes
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["Child", "child"]

ROOT = Path(__file__).resolve().parents[4]
_PROGRAM = "tests.core.durability.sqlite.durable_child"


class Child:
    """A process that says what has happened."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self.process = process
        self.pid = process.pid
        self._out: IO[str] = process.stdout
        self._in: IO[str] = process.stdin

    def line(self) -> str:
        return self._out.readline().strip()

    def until(self, word: str) -> list[str]:
        """The lines up to the first that begins so, that one included."""
        lines = []
        while line := self.line():
            lines.append(line)
            if line.startswith(word):
                return lines
        raise AssertionError(f"it ended before it said {word!r}: {lines}")

    def rest(self) -> list[str]:
        """All that it has still to say, until it ends."""
        lines = [line.strip() for line in self._out]
        self.process.wait()
        return lines

    def say(self, line: str = "") -> None:
        self._in.write(f"{line}\n")
        self._in.flush()


@contextmanager
def child(path: Path, *arguments: object, die: str = "", sync: str = "normal") -> Iterator[Child]:
    command = [sys.executable, "-m", _PROGRAM, str(path), *map(str, arguments), "--sync", sync]
    process = subprocess.Popen(
        [*command, *(["--die", die] if die else [])],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
