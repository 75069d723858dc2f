"""The files of an artifact and their checksums: taken when it is made, held against what lies there when it is opened.

facts_of(folder)              every file below it but the manifest: path, bytes, sha256
damage(folder, facts)    →    "model/model.onnx.data has 3 bytes, not 4,096", or None where all is as it was
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from agentflow.mcp.compression.artifact.manifest import NAME, FileFacts

__all__ = ["damage", "facts_of", "sha256_of"]

_PIECE = 1 << 20


def facts_of(folder: Path) -> tuple[FileFacts, ...]:
    """Of every file below `folder` but its manifest, in order of path."""
    return tuple(
        FileFacts(path=name, bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in sorted(_files(folder))
    )


def damage(folder: Path, facts: Sequence[FileFacts], *, contents: bool = True) -> str | None:
    """The first thing that is not as `facts` say, in words that name the file. Without `contents` only names and sizes
    are looked at. A file that nobody wrote down is damage too: a runtime might read it."""
    for each in facts:
        if not _is_below(each.path):
            return f"its manifest names {each.path!r}, which lies outside of it"
        wrong = _wrong(folder / each.path, each, contents=contents)
        if wrong is not None:
            return f"{each.path} {wrong}"
    strangers = sorted(set(_files(folder)) - {each.path for each in facts})
    return f"{strangers[0]} is not in its manifest: it was added later" if strangers else None


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """By their paths below `folder`, with slashes. What a file manager hides there (.DS_Store) no runtime reads."""
    for path in folder.rglob("*"):
        if not path.is_dir() and path != folder / NAME and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix()


def _wrong(path: Path, facts: FileFacts, *, contents: bool) -> str | None:
    try:
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != facts.bytes:
            return f"has {size:,} bytes, not {facts.bytes:,}: it was cut off or changed"
        if contents and sha256_of(path) != facts.sha256:
            return "is damaged: its checksum differs"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name and name != ""
