"""The digest example as a process that is killed, and goes on: its lives, and what its journal holds after each.

digest = Digest(folder, lab)              twelve documents, one of them too long for one question
ended = await digest.lives(Doom(lines=7)) begins, or goes on; None where it was killed before it ended
digest.kept                               after each life, the idempotency keys of the calls that it left behind
digest.was_done                           after each life that has begun the run, whether it was done
digest.cost, digest.stretches             what the journal says at last
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.support.lab import MODEL, Lab
from tests.support.programs import surroundings

from agentflow import SqliteDurability
from agentflow.core.durability.records import RunInfo

__all__ = ["Digest", "Doom", "documents"]

WORDS = 200  # of the digest: fewer than the model says, so that it is asked to shorten


@dataclass(frozen=True, slots=True)
class Doom:
    """Killed when its life has so many lines in the diary, and so many seconds more have gone by."""

    lines: int
    after: float = 0.0


class Digest:
    def __init__(self, folder: Path, lab: Lab) -> None:
        self.kept: list[frozenset[str]] = []
        self.run_id: str | None = None
        self.stretches = 0
        self.cost: float | None = None
        self.was_done: list[bool] = []
        self._folder = folder
        self._lab = lab
        documents(folder / "docs")

    @property
    def file(self) -> Path:
        return self._folder / ".agentflow" / "runs.db"

    @property
    def text(self) -> str:
        return (self._folder / "digest.md").read_text()

    async def lives(self, doom: Doom | None = None) -> bool:
        """One life. True where it came to its end."""
        life = len(self.kept)
        (self._folder / "models.yml").write_text(self._lab.models_yml(life))
        process = await self._started(*self._words())
        killer = None if doom is None else asyncio.create_task(self._kill(process, life, doom))
        try:
            _, complaint = await process.communicate()
        finally:
            await _ended(process, killer)
        assert process.returncode in (0, -signal.SIGKILL), f"life {life}: {complaint.decode()}"
        await self._look()
        return process.returncode == 0

    def _words(self) -> tuple[str, ...]:
        end = ("--model", MODEL, "--output", "digest.md")
        if self.run_id is None:
            return ("run", str(ROOT / "examples" / "digest.py"), "docs", "-i", f"words={WORDS}", *end)
        return ("runs", "resume", "last", *end)

    async def _started(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentflow", *words,
            cwd=self._folder,
            env=surroundings(HOME=str(self._folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def _kill(self, process: asyncio.subprocess.Process, life: int, doom: Doom) -> None:
        await self._lab.until(life, doom.lines)
        await asyncio.sleep(doom.after)  # into the middle of whatever comes next
        with suppress(ProcessLookupError):
            process.kill()

    async def _look(self) -> None:
        """What this life leaves behind. A copy is looked at: whoever opens a file of SQLite's mends it."""
        self.kept.append(frozenset())
        copy = self._folder / f"left-{len(self.kept)}"
        if not self.file.exists():
            return
        shutil.copytree(self.file.parent, copy)
        engine = SqliteDurability(copy / "runs.db")
        runs: Sequence[RunInfo] = await engine.runs()
        if runs:
            [self.run_id] = [info.run_id for info in runs]
            self.cost = runs[0].cost
            self.was_done.append(runs[0].status == "done")
            records = await engine.records(self.run_id)
            self.stretches = sum(record.kind == "stretch" for record in records)
            calls = [record.id for record in records if record.kind == "call"]
            self.kept[-1] = frozenset(_key(self.run_id, id) for id in calls)
            assert len(self.kept[-1]) == len(calls)
        await engine.close()
        shutil.rmtree(copy)


async def _ended(process: asyncio.subprocess.Process, killer: asyncio.Task[None] | None) -> None:
    """Nothing of a life is left, also where the test has failed meanwhile."""
    if killer is not None:
        killer.cancel()
        await asyncio.wait([killer])
    if process.returncode is None:
        process.kill()
        await process.communicate()


def _key(run_id: str, id: str) -> str:
    """The idempotency key with which a call is asked, from its id in the journal."""
    return hashlib.sha256(f"{run_id}\0{id}".encode()).hexdigest()[:32]


def documents(folder: Path) -> None:
    """Twelve, each with words of its own."""
    folder.mkdir()
    for number in range(12):
        dice = random.Random(number)
        words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(3, 9))) for _ in range(150)]
        paragraphs = 60 if number == 7 else 3
        text = "\n\n".join(" ".join(dice.choices(words, k=120)) + "." for _ in range(paragraphs))
        (folder / f"{number:02}.txt").write_text(text)
