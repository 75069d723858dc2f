"""Cuts a text into the pieces that a BERT model knows.

    "Unaffordable!"  ──▶  un ##af ##ford ##able !  ──▶  [101, 4895, 10354, …, 999, 102]

As BERT does it (Devlin et al. 2019; Wu et al. 2016): lower case without accents, cut at spaces, punctuation and Chinese
characters, then each word from the left into the longest pieces of the vocabulary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

__all__ = ["pieces_of"]

_LONGEST = 100  # letters of a word; longer ones are unknown


def pieces_of(text: str, vocabulary: Mapping[str, int], *, most: int, lower: bool = True) -> list[int]:
    """The numbers of the pieces between [CLS] and [SEP], at most `most` with these."""
    unknown = vocabulary["[UNK]"]
    found: list[int] = []
    for word in _words(text, lower):
        found += _pieces(word, vocabulary, unknown)
        if len(found) >= most - 2:
            break
    return [vocabulary["[CLS]"], *found[: most - 2], vocabulary["[SEP]"]]


def _words(text: str, lower: bool) -> Iterator[str]:
    if lower:
        text = "".join(
            [sign for sign in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(sign) != "Mn"]
        )
    word = ""
    for sign in text:
        if sign.isspace() or _is_control(sign):
            yield from filter(None, (word,))
            word = ""
        elif _stands_alone(sign):
            yield from filter(None, (word,))
            yield sign
            word = ""
        else:
            word += sign
    yield from filter(None, (word,))


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf") or sign in "\x00�"


def _stands_alone(sign: str) -> bool:
    """Punctuation, in BERT's broad sense, and Chinese characters."""
    if sign.isascii():
        return not sign.isalnum()
    return unicodedata.category(sign).startswith("P") or "一" <= sign <= "鿿" or "㐀" <= sign <= "䶿"


def _pieces(word: str, vocabulary: Mapping[str, int], unknown: int) -> list[int]:
    if len(word) > _LONGEST:
        return [unknown]
    found: list[int] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = vocabulary.get(("##" if start else "") + word[start:end])
            if piece is not None:
                break
        else:
            return [unknown]
        found.append(piece)
        start = end
    return found
