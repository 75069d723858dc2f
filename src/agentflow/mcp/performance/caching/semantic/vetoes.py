"""What two questions must have in common before an answer may pass from one to the other, however similar they look.

    "How far is Lyon from Paris?"  ──marks_of──▶  names: Lyon Paris · numbers: – · negations: 0 · …
    veto(marks_of(a), marks_of(b))  ──▶  None, or the name of what was changed: "number_changed", "name_changed", …

Embeddings are nearly blind to exactly the words that turn an answer round. Marks are found without knowing the
language: by Unicode categories, capitals and quotes, and by short word lists of a dozen languages (`lexicon.py`). A
mark that is found by mistake costs a hit, never a wrong answer.

What is kept of a question are hashes: its words cannot be read from its marks, only compared.

The checks, in the order in which the first one that speaks is named:

- number: digits of all scripts, fractions, roman and Chinese numerals, numbers in words; in their order, with sign
- unit: what is measured or paid in, with any number
- date: months, days, times of the day
- quote: text in quotation marks or backticks
- code: identifiers, paths, addresses, flags, versions; with their case
- symbol: operators and signs, such as == for !=
- name: capitals where the language needs none, and what is written in capitals; in their order
- negation: how many words and prefixes negate
- comparison: before and after, least and most, on and off, …: which of them, in their order
- asked: when, where, who, why; only where both say one
- word: the same text but for one or two words in one place, none of them a function word
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
    UNITS,
)

__all__ = ["VETOES", "Marks", "marks_of", "veto"]

VETOES: Final = ("number", "unit", "date", "quote", "code", "symbol", "name", "negation", "comparison", "asked", "word")
"""The checks, in their order."""

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
_SYMBOL: Final = re.compile(r"[<>=!+*/%^&|~≤≥≠≈×÷∑√∈∉∪∩→←]+|(?<=\s)[-−](?=\s)")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*[.]?", re.UNICODE)
_CJK: Final = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]")
_TOKEN: Final = re.compile(r"[぀-ヿ㐀-鿿฀-๿]|[^\W_]+(?:['’][^\W_]+)*|[^\s\w]")


class Marks(Struct, frozen=True, array_like=True):
    """The hashes of what may not change. `exact` holds one for each check that asks for equality, in their order;
    `asked` the word of interrogation; `words` one for each word, negative for words that mean little alone."""

    exact: tuple[int, ...]
    asked: int
    words: tuple[int, ...]


_EXACT: Final = VETOES[:-2]
_RUN: Final = 2  # words that may be exchanged in one place for it to be a veto


def marks_of(text: str) -> Marks:
    """The marks of a question."""
    text = unicodedata.normalize("NFC", text)
    spoken = [(match.start(), match.group()) for match in _WORD.finditer(text)]
    folded = [_bare(word) for _, word in spoken]
    found = _found(text, spoken, folded)
    words = tuple([_word_hash(word) for word in _TOKEN.findall(text.casefold())])
    asked = next((ASKS[word] for word in folded if word in ASKS), "")
    return Marks(tuple([_hash(found[name]) for name in _EXACT]), _hash([asked] if asked else []), words)


def veto(one: Marks, other: Marks, checks: Iterable[str] = VETOES) -> str | None:
    """The first of the checks that forbids to answer the one with what the other was answered: `number_changed`, …"""
    wanted = set(checks)
    for name, mine, its in zip(_EXACT, one.exact, other.exact, strict=True):
        if mine != its and name in wanted:
            return f"{name}_changed"
    if "asked" in wanted and one.asked and other.asked and one.asked != other.asked:
        return "asked_changed"
    if "word" in wanted and _swapped(one.words, other.words):
        return "word_changed"
    return None


def _swapped(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the two are the same but for one or two words in one place, and these are words of content."""
    first = 0
    while first < min(len(one), len(other)) and one[first] == other[first]:
        first += 1
    last = 0
    while last < min(len(one), len(other)) - first and one[-1 - last] == other[-1 - last]:
        last += 1
    mine, its = one[first : len(one) - last], other[first : len(other) - last]
    shared = first + last
    if not (0 < len(mine) <= _RUN and 0 < len(its) <= _RUN and shared >= max(len(mine), len(its))):
        return False
    return any(word > 0 for word in mine) and any(word > 0 for word in its)


# ---- finding them --------------------------------------------------------------------------------------------


def _found(text: str, spoken: Sequence[tuple[int, str]], folded: Sequence[str]) -> Mapping[str, list[str]]:
    numbers = _numbers(text, spoken)
    code = _code(text)
    units = _units(text, folded)
    return {
        "number": numbers,
        "unit": units if numbers else [unit for unit in units if unit in _ALWAYS],
        "date": [DATES[word] for word in folded if word in DATES],
        "quote": _quotes(text),
        "code": code,
        "symbol": _SYMBOL.findall(text),
        "name": _names(text, spoken, " ".join(code)),
        "negation": ["not"] * _negations(text, folded),
        "comparison": _directions(text, folded),
    }


_ALWAYS: Final = frozenset("usd eur gbp jpy cny chf inr rub krw btc c f k kwh km mi kg lb gb mb tb kb".split())
"""Units that name themselves: one asks for a price in euros without a number."""
_SPACELESS: Final = tuple([word for word in DIRECTIONS if _CJK.search(word)])
_SIGNS: Final = re.compile(r"[%‰$€£¥₹₽₩₿]|°\s?[CFcf]")
_MEASURED: Final = re.compile(r"[-+]?\d+(?:[.,]\d+)*([^\W\d_]+)")


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


def _units(text: str, folded: Sequence[str]) -> list[str]:
    """Units as words (joined to a number too: letters end where digits do), and as signs."""
    marks = [UNITS[word] for word in folded if word in UNITS]
    marks += [UNITS[sign.replace(" ", "").casefold()] for sign in _SIGNS.findall(text)]
    return sorted(marks)


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
    for start, spelled in spoken:
        if not spelled[0].isupper() or spelled.startswith(("I'", "I’")) or spelled in ("I", "I."):
            continue
        word = _bare(spelled)
        if word in DATES or word in NUMBER_WORDS or (code and spelled.rstrip(".") in code):
            continue
        first = word.split("'")[0]
        if (word in STARTERS or first in STARTERS) and _begins(text, start):
            continue
        found.append(word.removesuffix("'s"))
    return found


def _begins(text: str, start: int) -> bool:
    before = text[:start].rstrip("\"'“‘„«(¿¡-*• \t")
    return not before or before[-1] in ".!?…。！？:;\n"


def _negations(text: str, folded: Sequence[str]) -> int:
    counted = sum(word in NEGATIONS or word.endswith(("n't", "less")) for word in folded)
    return counted if text.isascii() else counted + sum(text.count(mark) for mark in NEGATION_MARKS)


def _directions(text: str, folded: Sequence[str]) -> list[str]:
    found = [DIRECTIONS[word] for word in folded if word in DIRECTIONS]
    return found if text.isascii() else found + [DIRECTIONS[mark] for mark in _SPACELESS if mark in text]


# ---- hashes --------------------------------------------------------------------------------------------------


def _hash(marks: Iterable[str]) -> int:
    """63 bits of a list of marks; 0 for none."""
    joined = "\x1f".join(marks)
    return _number(joined, 8) if joined else 0


@lru_cache(maxsize=8192)
def _word_hash(word: str) -> int:
    hashed = _number(word, 4) or 1
    light = word in FUNCTION or word in NEGATIONS or word.endswith(("n't", "n’t")) or not word[0].isalnum()
    return -hashed if light else hashed


def _number(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()) >> 1
