"""SHA256SUMS: a line for each file of a folder, as `sha256sum -c` reads it.

write(folder)            every file below it, but SHA256SUMS itself
damage(folder)      →    "run.py is damaged: its checksum differs", or None where all is as it was
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.files import sha256_of

__all__ = ["NAME", "damage", "write"]

NAME: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write(folder: Path) -> None:
    """Raises ArtifactError for a name that no line can hold."""
    names = sorted(_files(folder))
    for name in names:
        if "\n" in name or "\\" in name:
            raise ArtifactError(folder, f"it has a file of the name {name!r}, which {NAME} cannot hold")
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """The first thing that is not as it was written, in words that name the file."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return f"it has no {NAME}"
    except (OSError, UnicodeDecodeError) as error:
        return f"its {NAME} cannot be read: {error}"
    known = set()
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None or not _is_below(found[2]):
            return f"its {NAME} has a line that is none: {line[:80]!r}"
        known.add(found[2])
        if (wrong := _wrong(folder / found[2], found[1])) is not None:
            return f"{found[2]} {wrong}"
    strangers = sorted(set(_files(folder)) - known)
    return f"{strangers[0]} is not in its {NAME}: it was added later" if strangers else None


def _wrong(path: Path, digest: str) -> str | None:
    try:
        if not path.is_file():
            return "is missing"
        return None if sha256_of(path) == digest else "is damaged: its checksum differs"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _files(folder: Path) -> Iterator[str]:
    """By their paths below `folder`; what Python and file managers leave there (__pycache__, .DS_Store) is no part."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name != Path(NAME) and not any(_is_left(part) for part in name.parts):
            yield name.as_posix()


def _is_left(part: str) -> bool:
    return part == "__pycache__" or part.startswith(".")


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
