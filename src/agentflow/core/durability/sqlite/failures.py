"""What went wrong with the file, in words that say what to do about it.

    explained(error, path)    ──▶  DurabilityError("no space is left for .agentflow/runs.db: …")

The code of the error decides, never its text. `Busy` is no failure: another connection is writing, so try again.
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Final

from agentflow.errors import DurabilityError, RunStoreError

__all__ = ["Busy", "explained"]

_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}

_FULL = "no space is left for {path}: make room, and resume the run"
_READ_ONLY = "{path} or its folder cannot be written: change its permissions, or name another file"
_DAMAGED = (
    "{path} is damaged, and is left as it is: put a copy of it back, or move it away, with all files whose names begin "
    "so, to begin anew"
)
_LOCKED = "{path} was locked by another process for longer than {patience:g} seconds: end that one, or be more patient"
_IO = "{path} cannot be read or written just now: look at the disk, and resume the run"
_WORDS: Final = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_AUTH: _READ_ONLY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_TOOBIG: "a value is too large for {path}: keep it elsewhere, and its place in the state",
}


class Busy(Exception):
    """Another connection, or another thread of ours, is writing just now."""


def explained(error: Exception, path: Path, patience: float = 0.0) -> DurabilityError:
    """The same as an error of ours, `error` its cause. One that says what to do already keeps its words."""
    if isinstance(error, DurabilityError):
        return error
    words = _words(error)
    made = DurabilityError(words.format(path=path, patience=patience) if words else f"{path} cannot be used: {error}")
    made.__cause__ = error
    return made


def _words(error: Exception) -> str | None:
    match error:
        case RunStoreError():
            return str(error).replace("{", "{{").replace("}", "}}")
        case sqlite3.Error():
            code = getattr(error, "sqlite_errorcode", None)
            return None if code is None else _WORDS.get(code & 0xFF)
        case OSError(errno=code) if code in _NO_SPACE:
            return _FULL
        case OSError(errno=code) if code in _NOT_ALLOWED:
            return _READ_ONLY
    return None
