"""How long a text is, in words and in tokens, and how to cut it to fit.

A token is four bytes of UTF-8, rounded up: near what byte-pair encodings make of English (about four letters a token),
of Cyrillic (two) and of Chinese (a sign and a third), and the same everywhere. A word is a run of signs between spaces;
in scripts without spaces every sign is one.
"""

from __future__ import annotations

import re

from agentflow.llm.extractive.terms import UNSPACED

__all__ = ["count_tokens", "count_words", "cut_to_tokens", "cut_to_words"]

_WORD = re.compile(rf"[{UNSPACED}][^\w\s]*|[^\s{UNSPACED}]+")


def count_tokens(text: str) -> int:
    """Tokens by the rule above; 0 for an empty text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def count_words(text: str) -> int:
    return sum(1 for _ in _WORD.finditer(text))


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of at most so many tokens, ending at a word's end where one is near."""
    kept = text.encode("utf-8", "surrogatepass")[: tokens * 4].decode("utf-8", "ignore")
    return kept if kept == text else _at_word_end(text, kept)


def cut_to_words(text: str, words: int) -> str:
    """The first so many words."""
    ends = [found.end() for found, _ in zip(_WORD.finditer(text), range(words), strict=False)]
    return text[: ends[-1]] if ends else ""


def _at_word_end(text: str, kept: str) -> str:
    if text[len(kept) : len(kept) + 1].isspace():
        return kept
    space = kept.rfind(" ")
    return kept[:space] if space > len(kept) // 2 else kept
