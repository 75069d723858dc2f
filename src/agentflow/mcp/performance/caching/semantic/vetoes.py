"""What two questions must have in common before an answer may pass from one to the other, however similar they look.

    "How far is Lyon from Paris?"  ──marks_of──▶  names: Lyon Paris · numbers: – · negations: 0 · …
    veto(marks_of(a), marks_of(b))  ──▶  None, or the name of what was changed: "number_changed", "name_changed", …

Embeddings are nearly blind to exactly the words that turn an answer round. A mark that is found by mistake costs a
hit, never a wrong answer; one that is missed (a name without a capital) leaves it to what is learned.

The checks, in the order in which the first one that speaks is named:

- number: digits of all scripts, fractions, roman and Chinese numerals, numbers in words; in their order, with sign
- unit: what follows a number, and units and currencies that are asked for
- date: months, days, times of the day
- quote: text in quotation marks or backticks
- code: identifiers, paths, addresses, flags, versions; with their case
- symbol: operators and signs, such as == for !=
- negation: how many words and endings negate
- name: words with capitals inside a sentence, or in capitals: the other question must have them too, in whatever
  case, and in the same order
- comparison: before and after, last and next, least and most must agree; of other opposites (on and off, buy and
  sell, …) both questions must say the same if both say one
- asked: when, where, who, why; only where both say one
- word: the same text but for one or two words in one place, none of them a function word
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agentflow.mcp.performance.caching.semantic.lexicon import STRICT
from agentflow.mcp.performance.caching.semantic.marks import EXACT, Marks, hashed

__all__ = ["VETOES", "veto"]

VETOES: Final = ("number", "unit", "date", "quote", "code", "symbol", "negation", "name", "comparison", "asked", "word")
"""The checks, in their order."""
_RUN: Final = 2  # words that may be exchanged in one place for it to be a veto
_STRICT: Final = frozenset([hashed([pair]) for pair in STRICT])


def veto(one: Marks, other: Marks, checks: Iterable[str] = VETOES) -> str | None:
    """The first of the checks that forbids to answer the one with what the other was answered: `number_changed`, …"""
    wanted = set(checks)
    for name, mine, its in zip(EXACT, one.exact, other.exact, strict=True):
        if mine != its and name in wanted:
            return f"{name}_changed"
    if "name" in wanted and _renamed(one, other):
        return "name_changed"
    if "comparison" in wanted and _turned(dict(one.poles), dict(other.poles)):
        return "comparison_changed"
    if "asked" in wanted and one.asked and other.asked and one.asked != other.asked:
        return "asked_changed"
    if "word" in wanted and _swapped(one.words, other.words):
        return "word_changed"
    return None


def _renamed(one: Marks, other: Marks) -> bool:
    """Whether a name of the one is not in the other, or they stand in another order."""
    if one.names == other.names:
        return False
    mine, its = [abs(word) for word in one.words], [abs(word) for word in other.words]
    if not (set(one.names) <= set(its) and set(other.names) <= set(mine)):
        return True
    both = set(one.names) | set(other.names)
    return _order(mine, both) != _order(its, both)


def _order(words: Iterable[int], wanted: set[int]) -> list[int]:
    return list(dict.fromkeys(word for word in words if word in wanted))


def _turned(one: Mapping[int, int], other: Mapping[int, int]) -> bool:
    """Whether opposites were exchanged."""
    return any(
        one.get(pair) != other.get(pair) and (pair in _STRICT or (pair in one and pair in other))
        for pair in {*one, *other}
    )


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
