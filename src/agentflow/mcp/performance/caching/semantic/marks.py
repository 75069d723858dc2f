"""The marks of a question: what in it may not change, found without knowing its language, and kept as hashes.

    "How far is Lyon from 2 Paris hotels?"  ──marks_of──▶  numbers: 2 · names: Lyon Paris · negations: 0 · …

By Unicode categories, capitals and quotes, and by short word lists of a dozen languages (`lexicon.py`). What is kept
are hashes: words cannot be read from them, only compared. What the marks are for stands in `vetoes.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from agentflow.mcp.performance.caching.semantic.lexicon import (
    ASKS,
    DATES,
    DIRECTIONS,
    FUNCTION,
    NEGATION_MARKS,
    NEGATIONS,
    NUMBER_WORDS,
    STARTERS,
    SWITCHED,
    UNITS,
)

__all__ = ["EXACT", "Marks", "hashed", "marks_of"]

_QUOTED: Final = re.compile(
    r"```(.+?)```|`([^`]+)`|\"([^\"]+)\"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|»([^«]+)«|「([^」]+)」|『([^』]+)』"
    r"|(?<!\w)'([^']+)'(?!\w)|(?<!\w)‘([^’]+)’(?!\w)",
    re.DOTALL,
)
_NUMBER: Final = re.compile(r"(?:(?<![\w)])[-+−±]\s?)?\d+(?:[.,:/'’·٫٬-]\d+)*")  # \d is Unicode's
_CODE: Final = re.compile(
    r"\b\w+://\S+|\b[\w.+-]+@[\w-]+\.\w+|(?<!\w)--?[A-Za-z][\w-]*|(?:[\w.~-]*/)+[\w.-]+|\b\w+(?:\.\w+)+\b|\b\w+\(\)"
    r"|\b\w*[a-zà-þ]\w*[A-ZÀ-Þ]\w*|\b\w*_\w*|\b(?=\w*\d)(?=\w*[^\W\d_])\w+|[@#][\w-]+|\b\w+[+#]{1,2}(?!\w)"
)
_SYMBOL: Final = re.compile(r"!=+|[<>=+*/%^&|~≤≥≠≈×÷∑√∈∉∪∩→←]+|(?<=\d\s)[-−](?=\s\d)")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*[.]?", re.UNICODE)
_CJK: Final = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]")
_TOKEN: Final = re.compile(r"[぀-ヿ㐀-鿿฀-๿]|[^\W_]+(?:['’][^\W_]+)*|[^\s\w]")


class Marks(Struct, frozen=True, array_like=True):
    """The hashes of what may not change. `exact` holds one for each check that asks for equality; `names` those of
    names, in their order; `poles` the pairs of opposites, each with a hash of what is said of it; `asked` the word of
    interrogation; `words` one for each word, negative for words that mean little alone."""

    exact: tuple[int, ...]
    names: tuple[int, ...]
    poles: tuple[tuple[int, int], ...]
    asked: int
    words: tuple[int, ...]

    @property
    def anchored(self) -> bool:
        """Whether there are numbers, dates, quotes, code or names in it."""
        number, _, date, quote, code, _, _ = self.exact
        return bool(number or date or quote or code or self.names)


EXACT: Final = ("number", "unit", "date", "quote", "code", "symbol", "negation")
"""The checks that ask for equality, in the order of `Marks.exact`."""


def marks_of(text: str) -> Marks:
    """The marks of a question."""
    text = unicodedata.normalize("NFC", text)
    spoken = [(match.start(), match.group()) for match in _WORD.finditer(text)]
    folded = [_bare(word) for _, word in spoken]
    found = _found(text, spoken, folded)
    said = _directions(text, folded)
    asked = next((ASKS[word] for word in folded if word in ASKS), "")
    return Marks(
        tuple([hashed(found[name]) for name in EXACT]),
        tuple([abs(_wordhashed(name)) for name in _names(text, spoken, " ".join(found["code"]))]),
        tuple([(hashed([pair]), hashed(said[pair])) for pair in sorted(said)]),
        hashed([asked] if asked else []),
        tuple([_wordhashed(word) for word in _TOKEN.findall(_OWNED.sub("", text.casefold()))]),
    )


# ---- finding them --------------------------------------------------------------------------------------------


def _found(text: str, spoken: Sequence[tuple[int, str]], folded: Sequence[str]) -> Mapping[str, list[str]]:
    return {
        "number": _numbers(text, spoken),
        "unit": _units(text, spoken),
        "date": [DATES[word] for word in folded if word in DATES],
        "quote": _quotes(text),
        "code": _code(text),
        "symbol": _SYMBOL.findall(text),
        "negation": ["not"] * _negations(text, folded),
    }


_ALWAYS: Final = frozenset("usd eur gbp jpy cny chf inr rub krw btc c f k kwh km mi kg lb gb mb tb kb".split())
"""Units that name themselves: one asks for a price in euros without a number."""
_SPACELESS: Final = tuple([word for word in DIRECTIONS if _CJK.search(word)])
_SIGNS: Final = re.compile(r"[%‰$€£¥₹₽₩₿]|°\s?[CFcf]")
_MEASURED: Final = re.compile(r"[-+]?\d+(?:[.,]\d+)*([^\W\d_]+)")
_OWNED: Final = re.compile(r"['’]s\b")


def _bare(word: str) -> str:
    word = word.casefold().replace("’", "'")
    return word if word in DATES else word.rstrip(".")


def _numbers(text: str, spoken: Sequence[tuple[int, str]]) -> list[str]:
    """Every number in its order: digits as ASCII digits, numerals by their value, words by what they count."""
    found = [(match.start(), _digits(match.group())) for match in _NUMBER.finditer(text)]
    for start, word in spoken:
        for offset, piece in _pieces(_bare(word)):
            if piece in NUMBER_WORDS:
                found.append((start + offset, NUMBER_WORDS[piece]))
            elif offset and piece == "one":
                found.append((start + offset, "1"))
    if not text.isascii():
        for place, sign in enumerate(text):
            if not sign.isdecimal() and (value := unicodedata.numeric(sign, None)) is not None:
                found.append((place, f"{value:g}"))
    return [number for _, number in sorted(found, key=lambda each: each[0])]


def _pieces(word: str) -> Iterable[tuple[int, str]]:
    """A word, or the parts of one with hyphens: twenty-one."""
    if "-" not in word:
        return ((0, word),)
    starts = [0, *[place + 1 for place, sign in enumerate(word) if sign == "-"]]
    return zip(starts, word.split("-"), strict=True)


def _digits(number: str) -> str:
    if not number.isascii():
        number = "".join([str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in number])
    return number.replace("−", "-").replace(" ", "").removeprefix("+")


def _units(text: str, spoken: Sequence[tuple[int, str]]) -> list[str]:
    """Units right after a number in their order, then those that name themselves, as words and as signs."""
    counted, others = [], [UNITS[sign.replace(" ", "").casefold()] for sign in _SIGNS.findall(text)]
    before, end = "", 0
    for start, spelled in spoken:
        word = _bare(spelled)
        unit = UNITS.get(word)
        if unit is not None:
            between = text[end:start].strip()
            if between[-1:].isdecimal() or (not between and before in NUMBER_WORDS):
                counted.append(f"{unit} counted")
            elif unit in _ALWAYS and len(word) > 1:
                others.append(unit)
        before, end = word, start + len(spelled)
    return counted + sorted(others)


def _quotes(text: str) -> list[str]:
    if not _QUOTE_SIGNS & set(text):
        return []
    return [" ".join(filter(None, match)).strip() for match in _QUOTED.findall(text)]


_QUOTE_SIGNS: Final = frozenset("`\"“”„«»「」『』'‘")


def _code(text: str) -> list[str]:
    """Identifiers; a word of letters alone, small after the first, cannot be one."""
    found: list[str] = []
    for chunk in text.split():
        if chunk.isalpha() and chunk[1:].islower():
            continue
        found += [each for each in _CODE.findall(chunk) if not _measure(each)]
    return found


def _measure(word: str) -> bool:
    """Whether it is a number with its unit, as in 5km."""
    match = _MEASURED.fullmatch(word.casefold())
    return match is not None and match[1] in UNITS


def _names(text: str, spoken: Sequence[tuple[int, str]], code: str) -> list[str]:
    """Words with a capital that no beginning of a sentence explains, and words in capitals; in their order."""
    found = []
    for place, (start, spelled) in enumerate(spoken):
        if not spelled[0].isupper() or spelled.startswith(("I'", "I’")) or spelled in ("I", "I."):
            continue
        word = _bare(spelled)
        if word in DATES or word in NUMBER_WORDS or (code and spelled.rstrip(".") in code):
            continue
        capitals = len(spelled) > 1 and spelled.rstrip(".").isupper()
        if word.split("'")[0] in STARTERS and not capitals:
            continue
        if capitals or not _begins(text, start) or _is_named(word, spoken[place + 1 : place + 2]):
            found.append(_OWNED.sub("", word))
    return found


def _is_named(word: str, following: Sequence[tuple[int, str]]) -> bool:
    """Whether a word at the beginning of a sentence is a name: an owner, or followed by another capital."""
    if word.endswith("'s"):
        return True
    return any(
        after[0].isupper() and _bare(after) not in DATES and _bare(after) not in STARTERS for _, after in following
    )


_NO_NAMES: Final = STARTERS | DATES.keys()


def _begins(text: str, start: int) -> bool:
    before = text[:start].rstrip("\"'“‘„«(¿¡-*• \t")
    return not before or before[-1] in ".!?…。！？:;\n"


def _negations(text: str, folded: Sequence[str]) -> int:
    counted = sum(word in NEGATIONS or word.endswith(("n't", "less")) for word in folded)
    return counted if text.isascii() else counted + sum(text.count(mark) for mark in NEGATION_MARKS)


def _directions(text: str, folded: Sequence[str]) -> Mapping[str, list[str]]:
    """What is said of each pair of opposites, in its order, repetitions left out."""
    found: dict[str, list[str]] = {}
    said = [DIRECTIONS[word] for word in folded if word in DIRECTIONS]
    said += ["switch+" if match == "on" else "switch-" for match in SWITCHED.findall(text.casefold())]
    said += [] if text.isascii() else [DIRECTIONS[mark] for mark in _SPACELESS if mark in text]
    for direction in said:
        pair = found.setdefault(direction[:-1], [])
        if pair[-1:] != [direction[-1]]:
            pair.append(direction[-1])
    return found


# ---- hashes --------------------------------------------------------------------------------------------------


def hashed(marks: Iterable[str]) -> int:
    """63 bits of a list of marks; 0 for none."""
    joined = "\x1f".join(marks)
    return _number(joined, 8) if joined else 0


@lru_cache(maxsize=8192)
def _wordhashed(word: str) -> int:
    hashed = _number(word, 4) or 1
    light = word in FUNCTION or word in NEGATIONS or word.endswith(("n't", "n’t")) or not word[0].isalnum()
    return -hashed if light else hashed


def _number(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()) >> 1
