"""What a text looks like, whatever it says: two or three dozen numbers that hold in subjects nobody has seen.

    "Which of these is prime?\\nA. 4\\nB. 7"  ──▶  length, words, digits, symbols, options and their lengths, script, …

Words tell of what was seen; length, figures, formulas and the form of the question also tell of what was not.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.optimization.router.learning.hashing import excerpt

__all__ = ["SHAPE", "shape"]

_OPTION: Final = re.compile(r"\(?[A-Z1-9][.):]\s").match
_CODE: Final = ("```", "def ", "int ", "return ", "class ", ";\n", "{\n", "=>", "==", "SELECT ", "import ")
_SYMBOLS: Final = frozenset(map(ord, "=+-*/^<>$\\_{}()[]|%"))
_CUES: Final = (
    ("not ", " except"),
    ("statement",),
    ("which",),
    ("how many", "how much"),
    ("what",),
    ("why", "explain"),
    ("how to", "how do", "how can"),
    ("___",),
    ("following",),
    ("all of", "none of"),
    ("write ", "create ", "generate "),
    ("translate", "summarize", "summarise", "rewrite"),
    ("step by step", "prove", "show that"),
)
_SCRIPTS: Final = ((0x0041, 0x0250), (0x0370, 0x0530), (0x0590, 0x0800), (0x0900, 0x0E00), (0x3040, 0xAC00))
_EDGES: Final = np.array([edge for pair in _SCRIPTS for edge in pair], np.uint32)
_PLAIN, _DIGIT, _UPPER, _SYMBOL, _BREAK, _COMMA, _STOP = range(7)
_ASCII: Final = 128
_NUMBERS: Final = (
    "length words digit_share digits upper_share symbol_share symbols word_length lines stem options option_length "
    "option_spread asks code ifs foreign stops commas variety"
).split()
SHAPE: Final = (
    *_NUMBERS,
    *(f"says_{cue[0].strip()}" for cue in _CUES),
    *(f"script_{low:04x}" for low, _ in _SCRIPTS),
)
"""The names of the numbers, in their order."""


def shape(text: str) -> NDArray[np.float32]:
    """One number for each name in SHAPE; all are finite, whatever the text is."""
    read = excerpt(text)
    low = read.lower()
    words = low.split()
    codes = np.frombuffer(read.encode("utf-32-le", "surrogatepass"), np.uint32)
    numbers = [*_counts(codes, words), *_options(read)]
    numbers += [
        float("?" in read or "？" in read or "؟" in read),
        _says(read, _CODE),
        math.log1p(low.count(" if ")),
    ]
    ordered = dict(zip(_MADE, numbers, strict=True))
    cues = [_says(low, cue) for cue in _CUES]
    return np.array([*(ordered[name] for name in _NUMBERS), *cues, *_scripts(codes)], np.float32)


def _says(text: str, words: tuple[str, ...]) -> float:
    for word in words:  # three times as fast as any()
        if word in text:
            return 1.0
    return 0.0


def _scripts(codes: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The share of each script's letters, all that are not known as none."""
    places = np.bincount(np.searchsorted(_EDGES, codes, side="right"), minlength=len(_EDGES) + 1)
    return np.asarray(places[1 : len(_EDGES) : 2] / max(codes.size, 1))


_MADE: Final = (
    "length words digit_share digits upper_share symbol_share symbols word_length lines foreign stops commas variety "
    "stem options option_length option_spread asks code ifs"
).split()


def _counts(codes: NDArray[np.uint32], words: list[str]) -> list[float]:
    many, spoken = max(codes.size, 1), max(len(words), 1)
    ascii_only = codes[codes < _ASCII]
    tally = np.bincount(_kinds()[ascii_only], minlength=7)
    return [
        math.log1p(codes.size),
        math.log1p(len(words)),
        tally[_DIGIT] / many,
        math.log1p(tally[_DIGIT]),
        tally[_UPPER] / many,
        tally[_SYMBOL] / many,
        math.log1p(tally[_SYMBOL]),
        min(codes.size / spoken, 40.0),
        math.log1p(tally[_BREAK]),
        1 - ascii_only.size / many,
        math.log1p(tally[_STOP]),
        tally[_COMMA] / spoken,
        len(set(words)) / spoken,
    ]


def _options(text: str) -> list[float]:
    """How long what stands before the options is, how many there are, how long on average, how different in length."""
    stem = 0
    options: list[int] = []
    for number, line in enumerate(text.split("\n")):
        if number and _OPTION(line.lstrip()):
            options.append(len(line))
        elif options:
            options[-1] += len(line)
        else:
            stem += len(line)
    mean = sum(options) / max(len(options), 1)
    spread = (sum((each - mean) ** 2 for each in options) / max(len(options), 1)) ** 0.5
    return [math.log1p(stem), float(min(len(options), 12)), math.log1p(mean), spread / (1 + mean)]


@cache
def _kinds() -> NDArray[np.int64]:
    kinds = np.full(_ASCII, _PLAIN, np.int64)
    for code in range(_ASCII):
        sign = chr(code)
        if sign.isdigit():
            kinds[code] = _DIGIT
        elif sign.isupper():
            kinds[code] = _UPPER
        elif code in _SYMBOLS:
            kinds[code] = _SYMBOL
    kinds[ord("\n")], kinds[ord(",")], kinds[ord(".")] = _BREAK, _COMMA, _STOP
    return kinds
