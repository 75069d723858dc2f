"""How good a sentence looks before its words are compared: where it stands, how it begins, how long it is.

The features are those of Edmundson ("New methods in automatic extracting", JACM 1969): position, title words, and cue
words; with them what makes a sentence a poor one to quote alone: a dangling "However, it …", a trailing colon, debris.
"""

from __future__ import annotations

import math
import re

from agentflow.llm.extractive.blocks import Kind
from agentflow.llm.extractive.sentences import Sentence

__all__ = ["dangles", "is_quotable", "quality"]

_DANGLING = re.compile(
    r"(?:however|but|and|or|so|also|then|thus|therefore|hence|moreover|furthermore|additionally|in addition|besides|"
    r"nevertheless|nonetheless|otherwise|instead|conversely|consequently|accordingly|likewise|similarly|meanwhile|"
    r"for (?:example|instance|this reason)|as a result|in (?:this|that|such|which) (?:case|way)|on the other hand|"
    r"it|its|they|their|them|he|she|his|her|these|those|such|here|there|both|this is|this was|this can|this will|"
    r"this may|this means|this allows|this lets|this makes|this includes|this also|that|"
    r"the (?:former|latter|above|following|same|other)"
    r")\b[\s,]",
    re.IGNORECASE,
)
_STIGMA = re.compile(
    r"\b(?:copyright|licen[sc]ed?|warranty|all rights reserved|see (?:also|the|below)|for (?:more|further) "
    r"(?:information|details)|documentation|website|home ?page|mailing list|bug reports?|pull requests?|contribut\w+|"
    r"changelog|click here|e-?mail|thanks to|deprecated|obsolete|example|note that|please)\b|https?://|www\.|\w@\w",
    re.IGNORECASE,
)
_BONUS = re.compile(
    r"\b(?:(?:is|are) (?:an?|the|used|intended|designed)|provides?|implements?|allows?|contains?|supports?|defines?|"
    r"creates?|converts?|represents?|describes?|lets? you|enables?|aims?|offers?|manages?|performs?|displays?)\b",
    re.IGNORECASE,
)
_SYMBOLS = re.compile(r"[{}<>=\\|_/#@~^\[\]$`]")
_ENDED = re.compile(r"[.!?…。！？｡．।॥؟۔։።][\"'”’»)\]*_`」』】）]*\Z")
_LETTER = re.compile(r"[^\W\d_]")


def is_quotable(sentence: Sentence) -> bool:
    """Prose and list items with a few letters; the rest serves only where nothing else is there."""
    return sentence.kind in (Kind.PROSE, Kind.ITEM) and len(_LETTER.findall(sentence.text)) >= 4


def dangles(sentence: Sentence) -> bool:
    """Whether it leans on the sentence before it."""
    return bool(_DANGLING.match(sentence.text))


def quality(sentence: Sentence, words: int, among: int) -> float:
    """0 or more; larger is better. `words` is its length, `among` how many sentences there are to choose from.

    Dangling is not counted here: the chooser knows what was chosen.
    """
    text = sentence.text
    value = _position(sentence) * _length(words, among)
    if sentence.kind is Kind.ITEM:
        value *= 0.7
    if not _ENDED.search(text):
        value *= 0.4
    if text.endswith(("?", "？", "؟")):
        value *= 0.4
    if _STIGMA.search(text):
        value *= 0.4
    if _BONUS.search(text):
        value *= 1.6
    if len(_SYMBOLS.findall(text)) * 20 > len(text):
        value *= 0.7
    return value


def _position(sentence: Sentence) -> float:
    """Openings say most: of a document, then of a section, then of a paragraph. It never sinks below a tenth."""
    value = 0.1 + 0.9 / (1 + sentence.number + 0.5 * sentence.paragraph)
    if sentence.opens_section:
        value *= 1.2
    return value * 1.2 if sentence.place == 0 else value


def _length(words: int, among: int) -> float:
    """Full marks from 5 words to 8, or to 16 in a long text: a scrap says little, a long sentence costs as much as two.

    The longer the text, the more one sentence has to stand for.
    """
    if words < 5:
        return math.pow(words / 5, 1.5)
    most = 8 + min(8.0, max(0, among - 30) / 10)
    return min(1.0, most / words)
