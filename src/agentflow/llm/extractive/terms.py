"""Sentence → terms: the words two sentences may share, in any script.

    "Caches of files"  →  ["cache", "file"]          "形態素解析"  →  ["形態", "態素", "素解", "解析"]

Words are case-folded; an English plural loses its s (Harman, "How effective is suffixing?", JASIS 1991) and English
function words fall away: other languages need no list, since tf-idf makes frequent words light. Scripts without
spaces give overlapping pairs of signs.
"""

from __future__ import annotations

import re

__all__ = ["STOP_WORDS", "UNSPACED", "terms"]

_ENGLISH = """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can cannot could did do does doing down during each either else etc few for from further get had has have having
    he her here hers him his how however i if in into is it its itself just like many may me might more most much must
    s t my no nor not now of off on once only or other our out over own per same she should so some such than that the
    their them then there these they this those through thus to too under until up upon us use used uses using very
    via was we were what when where which while who whom whose why will with within without would you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Character ranges of scripts that put no space between words (Korean does, but its particles cling to them)."""
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff"
_WORD = re.compile(rf"[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{_MARKS}])+")
_IS_UNSPACED = re.compile(rf"[{UNSPACED}]")


def terms(sentence: str) -> list[str]:
    """The terms of a sentence in order, repeats included."""
    if sentence.isascii():
        return [_stem(word) for word in _WORD.findall(sentence.lower()) if word not in STOP_WORDS]
    found: list[str] = []
    for word in _WORD.findall(sentence.casefold()):
        if _IS_UNSPACED.match(word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        elif word not in STOP_WORDS:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]
