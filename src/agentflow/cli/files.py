"""Writes a file whole or not at all.

text ──▶ .agentflow-x7f3 in the same folder ──fsync──▶ rename over the target

Whoever reads the target sees the old text or the new one. Whatever goes wrong, the temporary file is removed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["unwritable", "write_whole"]


def unwritable(path: Path) -> str | None:
    """Why `path` can certainly not be written, with the remedy; None if nothing speaks against it."""
    if path.is_dir():
        return f"{path} is a folder: name a file in it"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}: make it first (mkdir -p {path.parent})"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path} may not be written: choose another place, or change its permissions"
    return None


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8. A link is followed, permissions are kept; a device or pipe is written to directly.

    Raises OSError that names `path`; the file that was there is whole then.
    """
    target = Path(os.path.realpath(path))
    data = text.encode("utf-8", "replace")  # a lone surrogate is no reason to lose the rest
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _replace(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".agentflow-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _permissions(target))
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _settle(target.parent)


def _permissions(target: Path) -> int:
    """Those of the file that is replaced; for a new file, what any other program would give it."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _settle(folder: Path) -> None:
    """Make the rename itself last through a power cut, where the system lets us."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems refuse; the data is safe already
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
