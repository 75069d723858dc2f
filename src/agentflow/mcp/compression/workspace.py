"""Where a recipe's stages leave their folders, so that a run that was killed goes on after the last one that ended.

    .NAME.work/
      lock
      1-prune-3f2a…/          what the stage wrote: a whole model folder, put there in one rename
      1-prune-3f2a….json      its record
      2-distill-91bc….scratch/   what a stage that has not ended keeps for itself

The hash in a name is of everything that the stage's result depends on: the source, the stages up to it, the texts, the
seed. Another recipe in the same place therefore shares the stages that are the same, and repeats the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agentflow.core.file_lock import FileLock
from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact.manifest import StageRecord

__all__ = ["Place", "Workspace"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one stage writes."""

    folder: Path
    record: Path
    scratch: Path

    def done(self) -> StageRecord | None:
        """What the stage said when it ended; None while it has not."""
        if not self.folder.is_dir():
            return None
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=StageRecord)
        except (OSError, msgspec.MsgspecError):
            shutil.rmtree(self.folder)  # it ended, and was killed before it could say so
            return None

    def finish(self, record: StageRecord) -> None:
        """Keep the record; what the stage scribbled is not needed any more."""
        partial = self.record.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(record))
        partial.replace(self.record)
        shutil.rmtree(self.scratch, ignore_errors=True)


class Workspace:
    """The folder of one artifact's making. Raises CompressionError where another process works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the block, no other process works here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        if not lock.take():
            raise CompressionError(f"another process works in {self.folder}; wait for it, or give another output")
        try:
            yield
        finally:
            lock.give_up()

    def place(self, number: int, kind: str, facts: object) -> Place:
        """Of the stage `number` (from 1), whose result depends on `facts` (anything JSON can hold) alone."""
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{number}-{kind}-{digest}"
        scratch = self.folder / f"{name}.scratch"
        scratch.mkdir(exist_ok=True)
        return Place(self.folder / name, self.folder / f"{name}.json", scratch)

    def remove(self) -> None:
        """After the artifact stands elsewhere. What cannot be removed stays."""
        with suppress(OSError):
            shutil.rmtree(self.folder)
