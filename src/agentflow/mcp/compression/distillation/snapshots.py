"""Where a training stands, on disk: written whole or not at all, checked when read, the one before kept beside it.

scratch/  000000050.safetensors  000000050.json      tensors; then step, key, SHA-256 and what else must be known
          000000100.safetensors  000000100.json      the newest

A snapshot counts once its JSON is there, which is written last. One that is torn, damaged, or of another training (its
`key` differs) is passed over, and the one before is taken. Nothing is pickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agentflow.errors import ShortageError

__all__ = ["Snapshot", "Snapshots"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log: Final = logging.getLogger("agentflow.compression")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """After `step` steps. `facts` is what JSON holds, `needs` the steps of other snapshots it cannot do without."""

    step: int
    facts: Mapping[str, Any]
    needs: tuple[int, ...]
    path: Path

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path)


class Snapshots:
    """Those of one training in one folder. `key` is what the training is: another one's are never continued."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any], needs: Iterable[int]
    ) -> None:
        """Replaces older ones, of which the last, and what these two need, stay. Raises ShortageError: disk full."""
        path = self._path(step)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        try:
            digest = self._write_tensors(path, tensors)
            self._write_record(path, {"key": self.key, "sha256": digest, "needs": list(needs), "facts": facts})
        except (OSError, SafetensorError) as error:
            path.with_suffix(".partial").unlink(missing_ok=True)
            if _is_full(error):
                raise ShortageError(
                    "disk", needed=size, available=shutil.disk_usage(self.folder).free,
                    advice=f"make room at {self.folder}; the training goes on from its last snapshot",
                ) from error  # fmt: skip
            raise
        self._forget_all_but_two(step)

    def newest(self) -> Snapshot | None:
        """The newest that is whole, with all that it needs."""
        for step in self._steps():
            snapshot = self._read(step)
            if snapshot is not None and all(self._read(other) is not None for other in snapshot.needs if other != step):
                return snapshot
        return None

    def at(self, step: int) -> Snapshot:
        """Raises KeyError where there is none, or it is damaged."""
        snapshot = self._read(step)
        if snapshot is None:
            raise KeyError(step)
        return snapshot

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:09}.safetensors"

    def _steps(self) -> list[int]:
        """Of all records, the newest first."""
        return sorted((int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit()), reverse=True)

    def _write_tensors(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
        partial = path.with_suffix(".partial")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
        digest = _sha256(partial)
        _put(partial, path)
        return digest

    def _write_record(self, path: Path, record: Mapping[str, Any]) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record), encoding="utf-8")
        _put(partial, path.with_suffix(".json"))

    def _record(self, step: int) -> dict[str, Any] | None:
        """None where it cannot be read, or is of another training."""
        try:
            record = json.loads(self._path(step).with_suffix(".json").read_text(encoding="utf-8"))
            return record if record["key"] == self.key else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the snapshot of step %d is passed over: %s", step, error)
            return None

    def _read(self, step: int) -> Snapshot | None:
        record, path = self._record(step), self._path(step)
        if record is None:
            return None
        if not path.is_file() or record["sha256"] != _sha256(path):
            _log.warning("the snapshot of step %d is passed over: its tensors are not what was written", step)
            return None
        return Snapshot(step, record["facts"], tuple(record["needs"]), path)

    def _forget_all_but_two(self, newest: int) -> None:
        """What stands beyond `newest` was damaged, or another training's."""
        records = {step: record for step in self._steps() if step <= newest and (record := self._record(step))}
        kept = set(list(records)[:2])
        kept |= {needed for step in kept for needed in records[step]["needs"]}
        for step in set(self._steps()) - kept:
            self._path(step).with_suffix(".json").unlink()  # first: without it the other file counts for nothing
            self._path(step).unlink(missing_ok=True)


def _put(partial: Path, path: Path) -> None:
    """To the disk, and then to its name."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_full(error: Exception) -> bool:
    """safetensors gives what the system said as text: "No space left on device (os error 28)"."""
    number = getattr(error, "errno", None)
    return number in _FULL or any(f"(os error {known})" in str(error) for known in _FULL)
