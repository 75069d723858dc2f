"""Flows that ask and fail, and a terminal that somebody sits at."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ASKS = """
from typing import Literal
from agentflow import *

@node(writes="draft")
async def write():
    with open("calls.txt", "a") as calls:
        print("write", file=calls)
    return "The moon pulls the sea."

@node(reads="draft", writes="output")
async def judge(draft):
    return await interrupt("Publish this?", {"title": "Tides", "draft": draft}, schema=Literal["publish", "discard"])

@node(writes="told")
async def notify():
    return await interrupt("Tell the readers?", schema=bool)

@node(reads=("output", "told"), writes="output")
async def both(output, told): return f"{output}, {told}"

flow = AsyncFlow(write >> judge, name="article")
two = AsyncFlow(write >> (judge, notify) >> both, name="two")
"""

_PATIENCE = 60.0  # seconds


class Terminal:
    """A command on a terminal of its own; what it shows is plain text, without colours."""

    def __init__(self, place: Path, words: tuple[str, ...], width: int, stdout: int | None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color"}
        environ.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentflow.cli.main", *words],
            cwd=place, env=environ, stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs,
            start_new_session=True, preexec_fn=_controlled,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""
        self._read_to = 0

    def until(self, words: str) -> str:
        """What stood there up to these words, beyond what was waited for before."""
        end = time.monotonic() + _PATIENCE
        while words not in self.shown[self._read_to :] and time.monotonic() < end and self._read():
            pass
        assert words in self.shown[self._read_to :], self.shown
        begin, self._read_to = self._read_to, self.shown.index(words, self._read_to) + len(words)
        return self.shown[begin : self._read_to]

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._read():
            pass
        return self.process.wait(_PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], 0.2)
        if not ready:
            return True
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other end is closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace")).replace("\r", "")
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


def _controlled() -> None:
    """Make it the terminal that Ctrl-C is pressed at."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(place: Path) -> Iterator[Callable[..., Terminal]]:
    """`agentflow …` on a terminal."""
    begun: list[Terminal] = []

    def begin(*words: str, width: int = 80, stdout: int | None = None) -> Terminal:
        begun.append(Terminal(place, words, width, stdout))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


@pytest.fixture
def asks(place: Path) -> Path:
    """A flow that writes, and asks whether to publish; `two` asks two things at once."""
    file = place / "ask.py"
    file.write_text(ASKS)
    return file
