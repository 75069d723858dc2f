"""The places at which a process can be told to die, and the diary of what it did that cannot be taken back.

    point("before save a/write#1 step")      counted, and perhaps the last thing that this process does
    async with effect("exec"): …             "exec+ a/write#1" and "exec- a/write#1" stand in the diary for good

A diary is a file that is only appended to, a line a write, so that what stands in it has happened. `Doom` says where
to die: at the n-th point, at every n-th that no earlier process died at, or nowhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentflow.core.durability.step import current_step

__all__ = ["Doom", "begin", "effect", "here", "note", "point"]


@dataclass(frozen=True, slots=True)
class Doom:
    """`at` is the number of the point to die at, the first is 1. With `each` it is the `each`-th of those that are not
    in the diary as somebody's last."""

    at: int = 0
    each: int = 0


@dataclass(slots=True)
class _Life:
    """What this process knows of itself."""

    diary: int = -1
    process: int = 0
    doom: Doom = field(default_factory=Doom)
    points: int = 0
    new: int = 0
    lasts: frozenset[str] = frozenset()
    names: Counter[str] = field(default_factory=Counter)


_life = _Life()


def begin(diary: Path, process: int, doom: Doom) -> None:
    """The life of process number `process` of one run begins."""
    global _life
    lines = diary.read_text().splitlines() if diary.exists() else []
    lasts = frozenset(line.partition(" died ")[2] for line in lines if " died " in line)
    _life = _Life(os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), process, doom, lasts=lasts)


def note(words: str) -> None:
    """A line in the diary."""
    os.write(_life.diary, f"{_life.process} {words}\n".encode())


def point(name: str) -> None:
    """A place at which the process may be told to die. The same name means another place the next time."""
    life = _life
    life.points += 1
    life.names[name] += 1
    whole = f"{name} ({life.names[name]})"
    if life.doom.each and whole not in life.lasts:
        life.new += 1
    if life.points == life.doom.at or (life.doom.each and life.new == life.doom.each and whole not in life.lasts):
        note(f"died {whole}")
        os.kill(os.getpid(), signal.SIGKILL)
    if not life.doom.at and not life.doom.each:
        note(f"point {whole}")


def here() -> str:
    """The path of the step that this code is part of."""
    step = current_step.get()
    return "nowhere" if step is None else step.path


@asynccontextmanager
async def effect(what: str, path: str | None = None) -> AsyncIterator[None]:
    """Something that happens outside: it can die before it, within it, and after it."""
    path = path or here()
    point(f"before {what} {path}")
    note(f"{what}+ {path}")
    await asyncio.sleep(0)
    point(f"in {what} {path}")
    yield
    note(f"{what}- {path}")
    point(f"after {what} {path}")
