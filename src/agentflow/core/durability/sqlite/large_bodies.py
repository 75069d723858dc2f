"""Bodies that are too large for a row: files named by what is in them, so that the same thing stands there once.

    .agentflow/runs.db-values/3f/3fa9…      "z" and zlib, or "-" and the UTF-8 itself where that does not get smaller

A file is written under another name, brought to the disk and renamed before the row that names it is committed, so a
row never leads to half a file. A file that no row leads to is what a crash left, and is swept up later.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentflow.errors import DurabilityError

__all__ = ["LargeBodies"]

_PLAIN: Final = b"-"
_PACKED: Final = b"z"
_PAYS: Final = 0.9  # of its size, at most, for what is packed
_SAMPLE: Final = 65_536  # bytes that are tried first
_HALF_WRITTEN: Final = ".part"
_FORGOTTEN: Final = 3600.0  # seconds after which a half-written file is nobody's any more


class LargeBodies:
    """The folder beside the database. Safe to use from threads and processes. Made by the first `put`."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}-values")

    def put(self, body: bytes) -> str:
        """Have it in the folder, and say what it is called there. Raises OSError."""
        name = hashlib.sha256(body).hexdigest()
        if not self.has(name):
            self._write(self._path(name), _packed(body))
        return name

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def get(self, name: str) -> str:
        """Raises DurabilityError where the file is missing, or is not what was put."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DurabilityError(
                f"{path}, which holds a value of this run, cannot be read ({error.strerror}): put it back, or fork the "
                "run at an earlier step"
            ) from error
        try:
            body = zlib.decompress(content[1:]) if content[:1] == _PACKED else content[1:]
        except zlib.error:
            body = b""
        if hashlib.sha256(body).hexdigest() != name:
            raise DurabilityError(
                f"{path}, which holds a value of this run, is not what was written: put a copy of it back, or fork the "
                "run at an earlier step"
            )
        return body.decode()

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._path(name).unlink()

    def names(self) -> Iterator[str]:
        """All that is there. Files that were never finished go on the way."""
        for path in self._folder.glob("??/*"):
            if path.suffix == _HALF_WRITTEN:
                _remove_forgotten(path)
            else:
                yield path.name

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_HALF_WRITTEN}")
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def _packed(body: bytes) -> bytes:
    if len(zlib.compress(body[:_SAMPLE], 1)) <= _PAYS * len(body[:_SAMPLE]):
        return _PACKED + zlib.compress(body, 1)
    return _PLAIN + body


def _remove_forgotten(path: Path) -> None:
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _FORGOTTEN:
            path.unlink()
