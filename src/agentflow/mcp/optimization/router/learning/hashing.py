"""Turns a text into counted, hashed pieces of words and characters, with numpy alone and no loop over the characters.

    "How many gallons?"  ──code points──▶  polynomial prefix sums  ──▶  a hash a word, a pair of words, four characters
                                                                        └─ counted ─▶ (bucket, count), …

The hash of the piece [a, b) is (P[b] − P[a])·B⁻ᵃ modulo 2⁶⁴ with P the prefix sums of code point · Bⁱ (Karp and Rabin,
1987), so that all pieces of a text cost a few vector operations. Case is folded, digits are all alike, white space of
any length is one blank. Scripts that write no blanks (Han, Kana, Thai) count each character as a word.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BUCKETS", "MOST_CHARACTERS", "buckets", "excerpt"]

Codes: TypeAlias = NDArray[np.uint64]

BITS: Final = 18
BUCKETS: Final = 1 << BITS
MOST_CHARACTERS: Final = 4_096
"""Of a longer text the first three quarters of that and the last quarter are read: what is asked stands at an end."""

_BASE: Final = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2⁶⁴
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)  # SplitMix64's finaliser (Steele, Lea and Flood, 2014)
_MIX_AGAIN: Final = np.uint64(0x94D049BB133111EB)
_PAIR: Final = np.uint64(0xD6E8FEB86659FD93)
_SALTS: Final = np.arange(4, dtype=np.uint64) * _PAIR  # arrays wrap round in silence, single numbers warn
_GRAM: Final = 4
_OTHER, _LETTER, _DIGIT, _ALONE = 0, 1, 2, 3
_TABLE_SIZE: Final = 0x3400
_BLANK: Final = np.uint64(32)


def excerpt(text: str) -> str:
    """What is read of a text."""
    if len(text) <= MOST_CHARACTERS:
        return text
    tail = MOST_CHARACTERS // 4
    return f"{text[: MOST_CHARACTERS - tail - 1]} {text[-tail:]}"


def buckets(text: str) -> NDArray[np.int64]:
    """The bucket of each piece, as often as it occurs; from 0 to BUCKETS − 1."""
    codes, sorts = _settled(excerpt(text).lower())
    if not codes.size:
        return np.empty(0, np.int64)
    powers, inverses = _powers()
    sums = np.zeros(codes.size + 1, np.uint64)
    np.cumsum(codes * powers[: codes.size], out=sums[1:])
    first, last = _words(sorts)
    words = (sums[last] - sums[first]) * inverses[first]
    pairs = words[:-1] * _PAIR + words[1:]
    grams = (sums[_GRAM:] - sums[:-_GRAM]) * inverses[: max(codes.size + 1 - _GRAM, 0)]
    return np.concatenate([_bucket(words, 1), _bucket(pairs, 2), _bucket(grams, 3)])


def _settled(text: str) -> tuple[Codes, NDArray[np.uint8]]:
    """Code points and their sorts: digits made alike, runs of white space made one blank."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    plain, sorts = _tables()
    near = np.minimum(codes, _TABLE_SIZE - 1)
    settled, sort = plain[near], sorts[near]
    if codes.size and int(codes.max()) >= _TABLE_SIZE:
        far = codes >= _TABLE_SIZE
        hangul = (codes >= 0xAC00) & (codes <= 0xD7A3)
        settled = np.where(far, codes, settled).astype(np.uint64)
        sort = np.where(far, np.where(hangul, _LETTER, _ALONE), sort).astype(np.uint8)
    blank = settled == _BLANK
    kept = ~blank
    kept[1:] |= kept[:-1]  # of several blanks the first
    return settled[kept], sort[kept]


def _words(sorts: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where words begin and end: runs of letters and digits, and single characters that stand alone."""
    alone = sorts == _ALONE
    inside = (sorts == _LETTER) | (sorts == _DIGIT)
    before = np.concatenate(([False], inside[:-1]))
    after = np.concatenate((inside[1:], [False]))
    first = np.flatnonzero((inside & ~before) | alone)
    last = np.flatnonzero((inside & ~after) | alone) + 1
    return first, last


def _bucket(hashes: Codes, kind: int) -> NDArray[np.int64]:
    mixed = hashes + _SALTS[kind]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_AGAIN
    return np.asarray(mixed >> np.uint64(64 - BITS), np.int64)


@cache
def _powers() -> tuple[Codes, Codes]:
    """Bⁱ and B⁻ⁱ modulo 2⁶⁴ for all places in an excerpt."""
    inverse = pow(_BASE, -1, 1 << 64)
    powers, inverses = [1], [1]
    for _ in range(MOST_CHARACTERS + 8):
        powers.append(powers[-1] * _BASE % (1 << 64))
        inverses.append(inverses[-1] * inverse % (1 << 64))
    return np.array(powers, np.uint64), np.array(inverses, np.uint64)


@cache
def _tables() -> tuple[Codes, NDArray[np.uint8]]:
    """For each code point below the ideographs: the one that stands for it, and its sort. Marks belong to the letter
    they stand on."""
    sorts = [_sort(code) for code in range(_TABLE_SIZE)]
    plain = [
        32 if code <= 32 or code in (0xA0, 0x3000) else 48 if sorts[code] == _DIGIT else code
        for code in range(_TABLE_SIZE)
    ]
    return np.array(plain, np.uint64), np.array(sorts, np.uint8)


def _sort(code: int) -> int:
    category = unicodedata.category(chr(code))
    if 0x0E00 <= code < 0x0F00 or 0x3040 <= code < 0x3400:  # Thai and Lao, Kana: no blanks between words
        return _ALONE if category[0] in "LN" else _OTHER
    if category == "Nd":
        return _DIGIT
    return _LETTER if category[0] in "LNM" else _OTHER
