"""Finds what was asked before, word for word or nearly: a student that knows the answer by heart has learnt nothing.

    kept, repeated, near = without_duplicates(answers, near=0.8)

Same: equal after normalisation (Unicode NFKC, case, spaces). Near: of the triples of characters that both have, at
least the share `near` is common (Jaccard). Candidates are found by MinHash in bands, then the share is counted out.
What all questions of a task begin and end with (a template of a prompt) is not looked at, nor are instructions.

MinHash: Broder, "On the resemblance and containment of documents", 1997. Bands: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer

__all__ = ["Distinct", "normalised", "without_duplicates"]

_LETTERS: Final = 3
_BANDS: Final = 32  # of two texts that are 0.8 alike, one pair in twenty million shares none of them
_ROWS: Final = 4
_PRIME: Final = (1 << 31) - 1
_FEW: Final = 3  # of fewer questions nobody can say what is their template


class Distinct(NamedTuple):
    """`kept` are distinct, in their order. `contradicting` are those of `repeated` that were answered otherwise."""

    kept: list[RecordedAnswer]
    repeated: int
    contradicting: int
    near: int


def without_duplicates(answers: Sequence[RecordedAnswer], *, near: float | None = 0.8) -> Distinct:
    """Of what is the same or nearly, the first. Only what has the same instructions is compared. None: exact only."""
    texts = _texts(answers)
    known: dict[tuple[str, str], str] = {}
    looks: dict[str, _Near] = defaultdict(_Near)
    kept: list[RecordedAnswer] = []
    repeated = contradicting = alike = 0
    for answer, text in zip(answers, texts, strict=True):
        task = normalised(answer.instructions)
        if (task, text) in known:
            repeated += 1
            contradicting += known[task, text] != normalised(answer.answer)
            continue
        known[task, text] = normalised(answer.answer)
        if near is not None and looks[task].has(text, near):
            alike += 1
            continue
        kept.append(answer)
    return Distinct(kept, repeated, contradicting, alike)


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _texts(answers: Sequence[RecordedAnswer]) -> list[str]:
    """What each conversation says, without what all of its task say."""
    texts = [normalised(answer.conversation) for answer in answers]
    tasks: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, answer in enumerate(answers):
        tasks[answer.flow, answer.step, answer.instructions].append(number)
    for numbers in tasks.values():
        distinct = {texts[number] for number in numbers}
        start, end = _template(distinct) if len(distinct) >= _FEW else (0, 0)
        for number in numbers:
            texts[number] = texts[number][start : len(texts[number]) - end]
    return texts


def _template(texts: Iterable[str]) -> tuple[int, int]:
    """How many characters all begin with, and end with, up to whole words."""
    first, last = min(texts), max(texts)  # what these two begin with, all between them do
    start = _common(first, last)
    backwards = [text[start:][::-1] for text in texts]
    end = _common(min(backwards), max(backwards))
    tail = first[len(first) - end :]
    return first[:start].rfind(" ") + 1, len(tail) - tail.find(" ") if " " in tail else 0


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class _Near:
    """Texts that were seen, by the bands of their signatures."""

    def __init__(self) -> None:
        self._bands: dict[tuple[int, bytes], list[frozenset[str]]] = defaultdict(list)

    def has(self, text: str, share: float) -> bool:
        """Whether one like it was seen; it is seen from now on where none was."""
        shingles = _shingles(text)
        bands = [(number, band.tobytes()) for number, band in enumerate(_signature(shingles).reshape(_BANDS, _ROWS))]
        looked: set[int] = set()
        for band in bands:
            for other in self._bands.get(band, ()):
                if id(other) not in looked and _alike(shingles, other) >= share:
                    return True
                looked.add(id(other))
        for band in bands:
            self._bands[band].append(shingles)
        return False


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[at : at + _LETTERS] for at in range(max(1, len(text) - _LETTERS + 1)))


def _signature(shingles: frozenset[str]) -> NDArray[np.uint64]:
    """The least of each of many hashes. Shape (bands · rows,)."""
    known = np.fromiter((zlib.crc32(each.encode("utf-8", "surrogatepass")) for each in shingles), np.uint64)
    hashes: NDArray[np.uint64] = (known[:, None] % _PRIME * _FACTORS + _TERMS) % _PRIME
    least: NDArray[np.uint64] = hashes.min(axis=0)
    return least


_GENERATOR: Final = np.random.default_rng(1997)
_FACTORS: Final = _GENERATOR.integers(1, _PRIME, _BANDS * _ROWS, dtype=np.uint64)
_TERMS: Final = _GENERATOR.integers(0, _PRIME, _BANDS * _ROWS, dtype=np.uint64)
