"""Documents from files and folders: what a model is calibrated on, learns from, and is measured with.

    corpus/          every .txt, .md, .rst, .py … below it: a document each, in order of name
    answers.jsonl    a line of JSON each, with "text" (or "prompt" and "answer")
    notes.txt        one document

`parted` sets some aside that no stage sees: by a hash of each text, so that one stays on its side when others come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from agentflow.errors import DocumentError

__all__ = ["documents", "parted"]

_TEXTS: Final = frozenset(".txt .md .rst .py .html .csv .log .tex .json .yml .yaml .toml".split())


def documents(places: Iterable[str]) -> tuple[str, ...]:
    """The documents of files and folders; each text once. Raises DocumentError where there is none, or no text."""
    found = dict.fromkeys(text for place in places for text in _in(Path(place)) if text.strip())
    if not found:
        raise DocumentError(f"there is no text in {', '.join(places)}: give .txt or .jsonl files, or folders of them")
    return tuple(found)


def parted(texts: Sequence[str], share: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts to work with, and about `share` of them held out. Raises DocumentError where either would be empty."""
    out = [text for text in texts if _place_of(text) < share]
    kept = [text for text in texts if _place_of(text) >= share]
    if not out and len(texts) > 1:
        out = [min(texts, key=_place_of)]
        kept = [text for text in texts if text not in out]
    if not out or not kept:
        raise DocumentError(f"{len(texts)} documents cannot be parted: give more, or --evaluation of their own")
    return tuple(kept), tuple(out)


def _in(place: Path) -> Iterator[str]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_file() and (path.suffix in _TEXTS or path.suffix == ".jsonl"):
                yield from _of(path)
    else:
        yield from _of(place)


def _of(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path} is no UTF-8 text: {error}") from error
    if path.suffix != ".jsonl":
        yield text
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _line(line, f"{path}, line {number}")


def _line(line: str, where: str) -> str:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise DocumentError(f"{where}: no JSON: {error}") from error
    match said:
        case str(text) | {"text": str(text)}:
            return text
        case {"prompt": str(prompt), "answer": str(answer)}:
            return f"{prompt}\n{answer}"
    raise DocumentError(f'{where}: a line is {{"text": …}}, or {{"prompt": …, "answer": …}}')


def _place_of(text: str) -> float:
    """From 0 to 1, evenly over all texts, always the same for one."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
