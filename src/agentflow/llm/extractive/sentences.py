"""Blocks → sentences: where one ends, in scripts with and without spaces.

    "Dr. Ito uses foo.py, e.g. v3.14. It works! 次の文。"  →  4 sentences: Dr. Ito…  It works!  次の文。

After a full stop the next word must not begin in lower case, and the word before must be no abbreviation, initial or
list number. Full-width and other scripts' marks end a sentence wherever they stand. What runs on for more than
`LONGEST` characters is cut at a space, so that one "sentence" is never a whole book.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentflow.llm.extractive.blocks import UNMARKED, Block, Kind, blocks

__all__ = ["LONGEST", "Sentence", "read", "split_sentences"]

LONGEST = 600
"""Characters a sentence may have."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence and where it stands, all counted from 0: `number` and `paragraph` in its document, `place` in its
    paragraph. Headings, tables and code are not counted, so prose that follows them stands no later for it."""

    text: str
    kind: Kind
    document: int = 0
    number: int = 0
    paragraph: int = 0
    place: int = 0
    opens_section: bool = False


_CLOSERS = "\"'”’»›)\\]}*_`」』】）〉》〕"
_BOUNDARY = re.compile(
    rf"[。！？｡．][{_CLOSERS}]*"  # full width: no space needed
    rf"|[।॥؟۔։።၊။។]+[{_CLOSERS}]*"
    rf"|[.!?…]+[{_CLOSERS}]*(?=\s)"
)
_SHORT = """
    adj adm adv al apr approx aug bros ca capt cf cmdr co col corp dec dept dr ed eds eq esp est feb fig figs gen gov
    hon hr hrsg inc incl jan jr jul jun lt ltd mar messrs mlle mme mr mrs ms mt nos nov oct op pp prof rep resp
    rev sen sep sept sgt sr st ste str vgl viz vol vs bzw evtl ggf inkl nr sog usw zb geb
"""
_ABBREVIATIONS = frozenset(_SHORT.split())
_LAST_WORD = re.compile(r"[^\s(\[\"'“„«]*\Z")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")


def read(text: str) -> list[Sentence]:
    """The sentences of a text in order. It is several documents if it opens with a heading and has more like it."""
    parts = blocks(text)
    outermost = _document_level(parts)
    found: list[Sentence] = []
    document = number = paragraph = 0
    opens = True
    for part in parts:
        if part.kind is Kind.HEADING:
            opens = True
            if part.level == outermost and number:
                document, number, paragraph = document + 1, 0, 0
        counts = part.kind in (Kind.PROSE, Kind.ITEM)
        for place, piece in enumerate(split_sentences(part.text)):
            found.append(Sentence(piece, part.kind, document, number, paragraph, place, opens and counts))
            if counts:
                number, opens = number + 1, False
        paragraph += counts
    return found


def _document_level(parts: list[Block]) -> int:
    """The depth of heading that starts a document: the outermost, if the text opens with it and has two; else 0."""
    levels = [part.level for part in parts if part.kind is Kind.HEADING and part.level < UNMARKED]
    opening = parts[0].level if parts else 0
    return opening if levels and opening == min(levels) and levels.count(opening) > 1 else 0


def split_sentences(text: str) -> list[str]:
    """Cut one paragraph into sentences; together they hold all of it but the spaces between."""
    return [piece for sentence in _cut(text) for piece in _bounded(sentence)]


def _cut(text: str) -> Iterator[str]:
    start = 0
    for end in _BOUNDARY.finditer(text):
        if text[end.start()] in ".!?…" and not _ends(text, start, end):
            continue
        sentence = text[start : end.end()].strip()
        if sentence:
            yield sentence
        start = end.end()
    rest = text[start:].strip()
    if rest:
        yield rest


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    following = text[end.end() : end.end() + 40].lstrip(" \"'“„«‘([*_`")
    if not following or following[0].islower():
        return not following
    if text[end.start()] != "." or end[0].startswith(".."):
        return True
    before = text[max(start, end.start() - 40) : end.start()]
    word = (_LAST_WORD.search(before) or [""])[0]
    return not _is_abbreviation(word, alone=len(before.strip()) == len(word))


def _is_abbreviation(word: str, *, alone: bool) -> bool:
    """`alone` is a word that begins its sentence: there a number is a list's."""
    if word.isdigit():
        return alone and len(word) < 4
    return word.lower().rstrip(".") in _ABBREVIATIONS or bool(_INITIALS.match(word))


def _bounded(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        cut = sentence.rfind(" ", LONGEST // 2, LONGEST)
        cut = cut if cut > 0 else LONGEST
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
